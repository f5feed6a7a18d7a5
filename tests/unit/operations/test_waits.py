"""The acts and the waits of operations on a cluster that acts back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import guard, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, holding, planning, steps
from fake_api import Cluster, LiteFS, database
from playing import operate


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What a test lets happen between two looks, in order; instead of a second that passes."""
    happens: list[Callable[[], None]] = []

    def sleep(_seconds: float) -> None:
        if happens:
            happens.pop(0)()

    monkeypatch.setattr(act.time, "sleep", sleep)
    yield happens
    assert not happens, "the wait was over before"


def site(api: Cluster) -> act.Site:
    return act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202, 1)


def uid(api: Cluster, kind: str, name: str) -> str:
    return str((api.have(kind, name) or {})["metadata"]["uid"])


CLAIM, POD = "litefs-data-abaci-app-1", "abaci-app-1"


def test_hazard_a_claim_that_was_made_since_is_not_deleted() -> None:
    api = Cluster()
    old = uid(api, "PersistentVolumeClaim", CLAIM)
    api.drop("PersistentVolumeClaim", CLAIM)
    api.put(make.claim(1, "new") | {"kind": "PersistentVolumeClaim"})
    with pytest.raises(kube.KubeError, match="409"):
        site(api).delete_claim(CLAIM, old)
    assert api.have("PersistentVolumeClaim", CLAIM) and api.changes()[-1].uid == old


def test_hazard_a_pod_that_was_replaced_since_is_left_as_it_is() -> None:
    api = Cluster()
    old = uid(api, "Pod", POD)
    api.drop("Pod", POD)
    api.put(make.pod(1) | {"kind": "Pod"})
    new = uid(api, "Pod", POD)
    site(api).delete_pod(POD, old)
    assert uid(api, "Pod", POD) == new and api.changes()[-1].uid == old
    site(api).delete_pod(POD, None)
    assert uid(api, "Pod", POD) == new, "where none was seen none is deleted"
    api.fail("DELETE", "Pod", how=403)
    with pytest.raises(kube.KubeError, match="403"):
        site(api).delete_pod(POD, new)
    site(api).delete_pod(POD, new)
    assert uid(api, "Pod", POD) != new


def test_a_pod_of_a_dead_node_goes_by_force_only() -> None:
    api = Cluster()
    api.stop(1)
    old = uid(api, "Pod", POD)
    site(api).delete_pod(POD, old)
    assert uid(api, "Pod", POD) == old
    site(api).delete_pod(POD, old, 0)
    assert uid(api, "Pod", POD) != old and api.changes()[-1].body["gracePeriodSeconds"] == 0


def test_hazard_a_step_deletes_a_pod_by_force_only_where_it_says_so() -> None:
    api = Cluster()
    held = holding.Holding(site(api), "")

    def delete(**more: object) -> object:
        step = planning.step("delete_pod", "", pod=POD, uid=uid(api, "Pod", POD), ordinal=1, **more)
        steps.DO["delete_pod"](steps.Context(site(api), held, "", planning.Request(), {}, 0), step)
        return api.changes()[-1].body.get("gracePeriodSeconds")

    assert delete() is None and delete(force=False) is None and delete(force=True) == 0


def test_hazard_a_step_removes_only_what_is_still_the_claims_that_it_was_proven_for() -> None:
    api = Cluster()
    (volume,) = [
        one["metadata"]["name"]
        for one in api.all("PersistentVolume")
        if one["spec"]["claimRef"]["uid"] == uid(api, "PersistentVolumeClaim", CLAIM)
    ]
    proven = (
        planning.step("remove_volume", "", volume=volume, claim_uid="before"),
        planning.step("delete_claim", "", claim=CLAIM, uid="before", ordinal=1),
    )
    for step in proven:
        with pytest.raises((act.NotDone, kube.KubeError), match=r"another claim's by now|409"):
            deciding.do(site(api), step)
    assert (api.have("PersistentVolume", volume) or {})["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert api.have("PersistentVolumeClaim", CLAIM)


def test_hazard_an_old_primary_is_stopped_only_when_another_pod_of_it_is_fenced(
    quick: list[Callable[[], None]],
) -> None:
    api = Cluster()
    old = uid(api, "Pod", "abaci-app-0")
    (api.have("ConfigMap", "abaci-app-litefs-identity") or {})["data"] |= {"primaryOrdinal": "1", "fencedOrdinals": "0"}
    with pytest.raises(act.NotDone, match="abaci-app-0 is not fenced yet"):
        site(api).wait_stopped(0, old, 0)
    quick.append(lambda: site(api).delete_pod("abaci-app-0", old))
    site(api).wait_stopped(0, old, 60)
    assert uid(api, "Pod", "abaci-app-0") != old


def test_hazard_the_step_that_stops_an_old_primary_ends_when_it_is_fenced_where_somebody_waits_for_that() -> None:
    api = Cluster()

    def stop(wait: bool) -> None:
        old = uid(api, "Pod", "abaci-app-0")
        step = planning.step("stop", "", pod="abaci-app-0", uid=old, ordinal=0, force=False, wait=wait)
        deciding.do(site(api), step, seconds=0)
        assert uid(api, "Pod", "abaci-app-0") != old

    with pytest.raises(act.NotDone, match="abaci-app-0 is not fenced yet"):
        stop(wait=True)
    stop(wait=False)
    (api.have("ConfigMap", "abaci-app-litefs-identity") or {})["data"] |= {"primaryOrdinal": "1", "fencedOrdinals": "0"}
    stop(wait=True)


def test_hazard_the_primary_that_is_waited_for_holds_the_cluster(quick: list[Callable[[], None]]) -> None:
    api = Cluster()
    api.node(0).cluster = make.B
    with pytest.raises(act.NotDone, match=f"primary of the cluster {make.B}, not of {make.A}"):
        site(api).wait_primary(0, make.A, 0)
    site(api).wait_primary(0, None, 0)
    quick.append(lambda: setattr(api.node(0), "cluster", make.A))
    site(api).wait_primary(0, make.A, 60)
    with pytest.raises(act.NotDone, match="make abaci-app-1 primary"):
        site(api).wait_primary(1, make.A, 0)


def test_hazard_a_primary_that_is_still_stopping_is_not_the_one_that_is_waited_for(
    quick: list[Callable[[], None]],
) -> None:
    """Its LiteFS answers as primary until the process ends."""
    api = Cluster()
    name = f"{make.NAME}-0"
    old = uid(api, "Pod", name)
    with pytest.raises(act.NotDone, match="abaci-app-0"):
        site(api).wait_primary(0, make.A, 0, old)
    pod = api.have("Pod", name)
    assert pod is not None
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for asked in (old, None):
        with pytest.raises(act.NotDone, match="abaci-app-0 is still stopping"):
            site(api).wait_primary(0, make.A, 0, asked)

    def replaced() -> None:
        api.drop("Pod", name)
        api.put(make.pod(0) | {"kind": "Pod"})

    quick.append(replaced)
    site(api).wait_primary(0, make.A, 60, old)


def test_hazard_a_pod_that_is_still_stopping_has_not_arrived(quick: list[Callable[[], None]]) -> None:
    api = Cluster()
    pod = api.have("Pod", POD)
    assert pod is not None
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    # Of another cluster until it is gone: that is no reason to give up.
    api.node(1).cluster = make.B
    with pytest.raises(act.NotDone, match="abaci-app-1 is still stopping"):
        site(api).wait_pod(1, 0)

    def gone() -> None:
        api.drop("Pod", POD)
        api.node(1).cluster = make.A
        api.put(make.pod(1) | {"kind": "Pod"})

    quick.append(gone)
    site(api).wait_pod(1, 60)


def test_hazard_a_hold_does_not_end_while_the_old_claim_is_there(quick: list[Callable[[], None]]) -> None:
    api = Cluster()
    old = uid(api, "PersistentVolumeClaim", CLAIM)
    with pytest.raises(act.NotDone, match="is still the old claim"):
        site(api).wait_claim(1, old, 0)

    def renewed() -> None:
        api.drop("PersistentVolumeClaim", CLAIM)
        api.put(make.claim(1, "new") | {"kind": "PersistentVolumeClaim"})

    quick.append(renewed)
    site(api).wait_claim(1, old, 60)


def test_hazard_a_guard_that_is_still_stopping_has_not_looked_at_the_new_volume(
    quick: list[Callable[[], None]],
) -> None:
    api = Cluster()
    pod = api.put(make.stopped(1, "abaci-app-1 is fenced: it was primary before.") | {"kind": "Pod"})
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(act.NotDone, match="have the guard look at the volume of abaci-app-1"):
        site(api).wait_guard(1, 0)
    quick.append(lambda: pod["metadata"].pop("deletionTimestamp"))
    site(api).wait_guard(1, 60)


def test_hazard_the_pod_from_before_its_restart_is_not_the_replica_that_follows(
    quick: list[Callable[[], None]],
) -> None:
    api = Cluster()
    old = uid(api, "Pod", POD)
    with pytest.raises(act.NotDone, match="restart abaci-app-1 as a replica"):
        site(api).wait_follows(1, 0, old, 0)
    quick.append(lambda: site(api).delete_pod(POD, old))
    site(api).wait_follows(1, 0, old, 60)
    with pytest.raises(act.NotDone, match="does not follow abaci-app-2 yet"):
        site(api).wait_follows(1, 2, old, 0)


def test_hazard_writes_that_go_on_are_waited_for_before_the_role_moves_but_not_for_ever(
    quick: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Cluster()
    api.put({"kind": "Service", "metadata": {"name": "abaci-app-primary"}, "spec": {"selector": {}}})
    quick += [api.node(0).write] * 5 + [lambda: None] * 3
    site(api).divert(1, 60)
    assert api.node(0).txid == 10
    clock = itertools.count()
    monkeypatch.setattr(act.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(act.time, "sleep", lambda _seconds: api.node(0).write())
    site(api).divert(1, 20)
    assert 10 < api.node(0).txid <= 10 + 20


def test_hazard_a_replica_of_another_cluster_is_not_waited_for_in_vain() -> None:
    api = Cluster()
    api.node(2).cluster, api.node(2).follows = make.B, None
    with pytest.raises(act.NotDone, match="its volume is of another cluster"):
        site(api).wait_replicated(60)
    site(api).wait_replicated(60, [2])


def test_hazard_two_replicas_that_differ_are_not_replicated_though_each_has_what_was_asked_for() -> None:
    """Both are past the position that the primary had; at one TXID there is one content."""
    api = Cluster()
    for ordinal, checksum in ((1, "c0ffee0000000001"), (2, "c0ffee0000000002")):
        api.node(ordinal).follows, api.node(ordinal).txid, api.node(ordinal).checksum = None, 6, checksum
    with pytest.raises(act.NotDone, match="Pods abaci-app-1 and abaci-app-2 differ at TXID 0000000000000006"):
        site(api).wait_replicated(0)


def test_hazard_a_replica_that_is_fenced_for_what_only_it_has_ends_the_wait_with_the_guards_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Cluster()
    monkeypatch.setattr(act.time, "sleep", lambda _seconds: pytest.fail("it waits"))
    words = "abaci-app-2 is fenced: its volume ends at TXID 9 of sqlite.db, and the primary at x has TXID 5"
    api.put(make.stopped(2, make.Said(words, guard.Exit.AHEAD)) | {"kind": "Pod"})
    api.node(2).running = False
    with pytest.raises(act.NotDone, match="abaci-app-2 is fenced: its volume ends at TXID 9"):
        site(api).wait_replicated(60)


def test_a_replica_whose_node_dies_meanwhile_is_left_out_and_named(quick: list[Callable[[], None]]) -> None:
    api = Cluster()
    api.node(2).follows = None
    api.node(2).txid = 3
    living = site(api)
    with pytest.raises(act.NotDone, match="behind the primary"):
        living.wait_replicated(0)
    quick.append(lambda: api.stop(2))
    living.wait_replicated(60)
    assert [sentence[:30] for sentence in living.left] == ["Nobody waits for abaci-app-2: "]
    assert "replica_reset_node_off" in living.left[0]


def test_a_pod_that_is_too_many_on_a_dead_node_is_left_to_it_and_named() -> None:
    api = Cluster()
    with pytest.raises(act.NotDone, match="abaci-app-2 is still there"):
        site(api).wait_gone(2, 0)
    api.stop(2)
    living = site(api)
    living.wait_gone(2, 60)
    assert living.left == ["abaci-app-2 is still there: its node node-2 is away, and ends it when it is back."]
    with pytest.raises(act.NotDone, match="abaci-app-1 is still there"):
        living.wait_gone(1, 0)


def test_an_api_that_is_away_for_a_moment_is_waited_for(quick: list[Callable[[], None]]) -> None:
    api = Cluster()
    api.away()
    quick.append(lambda: None)
    site(api).wait_replicated(60)
    api.away(looks=2)
    with pytest.raises(act.NotDone, match="does not answer"):
        site(api).wait_replicated(0)


def test_what_was_seen_is_said_with_where_it_is_explained() -> None:
    api = Cluster()
    pod = api.have("Pod", POD)
    assert pod is not None
    pod["status"]["containerStatuses"][0] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 99, "message": "no space left on device"}},
    }
    api.litefs[POD] = LiteFS()
    api.litefs[POD].running = False
    with pytest.raises(act.NotDone, match=r"docs/failure-modes.md#disk-full"):
        site(api).wait_pod(1, 0)


# --- whole runs with a replica's node dead ----------------------------------------------------------------------------


@pytest.fixture
def dead() -> Cluster:
    api = Cluster(content=database("one", "two"))
    for ordinal in (1, 2):
        api.node(ordinal).sync()
    api.stop(2)
    return api


def test_scale_up_ends_without_the_dead_one_and_says_so(dead: Cluster, tmp_path: Path) -> None:
    ended = operate(dead, "scale", {"replicas": 4}, tmp_path)
    assert ended.rc == 0, ended.msg
    assert any("Nobody waits for abaci-app-2" in sentence for sentence in ended.did), ended.did
    assert dead.have("Pod", "abaci-app-3")


def test_replica_reset_of_the_dead_one_needs_a_word_and_keeps_its_volume(dead: Cluster, tmp_path: Path) -> None:
    before = {one["metadata"]["name"] for one in dead.all("PersistentVolume")}
    refused = operate(dead, "replica_reset", {"targets": [2]}, tmp_path)
    assert refused.rc != 0 and "replica_reset_node_off=node-2" in refused.msg and not dead.of("DELETE", "Pod")
    done = operate(dead, "replica_reset", {"targets": [2], "node_off": "node-2"}, tmp_path)
    assert done.rc == 0, done.msg
    assert before < {one["metadata"]["name"] for one in dead.all("PersistentVolume")}
    again = operate(dead, "replica_reset", {"targets": [2], "node_off": "node-2"}, tmp_path)
    assert again.rc == 0 and len(dead.of("DELETE", "Pod")) == 1, "the second run has nothing to do"


def test_scale_down_past_the_dead_one_ends(dead: Cluster, tmp_path: Path) -> None:
    ended = operate(dead, "scale", {"replicas": 2}, tmp_path)
    assert ended.rc == 0, ended.msg
