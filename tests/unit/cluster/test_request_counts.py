"""How many requests the modules make of a site.yml that has nothing to do.

The whole is counted by tests/e2e/test_10_quiet.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import factory_objects as make
import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import gather, kube
from ansible_collections.abaci.infra.plugins.modules import (
    database_look,
    litefs_info,
    objects_info,
    operation_lock,
    server_side_apply,
    site_check,
)
from fake_api import Cluster, FakeApi, Object, as_applied, database, run

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
    site._told = None  # another process, which does not know the time
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


def deployment(name: str, image: str = "a:1") -> Object:
    place = {"name": name, "namespace": make.NAMESPACE}
    template = {"metadata": {}, "spec": {"containers": [{"name": name, "image": image}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": place, "spec": spec}


def service(name: str) -> Object:
    spec = {"type": "ClusterIP"}
    place = {"name": name, "namespace": make.NAMESPACE}
    return {"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": spec}


WANTED = [service("a"), service("b"), deployment("a")]
UP = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
LISTS = yaml.safe_load((Path(__file__).parents[3] / "roles/site/vars/main.yml").read_text())["__site_lists"]
LISTS = [{**one, **({"namespace": make.NAMESPACE} if "namespace" in one else {})} for one in LISTS]


def applied(site: Cluster) -> None:
    """All of WANTED, and it has come up."""
    for obj in WANTED:
        stored = site.put({**as_applied(obj), "status": dict(UP)})
        stored["metadata"]["generation"] = 1


def look(site: Cluster) -> dict[str, Any]:
    """What site.yml reads once for all roles."""
    known: dict[str, Any] = asked(site, objects_info, lists=LISTS)[0]["known"]
    return known


def test_the_look_for_all_roles_takes_a_request_for_each_kind_and_has_no_secret(site: Cluster) -> None:
    answer, count = asked(site, objects_info, lists=LISTS)
    assert count == Counter(one["kind"] for one in LISTS) and set(count.values()) == {1}
    assert "Secret" not in count and answer["ansible_facts"] == {"abaci_known_holds": True}


def test_hazard_a_list_that_the_user_may_not_have_is_left_out_and_asked_for_one_by_one(site: Cluster) -> None:
    applied(site)
    site.fail("GET", "Service", how=403)
    known = look(site)
    assert "Service" not in {read["kind"] for read in known["reads"]}
    _answer, count = asked(site, server_side_apply, objects=WANTED, known=known)
    assert count == {"Service": 1}


def test_what_was_looked_at_already_is_taken_into_the_look(site: Cluster) -> None:
    known = asked(site, objects_info, lists=LISTS[:2])[0]["known"]
    answer, count = asked(site, objects_info, lists=LISTS[:3], known=known)
    assert count.total() == 1 and len(answer["known"]["reads"]) == 3


def test_an_apply_that_finds_all_as_it_is_to_be_asks_for_nothing(site: Cluster) -> None:
    applied(site)
    known = look(site)
    given = {"objects": WANTED, "absent": [service("gone")], "namespace": make.NAMESPACE, "wait_kinds": ["Deployment"]}
    answer, count = asked(site, server_side_apply, **given, known=known)
    assert (count.total(), answer["changed"], answer["ready"]) == (0, False, True) and "ansible_facts" not in answer


def test_the_state_document_takes_of_the_look_what_does_not_move_by_itself(site: Cluster) -> None:
    alone = asked(site, litefs_info, **SITE)[0]["state"]
    answer, count = asked(site, litefs_info, **SITE, known=look(site))
    assert not {"PersistentVolume", "PersistentVolumeClaim"} & set(count) and count["Node"] == PODS
    # What the rules compare with each other is of one moment.
    assert count["Pod"] == count["Lease"] == count["StatefulSet"] == count["ConfigMap"] == 1
    assert count.total() == 6 + 2 * PODS
    moving = {"gathered_at", "nodes"}  # the time since the last word of each
    assert {k: v for k, v in answer["state"].items() if k not in moving} == {
        k: v for k, v in alone.items() if k not in moving
    }


def test_the_statefulset_of_the_state_document_is_compared_and_no_list_of_all_is_read(site: Cluster) -> None:
    assert "StatefulSet" not in {one["kind"] for one in LISTS}
    living = site.have("StatefulSet", make.NAME)
    assert living is not None
    place = {"name": make.NAME, "namespace": make.NAMESPACE}
    wanted = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": place, "spec": living["spec"]}
    site.put({**as_applied(wanted), "status": living["status"]})
    known = look(site)
    info = asked(site, litefs_info, **SITE, known=known)[0]
    assert len(info["known"]["reads"]) == len(known["reads"]) + 2
    answer, count = asked(site, server_side_apply, objects=[wanted], known=info["known"])
    assert (answer["changed"], count.total()) == (False, 0)
    # Somebody changed it since the look for all roles: what is newer counts.
    site.put({**as_applied({**wanted, "spec": {**wanted["spec"], "replicas": 9}}), "status": living["status"]})
    info = asked(site, litefs_info, **SITE, known=info["known"])[0]
    answer, count = asked(site, server_side_apply, check=True, objects=[wanted], known=info["known"])
    assert answer["changed"] and count["StatefulSet"] == 2, "it is read again, and dry-run"
    other = {**info["known"], "server": "https://other.test"}
    assert len(asked(site, litefs_info, **SITE, known=other)[0]["known"]["reads"]) == 2


def test_a_kubelet_that_runs_a_pod_with_the_sysctls_is_not_asked_what_it_allows(site: Cluster) -> None:
    sysctls = ["net.ipv4.tcp_syn_retries"]
    for ordinal in range(PODS):
        pod = site.have("Pod", f"{make.NAME}-{ordinal}")
        assert pod is not None
        pod["spec"]["securityContext"] = {"sysctls": [{"name": sysctls[0], "value": "2"}]}
    answer, count = asked(site, litefs_info, **SITE, known=look(site), sysctls=sysctls)
    assert count["Node"] == 0 and count.total() == 6 + PODS
    assert [node["allowed_unsafe_sysctls"] for node in answer["state"]["nodes"]] == [sysctls] * PODS
    asks = {"another sysctl": ["kernel.msgmax", *sysctls], "before something is written": []}
    for why, wanted in asks.items():
        assert asked(site, litefs_info, **SITE, known=look(site), sysctls=wanted)[1]["Node"] == PODS, why
    stopped = site.have("Pod", f"{make.NAME}-2")
    assert stopped is not None
    stopped["status"]["phase"] = "Pending"
    assert asked(site, litefs_info, **SITE, known=look(site), sysctls=sysctls)[1]["Node"] == 1


def test_hazard_under_the_lock_every_kubelet_is_asked() -> None:
    tasks = Path(__file__).parents[3] / "roles/app/tasks"
    assert "__app_taken_sysctls" in (tasks / "present.yml").read_text()
    assert "__app_taken_sysctls" not in (tasks / "change.yml").read_text()
    (first, *_) = yaml.safe_load((tasks / "gather.yml").read_text())
    assert first["abaci.infra.litefs_info"]["sysctls"] == "{{ __app_taken_sysctls | default([]) }}"


def test_a_state_that_is_waited_for_is_read_each_time(site: Cluster) -> None:
    _answer, count = asked(site, litefs_info, **SITE, known=look(site), wait_replicated=5)
    assert count["StatefulSet"] == count["PersistentVolume"] == 1


@pytest.mark.parametrize(
    "happened",
    [
        lambda site, known: known | {"server": "https://other.test"},
        lambda site, known: {},
    ],
    ids=["of another API", "nothing is known"],
)
def test_hazard_what_is_not_known_of_this_api_is_asked_for(site: Cluster, happened: Any) -> None:
    applied(site)
    known = happened(site, look(site))
    _answer, count = asked(site, server_side_apply, objects=WANTED, known=known)
    assert count == {"Service": 1, "Deployment": 1}


def test_hazard_where_one_object_differs_all_are_read_again_before_anything_is_written(site: Cluster) -> None:
    applied(site)
    known = look(site)
    site.put({**as_applied(service("b")), "spec": {"type": "NodePort"}})  # by somebody else, since the look
    wanted = [*WANTED[:2], deployment("a", "a:2")]
    answer, count = asked(site, server_side_apply, objects=wanted, known=known)
    assert answer["changes"] == ["Service abaci/b", "Deployment abaci/a"]
    reads = [(one.method, one.kind) for one in site.requests]
    assert set(reads[:2]) == {("GET", "Service"), ("GET", "Deployment")} and ("PATCH", "Service") in reads[2:]
    assert answer["ansible_facts"] == {"abaci_known_holds": False}
    assert count["Service"] == 2


def test_hazard_what_is_to_be_absent_is_read_again_before_it_is_removed(site: Cluster) -> None:
    applied(site)
    known = look(site)
    site.drop("Service", "b")
    answer, count = asked(site, server_side_apply, objects=WANTED[:1], absent=[WANTED[1]], known=known)
    assert (answer["changed"], count) == (False, {"Service": 1}), "it went meanwhile"


def test_hazard_what_was_not_ready_is_read_again(site: Cluster) -> None:
    applied(site)
    living = site.have("Deployment", "a")
    assert living is not None
    living["status"]["availableReplicas"] = living["status"]["readyReplicas"] = 0
    known = look(site)
    living["status"] = dict(UP)
    given = {"objects": WANTED, "wait_kinds": ["Deployment"], "known": known}
    answer, count = asked(site, server_side_apply, **given)
    assert answer["ready"] and count["Deployment"] == 1 and answer["ansible_facts"] == {"abaci_known_holds": False}


def test_hazard_under_the_lock_nothing_is_known(site: Cluster) -> None:
    lock = {"holder": "me", "operation": "site", "audit": False}
    assert asked(site, operation_lock, **SITE, **lock)[0]["ansible_facts"] == {"abaci_known_holds": False}
    plays = yaml.safe_load((Path(__file__).parents[3] / "playbooks/site.yml").read_text())
    (play,) = (play for play in plays if "module_defaults" in play)
    assert {*play["module_defaults"]} == {
        f"abaci.infra.{module}" for module in ("objects_info", "server_side_apply", "litefs_info")
    }
    assert {json.dumps(given) for given in play["module_defaults"].values()} == {'{"known": "{{ __site_known }}"}'}
    assert "if ansible_facts.abaci_known_holds | default(false) else {}" in play["vars"]["__site_known"]


def test_the_check_of_the_cluster_gives_its_routes_to_the_look(site: Cluster) -> None:
    rule = {"host": "other.test", "http": {"paths": [{"backend": {"service": {"name": "other"}}}]}}
    ingress = {"kind": "Ingress", "metadata": {"name": "other", "namespace": "other"}, "spec": {"rules": [rule]}}
    site.put(ingress)
    known = asked(site, site_check, **SITE, hosts={"node-0": "node-0"}, aliases=["node-0"], apply=True)[0]["known"]
    _answer, count = asked(site, objects_info, lists=LISTS, known=known)
    assert count["Ingress"] == 0 and count["NetworkPolicy"] == 1
