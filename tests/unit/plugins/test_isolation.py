"""How little the pods get: for each cluster and setting one of three ways, and why."""

from __future__ import annotations

from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_plan, isolation, placement

NFS = {"name": "uploads", "nfs": {"server": "files.example.org", "path": "/uploads"}}
CLAIM = {"name": "uploads", "persistentVolumeClaim": {"claimName": "uploads-data"}}
CONTROL = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
CORDONED = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]


def state(*nodes: dict[str, Any], minor: str = "36") -> dict[str, Any]:
    version = {"gitVersion": f"v1.{minor}.0", "major": "1", "minor": minor}
    return make.living(nodes=nodes or [make.kube_node("node-0"), make.kube_node("node-1")], version=version)


OLD = make.kube_node("old", kernel="6.1.0-40-amd64", user_namespaces=False)
RUNC = make.kube_node("runc", user_namespaces=False)
SILENT = make.kube_node("silent", user_namespaces=None)
GOOD = make.kube_node("good")

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("every node can", state(), {}, "user-namespace", "every node"),
    ("one node", state(GOOD), {}, "user-namespace", "every node"),
    ("the old way is asked for", state(), {"privileged": True}, "privileged", "app_privileged is true"),
    ("the old way wins", state(OLD), {"privileged": True, "user_namespace": True}, "privileged", "app_privileged"),
    ("not wanted", state(), {"user_namespace": False}, "device-plugin", "app_user_namespace is false"),
    ("an NFS volume", state(), {"volumes": [NFS]}, "device-plugin", "the volume uploads is nfs"),
    ("a claim", state(), {"volumes": [CLAIM]}, "device-plugin", "the claim uploads-data may be on NFS"),
    (
        "a claim, nobody said",
        state(),
        {"volumes": [CLAIM], "user_namespace": None},
        "device-plugin",
        "app_user_namespace",
    ),
    ("a claim, by hand", state(), {"volumes": [CLAIM], "user_namespace": True}, "user-namespace", "every node"),
    (
        "a claim on hosts",
        state(),
        {"volumes": [CLAIM], "storage": make.on_hosts("uploads-data")},
        "user-namespace",
        "every",
    ),
    (
        "another claim",
        state(),
        {"volumes": [CLAIM], "storage": make.on_hosts("other")},
        "device-plugin",
        "uploads-data",
    ),
    ("NFS by hand", state(), {"volumes": [NFS], "user_namespace": True}, "device-plugin", "uploads is nfs"),
    ("an old kernel", state(GOOD, OLD), {}, "device-plugin", "node old has the kernel 6.1.0-40-amd64"),
    ("the oldest kernel that can", state(make.kube_node("k", kernel="6.3.0")), {}, "user-namespace", "every node"),
    (
        "the newest kernel that cannot",
        state(make.kube_node("k", kernel="6.2.16")),
        {},
        "device-plugin",
        "needs|need 6.3",
    ),
    ("a later kernel of two digits", state(make.kube_node("k", kernel="6.12.3")), {}, "user-namespace", "every node"),
    ("a kernel that is not told", state(make.kube_node("k", kernel="")), {}, "device-plugin", "unknown version"),
    ("an old runtime", state(GOOD, RUNC), {}, "device-plugin", "node runc has containerd://2.1.5"),
    ("a kubelet that does not say", state(SILENT), {}, "device-plugin", "node silent has containerd"),
    ("an old API", state(minor="32"), {}, "device-plugin", "the API is v1.32.0"),
    ("the oldest API that can", state(minor="33"), {}, "user-namespace", "every node"),
    (
        "an old node that no pod may use",
        state(GOOD, make.kube_node("old", kernel="5.10", taints=CONTROL)),
        {},
        "user-namespace",
        "every node",
    ),
    (
        "an old node that pods tolerate",
        state(GOOD, make.kube_node("old", kernel="5.10", taints=CONTROL)),
        {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
        "device-plugin",
        "node old",
    ),
    (
        "an old node that is cordoned comes back",
        state(GOOD, make.kube_node("old", kernel="5.10", unschedulable=True, taints=CORDONED)),
        {},
        "device-plugin",
        "node old",
    ),
    (
        "an old node outside the selector",
        state(GOOD, OLD),
        {"node_selector": {"kubernetes.io/hostname": "good"}},
        "user-namespace",
        "every node",
    ),
    ("no node for the pods", state(), {"node_selector": {"disk": "fast"}}, "device-plugin", "no node may run"),
]


@pytest.mark.parametrize(
    ("document", "desired", "mode", "why"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_which_of_the_three_the_pods_get(
    document: dict[str, Any], desired: dict[str, Any], mode: str, why: str
) -> None:
    chosen = isolation.decide(document, desired)
    assert chosen.mode == mode
    assert any(part in chosen.reason for part in why.split("|"))


def test_hazard_a_pod_that_cannot_be_mapped_never_starts_so_one_node_decides_for_all() -> None:
    for position in range(3):
        nodes = [make.kube_node(f"node-{number}") for number in range(3)]
        nodes[position] = OLD
        assert isolation.decide(state(*nodes), {}).mode == "device-plugin"


def test_without_a_cluster_the_check_shows_the_user_namespace() -> None:
    assert isolation.decide(app_plan_state_without_api(), {}).mode == "user-namespace"


def app_plan_state_without_api() -> dict[str, Any]:
    document = state()
    return {**document, "nodes": [], "api": {**document["api"], "error": "no cluster"}}


def test_nodes_without_the_device_are_named_only_where_none_has_it() -> None:
    bare = [make.kube_node("node-0", fuse=0), make.kube_node("node-1", fuse=0)]
    assert isolation.without_device(state(*bare), {}) == ["node-0", "node-1"]
    assert isolation.without_device(state(bare[0], make.kube_node("node-1")), {}) == []


def test_the_plan_says_which_it_is_and_why() -> None:
    desired = {"replicas": 3, "primary_ordinal": 0}
    plan = app_plan.plan(state(GOOD, OLD), desired)
    assert plan["isolation"]["mode"] == "device-plugin"
    assert any("without a user namespace" in note and "node old" in note for note in plan["notes"])
    assert any("root is nobody on the host" in note for note in app_plan.plan(state(), desired)["notes"])
    privileged = app_plan.plan(state(), {**desired, "privileged": True})
    assert any("app_privileged is true" in note for note in privileged["notes"])


def test_a_node_that_is_not_ready_counts_for_some_day_and_not_for_now() -> None:
    (node,) = state(make.kube_node("n", taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]))[
        "nodes"
    ]
    assert placement.may_run(node, {}, some_day=True)
    assert not placement.may_run(node, {})
