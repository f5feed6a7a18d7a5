"""promote looks first, can be called off, moves the role of a primary that runs, and goes back."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases
import deciding
import factory_objects as make
import ltx_files
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_plan, gather, identity, litefs
from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    OPERATIONS,
    act,
    from_archive,
    lock,
    planning,
    promote,
    runner,
)
from archived import Site
from cases import A, B, alone, dead_node, export, gone, guarded, site
from fake_api import Cluster

ACCEPT = {"accept_loss_after": f"{5:016x}"}
NOW = cases.NOW
EMERGENCY = {"from": 0, "fenced": [], "planned": False, "equal": False, "archive": ""}


def volume(cluster: str | None = None, txid: int | None = None, **more: Any) -> dict[str, Any]:
    """What a look into a volume found."""
    at = None if txid is None else f"{txid:016x}"
    checksum = None if txid is None else f"c0ffee{txid:010x}"
    shape = {"page_size": None, "journal_mode": None, "problem": None}
    return {"cluster_id": cluster, "txid": at, "checksum": checksum, **shape, **more}


def decide(state: dict[str, Any], seen: Any = None, **parameters: Any) -> dict[str, Any]:
    plan: dict[str, Any] = deciding.promoted(state, parameters, [export(), export(B)], NOW, seen)
    return plan


def kinds(plan: dict[str, Any]) -> list[str]:
    assert plan["refusal"] is None, plan["refusal"]
    return [f"{one['do']} {one.get('ordinal', one.get('primary_ordinal', ''))}".strip() for one in plan["steps"]]


def begun(before: dict[str, Any] | None = None, answers: dict[int, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """The record names 1 and fences 0."""
    raw = make.record("recorded", A, ordinal=1, fenced="0")
    if before is not None:
        raw["data"][promote.KEY] = json.dumps(before)
    pods = [make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)]
    lonely = {0: gone(), 1: alone(5), 2: alone(5)}
    return site(lonely | (answers or {}), **{"record": raw, "pods": pods, "fenced": "0", **parts})


# --- what the archive has -------------------------------------------------------------------------------------------


def more(last: int, have: int = 5, **changed: Any) -> dict[str, Any]:
    """What the archive has more of one database than a copy at ``have``."""
    times = {"first_time": f"2026-11-30T14:00:0{have + 1}.000Z", "time": f"2026-11-30T14:00:0{last}.000Z"}
    none = {"count": 0, "first": "", "last": f"{have:016x}", "first_time": "", "time": ""}
    found = {"count": last - have, "first": f"{have + 1:016x}", "last": f"{last:016x}", **times}
    return {**(found if last > have else none), **changed}


def archived(last: int = 8, cluster: str = A, **others: Any) -> dict[str, Any]:
    asked = {"sqlite.db": more(last), **others}
    at = {"txid": f"{last:016x}", "time": "2026-11-30T14:00:08.000Z", "followed": "2026-11-30T14:00:09.000Z"}
    return {"cluster_id": cluster, "history": "h1", "more": {"abaci-app-1": asked, "abaci-app-2": asked}, **at}


def with_archive(archive: Any, state: Any = None, **given: Any) -> dict[str, Any]:
    seen = {f"pvc-{n}": volume() for n in range(3)}
    made = {"exports": [export(), export(B)], "volumes": seen, "archive": archive, "now": NOW}
    plan: dict[str, Any] = OPERATIONS["promote"].decide(planning.Request(given, state=state or guarded(), **made))
    return plan


def said(plan: dict[str, Any]) -> str:
    return " ".join([plan["refusal"] or "", *plan["notes"]])


EIGHT = {"accept_loss_after": f"{8:016x}"}
BROKEN = "sqlite.db at 5/c0 is of another history than h1 of the archive."


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (
            archived(),
            "The archive has 3 acknowledged transactions (TXID 0000000000000006 to 0000000000000008, of "
            "2026-11-30T14:00:06.000Z to 2026-11-30T14:00:08.000Z), which abaci-app-1 lacks. They are brought back, "
            "before abaci-app-1 takes writes.",
        ),
        (archived(6), "The archive has 1 acknowledged transaction (TXID 0000000000000006 of 2026-11-30T14:00:06.000Z)"),
        (
            archived(other=more(7)),
            "2 acknowledged transactions of other (TXID 0000000000000006 to 0000000000000007, of "
            "2026-11-30T14:00:06.000Z to 2026-11-30T14:00:07.000Z) and 3 acknowledged transactions (TXID",
        ),
        (archived(other={"problem": "It is cut."}), "lacks. It cannot give it other: It is cut."),
    ],
)
def test_what_the_archive_has_more_is_named_and_brought_back_first(archive: Any, words: str) -> None:
    figure = archive["txid"]
    refused = with_archive(archive)
    assert words in said(refused) and f"-e promote_accept_loss_after={figure}" in refused["refusal"]
    assert f"acknowledged after TXID {figure}" in refused["refusal"] and refused["loss"]["after_txid"] == figure
    plan = with_archive(archive, accept_loss_after=figure)
    assert words in said(plan)
    assert kinds(plan)[:6] == ["record 1", "stop 0", "bring_back 1", "record 1", "render 1", "restart 1"]
    first, _stop, bring, there = plan["steps"][:4]
    assert json.loads(first["promote"])["archive"] == figure and not first["given_up"]
    assert json.loads(there["promote"])["archive"] == "" and not there["given_up"]
    assert (bring["pod"], bring["cluster_id"]) == ("abaci-app-1", A)
    # The figure of the copy alone is not the word for it.
    assert with_archive(archive, **ACCEPT)["refusal"]


def test_where_only_another_database_lacks_something_it_is_brought_back_as_well() -> None:
    plan = with_archive(archived(5, other=more(7)), **ACCEPT)
    assert kinds(plan)[:3] == ["record 1", "stop 0", "bring_back 1"]


@pytest.mark.parametrize(
    ("archive", "given", "words"),
    [
        (
            archived(5),
            {},
            "The archive, which followed the old primary until 2026-11-30T14:00:09.000Z, has nothing more",
        ),
        (
            {"problem": "GET /moments was not answered within 10 s."},
            {},
            "The archive was not asked whether it has more",
        ),
        (
            archived(sqlite={}) | {"more": {"abaci-app-1": {"sqlite.db": {"problem": BROKEN}}}},
            {},
            f"The archive cannot give abaci-app-1 what it has: S{BROKEN[1:]} What it has can still be had: after the "
            "promote ansible-playbook playbooks/restore.yml -e restore_at=0000000000000008 -e restore_history=h1 "
            "brings it back",
        ),
        (archived() | {"more": {}}, {}, "The archive was not asked whether it has more than abaci-app-1: run again."),
        (archived(8, B), {}, None),
        ({}, {}, None),
        (archived(), {"from_archive": False}, "lacks. With promote_from_archive false they stay there: after"),
    ],
    ids=["nothing more", "away", "another history", "not asked", "another cluster", "none", "not wanted"],
)
def test_without_it_the_promote_goes_on_as_ever_with_the_loss_said(archive: Any, given: Any, words: str | None) -> None:
    for accept in ({}, ACCEPT):
        plan = with_archive(archive, **given, **accept)
        assert (words in said(plan)) if words else ("archive" not in said(plan).lower())
        assert (plan["refusal"] is None) == bool(accept)
    assert kinds(plan)[:3] == ["record 1", "stop 0", "render 1"]
    # From then on the guard takes no word of before that from the archive.
    assert plan["steps"][0]["given_up"] and json.loads(plan["steps"][0]["promote"])["archive"] == ""


BRINGING = {**EMERGENCY, "archive": f"{8:016x}"}


def fed(txid: int | None = 5, archive: Any = None, **given: Any) -> dict[str, Any]:
    """A promote that brings back up to 8 was killed; where pod 1 is at since. None: it starts."""
    answers = {1: gone() if txid is None else alone(txid)}
    state = begun(BRINGING, answers, rendered_ordinal=None)
    state["fed_ordinal"] = 1
    return with_archive(archived() if archive is None else archive, state, **given)


def test_killed_on_the_way_it_is_brought_back_by_the_next_run() -> None:
    assert kinds(with_archive(archived(), begun(BRINGING)))[0] == "bring_back 1"
    assert kinds(fed())[0] == "bring_back 1"
    assert kinds(fed(7))[0] == "bring_back 1"
    assert kinds(fed(None))[0] == "bring_back 1", "it starts, and nobody else is taken in its place"
    for plan in (fed(8), fed(8, {})):
        assert kinds(plan)[:2] == ["record 1", "render 1"], "it has all of it, also where the archive went away since"
        assert json.loads(plan["steps"][0]["promote"])["archive"] == "" and not plan["steps"][0]["given_up"]


@pytest.mark.parametrize("fed_ordinal", [None, 1])
@pytest.mark.parametrize("answer", [gone(), alone(5), alone(8)], ids=["it starts", "behind", "level"])
def test_hazard_site_yml_makes_no_primary_of_a_successor_that_lacks_what_the_archive_has(
    fed_ordinal: int | None, answer: Any
) -> None:
    state = begun(BRINGING, {1: answer}, rendered_ordinal=None) | {"fed_ordinal": fed_ordinal}
    refusal = app_plan.plan(state, make.desired())["refusal"]
    assert "A promote is not finished" in refusal and "ansible-playbook playbooks/promote.yml" in refusal
    assert "promote_from_archive=false" in refusal and "promote_call_off=true" in refusal
    # From when it has all of it, the record is what counts.
    there = next(one for one in fed(8)["steps"] if one["do"] == "record")["promote"]
    state["record"]["raw"][promote.KEY] = there
    assert app_plan.plan(state, make.desired())["refusal"] is None


def test_hazard_site_yml_makes_no_primary_of_a_planned_move_that_is_not_proven() -> None:
    refusal = app_plan.plan(begun(PLANNED), make.desired())["refusal"]
    assert "A promote is not finished" in refusal and "ansible-playbook playbooks/promote.yml" in refusal
    assert app_plan.plan(begun(PLANNED | {"equal": True}), make.desired())["refusal"] is None


def test_of_a_promote_whose_end_is_not_recorded_site_yml_says_only_that() -> None:
    """As the version before left it: its successor is primary, and what was brought back still stands in the record."""
    state = begun(BRINGING, {1: make.node(A, primary=True, txid=8)}, rendered_ordinal=1)
    refusal = app_plan.plan(state, make.desired())["refusal"]
    assert "A promote is done" in refusal and "ansible-playbook playbooks/promote.yml once" in refusal
    assert "call_off" not in refusal


def test_hazard_another_successor_does_not_forget_what_the_archive_had() -> None:
    """The node of the first one died on the way, and the archive is away."""
    nodes = [make.kube_node("node-0"), make.kube_node("node-1", ready=False), make.kube_node("node-2")]
    state = begun(BRINGING, {1: gone()}, rendered_ordinal=None, nodes=nodes) | {"fed_ordinal": 1}
    away = {"problem": "It is away."}
    for given in ({}, ACCEPT):
        plan = with_archive(away, state, node_off="node-1", **given)
        assert "the archive had transactions up to TXID 0000000000000008" in plan["refusal"]
        assert "-e promote_from_archive=false -e promote_accept_loss_after=0000000000000005" in plan["refusal"]
    plan = with_archive(away, state, node_off="node-1", from_archive=False, **ACCEPT)
    assert kinds(plan)[0] == "record 2" and plan["steps"][0]["given_up"]


def test_a_primary_that_runs_in_spite_of_it_is_what_counts() -> None:
    """Of an older guard: else nothing would ever end this promote, and no primary would start again."""
    state = begun(BRINGING, {1: make.node(primary=True), 2: alone(5)}, rendered_ordinal=1)
    first = with_archive(archived(), state)["steps"][0]
    assert first["do"] == "record" and json.loads(first["promote"])["archive"] == "" and first["given_up"]


@pytest.mark.parametrize("archive", [{"problem": "It is away."}, {}, archived(8, B)])
def test_an_archive_that_goes_away_on_the_way_loses_nothing_without_a_word(archive: Any) -> None:
    plan = fed(6, archive)
    assert (
        "is at TXID 0000000000000006, and the archive had transactions up to TXID 0000000000000008" in plan["refusal"]
    )
    word = re.search(r"promote_accept_loss_after=([0-9a-f]{16})", plan["refusal"])
    assert word and word[1] == f"{6:016x}"
    assert "ansible-playbook playbooks/promote.yml again" in plan["refusal"]
    assert fed(6, archive, **EIGHT)["refusal"], "that figure was for all of it"
    plan = fed(6, archive, accept_loss_after=word[1])
    assert kinds(plan)[:2] == ["record 1", "render 1"]
    assert json.loads(plan["steps"][0]["promote"])["archive"] == "" and plan["steps"][0]["given_up"]


def test_what_another_database_lacks_is_not_forgotten_when_the_archive_goes_away() -> None:
    """Its own figure is not the one that was accepted, which is of the application's database."""
    first = with_archive(archived(5, other=more(7, 0)), **ACCEPT)["steps"][0]
    before = json.loads(first["promote"])
    assert before["also"] == {"other": f"{7:016x}"}
    state = begun(before, {1: alone(5)}, rendered_ordinal=None)
    for archive in ({}, {"problem": "It is away."}):
        plan = with_archive(archive, state, **ACCEPT)
        assert "It lacks transactions of other up to TXID 0000000000000007." in plan["refusal"]
    plan = with_archive({}, state, from_archive=False, **ACCEPT)
    assert kinds(plan)[:2] == ["record 1", "render 1"]
    assert json.loads(plan["steps"][0]["promote"])["also"] == {}


def test_what_the_archive_cannot_give_of_another_database_does_not_stop_the_successor_at_its_guard() -> None:
    """Killed once the rest was brought back."""
    plan = fed(8, archived(other={"problem": "It is cut.", "refused": True}))
    assert kinds(plan)[:2] == ["record 1", "render 1"]
    first = plan["steps"][0]
    assert first["given_up"] and json.loads(first["promote"])["archive"] == ""
    first = fed(8, archived(other={"problem": "It is away.", "refused": False}))["steps"][0]
    assert first["do"] == "record" and not first["given_up"]


def test_it_can_be_left_there_on_the_way_by_the_same_word() -> None:
    assert "promote_from_archive=false" in fed(6, from_archive=False)["refusal"]
    assert kinds(fed(6, from_archive=False, accept_loss_after=f"{6:016x}"))[:2] == ["record 1", "render 1"]


def unanswered(seen: dict[str, Any], others: Any = 5, **given: Any) -> dict[str, Any]:
    """As fed(None), and the archive is to be left alone."""
    state = begun(BRINGING, {1: gone(), 2: alone(others)}, rendered_ordinal=None) | {"fed_ordinal": 1}
    made = {"exports": [export()], "volumes": seen, "archive": {"problem": "It is away."}, "now": NOW}
    plan: dict[str, Any] = OPERATIONS["promote"].decide(
        planning.Request({"from_archive": False, **given}, state=state, **made)
    )
    return plan


def test_a_successor_that_never_answers_goes_on_without_the_archive_by_what_its_volume_holds() -> None:
    assert unanswered({})["look"] == ["pvc-1", "pvc-0"]
    seen = {"pvc-0": volume(), "pvc-1": volume(A, 6)}
    for accept in ({}, EIGHT, ACCEPT):
        plan = unanswered(seen, **accept)
        assert "abaci-app-1 does not answer, and its volume ends at TXID 0000000000000006" in plan["refusal"]
        assert "the archive had transactions up to TXID 0000000000000008" in plan["refusal"]
        assert "-e promote_from_archive=false -e promote_accept_loss_after=0000000000000006" in plan["refusal"]
        assert plan["loss"]["after_txid"] == f"{6:016x}"
    plan = unanswered(seen, accept_loss_after=f"{6:016x}")
    assert kinds(plan)[:3] == ["render 1", "restart 1", "restart 2"]
    start = plan["steps"][1]
    assert json.loads(start["promote"])["archive"] == "" and start["given_up"] and start["primary_ordinal"] == 1
    # What the old primary came back with is weighed against that as well.
    assert (
        "promote_call_off=true" in unanswered(seen | {"pvc-0": volume(A, 7)}, accept_loss_after=f"{6:016x}")["refusal"]
    )
    assert kinds(unanswered(seen | {"pvc-0": volume(A, 6)}, accept_loss_after=f"{6:016x}"))[0] == "render 1"


@pytest.mark.parametrize(
    ("seen", "others", "words"),
    [
        (volume(A, 5), 6, "The best copy is abaci-app-2 at TXID 0000000000000006"),
        (volume(problem="volume pvc-1 cannot be read (I/O error)"), 5, "It may hold more"),
        (volume(B, 9), 5, "The best copy is abaci-app-2"),
    ],
    ids=["another copy has more", "unreadable", "another cluster"],
)
def test_where_its_volume_is_not_the_best_copy_that_can_be_read_another_one_is_asked_for(
    seen: dict[str, Any], others: int, words: str
) -> None:
    assert words in unanswered({"pvc-0": volume(), "pvc-1": seen}, others)["refusal"]


# --- it looks first -------------------------------------------------------------------------------------------------


def test_the_old_primarys_volume_and_the_kept_ones_are_looked_into_before_anything_is_asked_for() -> None:
    kept = make.volume(0, claim_uid="gone", name="pvc-kept", phase="Released")
    state = guarded(volumes=[*(make.volume(n) for n in range(3)), kept])
    plan = decide(state)
    assert plan["refusal"] is None and plan["steps"] == [] and plan["look"] == ["pvc-0", "pvc-kept"]
    assert "abaci-app-1 at TXID 0000000000000005" in plan["notes"][0]
    assert decide(state, {"pvc-0": volume()}, promote_x=1)["look"] == ["pvc-kept"]
    assert decide(state, give_up_volume=["pvc-kept"])["look"] == ["pvc-0"]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            volume(A, 8),
            "pvc-0 is readable .* 0000000000000008, 3 transactions more than abaci-app-1: .*section First",
        ),
        (volume(None, 8), "3 transactions more than abaci-app-1: .*file clusterid"),
        (volume(problem="volume pvc-0 on node node-0 cannot be read (I/O error)"), "It may hold more"),
    ],
    ids=["ahead", "ahead without an id", "unreadable on a node that answers"],
)
def test_hazard_a_volume_that_has_more_is_left_behind_only_by_its_name(seen: dict[str, Any], words: str) -> None:
    plan = decide(guarded(), {"pvc-0": seen}, **ACCEPT)
    assert re.search(words, plan["refusal"]) and 'promote_give_up_volume": ["pvc-0"]' in plan["refusal"]
    assert kinds(decide(guarded(), {"pvc-0": seen}, **ACCEPT, give_up_volume=["pvc-0"]))[0] == "record 1"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (volume(), "holds nothing more (no database)"),
        (volume(A, 5), "holds nothing more (TXID 0000000000000005)"),
        (volume(B, 99), f"holds another cluster, {B}, up to TXID {99:016x}"),
    ],
)
def test_what_a_volume_holds_is_said_where_it_is_no_more(seen: dict[str, Any], words: str) -> None:
    assert words in decide(guarded(), {"pvc-0": seen})["refusal"]
    plan = decide(guarded(), {"pvc-0": seen}, **ACCEPT)
    assert plan["refusal"] is None and any(words in note for note in plan["notes"])


def test_the_volume_of_a_node_that_is_off_cannot_be_looked_into_and_stops_nothing() -> None:
    blind = {"pvc-0": volume(problem="volume pvc-0 is on node node-0, which does not answer.")}
    plan = decide(dead_node(), blind, **ACCEPT, node_off="node-0")
    assert kinds(plan)[0] == "record 1" and "comes back with that node" in plan["notes"][0]


def test_hazard_a_replica_that_hears_the_primary_now_stops_a_promote() -> None:
    """A kubelet that does not answer the port-forward, while the primary acknowledges writes."""
    plan = decide(site({0: gone("no answer")}), {"pvc-0": volume()}, **ACCEPT, node_off="node-0")
    assert "abaci-app-1 heard from abaci-app-0 0.2 s ago" in plan["refusal"]
    long_ago = make.node() | {"lag_ms": 3000}
    state = site({0: gone("no answer"), 1: long_ago, 2: long_ago})
    assert kinds(decide(state, {"pvc-0": volume()}, **ACCEPT))[0] == "record 1"


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({}, False),
        ({"silent_seconds": 11.0}, False),
        ({"silent_seconds": 16.0}, True),
        ({"error": "dial tcp 10.0.0.1:10250: i/o timeout"}, True),
        ({"error": "nodes node-0 is forbidden: User bob cannot get resource"}, False),
    ],
    ids=str,
)
def test_hazard_a_node_is_not_believed_to_be_there_for_the_40_s_in_which_the_api_calls_it_ready(
    change: dict[str, Any], asks: bool
) -> None:
    state = site({0: gone("no answer"), 1: alone(5), 2: alone(5)})
    state["nodes"][0] |= change
    plan = decide(state, {"pvc-0": volume()}, **ACCEPT)
    assert ("promote_node_off=node-0" in (plan["refusal"] or "")) == asks
    off = decide(state, {"pvc-0": volume()}, **ACCEPT, **({"node_off": "node-0"} if asks else {}))
    stop = next(one for one in off["steps"] if one["do"] == "stop")
    assert stop["force"] is asks, "a container that may run is forgotten only where somebody said that its node is off"


def test_the_silence_of_a_node_is_told_by_the_api_servers_clock() -> None:
    cluster = Cluster(clock_ahead=3600)
    renewed = (cluster.time() - datetime.timedelta(seconds=21)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lease = {"kind": "Lease", "metadata": {"name": "node-1", "namespace": gather.NODE_LEASES}}
    cluster.put(lease | {"spec": {"renewTime": renewed}})
    silences = gather.node_silences(cluster)
    assert set(silences) == {"node-1"} and 20 <= silences["node-1"] <= 25
    cluster.fail("GET", "Lease", how=403)
    assert gather.node_silences(cluster) == {}
    assert litefs.unheard(site() | {"nodes": []}, "node-0"), "no part of the cluster"


def test_a_copy_that_was_given_up_is_neither_exported_nor_promoted() -> None:
    state = guarded(answers={2: alone(9)})
    plan = deciding.promoted(state, {**ACCEPT, "lost_replicas": [2]}, [], NOW, {"pvc-0": volume()})
    assert plan["export"] == ["abaci-app-1"] and plan["successor"] == 1 and plan["steps"][0]["fenced"] == [0, 2]


def test_a_copy_that_cannot_be_exported_is_named_with_the_word_that_goes_past_it() -> None:
    """The others' exports are there already, and its volume is kept whatever happens."""
    state = guarded(answers={2: alone(5)})
    made = [export(), {"pod": "abaci-app-2", "problem": "it is corrupt."}]
    assert deciding.promoted(state, ACCEPT, made, NOW, {"pvc-0": volume()})["refusal"] is None, (
        "one export of its content is there"
    )
    made = [{"pod": "abaci-app-2", "problem": "it is corrupt."}]
    refusal = deciding.promoted(state, ACCEPT, made, NOW, {"pvc-0": volume()})["refusal"]
    assert "abaci-app-2 could not be exported (it is corrupt)" in refusal and '"promote_lost_replicas": [2]' in refusal
    lost = deciding.promoted(state, {**ACCEPT, "lost_replicas": [2]}, made, NOW, {"pvc-0": volume()})
    assert lost["refusal"] is None and lost["export"] == ["abaci-app-1"]


def test_hazard_only_a_pod_whose_node_was_named_off_is_ended_by_force() -> None:
    """promote_lost_replicas names replicas: it is no word that the old primary's node is off."""
    nodes = [make.kube_node("node-0", ready=False), make.kube_node("node-1"), make.kube_node("node-2", ready=False)]
    pods = [make.pod(0), make.pod(1), make.pod(2)]
    state = begun(EMERGENCY, {2: gone()}, pods=pods, nodes=nodes)
    state["record"]["fenced_ordinals"] = "0,2"
    assert "promote_node_off=node-0" in decide(state, **{"lost_replicas": [0, 2]})["refusal"]
    plan = decide(state, **{"lost_replicas": [2], "node_off": "node-0"})
    stops = {one["ordinal"]: (one["force"], one["wait"]) for one in plan["steps"] if one["do"] == "stop"}
    assert stops == {0: (True, True), 2: (False, False)}


# --- killed while its successor starts ----------------------------------------------------------------------------


def starting(created: str = "2026-01-01T11:59:20Z", pod: Any = None, before: Any = EMERGENCY, **given: Any) -> Any:
    """All is done but that pod 1 is primary; it was made ``created``, after the configuration. No other has less."""
    pods = [make.stopped(0, cases.FENCED), pod or make.pod(1, created=created), make.pod(2)]
    state = begun(before, {1: gone()}, rendered_ordinal=1, rendered_at="2026-01-01T11:59:10Z", pods=pods)
    seen = {"pvc-0": volume(), "pvc-1": volume(A, 5)}
    return decide(state, seen, **{**ACCEPT, **given})


def test_hazard_the_same_command_again_makes_no_second_promote_while_the_successor_starts() -> None:
    plan = starting()
    assert kinds(plan) == ["restart 1", "restart 2", "wait_followers"]
    wait = plan["steps"][0]
    assert wait["primary"] and wait["uid"] is None and wait["say"].startswith("wait until abaci-app-1"), wait
    assert """-e '{"promote_lost_replicas": [1]}'""" in plan["notes"][0]
    given_up = starting(lost_replicas=[1])
    assert kinds(given_up)[0] == "record 2" and given_up["steps"][0]["fenced"] == [0, 1]
    # Killed before it was deleted, or in between: that pod is of another configuration.
    assert starting("2026-01-01T11:59:00Z")["steps"][0]["uid"] == "pod-1"


@pytest.mark.parametrize(
    ("created", "pod"),
    [
        ("2026-01-01T11:40:00Z", None),
        ("", make.stopped(1, make.Said("abaci-app-1 refuses to start: its volume is empty.", cases.Exit.EMPTY))),
    ],
    ids=["for too long", "its guard refuses"],
)
def test_one_that_does_not_start_gives_way_to_another(created: str, pod: Any) -> None:
    if pod is not None:
        pod["metadata"]["creationTimestamp"] = "2026-01-01T11:59:20Z"
    assert kinds(starting(created, pod))[0] == "record 2"


# --- it can be called off -------------------------------------------------------------------------------------------


def test_a_promote_whose_successor_was_never_primary_is_called_off() -> None:
    """litefs.yml first: as long as the record fences the old primary, nobody is primary, and never two are."""
    plan = decide(begun(EMERGENCY, rendered_ordinal=1), call_off=True)
    assert kinds(plan) == ["render 0", "record 0", "restart 0", "wait_followers"]
    back = plan["steps"][1]
    assert (back["fenced"], back["promote"]) == ([], None)
    assert kinds(decide(begun(EMERGENCY, rendered_ordinal=0), call_off=True))[0] == "record 0"
    older = begun(None, rendered_ordinal=1)
    assert kinds(decide(older, call_off=True))[:2] == ["render 0", "record 0"], "of a version that kept no key"
    before = site({0: gone(), 1: alone(5), 2: alone(5)}, pods=[make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)])
    assert kinds(decide(before, call_off=True)) == ["restart 0", "wait_followers"], "killed after the record"
    assert kinds(decide(site(), call_off=True)) == [], "and again"


def test_hazard_a_successor_whose_pod_is_gone_may_have_been_primary() -> None:
    pods = [make.stopped(0, cases.FENCED), make.pod(2)]
    plan = decide(begun(EMERGENCY, pods=pods, rendered_ordinal=1), call_off=True)
    assert plan["steps"] == [] and "abaci-app-1 may have been primary" in plan["refusal"]


def test_a_call_off_does_not_wait_for_a_node_that_is_off() -> None:
    nodes = [make.kube_node("node-0", ready=False), make.kube_node("node-1"), make.kube_node("node-2")]
    plan = decide(begun(EMERGENCY, nodes=nodes), call_off=True)
    assert kinds(plan) == ["record 0"] and plan["unproven"] and "when node node-0 is back" in plan["notes"][0]
    again = decide(dead_node(), call_off=True)
    assert kinds(again) == [] and again["unproven"]


@pytest.mark.parametrize(
    ("answers", "rendered", "words"),
    [
        ({1: make.node(primary=True)}, 1, "abaci-app-1 is primary already"),
        ({1: gone()}, 1, "may have been primary"),
    ],
)
def test_hazard_what_the_successor_acknowledged_is_not_called_off(answers: Any, rendered: int, words: str) -> None:
    refusal = decide(begun(EMERGENCY, answers, rendered_ordinal=rendered), call_off=True)["refusal"]
    assert words in refusal and '"replica_reset_targets": [0]' in refusal and "promote_to=0" in refusal


def test_a_run_that_goes_on_says_when_the_old_primary_came_back_with_more() -> None:
    state = begun(EMERGENCY)
    assert decide(state)["look"] == ["pvc-0"]
    more = decide(state, {"pvc-0": volume(A, 9)})["refusal"]
    assert "4 transactions more than abaci-app-1" in more and "promote_call_off=true" in more
    assert kinds(decide(state, {"pvc-0": volume(A, 9)}, give_up_volume=["pvc-0"]))[0] == "render 1"
    same = decide(state, {"pvc-0": volume(A, 5)})
    assert kinds(same)[0] == "render 1" and "holds nothing more" in same["notes"][0]


# --- a planned move -------------------------------------------------------------------------------------------------


def test_a_planned_move_stops_the_writes_proves_the_last_transaction_and_ends_with_the_old_primary_as_a_replica() -> (
    None
):
    plan = decide(site(), to=2)
    assert kinds(plan) == [
        "record 2",
        "divert 2",
        "wait_pod 2",
        "stop 0",
        "record 2",
        "render 2",
        "restart 2",
        "restart 1",
        "record 2",
        "restart 0",
        "wait_followers",
    ]
    first, proof, last = (one for one in plan["steps"] if one["do"] == "record")
    assert first["fenced"] == [0] and json.loads(first["promote"])["planned"]
    assert json.loads(proof["promote"])["equal"] and (last["fenced"], last["promote"]) == ([], None)
    assert plan["steps"][3]["force"] is False and plan["loss"] is None
    assert kinds(decide(site(), to="0")) == []


def tag(state: dict[str, Any]) -> dict[str, Any]:
    """A site whose new pods pull a tag."""
    state["statefulset"] |= {"image": "registry.test/site:latest", "pulls_anew": True}
    return state


def pulled(state: dict[str, Any], pods: Any, error: str | None = None) -> list[Any]:
    image = state["statefulset"]["image"]
    return [{"image": image, "node": pod["node"], "digest": None, "error": error} for pod in pods]


def test_hazard_a_tag_is_pulled_where_pods_restart_before_the_first_act_of_a_planned_move() -> None:
    assert decide(site(), to=2)["pull"] == []
    state = tag(site())
    for tried in range(3):
        (next_one,) = deciding.decide("promote", state, {"to": 2}, pulled=pulled(state, state["pods"][:tried]))["pull"]
        assert next_one["node"] == state["pods"][tried]["node"]
    well = deciding.decide("promote", state, {"to": 2}, pulled=pulled(state, state["pods"]))
    assert well["pull"] == [] and kinds(well)[0] == "record 2"
    away = pulled(state, state["pods"][:2]) + pulled(state, state["pods"][2:], "connection refused.")
    refused = deciding.decide("promote", state, {"to": 2}, pulled=away)
    assert refused["steps"] == [] and "connection refused" in refused["refusal"]
    assert "playbooks/keel.yml -e keel_action=freeze" in refused["refusal"]
    assert state["pods"][2]["node"] in refused["refusal"]


def test_hazard_a_successor_that_could_not_start_again_is_not_taken_down() -> None:
    state = tag(dead_node())
    given = ACCEPT | {"node_off": "node-0"}
    known = {"exports": [export(), export(B)], "now": NOW, "volumes": {"pvc-0": volume(problem="away")}}
    asked = deciding.decide("promote", state, given, **known)
    successor = state["pods"][1]
    assert asked["pull"] == [{"image": "registry.test/site:latest", "node": successor["node"]}], asked
    tried = pulled(state, [successor], "connection refused")
    refused = deciding.decide("promote", state, given, **known, pulled=tried)
    assert refused["steps"] == [] and refused["refusal"].endswith("(connection refused): see to that first.")


PLANNED = {"from": 0, "fenced": [], "planned": True, "equal": False}


def test_hazard_the_successor_of_a_planned_move_starts_only_with_the_very_last_transaction() -> None:
    state = begun(PLANNED)
    assert decide(state)["look"] == ["pvc-0"]
    assert kinds(decide(state, {"pvc-0": volume(A, 5)}))[:3] == ["record 1", "render 1", "restart 1"]
    for other in (volume(A, 6), volume(B, 5), volume(A, 5, checksum="0" * 16), volume(problem="it cannot be read.")):
        assert "promote_call_off=true gives the role back" in decide(state, {"pvc-0": other})["refusal"], other
    running = begun(PLANNED, {0: make.node(primary=True)}, pods=[make.pod(n) for n in range(3)])
    assert kinds(decide(running))[:3] == ["divert 1", "wait_pod 1", "stop 0"]
    running["routed_ordinal"] = 1
    assert kinds(decide(running))[:2] == ["wait_pod 1", "stop 0"]
    assert kinds(decide(running, call_off=True))[:2] == ["render 0", "record 0"], "writes go to the old one again"
    assert kinds(decide(begun(PLANNED), call_off=True)) == ["record 0", "restart 0", "wait_followers"]
    done = begun(PLANNED | {"equal": True}, {1: make.node(primary=True)}, rendered_ordinal=1)
    assert kinds(decide(done)) == ["restart 2", "record 1", "restart 0", "wait_followers"]


def rolling(**status: Any) -> dict[str, Any]:
    """The controller of StatefulSets has something to do, or has not looked."""
    applied = make.statefulset()
    applied["status"] |= status
    return site(statefulset=applied)


@pytest.mark.parametrize(
    ("state", "to", "words"),
    [
        (site({2: make.node() | {"lag_ms": 9000}}), 2, "does not follow abaci-app-0"),
        (site({2: make.node(txid=9)}), 2, "does not have"),
        (site({2: make.node(B)}), 2, "does not follow"),
        (site(), 7, "not the ordinal of a pod"),
        (site(), "two", "not the ordinal of a pod"),
        (guarded(), 1, "promote_to moves the role of a primary that runs"),
        (rolling(updateRevision="r2"), 1, "is being rolled out"),
        # What it changes it has not said yet.
        (rolling(observedGeneration=3), 1, "is being rolled out"),
    ],
)
def test_a_planned_move_needs_a_primary_that_runs_and_a_replica_at_its_position(
    state: dict[str, Any], to: Any, words: str
) -> None:
    assert words in decide(state, to=to)["refusal"]


def test_where_the_primary_then_stands_in_a_rolling_update_is_said() -> None:
    assert "reaches the primary abaci-app-2 before abaci-app-0" in decide(site(), to=2)["notes"][0]


def moved(cluster: Cluster, **parameters: Any) -> list[str]:
    """Step by step as the role does it, each killed after its act: what was done."""
    living = act.Site(cluster, "abaci", "abaci-app", "sqlite.db", "litefs-data", 20202)
    held = lock.take(lock.render("abaci", "abaci-app"), "me", "promote", 900, cluster.server_time(), alive=True)
    cluster.put(held[0])
    said: list[str] = []
    seen: dict[str, Any] = {}
    for _round in range(20):
        answer = runner.step(living, "me", "promote", planning.Request(parameters, volumes=seen), 20)
        said += answer["did"]
        if answer["done"]:
            return said
        if answer["needs"] == "look":
            for name in answer["plan"]["look"]:
                disk = cluster.disks[name]
                seen[name] = volume(A, disk.txid, checksum=disk.checksum)
    raise AssertionError(said)


def test_the_role_goes_to_another_ordinal_and_back_and_every_pod_follows() -> None:
    cluster = Cluster()
    cluster.put({"kind": "Service", "metadata": {"name": "abaci-app-primary"}, "spec": {"selector": {}}})
    cluster.node(0).write(b"")
    for ordinal in (1, 2):
        cluster.node(ordinal).sync()
    for target in (2, 0):
        moved(cluster, to=target)
        assert [cluster.node(ordinal).primary for ordinal in range(3)] == [n == target for n in range(3)]
        assert all(cluster.node(ordinal).running for ordinal in range(3))
        data = cluster.record()
        assert data["primaryOrdinal"] == str(target) and not {"fencedOrdinals", promote.KEY} & set(data)
    assert moved(cluster, to=0) == []


# --- the archive brings it back ------------------------------------------------------------------------------------


class Fed(Site):  # type: ignore[misc]
    """Its replicas are at ``have``, and the archive has ``last``; a pod that follows the archive has all at once."""

    def __init__(self, folder: Path, have: int, last: int) -> None:
        super().__init__(folder, last)
        self.last = last
        self.put(make.record("recorded", A, ordinal=1, fenced="0"))
        self.node(0).running = False
        for ordinal in (1, 2):
            self.put_at(ordinal, have)
        self.after.append(self.feed)

    def put_at(self, ordinal: int, txid: int) -> None:
        with self.archive.rebuilt(make.A, make.DATABASE, txid, None) as (_path, made):
            self.node(ordinal).txid, self.node(ordinal).checksum = txid, f"{made.checksum:016x}"

    def feed(self, request: Any) -> None:
        """What LiteFS does when it starts while litefs.yml names the archive."""
        if request.method == "DELETE" and request.kind == "Pod" and self.archive_feeds():
            self.put_at(int(request.name.rpartition("-")[2]), self.last)


@pytest.fixture
def fed_site(tmp_path: Path) -> Iterator[Fed]:
    made = Fed(tmp_path, 5, 9)
    yield made
    made.close()


def test_left_alone_a_successor_that_never_answered_is_primary_and_the_others_follow(
    fed_site: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(act.time, "sleep", lambda _seconds: None)
    site = act.Site(fed_site, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)
    site.write_record({promote.KEY: json.dumps(BRINGING | {"also": {"other": f"{7:016x}"}})})
    fed_site.put({"kind": "Service", "metadata": {"name": "abaci-app-primary"}, "spec": {"selector": {}}})
    site.feed(1)
    fed_site.node(1).running = False
    old = (fed_site.have("PersistentVolumeClaim", "litefs-data-abaci-app-0") or {})["spec"]["volumeName"]
    did = moved(fed_site, from_archive=False, accept_loss_after=f"{5:016x}", give_up_volume=[old])
    assert [one.primary for one in map(fed_site.node, range(3))] == [False, True, False] and fed_site.node(2).running
    assert json.loads(fed_site.record()[promote.KEY])["archive"] == "" and identity.GIVEN_UP in fed_site.record()
    assert len([one for one in did if "restart abaci-app-1" in one]) == 1


def bring(api: Fed, monkeypatch: pytest.MonkeyPatch, seconds: int = 2) -> str:
    monkeypatch.setattr(act.time, "sleep", lambda _seconds: None)
    where = act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202, 1)
    uid = (api.have("Pod", "abaci-app-1") or {})["metadata"]["uid"]
    step = planning.step("bring_back", "", ordinal=1, pod="abaci-app-1", uid=uid, cluster_id=A)
    return deciding.do(where, step, seconds=seconds, state=where.look())


def test_a_pod_follows_the_archive_until_it_lacks_nothing(fed_site: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (fed_site.have("Pod", "abaci-app-1") or {})["metadata"]["uid"]
    assert f"sqlite.db is at TXID {9:016x}" in bring(fed_site, monkeypatch)
    after = (fed_site.have("Pod", "abaci-app-1") or {})["metadata"]["uid"]
    text = (fed_site.have("ConfigMap", "abaci-app-litefs") or {})["data"]["litefs.yml"]
    assert after != before and "hostname: abaci-app-archive-1" in text
    assert "advertise-url: http://abaci-app-archive.abaci.svc.cluster.local:9104" in text
    # Once more, as after a run that was killed: nothing is restarted.
    bring(fed_site, monkeypatch)
    assert (fed_site.have("Pod", "abaci-app-1") or {})["metadata"]["uid"] == after


@pytest.mark.parametrize("refused", [False, True], ids=["no answer", "refused"])
def test_another_database_is_waited_for_unless_the_archive_refuses_it(
    fed_site: Fed, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    fed_site.archive.store.receive(make.A, "other.db", ltx_files.primary(fed_site.folder / "other")[1][0])
    asked = from_archive.lacking

    def lacking(archive: Any, cluster: str, database: str, at: str) -> planning.More:
        if database == "other.db":
            return {"problem": "It is away.", "refused": refused}
        return asked(archive, cluster, database, at)

    monkeypatch.setattr(from_archive, "lacking", lacking)
    with contextlib.nullcontext() if refused else pytest.raises(act.NotDone, match="It is away"):
        bring(fed_site, monkeypatch)
    # The guard asks the archive as well, and would not let the pod start.
    assert (identity.GIVEN_UP in (fed_site.have("ConfigMap", "abaci-app-litefs-identity") or {})["data"]) == refused


def test_what_keeps_the_pod_from_having_it_all_is_said(fed_site: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    fed_site.last = 7
    with pytest.raises(act.NotDone, match=r"abaci-app-1 lacks 2 transactions of sqlite\.db"):
        bring(fed_site, monkeypatch)
