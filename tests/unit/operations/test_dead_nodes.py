"""A replica's node is away: what each operation says, does and leaves."""

from __future__ import annotations

from typing import Any

import cases
import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import litefs
from cases import NOW, A, B, destructive, export, file, gone, site

SEED = site({1: make.node(B, txid=9, never_synced=True), 2: make.node(B, txid=9, never_synced=True)})


def without_node(ordinal: int, *, known: bool = True, **parts: Any) -> dict[str, Any]:
    """A replica's node does not answer; or it is no part of the cluster any more, and the pod finds no other place."""
    nodes = [make.kube_node(f"node-{n}", ready=n != ordinal) for n in range(3) if known or n != ordinal]
    pods = [make.pod(n) if known or n != ordinal else cases.homeless(n) for n in range(3)]
    return site({ordinal: gone("no answer within 10 s")}, **{"nodes": nodes, "pods": pods, **parts})


def test_hazard_a_copy_that_runs_is_not_stopped_while_a_dead_one_stays() -> None:
    plan = deciding.scaled(without_node(1), 2, now=NOW)
    assert plan["steps"] == [] and plan["cause"] == "replica-away"
    for words in (
        "abaci-app-1 is on node node-1, which is away",
        "would stop abaci-app-2, which runs",
        """-e '{"replica_reset_targets": [1], "replica_reset_node_off": "node-1"}'""",
        """-e '{"scale_lost_replicas": [1]}'""",
    ):
        assert words in plan["refusal"], plan["refusal"]
    foreign = deciding.scaled(site({1: make.node(B)}), 2, now=NOW)
    assert "abaci-app-1 is no copy" in foreign["refusal"] and "node_off" not in foreign["refusal"]
    assert destructive(deciding.scaled(without_node(1), 2, now=NOW, lost_replicas=["1"])) == [("scale", 2)]
    assert destructive(deciding.scaled(without_node(1), 1, now=NOW)) == [("scale", 1)], "only the primary stays"
    assert destructive(deciding.scaled(without_node(2), 2, now=NOW)) == [("scale", 2)], "the dead one goes"
    nodes = [make.kube_node(f"node-{n}", ready=n == 0) for n in range(3)]
    both = site({1: gone(), 2: gone()}, nodes=nodes)
    assert destructive(deciding.scaled(both, 2, now=NOW)) == [("scale", 2)], "no copy goes"


@pytest.mark.parametrize("known", [True, False])
def test_scale_says_whom_it_leaves_out(known: bool) -> None:
    plan = deciding.scaled(without_node(2, known=known), 4, now=NOW)
    assert plan["refusal"] is None and destructive(plan) == [("scale", 4)]
    assert (
        "abaci-app-2 is on node node-2, which is away: bring the node back, or switch it off and run "
        """playbooks/replica_reset.yml -e '{"replica_reset_targets": [2], "replica_reset_node_off": "node-2"}'. """
        "It is left out of all that is waited for."
    ) in plan["notes"]


def test_a_rollout_that_waits_for_a_dead_node_only_holds_no_scale_up() -> None:
    pods = [make.pod(n) for n in range(3)]
    for pod in pods[:2]:
        pod["metadata"]["labels"]["controller-revision-hash"] = "r2"
    status = {"observedGeneration": 4, "currentRevision": "r1", "updateRevision": "r2"}
    rolling = make.statefulset() | {"status": status}
    state = without_node(2, pods=pods, statefulset=rolling)
    assert destructive(deciding.scaled(state, 4, now=NOW)) == [("scale", 4)]
    held_up = deciding.scaled(without_node(2, statefulset=rolling), 4, now=NOW)
    assert "waits with that for abaci-app-2, whose node node-2 is away: run site.yml" in held_up["refusal"]


def test_hazard_a_replica_of_a_node_that_nobody_said_is_off_is_not_replaced() -> None:
    fresh = [export()]
    plan = deciding.reset(without_node(2), [2], fresh, now=NOW)
    assert plan["steps"] == [] and plan["cause"] == "replica-away"
    assert "on node node-2, which is away" in plan["refusal"] and "replica_reset_node_off=node-2" in plan["refusal"]
    assert deciding.reset(without_node(2), [2], fresh, now=NOW, node_off="node-9")["refusal"], "another node was named"
    assert (
        "leave the variable out" in deciding.reset(without_node(2), [2], fresh, now=NOW, node_off="node-1")["refusal"]
    )
    off = deciding.reset(without_node(2), [2], fresh, now=NOW, node_off="node-2")
    assert [(step["do"], step.get("force")) for step in off["steps"]] == [
        ("delete_claim", None),
        ("delete_pod", True),
        ("wait_pod", None),
        ("wait_replicated", None),
    ]
    # The pod was deleted by force before: it may still run, too.
    forced = without_node(2, pods=[make.pod(0), make.pod(1), cases.homeless(2)])
    assert "replica_reset_node_off=node-2" in deciding.reset(forced, [2], fresh, now=NOW)["refusal"]


def test_a_node_that_was_taken_out_of_the_cluster_is_off() -> None:
    plan = deciding.reset(without_node(2, known=False), [2], [export()], now=NOW)
    assert destructive(plan) == [("delete_claim", 2), ("delete_pod", 2)] and not plan["steps"][1]["force"]


def test_a_pod_whose_node_answers_is_never_deleted_by_force() -> None:
    seed = deciding.reset(SEED, [1], [export(), export(B, txid=9)], now=NOW)
    assert [step["force"] for step in seed["steps"] if step["do"] == "delete_pod"] == [False]


def test_a_foreign_copy_that_cannot_be_exported_is_given_up_by_its_volumes_name() -> None:
    plan = deciding.reset(SEED, [1], [export()], now=NOW)
    assert plan["export"] == ["abaci-app-1"] and """{"replica_reset_lost_volumes": ["pvc-1"]}""" in plan["notes"][-1]
    assert deciding.reset(SEED, [1], [export()], now=NOW, lost_volumes=["pvc-1"])["export"] == []


def test_hazard_an_export_whose_position_is_not_proven_does_not_end_a_hold() -> None:
    record = make.record("recorded", A, ordinal=1)
    pods = [make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)]
    state = site({0: gone(), 1: make.node(primary=True)}, record=record, fenced="0", pods=pods, rendered_ordinal=1)

    def decide(*lost: str, **manifest: Any) -> dict[str, Any]:
        made = export(volume_of=0, path="/b/one.sqlite", **manifest)
        plan: dict[str, Any] = deciding.reset(state, [0], [export(), made], now=NOW, lost_volumes=lost)
        return plan

    assert "/b/one.sqlite of volume pvc-0 is sound, but nothing proves" in decide(position_proven=False)["refusal"]
    assert "delete_claim" in str(decide("pvc-0", position_proven=False)["steps"])
    assert "delete_claim" in str(decide(position_proven=True)["steps"])
    assert "delete_claim" in str(decide(empty=True)["steps"]), "a volume without a database has nothing to lose"


def test_hazard_an_old_primary_on_a_dead_node_is_given_up_by_name_only() -> None:
    record = make.record("recorded", A, ordinal=1)
    nodes = [make.kube_node("node-0", ready=False), make.kube_node("node-1"), make.kube_node("node-2")]
    state = site({0: gone(), 1: make.node(primary=True)}, record=record, fenced="0", nodes=nodes, rendered_ordinal=1)
    plan = deciding.reset(state, [0], [export()], now=NOW, node_off="node-0")
    assert "what only it has is on volume pvc-0, whose node node-0 is away" in plan["refusal"]
    plan = deciding.reset(state, [0], [export()], now=NOW, node_off="node-0", lost_volumes=["pvc-0"])
    assert plan["refusal"] is None and plan["volume_export"] == []


def test_site_yml_waits_for_the_replicas_whose_node_answers() -> None:
    state = without_node(2)
    target = litefs.primary_position(state, "sqlite.db")
    assert target and litefs.replicated(state, target, "sqlite.db")["done"]
    (sentence,) = litefs.left_out(state)
    assert sentence.startswith("Nobody waits for abaci-app-2: its node node-2 is away.")
    assert sentence.endswith("""-e '{"replica_reset_targets": [2], "replica_reset_node_off": "node-2"}'.""")
    ready = site({2: gone("connection refused")})
    assert not litefs.replicated(ready, target, "sqlite.db")["done"], "its node answers, so it is waited for"
    assert litefs.left_out(ready) == []


def test_a_restore_goes_on_without_a_replica_whose_node_is_away() -> None:
    plan = deciding.restored(without_node(2), file(), {}, [export()], None, NOW)
    assert plan["refusal"] is None and destructive(plan)[0][0] == "import"
