"""The acts against an API of plain dicts: each holds fast to what the decision saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, holding, promote
from fake_api import Cluster
from playing import ME, lease

Object = dict[str, Any]


class Api:
    """Objects by kind and subresource; `stored` is what was replaced."""

    def __init__(self, **objects: Object) -> None:
        self.objects = objects
        self.stored: list[tuple[str, Object, str, str]] = []

    def get(
        self, _api_version: str, kind: str, _name: str, _namespace: str | None = None, subresource: str = ""
    ) -> Object | None:
        return self.objects.get(kind + subresource)

    def replace(self, _api_version: str, kind: str, obj: Object, field_manager: str, subresource: str = "") -> Object:
        self.stored.append((kind, obj, field_manager, subresource))
        return obj


def site(api: Any) -> act.Site:
    return act.Site(api, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)


def test_only_the_replica_count_that_was_seen_is_changed() -> None:
    scale = {"metadata": {"name": "abaci-app", "namespace": "abaci"}, "spec": {"replicas": 3}}
    api = Api(StatefulSetscale=scale)
    with pytest.raises(act.NotDone, match="has 3 replicas by now, not 4"):
        site(api).scale(5, was=4)
    assert not api.stored
    site(api).scale(5, was=3)
    assert api.stored == [("StatefulSet", {**scale, "spec": {"replicas": 5}}, "abaci.infra", "scale")]
    with pytest.raises(act.NotDone, match="abaci/abaci-app is not there any more"):
        site(Api()).scale(5, was=3)


def test_a_volume_that_became_another_claims_keeps_its_policy() -> None:
    volume = {
        "metadata": {"name": "pvc-1"},
        "spec": {"claimRef": {"uid": "u-2"}, "persistentVolumeReclaimPolicy": "Delete"},
    }
    api = Api(PersistentVolume=volume)
    with pytest.raises(act.NotDone, match="another claim's"):
        site(api).reclaim("pvc-1", "Retain", "u-1")
    assert not api.stored
    site(api).reclaim("pvc-1", "Retain", "u-2")
    assert api.stored[0][1]["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_the_record_is_written_only_where_it_changes() -> None:
    record = {"metadata": {"name": "abaci-app-litefs-identity"}, "data": {"a": "1", "b": "2"}}
    api = Api(ConfigMap=record)
    site(api).write_record({"a": "1", "c": None})
    assert not api.stored
    site(api).write_record({"a": None, "b": "3"})
    assert api.stored[0][1]["data"] == {"b": "3"}


def test_what_a_promote_began_with_is_known_until_the_last_ordinal_is_released() -> None:
    """promote -e promote_call_off=true goes by it."""
    cluster = Cluster()
    fenced = make.record("recorded", make.A, ordinal=1, fenced="0,2")
    fenced["data"][promote.KEY] = "{}"
    cluster.put(fenced)

    def release(ordinal: int) -> dict[str, str]:
        there = site(cluster)
        deciding.do(there, {"do": "release", "ordinal": ordinal}, state=there.look())
        return cluster.record()

    after = release(2)
    assert (after["fencedOrdinals"], after.get(promote.KEY)) == ("0", "{}")
    after = release(0)
    assert promote.KEY not in after and "fencedOrdinals" not in after

    began = {"from": 0, "fenced": [2], "planned": False, "equal": False, "archive": f"{8:016x}", "also": {}}
    fenced["data"] |= {"fencedOrdinals": "0,2", promote.KEY: json.dumps(began)}
    cluster.put(fenced)
    after = release(0)
    assert promote.KEY not in after and after["fencedOrdinals"] == "2", "it is over with its old primary"


def test_the_primary_is_renamed_in_place_and_litefs_yml_comes_last() -> None:
    """A run that dies between two of them renders all of them again: the next looks at litefs.yml."""
    cluster = Cluster()
    service = {"kind": "Service", "metadata": {"name": "abaci-app-primary"}, "spec": {"selector": {"app": "abaci-app"}}}
    cluster.put(service)
    cluster.fail("PUT", "ConfigMap", how=409)
    site(cluster).render(2, quiet=True)
    assert [(one.kind, one.name) for one in cluster.changes()] == [
        ("Service", "abaci-app-primary"),
        ("ConfigMap", "abaci-app-litefs"),
        ("ConfigMap", "abaci-app-litefs"),
    ]
    seen = site(cluster).look()
    assert (seen["rendered_ordinal"], seen["rendered_quiet"]) == (2, True)
    site(cluster).render(0, quiet=False)
    seen = site(cluster).look()
    assert (seen["rendered_ordinal"], seen["rendered_quiet"]) == (0, False)
    cluster.drop("Service", "abaci-app-primary")
    with pytest.raises(act.NotDone, match="abaci-app-primary is not there any more"):
        site(cluster).render(1, quiet=False)
    assert site(cluster).look()["rendered_ordinal"] == 0


def renew(cluster: Cluster) -> None:
    cluster.put(lease(cluster) | {"kind": "Lease", "spec": {"holderIdentity": ME}})
    holding.Holding(site(cluster), ME).renew()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ConfigMap", lambda cluster: site(cluster)._change("v1", "ConfigMap", "abaci-app-litefs", other)),
        ("ConfigMap", lambda cluster: site(cluster).write_record({"state": "restore"})),
        ("Lease", renew),
    ],
    ids=["an object", "the record", "the lock"],
)
def test_hazard_what_somebody_else_writes_again_and_again_never_counts_as_changed(
    kind: str, change: Callable[[Cluster], object]
) -> None:
    cluster = Cluster()
    cluster.fail("PUT", kind, how=409, times=10)
    with pytest.raises(kube.KubeError, match="409"):
        change(cluster)


def other(found: Object) -> None:
    found["data"] = {"litefs.yml": "another"}
