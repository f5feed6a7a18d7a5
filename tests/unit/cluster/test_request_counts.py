"""How many requests the modules make of a site.yml that has nothing to do.

The whole is counted by tests/e2e/test_10_quiet.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from types import ModuleType
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import gather, kube
from ansible_collections.abaci.infra.plugins.modules import database_look, litefs_info, server_side_apply, site_check
from fake_api import Cluster, FakeApi, database, run

SITE = {"namespace": make.NAMESPACE, "name": make.NAME}
PODS = 3


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(gather, "RESAMPLE_SECONDS", 0)
    cluster = Cluster(PODS, database("one"), kinds=kube.KINDS)
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"}, "data": {}})
    monkeypatch.setattr(Cluster, "run", lambda *_arguments: "litefs /litefs fuse ro 0 0\n", raising=False)
    return cluster


def asked(api: FakeApi, module: ModuleType, **arguments: Any) -> tuple[dict[str, Any], Counter[str]]:
    """What the module answers, and what it asked, by kind; a pod counts once for each connection to it."""
    api.requests.clear()
    answer = run(module, api, **arguments)
    assert not answer.get("failed"), answer
    others = [one.kind or one.path.rpartition("/")[2] for one in api.requests if one.kind != "LiteFS"]
    pods = {one.name for one in api.requests if one.kind == "LiteFS"}
    return answer, Counter([*others, *(f"LiteFS {pod}" for pod in pods)])


def test_the_state_document_takes_a_request_for_each_kind_pod_and_kubelet(site: Cluster) -> None:
    _answer, count = asked(site, litefs_info, **SITE)
    assert "Namespace" not in count, "what was found in it shows that it is there"
    kinds = {"ConfigMap", "CronJob", "Lease", "PersistentVolume", "PersistentVolumeClaim"}
    assert set(count) == {
        *kinds,
        "Node",
        "Pod",
        "StatefulSet",
        "version",
        *(f"LiteFS {make.NAME}-{ordinal}" for ordinal in range(PODS)),
    }
    assert count["Node"] == 1 + PODS and count.total() == 9 + 2 * PODS


def test_a_look_at_the_database_takes_what_this_run_has_read(site: Cluster) -> None:
    state = asked(site, litefs_info, **SITE)[0]["state"]
    asked(site, database_look, **SITE, low_water=True)  # the mark and the journal mode go into the record
    state["record"]["raw"] |= site.record()
    state = json.loads(json.dumps(state))
    _answer, count = asked(site, database_look, **SITE, low_water=True, wait_replicated=5, state=state)
    assert count == {f"LiteFS {make.NAME}-0": 1}, "the header alone, beside a command in each replica"


def test_a_look_without_a_document_asks_for_the_pods_alone(site: Cluster) -> None:
    asked(site, database_look, **SITE, low_water=True)
    _answer, count = asked(site, database_look, **SITE, low_water=True, wait_replicated=5)
    assert count.total() == 3 + PODS and {"ConfigMap", "Pod", "StatefulSet"} <= set(count)


def test_hazard_a_document_that_shows_a_replica_behind_is_looked_at_anew(site: Cluster) -> None:
    state = asked(site, litefs_info, **SITE)[0]["state"]
    state["pods"][2]["litefs"]["databases"][make.DATABASE]["txid"] = "0" * 15 + "1"
    _answer, count = asked(site, database_look, **SITE, wait_replicated=5, state=state)
    assert count["Pod"] == 1


def test_hazard_a_pod_that_does_not_answer_is_explained_by_a_whole_look(site: Cluster) -> None:
    site.stop(2)
    answer, count = asked(site, database_look, **SITE, wait_replicated=1)
    assert count["Node"] and count["PersistentVolume"]
    assert any("its node node-2 is away" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(("apply", "kinds"), [(True, {"Ingress", "IngressRoute"}), (False, set())])
def test_the_check_of_the_cluster_asks_for_nodes_only_without_the_ca(
    site: Cluster, apply: bool, kinds: set[str]
) -> None:
    ca = "a certificate"
    root = site.have("ConfigMap", "kube-root-ca.crt", "kube-system")
    assert root is not None
    root["data"] = {"ca.crt": ca}
    given = {**SITE, "hosts": {"node-0": "node-0"}, "aliases": ["node-0"], "apply": apply}
    _answer, count = asked(site, site_check, **given, ca_hash=hashlib.sha256(ca.encode()).hexdigest(), server="node-0")
    assert count == dict.fromkeys({"ConfigMap", "StatefulSet", *kinds}, 1)
    _answer, count = asked(site, site_check, **given)
    assert count["Node"] == 1


def test_an_apply_asks_for_what_is_not_known(site: Cluster) -> None:
    objects = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": make.NAMESPACE}}
        for kind, name in (("Service", "a"), ("Service", "b"), ("Secret", "c"))
    ]
    asked(site, server_side_apply, objects=objects, namespace=make.NAMESPACE)
    _answer, count = asked(
        site,
        server_side_apply,
        objects=objects[:2],
        namespace=make.NAMESPACE,
        known=[site.have("Service", "a")],
    )
    assert count["Namespace"] == 0 and count["Service"] - 2 == 1, (
        "one read, and a dry run of each: nobody has managedFields here"
    )
