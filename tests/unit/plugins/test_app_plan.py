"""Refuse or act: identity, ordinal, replicas, what cannot be changed, sysctls, kept volumes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_plan, litefs
from factory_objects import (
    SYSCTL,
    A,
    B,
    claim,
    desired,
    document,
    kube_node,
    living,
    node,
    on_hosts,
    pod,
    record,
    statefulset,
    stopped,
    volume,
)

GONE = litefs.unreachable("its container is not running")
RUNBOOK = "docs/runbooks/primary-refused.md"


def data(where: str, cluster: str | None = None, ordinal: int = 0, desired: int = 0) -> dict[str, str]:
    found = {"state": where, "primaryOrdinal": str(ordinal), "desiredPrimaryOrdinal": str(desired)}
    return found | ({"clusterID": cluster} if cluster else {})


def decided(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = app_plan.plan(state, desired(**changes))
    return plan


# --- the identity record -----------------------------------------------------------------------------------------

ACT: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, str]]] = {
    # name: (state, desired, action, the record's data afterwards)
    "nothing exists: the first start may begin empty": (document(), {}, "create", data("bootstrap")),
    "nothing exists: the setting decides on the ordinal": (
        document(),
        {"primary_ordinal": 1},
        "create",
        data("bootstrap", None, 1, 1),
    ),
    "a first run died before it made anything": (document(record=record("bootstrap")), {}, "none", data("bootstrap")),
    "a first run died and the setting changed": (
        document(record=record("bootstrap")),
        {"primary_ordinal": 2},
        "update",
        data("bootstrap", None, 2, 2),
    ),
    "a first run died before its primary ran": (
        living({n: GONE for n in range(3)}, record=record("bootstrap")),
        {},
        "none",
        data("bootstrap"),
    ),
    "the primary runs under bootstrap": (living(record=record("bootstrap")), {}, "update", data("recorded", A)),
    "under bootstrap, a replica has no id yet": (
        living({2: node(None, database=None)}, record=record("bootstrap")),
        {},
        "update",
        data("recorded", A),
    ),
    "under bootstrap, a replica does not answer": (
        living({2: GONE}, record=record("bootstrap")),
        {},
        "update",
        data("recorded", A),
    ),
    "under bootstrap, the migration has not made the database yet": (
        living({0: node(primary=True, database=None), 1: node(database=None)}, record=record("bootstrap")),
        {},
        "none",
        data("bootstrap"),
    ),
    "a record with an id stays while the database is gone": (
        living({0: node(primary=True, database=None)}),
        {},
        "none",
        data("recorded", A),
    ),
    "a cluster made by hand is adopted": (living(record=None), {}, "create", data("recorded", A)),
    "a cluster of one pod is adopted": (
        document(
            statefulset=statefulset(1, None),
            pods=[pod(0)],
            claims=[claim(0)],
            answers={"abaci-app-0": node(primary=True)},
        ),
        {"replicas": 1},
        "create",
        data("recorded", A),
    ),
    "a record with an id stays": (living(), {}, "none", data("recorded", A)),
    "a record with an id stays while its primary is stopped": (living({0: GONE}), {}, "none", data("recorded", A)),
    "a record with an id stays where all else is gone": (
        document(record=record("recorded", A)),
        {},
        "none",
        data("recorded", A),
    ),
    "a record with an id stays where only kept volumes are left": (
        document(record=record("recorded", A), volumes=[volume(0, phase="Released")]),
        {},
        "none",
        data("recorded", A),
    ),
    "a replica of another cluster is not the record's matter": (living({2: node(B)}), {}, "none", data("recorded", A)),
    "after a promote the old setting is kept out": (
        living({0: node(), 1: node(primary=True)}, record=record("recorded", A, 1, 0)),
        {"primary_ordinal": 0},
        "none",
        data("recorded", A, 1, 0),
    ),
    "after a promote the inventory may follow": (
        living({0: node(), 1: node(primary=True)}, record=record("recorded", A, 1, 0)),
        {"primary_ordinal": 1},
        "update",
        data("recorded", A, 1, 1),
    ),
    "an old primary stays fenced": (
        living({0: node(), 1: node(primary=True)}, record=record("recorded", A, 1, 0, "0")),
        {},
        "none",
        data("recorded", A, 1, 0) | {"fencedOrdinals": "0"},
    ),
    "an old primary stays fenced while the setting follows": (
        living({0: node(), 1: node(primary=True)}, record=record("recorded", A, 1, 0, "0,2")),
        {"primary_ordinal": 1},
        "update",
        data("recorded", A, 1, 1) | {"fencedOrdinals": "0,2"},
    ),
    "a record made by hand gets the setting": (
        living(record=record("recorded", A, 0, "")),
        {},
        "update",
        data("recorded", A),
    ),
}


KEPT = {
    "fencedOrdinals": "2",
    "lowWaterTXID": "000000000000002a",
    "lowWaterTime": "2026-01-01T00:00:00Z",
    "journalMode": "wal",
    "progress": '{"imported": "abc"}',
    "of a later version": "x",
}


def test_what_site_yml_does_not_decide_stays_in_the_record_when_it_is_written() -> None:
    """Also what this version does not know; hold is written by the template alone."""
    there = record("recorded", A, 1, 0)
    there["data"] |= KEPT | {"hold": "true"}
    site = {0: node(), 1: node(primary=True)}
    written = decided(living(site, record=there), primary_ordinal=1)["record"]
    assert written == {"action": "update", "data": data("recorded", A, 1, 1) | KEPT}
    untouched = decided(living(site, record=there))["record"]
    assert untouched == {"action": "none", "data": data("recorded", A, 1, 0) | KEPT}


@pytest.mark.parametrize("case", ACT)
def test_the_record_is_written(case: str) -> None:
    state, desired, action, expected = ACT[case]
    plan = decided(state, **desired)
    assert plan["refusal"] is None
    assert plan["record"] == {"action": action, "data": expected}
    assert plan["primary_ordinal"] == int(expected["primaryOrdinal"])


REFUSE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # section 0.2: an empty primary makes a new cluster without a word, so bootstrap is never written beside data
    "no record, a claim exists": (document(claims=[claim(0)]), {}, rf"Claims \(litefs-data-abaci-app-0\).*{RUNBOOK}"),
    "no record, a kept volume exists": (
        document(volumes=[volume(0, phase="Released")]),
        {},
        rf"Volumes \(pvc-0\).*{RUNBOOK}",
    ),
    "no record, only the StatefulSet exists": (
        document(statefulset=statefulset(0)),
        {},
        rf"The StatefulSet.*{RUNBOOK}",
    ),
    "no record, an orphaned pod exists": (
        document(pods=[pod(0, owned=False)]),
        {},
        rf"Pods \(abaci-app-0\).*{RUNBOOK}",
    ),
    "no record, the primary does not run": (living({0: GONE}, record=None), {}, RUNBOOK),
    "no record, only replicas of one cluster answer": (living({0: node()}, record=None), {}, RUNBOOK),
    # section 0.3: the replicas hold the last good copy
    "no record, the replicas hold another cluster": (
        living({0: node(B, 1, primary=True)}, record=None),
        {},
        rf"abaci-app-0 holds the LiteFS cluster {B}.*abaci-app-1 {A}, abaci-app-2 {A}.*{RUNBOOK}",
    ),
    "bootstrap, one replica holds another cluster": (living({2: node(B)}, record=record("bootstrap")), {}, RUNBOOK),
    "bootstrap, kept volumes and no primary": (
        document(record=record("bootstrap"), volumes=[volume(0, phase="Released")]),
        {},
        rf"bootstrap.*pvc-0.*{RUNBOOK}",
    ),
    "a replica has what the primary lost": (
        living({0: node(txid=5, primary=True), 1: node(txid=7)}),
        {},
        rf"abaci-app-0 is at TXID {5:016x}, behind abaci-app-1 at {7:016x}.*backup_pod=abaci-app-1.*{RUNBOOK}",
    ),
    "the record says one cluster and the primary another": (
        living({0: node(B, 1, primary=True), 1: node(A), 2: node(A)}),
        {},
        rf"abaci-app-0 holds the LiteFS cluster {B}.*records {A}.*{RUNBOOK}",
    ),
    "all pods hold another cluster than recorded": (
        living({0: node(B, primary=True), 1: node(B), 2: node(B)}),
        {},
        rf"records {A}.*{RUNBOOK}",
    ),
    # section 8.5
    "two primaries": (living({1: node(primary=True)}), {}, rf"abaci-app-0 and abaci-app-1 each say.*{RUNBOOK}"),
    "two primaries, no record": (living({1: node(primary=True)}, record=None), {}, RUNBOOK),
    "two primaries under bootstrap": (living({1: node(B, primary=True)}, record=record("bootstrap")), {}, RUNBOOK),
    "the primary names no cluster": (
        living({0: node(None, primary=True)}, record=record("bootstrap")),
        {},
        "names no cluster id",
    ),
    "adoption before there is a database": (
        living({0: node(primary=True, database=None)}, record=None),
        {},
        "no transaction of the database sqlite.db yet",
    ),
    "adoption of another database": (
        living({0: node(primary=True, database="app.db")}, record=None),
        {},
        "has no database sqlite.db, but app.db: correct app_database",
    ),
    "app_database was changed by hand": (
        living({0: node(primary=True, database="app.db")}),
        {},
        "has no database sqlite.db, but app.db: correct app_database",
    ),
    "the record's state is unknown": (living(record=record("lost", A)), {}, "state 'lost'"),
    "a restore died half-way": (
        living(record=record("restore", A)),
        {},
        "restore is under way: let playbooks/restore.yml",
    ),
    "the record is empty": (living(record={"metadata": {}, "data": {}}), {}, "state ''"),
    "the record has no id": (living(record=record("recorded")), {}, "clusterID ''"),
    "the record's id is cut": (living(record=record("recorded", A[:-1])), {}, "clusterID"),
    "the record has no ordinal": (living(record=record("recorded", A, "")), {}, "primaryOrdinal ''"),
    "the record's ordinal is no number": (living(record=record("recorded", A, "-1")), {}, "primaryOrdinal '-1'"),
    # the ordinal
    "the ordinal was changed by hand": (
        living(),
        {"primary_ordinal": 1},
        r"app_primary_ordinal is 1.*has ordinal 0.*playbooks/promote.yml",
    ),
    "the ordinal was changed by hand while the primary is down": (
        living({0: GONE}),
        {"primary_ordinal": 2},
        "playbooks/promote.yml",
    ),
    "the ordinal was changed by hand under bootstrap": (
        living(record=record("bootstrap")),
        {"primary_ordinal": 1},
        "playbooks/promote.yml",
    ),
    "the ordinal was changed to a third value after a promote": (
        living({0: node(), 1: node(primary=True)}, record=record("recorded", A, 1, 0)),
        {"primary_ordinal": 2},
        "playbooks/promote.yml",
    ),
    "a promote died half-way": (
        living(record=record("recorded", A, 1, 0)),
        {},
        r"ordinal 1, but abaci-app-0 says.*playbooks/promote.yml",
    ),
    "adoption with another ordinal": (
        living(record=None),
        {"primary_ordinal": 1},
        r"running primary is abaci-app-0: set it to 0",
    ),
    "an ordinal that is no number": (living(), {"primary_ordinal": "first"}, "app_primary_ordinal is 'first'"),
    "an ordinal that is a truth value": (living(), {"primary_ordinal": True}, "app_primary_ordinal is True"),
}


@pytest.mark.parametrize("case", REFUSE)
def test_it_refuses_in_one_sentence(case: str) -> None:
    state, desired, words = REFUSE[case]
    plan = decided(state, **desired)
    assert plan["refusal"] is not None
    assert re.search(words, plan["refusal"], re.DOTALL)
    assert plan["refusal"][-1] == "." and "\n" not in plan["refusal"]


@pytest.mark.parametrize("case", REFUSE)
def test_a_refusal_never_lets_a_primary_start_empty(case: str) -> None:
    state, desired, _words = REFUSE[case]
    record_plan = decided(state, **desired)["record"]
    assert record_plan["action"] == "none"
    assert record_plan["data"].get("state") != "bootstrap" or state["record"]["state"] == "bootstrap"


def test_bootstrap_is_written_only_where_nothing_exists() -> None:
    traces: dict[str, Any] = {
        "statefulset": statefulset(),
        "pods": [pod(0)],
        "claims": [claim(2)],
        "volumes": [volume(1, phase="Released")],
    }
    for part, value in traces.items():
        for answers in ({}, {"abaci-app-0": node(primary=True)}, {"abaci-app-0": node()}):
            plan = decided(document(answers=answers, **{part: value}))
            assert plan["record"]["data"].get("state") != "bootstrap", part
            assert not plan["first_start"]


def test_what_the_guard_says_is_in_the_notes() -> None:
    state = living({0: GONE}, pods=[stopped(0, "the volume is empty"), pod(1), pod(2)])
    assert "No pod says that it is primary; abaci-app-0 does not start: the volume is empty." in decided(state)["notes"]


def test_pods_that_were_not_asked_are_named() -> None:
    notes = decided(living({1: GONE, 2: GONE}, record=record("bootstrap")))["notes"]
    assert any("without asking abaci-app-1 and abaci-app-2" in note for note in notes)


def test_a_mismatched_replica_is_named() -> None:
    assert any(f"abaci-app-2 holds the LiteFS cluster {B}" in note for note in decided(living({2: node(B)}))["notes"])


# --- replicas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("living_count", "last_applied", "desired", "expected"),
    [
        (None, None, 3, 3),  # first start
        (3, 3, 3, 3),
        (5, 3, 3, 5),  # kubectl scale, then site.yml: nothing changes
        (1, 3, 3, 1),
        (5, 3, 4, 4),  # the inventory was changed last
        (3, 3, 5, 5),
        (5, 5, 3, 3),
        (4, None, 3, 4),  # made by hand: it keeps what it has
        (0, 3, 3, 1),  # scaled to 0: the primary has to run
        (2, 3, 2, 2),
        (3, 2, "3", 3),  # a number in quotes
    ],
)
def test_the_count_belongs_to_whoever_changed_it_last(
    living_count: int | None, last_applied: int | None, desired: Any, expected: int
) -> None:
    state = document() if living_count is None else living(statefulset=statefulset(living_count, last_applied))
    plan = decided(state, replicas=desired)
    assert (plan["refusal"], plan["replicas"], plan["desired_replicas"]) == (None, expected, int(desired))


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        (0, "app_replicas is 0.*set it to 1 or more"),
        (-1, "app_replicas is -1"),
        ("", "app_replicas is ''"),
        (None, "app_replicas is None"),
        (2.5, "app_replicas is 2.5"),
        (True, "app_replicas is True"),
    ],
)
def test_bad_counts_are_refused(desired: Any, words: str) -> None:
    for state in (document(), living()):
        assert re.search(words, decided(state, replicas=desired)["refusal"])


@pytest.mark.parametrize(
    ("count", "last_applied", "words"),
    [
        (1, 1, None),
        (1, 3, None),
        (5, 3, "it was scaled since"),
        (5, None, "was never applied to it"),
        (0, 3, "scaled to 0; it gets 1"),
    ],
)
def test_a_count_that_is_not_the_desired_one_is_explained(
    count: int, last_applied: int | None, words: str | None
) -> None:
    notes = decided(living(statefulset=statefulset(count, last_applied)), replicas=1 if last_applied == 1 else 3)[
        "notes"
    ]
    if words is None:
        assert not [note for note in notes if "it gets" in note]
    else:
        assert [note for note in notes if words in note]


def test_the_count_never_falls_below_the_primary() -> None:
    moved = {0: node(), 2: node(primary=True)}
    state = living(moved, record=record("recorded", A, 2, 0))
    assert "app_replicas is 2, but the primary has ordinal 2" in decided(state, replicas=2)["refusal"]
    scaled = living(moved, record=record("recorded", A, 2, 0), statefulset=statefulset(2, 3))
    plan = decided(scaled)
    assert (plan["refusal"], plan["replicas"]) == (None, 3)
    assert any("scaled to 2; it gets 3" in note for note in plan["notes"])
    assert (
        "app_replicas is 1, but the primary has ordinal 1"
        in decided(document(), replicas=1, primary_ordinal=1)["refusal"]
    )


# --- what the API does not let change ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        ({"storage_size": "10Gi"}, "app_storage_size is 10Gi.*made with 5Gi"),
        ({"storage_size": "5G"}, "app_storage_size"),
        ({"storage_size": "5120Mi"}, None),
        ({"storage_size": "5Gi", "storage_class": "local-path", "service_name": "abaci-app-headless"}, None),
        ({"storage_class": "longhorn"}, "app_storage_class is longhorn"),
        ({"service_name": "other"}, "serviceName"),
        ({"pod_management_policy": "OrderedReady"}, "podManagementPolicy"),
        ({"claim_template": "data"}, "no volumeClaimTemplate data"),
        ({"claim_template": "litefs-data"}, None),
        (
            {"litefs_port": 20203},
            "app_litefs_port is 20203.*speak on 20202.*set app_litefs_port back.*app_state: absent",
        ),
        ({"proxy_port": "8081"}, "app_proxy_port is 8081.*speak on 8080"),
        ({"litefs_port": "20202", "proxy_port": 8080}, None),
    ],
)
def test_immutable_fields_are_refused_before_the_apply(desired: dict[str, str], words: str | None) -> None:
    refusal = decided(living(), **desired)["refusal"]
    assert refusal is None if words is None else re.search(words, refusal)
    assert decided(document(), **{key: value for key, value in desired.items() if key != "claim"})["refusal"] is None


# --- sysctls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "name", "expected"),
    [
        ([SYSCTL], SYSCTL, True),
        ([], SYSCTL, False),
        (["net.ipv4.*"], SYSCTL, True),
        (["net.*"], SYSCTL, True),
        (["kernel.msg*"], "kernel.msgmax", True),
        (["kernel.msg*"], SYSCTL, False),
        (["net/ipv4/tcp_syn_retries"], SYSCTL, True),
        (["net.ipv4.tcp_syn"], SYSCTL, False),
    ],
)
def test_a_kubelets_list_may_hold_patterns(allowed: list[str], name: str, expected: bool) -> None:
    assert app_plan.allows(allowed, name) is expected


def test_a_node_that_would_reject_the_pods_is_named_with_the_key_to_set() -> None:
    kubelets: dict[str, Any] = {"node-0": [SYSCTL], "node-1": [], "node-2": [SYSCTL]}
    refusal = decided(living(kubelets=kubelets))["refusal"]
    assert "node node-1" in refusal
    assert f"allowed-unsafe-sysctls={SYSCTL} in k3s_config" in refusal


@pytest.mark.parametrize(
    ("desired", "spec"),
    [
        ({"sysctls": []}, {}),
        ({"sysctls": ["net.ipv4.tcp_keepalive_time"]}, {}),  # safe everywhere
        ({"node_selector": {"kubernetes.io/hostname": "elsewhere"}}, {}),
        ({}, {"unschedulable": True}),
        ({}, {"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]}),
    ],
)
def test_nodes_that_get_no_pod_need_not_allow_it(desired: dict[str, Any], spec: dict[str, Any]) -> None:
    state = document(nodes=[kube_node("a", **spec)], kubelets={"a": []})
    assert decided(state, **desired)["refusal"] is None


@pytest.mark.parametrize(
    "toleration",
    [
        {"operator": "Exists"},
        {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "dedicated", "value": "db"},
        {"key": "dedicated", "operator": "Equal", "value": "db", "effect": ""},
    ],
)
def test_a_tolerated_taint_brings_pods_to_the_node(toleration: dict[str, str]) -> None:
    tainted = kube_node("a", taints=[{"key": "dedicated", "value": "db", "effect": "NoSchedule"}])
    state = document(nodes=[tainted], kubelets={"a": []})
    assert "node a" in decided(state, tolerations=[toleration])["refusal"]
    for other in (
        {"key": "other", "operator": "Exists"},
        {"key": "dedicated", "value": "x"},
        {"key": "x", "value": "db"},
    ):
        assert decided(state, tolerations=[other])["refusal"] is None


def test_a_node_that_cannot_be_asked_is_a_note_and_no_refusal() -> None:
    plan = decided(document(nodes=[kube_node("a")], kubelets={"a": "it is off"}))
    assert plan["refusal"] is None
    assert any("node a" in note and "it is off" in note for note in plan["notes"])


# --- volumes and the rest ----------------------------------------------------------------------------------------


def test_an_ordinal_that_is_fenced_is_named_with_the_way_out() -> None:
    plan = decided(living({0: GONE, 1: node(primary=True)}, record=record("recorded", A, ordinal=1, fenced="0")))
    assert plan["refusal"] is None and plan["fenced"] == [0]
    assert any("abaci-app-0 is fenced" in note and '"replica_reset_targets": [0]' in note for note in plan["notes"])


@pytest.mark.parametrize(
    ("ordinal", "words"), [(0, None), (1, "restarts it before abaci-app-0"), (2, "begins with it")]
)
def test_where_rolling_updates_do_not_end_with_the_primary_it_is_said(ordinal: int, words: str | None) -> None:
    answers = {n: node(primary=n == ordinal) for n in range(3)}
    notes = decided(living(answers, record=record("recorded", A, ordinal=ordinal)))["notes"]
    said = [note for note in notes if "rolling update" in note]
    assert [words in note and "promote_to=0" in note for note in said] == ([True] if words else [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"storage": on_hosts("uploads", "elsewhere")}, "uploads on its own node"),
        ({"storage": on_hosts()}, None),
        ({"storage": on_hosts("elsewhere")}, None),
        ({"storage": {**on_hosts("uploads"), "kind": "nfs"}}, None),
        ({"storage": {**on_hosts("uploads"), "state": "unmanaged"}}, None),
        ({"storage": on_hosts("uploads"), "node_selector": {"kubernetes.io/hostname": "node-1"}}, None),
        ({"storage": on_hosts("uploads"), "replicas": 1}, None),
    ],
    ids=["several nodes", "on no host", "not mounted", "on NFS", "storage not ours", "one node", "one pod"],
)
def test_files_that_each_host_has_for_itself_are_said(changes: dict[str, Any], words: str | None) -> None:
    nodes = [kube_node(f"node-{n}") for n in range(3)]
    volumes = [{"name": "u", "persistentVolumeClaim": {"claimName": "uploads"}}, {"name": "e", "emptyDir": {}}]
    notes = decided(document(nodes=nodes), volumes=volumes, **changes)["notes"]
    said = [note for note in notes if "storage_kind" in note]
    assert len(said) == (1 if words else 0)
    assert not words or (words in said[0] and "node-0, node-1 and node-2" in said[0])


def test_kept_volumes_are_listed() -> None:
    state = living(volumes=[volume(0), volume(2, "older", "Released", name="pvc-old")])
    notes = decided(state)["notes"]
    assert [note for note in notes if "pvc-old" in note and "litefs-data-abaci-app-2" in note and "node-2" in note]
    assert not [note for note in notes if "pvc-0" in note]


@pytest.mark.parametrize(("minor", "policy"), [("35", False), ("36", True), ("37+", True), ("", True)])
def test_an_older_api_has_no_policy_that_makes_volumes_retain(minor: str, policy: bool) -> None:
    state = living(version={"minor": minor}, volumes=[volume(0, policy="Delete"), volume(1)])
    retain = decided(state)["retain"]
    assert retain["admission_policy"] is policy
    assert [(item["metadata"]["name"], item["spec"]) for item in retain["objects"]] == [
        ("pvc-0", {"persistentVolumeReclaimPolicy": "Retain"})
    ]


def test_all_refusals_are_there_and_the_identity_comes_first() -> None:
    plan = decided(living({1: node(primary=True)}), replicas=0, storage_size="1Gi")
    assert len(plan["refusals"]) == 3
    assert "each say that they are primary" in plan["refusals"][0] == plan["refusal"]


def test_an_unknown_setting_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="replica_count"):
        app_plan.plan(document(), {"replica_count": 3})


def test_without_an_api_the_plan_says_so() -> None:
    state = document()
    state["api"]["error"] = "There is no kubeconfig at /x."
    plan = decided(state)
    assert (plan["refusal"], plan["first_start"], plan["replicas"]) == (None, True, 3)
    assert "no kubeconfig at /x" in plan["notes"][0]


def test_a_second_run_changes_nothing() -> None:
    first = decided(document())
    again = decided(document(record={"metadata": {}, "data": first["record"]["data"]}))
    assert again["record"] == {"action": "none", "data": first["record"]["data"]}
    recorded = decided(living(record={"metadata": {}, "data": first["record"]["data"]}))
    assert recorded["record"]["action"] == "update"
    third = decided(living(record={"metadata": {}, "data": recorded["record"]["data"]}))
    assert third["record"]["action"] == "none"
    # Nothing but which of the three ways the pods run.
    assert len(third["notes"]) == 1 and "user namespaces" in third["notes"][0]


@pytest.mark.parametrize(
    ("policy", "last", "desired_policy", "expected", "why"),
    [
        (None, None, "force", "force", "first run"),
        ("force", None, "force", "force", "adopted"),
        ("never", None, "force", "never", "adopted while frozen"),
        ("force", "force", "force", "force", "nothing new"),
        ("never", "force", "force", "never", "frozen by hand"),
        ("never", "force", "never", "never", "frozen by hand, then in the inventory"),
        ("force", "force", "never", "never", "frozen in the inventory"),
        ("never", "never", "force", "force", "thawed in the inventory"),
        ("force", "never", "never", "force", "thawed by hand"),
        (None, "force", "force", "force", "annotation removed by hand"),
    ],
)
def test_who_changed_keels_policy_last_decides(
    policy: str | None, last: str | None, desired_policy: str, expected: str, why: str
) -> None:
    state = living()
    state["statefulset"] |= {"keel_policy": policy, "last_applied_keel_policy": last}
    plan = decided(state, annotations={"keel.sh/policy": desired_policy})
    assert plan["annotations"] == {
        "keel.sh/policy": expected,
        "abaci.infra/last-applied-keel-policy": desired_policy,
    }, why
    assert any("keel.sh/policy" in note for note in plan["notes"]) is (expected != desired_policy)


KEEL = {"state": "present", "frozen": False, "schedule": "@every 2m", "approvals": 0}
FOLLOWED = {
    "keel.sh/policy": "force",
    "abaci.infra/last-applied-keel-policy": "force",
    "keel.sh/match-tag": "true",
    "keel.sh/trigger": "poll",
    "keel.sh/pollSchedule": "@every 2m",
}
STILL = {"keel.sh/policy": "never", "abaci.infra/last-applied-keel-policy": "never"}


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ({}, {}, FOLLOWED),
        ({"frozen": True}, {}, {**FOLLOWED, **STILL}),
        ({"approvals": 2}, {}, {**FOLLOWED, "keel.sh/approvals": "2"}),
        ({"schedule": "@every 5m"}, {}, {**FOLLOWED, "keel.sh/pollSchedule": "@every 5m"}),
        ({}, {"keel.sh/policy": "never", "team": "web"}, {**FOLLOWED, **STILL, "team": "web"}),
        ({"state": "absent", "frozen": True}, {}, {}),
        ({"state": "unmanaged"}, {"team": "web"}, {"team": "web"}),
    ],
)
def test_the_statefulset_tells_keel_what_the_inventory_says(
    asked: dict[str, Any], given: dict[str, str], expected: dict[str, str]
) -> None:
    assert decided(living(), keel={**KEEL, **asked}, annotations=given)["annotations"] == expected


def test_without_the_role_keel_there_is_no_policy() -> None:
    assert decided(living())["annotations"] == {}


@pytest.mark.parametrize("name", ["rollout", "rollback"])
def test_nothing_is_applied_while_a_rollout_or_its_way_back_stands_still(name: str) -> None:
    """The apply would give rolling updates back to the controller, which replaces pods that were left on purpose."""
    paused = record("recorded", A)
    paused["data"]["progress"] = json.dumps({name: {"stamp": "2026-01-01T11:00:00Z"}})
    refusal = decided(living(record=paused))["refusal"]
    assert refusal.startswith(f"A {name} is not finished") and f"playbooks/{name}.yml again" in refusal
    paused["data"]["progress"] = json.dumps({"scale": {"volumes": {}}})
    assert decided(living(record=paused))["refusal"] is None


def test_an_earlier_run_is_unfinished_without_first_data_or_where_pods_wait_for_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The controller alone would never replace a pod with an old template while another's node is away."""
    first = decided(document())
    assert first["bootstrap"] is True and first["unfinished"] is True
    late = living()
    late["pods"][1]["revision"] = "old"
    for state, behind in ((living(), False), (late, True)):
        assert (decided(state)["behind"], decided(state)["unfinished"]) == (behind, False)
    monkeypatch.setattr(app_plan, "by_hand", lambda *_given: True)
    assert decided(living())["unfinished"] is False and decided(late)["unfinished"] is True
