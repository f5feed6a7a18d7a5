"""The state document: what is ours, what is kept, why a pod waits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import state
from factory_objects import (
    SYSCTL,
    A,
    claim,
    document,
    kube_node,
    living,
    pod,
    record,
    statefulset,
    stopped,
    volume,
)


def test_the_document_is_plain_data_and_says_its_schema() -> None:
    made = living()
    assert json.loads(json.dumps(made)) == made
    assert made["schema"] == 1


def test_nothing_at_all_is_a_document_too() -> None:
    made = state.empty("abaci", "abaci-app", "sqlite.db", error="no kubeconfig")
    assert (made["statefulset"]["exists"], made["record"], made["pods"]) == (False, None, [])
    assert made["statefulset"]["replicas"] is None
    assert made["api"] == {"version": "", "minor": None, "error": "no kubeconfig"}
    assert set(made) == set(living())
    assert set(made["statefulset"]) == set(living()["statefulset"])


def test_a_living_statefulset_is_described() -> None:
    found = living()["statefulset"]
    assert (found["replicas"], found["last_applied_replicas"], found["image"].split("/")[0]) == (3, 3, "ghcr.io")
    assert found["claim_templates"] == [{"name": "litefs-data", "storage": "5Gi", "storage_class": "local-path"}]
    assert found["sysctls"] == [SYSCTL]


@pytest.mark.parametrize(("annotation", "expected"), [(3, 3), (None, None), ("", None), ("three", None), ("-1", None)])
def test_the_last_applied_is_a_number_or_unknown(annotation: int | str | None, expected: int | None) -> None:
    assert living(statefulset=statefulset(desired=annotation))["statefulset"]["last_applied_replicas"] == expected


@pytest.mark.parametrize(("minor", "expected"), [("36", 36), ("36+", 36), ("", None), (None, None)])
def test_the_minor_version_is_a_number(minor: str | None, expected: int | None) -> None:
    assert document(version={"minor": minor})["api"]["minor"] == expected


def test_other_pods_are_left_out() -> None:
    made = document(
        pods=[
            pod(10),
            pod(2),
            pod(0, owned=False),  # left behind by a StatefulSet deleted with --cascade=orphan
            pod(0, name="abaci-app-extra"),
            {"metadata": {"name": "abaci-app-pull-0a1b2c", "labels": {}}, "spec": {}, "status": {}},
            {"metadata": {"name": "abaci-app-1", "labels": {}}, "spec": {}, "status": {}},
            {
                "metadata": {
                    "name": "abaci-app-3",
                    "labels": {"app": "abaci-app"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "abaci-app"}],
                },
                "spec": {},
                "status": {},
            },
        ]
    )
    assert [found["ordinal"] for found in made["pods"]] == [0, 2, 10]


def test_a_running_pod_is_described() -> None:
    found = living()["pods"][1]
    assert (found["name"], found["node"], found["ready"], found["restarts"]) == ("abaci-app-1", "node-1", True, 1)
    assert found["init"] == {"name": None, "state": "done", "message": None, "exit_code": None, "restarts": 0}
    assert found["waiting"] == {"reason": None, "message": None}
    assert found["litefs"]["cluster_id"] == A


def test_a_pod_stopped_by_its_guard_is_described_from_the_termination_message() -> None:
    message = "The volume is empty but the record names a cluster:\nsee docs/runbooks/primary-refused.md"
    found = document(pods=[stopped(0, message)])["pods"][0]
    assert found["init"] == {
        "name": "guard",
        "state": "failed",
        "message": "The volume is empty but the record names a cluster: see docs/runbooks/primary-refused.md",
        "exit_code": 1,
        "restarts": 3,
    }
    assert not found["litefs"]["reachable"]


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"state": {"running": {}}}, ("running", None, None)),
        ({"state": {"terminated": {"exitCode": 1, "message": "refused"}}}, ("failed", "refused", 1)),
        ({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}, ("waiting", "not found", None)),
        ({"state": {"waiting": {"reason": "PodInitializing"}}}, ("waiting", "PodInitializing", None)),
        ({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": "a"}}}, ("running", "a", 1)),
    ],
)
def test_the_first_init_container_that_has_not_ended_well_counts(
    container: dict[str, Any], expected: tuple[str, str | None, int | None]
) -> None:
    done = {"name": "first", "state": {"terminated": {"exitCode": 0}}}
    found = document(pods=[pod(0, initContainerStatuses=[done, {"name": "guard", **container}])])["pods"][0]["init"]
    assert (found["name"], found["state"], found["message"], found["exit_code"]) == ("guard", *expected)


def test_a_container_that_died_says_why_while_it_waits() -> None:
    crashed = {
        "name": "app",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 99, "reason": "Error", "message": "no space left on device"}},
    }
    found = document(pods=[pod(0, containerStatuses=[crashed])])["pods"][0]
    assert found["waiting"] == {"reason": "CrashLoopBackOff", "message": "no space left on device"}


def test_an_unschedulable_pod_has_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    made = pod(1, conditions=[condition], containerStatuses=[])
    del made["spec"]["nodeName"]
    found = document(pods=[made])["pods"][0]
    assert (found["unschedulable"], found["image"]) == ("0/3 nodes are available", "app:1")


@pytest.mark.parametrize(
    ("item", "claims", "kept"),
    [
        (volume(1), [claim(1)], False),
        (volume(1, phase="Released"), [], True),  # the seed's `delete pvc`
        (volume(1, phase="Bound"), [], True),
        (volume(1, "older", "Released"), [claim(1, "newer")], True),  # the claim was made anew and has another volume
        (volume(1, None, "Available"), [], True),  # freed: claimRef removed, known by its directory
        (volume(1, None, "Available"), [claim(1)], True),
        (volume(1, phase="Failed"), [], True),
        (volume(1), [claim(1, deletionTimestamp="2026-01-01T00:00:00Z")], False),  # the claim is Terminating
    ],
)
def test_a_volume_without_a_living_claim_is_kept(
    item: dict[str, Any], claims: list[dict[str, Any]], kept: bool
) -> None:
    found = document(volumes=[item], claims=claims)["volumes"]
    assert [(entry["kept"], entry["claim"], entry["ordinal"], entry["node"]) for entry in found] == [
        (kept, "litefs-data-abaci-app-1", 1, "node-1")
    ]


@pytest.mark.parametrize(
    "item",
    [
        volume(1, namespace="staging"),
        volume(1, claim_name="redis-data"),
        volume(1, claim_name="litefs-data-abaci-app-extra-1"),
        volume(1, claim_name="litefs-data-abaci-app-01"),
        volume(1, None, namespace="staging"),
        {"metadata": {"name": "nfs"}, "spec": {"nfs": {"path": "/x"}}, "status": {"phase": "Available"}},
    ],
)
def test_volumes_of_others_are_left_out(item: dict[str, Any]) -> None:
    assert document(volumes=[item])["volumes"] == []


def test_a_node_says_which_sysctls_it_allows_or_why_that_is_not_known() -> None:
    tainted = kube_node("b", taints=[{"key": "dedicated", "effect": "NoSchedule"}], unschedulable=True)
    made = document(nodes=[tainted, kube_node("a", ready=False)], kubelets={"b": [SYSCTL], "a": "no answer"})
    assert [(node["name"], node["ready"], node["schedulable"]) for node in made["nodes"]] == [
        ("a", False, True),
        ("b", True, False),
    ]
    assert (made["nodes"][0]["allowed_unsafe_sysctls"], made["nodes"][0]["error"]) == (None, "no answer")
    assert made["nodes"][1]["allowed_unsafe_sysctls"] == [SYSCTL]
    assert made["nodes"][1]["taints"] == [{"key": "dedicated", "value": None, "effect": "NoSchedule"}]


def test_a_record_is_carried_as_it_stands() -> None:
    assert document(record=record("recorded", A, 2, 0))["record"] == {
        "state": "recorded",
        "cluster_id": A,
        "primary_ordinal": "2",
        "desired_primary_ordinal": "0",
        "fenced_ordinals": "",
        "raw": {"state": "recorded", "clusterID": A, "primaryOrdinal": "2", "desiredPrimaryOrdinal": "0"},
        "uid": "r",
    }
    assert document(record={"metadata": {}, "data": None})["record"]["state"] == ""
