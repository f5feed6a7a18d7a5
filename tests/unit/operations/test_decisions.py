"""Refuse or act: what each operation decides on each state of a site. A row is one case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cases
import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, planning, runner, situation
from cases import NOW, A, B, alone, dead_node, destructive, export, file, gone, guarded, site

Case = tuple[str, dict[str, Any], Any, str | None, list[str]]

# What an operation has to be given, for the tests that try each of the table.
ASKED: dict[str, dict[str, Any]] = {
    "scale": {"replicas": 3},
    "replica_reset": {"targets": "mismatched"},
    "rollout": {"order": "primary_last"},
}

TWO_PRIMARIES = site({1: make.node(primary=True)})
FOREIGN_PRIMARY = site({0: make.node(B, txid=1, primary=True), 1: alone(5), 2: alone(5)})
LOST_ID_ONLY = site({0: make.node(B, txid=5, primary=True), 1: alone(5), 2: alone(5)})
SEED = site({1: make.node(B, txid=9, never_synced=True), 2: make.node(B, txid=9, never_synced=True)})
REPLICA_AHEAD = site({1: make.node(txid=9)})
BOOTSTRAP = site(record=make.record("bootstrap"))
NO_RECORD = site(record=None)
DAMAGED = site(record=make.record("recorded", "LFSC-too-short"))
ROLLING = site(
    statefulset=make.statefulset()
    | {"status": {"observedGeneration": 4, "currentRevision": "r1", "updateRevision": "r2"}}
)
NOTHING = make.document(gathered_at=NOW)

RESET: list[Case] = [
    # name, state, targets, words of the refusal (None: it acts), the steps' kinds in order
    (
        "the seed's case: replicas 1 and 2 both mismatched, in one command",
        SEED,
        "mismatched",
        None,
        ["delete_claim 1", "delete_pod 1", "delete_claim 2", "delete_pod 2"],
    ),
    ("one of two is mismatched", site({2: make.node(B)}), "mismatched", None, ["delete_claim 2", "delete_pod 2"]),
    ("a list names one", SEED, [2], None, ["delete_claim 2", "delete_pod 2"]),
    ("a list from the command line is text", SEED, ["2"], None, ["delete_claim 2", "delete_pod 2"]),
    ("nothing is mismatched", site(), "mismatched", None, []),
    ("a list names a healthy one", site(), [1, 2], None, []),
    (
        "a replica that cannot apply",
        site({2: gone()}),
        [2],
        None,
        ["delete_claim 2", "delete_pod 2"],
    ),
    (
        "its pod never joined any cluster",
        site({2: make.node(None, database=None)}),
        [2],
        None,
        ["delete_claim 2", "delete_pod 2"],
    ),
    (
        "a volume that would go with its claim is kept first",
        site({1: make.node(B)}, volumes=[make.volume(0), make.volume(1, policy="Delete"), make.volume(2)]),
        [1],
        None,
        ["retain", "delete_claim 1", "delete_pod 1"],
    ),
    (
        "the claim is being deleted already: a run died between claim and pod",
        site({1: make.node(B)}, claims=[make.claim(0), make.claim(1, deletionTimestamp="x"), make.claim(2)]),
        "mismatched",
        None,
        ["delete_pod 1"],
    ),
    (
        "pod-0 is stopped by the guard",
        guarded(),
        "mismatched",
        r"primary-volume-empty No running primary holds .* volume is new",
        [],
    ),
    ("pod-0 is stopped, nothing is mismatched", guarded(), [1], "primary-volume-empty No running primary holds", []),
    (
        "pod-0 is stopped and the replicas are named",
        guarded(answers={1: alone(5, B), 2: alone(5, B)}),
        [1, 2],
        "primary-volume-empty No running primary holds",
        [],
    ),
    (
        "only the id is missing on the volume of the stopped pod",
        guarded(cases.NO_ID),
        [1],
        "cluster-id-missing .*only its cluster id",
        [],
    ),
    ("the volume of the stopped pod is older", guarded(cases.OLDER), [1], "older-volume .*older copy", []),
    (
        "an empty primary runs under a new id",
        FOREIGN_PRIMARY,
        "mismatched",
        "primary-volume-empty .*reset no replica",
        [],
    ),
    ("an empty primary runs, replicas named", FOREIGN_PRIMARY, [1, 2], "primary-volume-empty .*last good copies", []),
    (
        "the primary runs, only its id is new",
        LOST_ID_ONLY,
        "mismatched",
        "cluster-id-missing .*lost only its cluster id",
        [],
    ),
    ("a replica is ahead of the primary", REPLICA_AHEAD, [1], "older-volume .*behind abaci-app-1", []),
    ("a replica is ahead, the other is named", REPLICA_AHEAD, [2], "older-volume .*behind abaci-app-1", []),
    ("two primaries", TWO_PRIMARIES, [2], "two-primaries .*split brain", []),
    ("the primary's node is gone", dead_node(), [1], "primary-node-gone .*node node-0, which is not ready", []),
    ("the primary is named", SEED, [0], "abaci-app-0 is the primary", []),
    ("the primary is among those named", SEED, [0, 1, 2], "abaci-app-0 is the primary", []),
    (
        "the primary is ordinal 1 after a promote, and is named",
        site(
            {0: make.node(B), 1: make.node(primary=True), 2: make.node()},
            record=make.record("recorded", A, ordinal=1),
        ),
        [1],
        "abaci-app-1 is the primary",
        [],
    ),
    (
        "after a promote the old ordinal 0 is a replica like any other",
        site(
            {0: make.node(B), 1: make.node(primary=True), 2: make.node()},
            record=make.record("recorded", A, ordinal=1),
        ),
        "mismatched",
        None,
        ["delete_claim 0", "delete_pod 0"],
    ),
    ("no record", NO_RECORD, "mismatched", "no ConfigMap abaci/abaci-app-litefs-identity", []),
    ("the record says bootstrap", BOOTSTRAP, "mismatched", "says bootstrap", []),
    ("the record is damaged", DAMAGED, "mismatched", "no LiteFS cluster id", []),
    ("nothing exists", NOTHING, "mismatched", "There is no StatefulSet", []),
    ("no such pod", SEED, [3], "there is no such pod", []),
    ("a word that is not known", SEED, "all", "set it to mismatched", []),
    ("a list as text, as -e gives it", SEED, "[2]", None, ["delete_claim 2", "delete_pod 2"]),
    ("a list as text, with the primary", SEED, "[0,1]", "abaci-app-0 is the primary", []),
    ("a list as text, with a word", SEED, "[1, all]", "set it to mismatched", []),
    ("an empty list", SEED, [], "set it to mismatched", []),
    ("an empty list as text", SEED, "[]", "set it to mismatched", []),
    ("a negative ordinal", SEED, [-1], "set it to mismatched", []),
    ("true is not an ordinal", SEED, [True], "set it to mismatched", []),
    (
        "the primary has no database",
        site({0: make.node(primary=True, database=None), 1: make.node(B)}),
        "mismatched",
        "primary-volume-empty .*does not have the database",
        [],
    ),
    (
        "the volume is not to be seen",
        site({1: make.node(B)}, volumes=[make.volume(0), make.volume(2)]),
        [1],
        "not to be seen in the API",
        [],
    ),
]


def check(plan: Mapping[str, Any], refusal: str | None, steps: list[str]) -> None:
    if refusal is not None:
        cause, _, words = refusal.partition(" ") if refusal.split()[0] in planning.CAUSES else ("", "", refusal)
        assert plan["refusal"], f"it would act: {plan['steps']}"
        assert plan["steps"] == []
        pattern = words if cause else refusal
        import re

        assert re.search(pattern, plan["refusal"]), plan["refusal"]
        assert not cause or plan["cause"] == cause, (plan["cause"], plan["refusal"])
        assert plan["refusal"].endswith("."), plan["refusal"]
        return
    assert plan["refusal"] is None, plan["refusal"]
    done = [
        f"{step['do']} {step['ordinal']}" if "ordinal" in step and step["do"] != "wait_pod" else step["do"]
        for step in plan["steps"]
        if not step["do"].startswith("wait_")
    ]
    assert done == steps
    # Every plan that acts ends with a look at whether it worked.
    assert not plan["steps"] or plan["steps"][-1]["do"].startswith("wait_")


@pytest.mark.parametrize(("name", "state", "targets", "refusal", "steps"), RESET, ids=[case[0] for case in RESET])
def test_replica_reset(name: str, state: dict[str, Any], targets: Any, refusal: str | None, steps: list[str]) -> None:
    plan = deciding.reset(state, targets, [export(txid=9), export(B, txid=9)], now=NOW)
    check(plan, refusal, steps)


def test_replica_reset_waits_for_no_other_replica_that_could_not_follow_before() -> None:
    def reset(other: dict[str, Any]) -> tuple[list[int], str]:
        plan = deciding.reset(site({1: make.node(B), 2: other}), [1], [export(txid=9), export(B, txid=9)], now=NOW)
        assert plan["refusal"] is None, plan["refusal"]
        return plan["steps"][-1]["without"], " ".join(plan["notes"])

    without, notes = reset(gone())
    assert (
        without == [2]
        and "abaci-app-2 does not answer" in notes
        and "nobody waits for it, and its volume stays" in notes
    )
    without, notes = reset(make.node(B))
    assert without == [2] and "abaci-app-2 holds the cluster" in notes and "none of the targets" in notes
    assert reset(make.node()) == ([], reset(make.node())[1])


def test_hazard_replica_reset_takes_no_replica_away_for_one_that_could_not_be_pulled() -> None:
    state = site({2: make.node(B)})
    state["statefulset"] |= {"image": "registry.test/site:latest", "pulls_anew": True}
    given = {"targets": [2], "lost_volumes": [], "node_off": ""}
    (asked,) = deciding.decide("replica_reset", state, given, exports=[export(), export(B)], now=NOW)["pull"]
    assert asked["node"] == state["pods"][2]["node"]
    tried = [{**asked, "digest": None, "error": "connection refused"}]
    plan = deciding.decide("replica_reset", state, given, exports=[export(), export(B)], now=NOW, pulled=tried)
    assert plan["steps"] == [] and "connection refused" in plan["refusal"]


def test_replica_reset_asks_for_exports_before_its_first_step() -> None:
    """Of the primary's cluster, and of each copy of another cluster that is about to be put aside."""
    assert deciding.reset(SEED, "mismatched", [], now=NOW)["export"] == [
        "abaci-app-0",
        "abaci-app-1",
        "abaci-app-2",
    ]
    assert deciding.reset(SEED, "mismatched", [export()], now=NOW)["export"] == ["abaci-app-1", "abaci-app-2"]
    fresh = [export(), export(B, txid=9)]
    assert deciding.reset(SEED, "mismatched", fresh, now=NOW)["export"] == []
    assert deciding.reset(site(), "mismatched", [], now=NOW)["export"] == [], "nothing to do needs no export"


@pytest.mark.parametrize(
    "stale",
    [
        export(time="2026-01-01T11:30:00Z"),
        export(time="2026-01-01T12:30:00Z"),
        export(time="yesterday"),
        export(B),
        export(verified=False),
        export(verified="yes"),
        export(database="other.db"),
        export(txid=5) | {"txid": "unknown"},
        {},
    ],
    ids=[
        "old",
        "of the future",
        "no time",
        "foreign",
        "unverified",
        "said so",
        "other db",
        "no txid",
        "empty",
    ],
)
def test_hazard_what_is_no_fresh_export_does_not_count_as_one(stale: dict[str, Any]) -> None:
    plan = deciding.reset(site({1: make.node(B), 2: make.node()}), [1], [stale, export(B)], now=NOW)
    assert plan["export"], stale


@pytest.mark.parametrize("txid", [1, 4])
def test_hazard_while_clients_write_an_export_never_has_the_last_transaction(txid: int) -> None:
    """Asked for again at each step, it would fill the disk and never come to the reset."""
    made = [export(txid=txid), export(B, txid=9)]
    assert deciding.reset(SEED, "mismatched", made, now=NOW)["export"] == []
    assert deciding.scaled(site(), 2, True, made, {}, NOW)["export"] == []


def test_a_replica_that_was_re_seeded_by_a_run_that_died_is_not_re_seeded_again() -> None:
    begun = deciding.replaced(SEED, [1, 2])
    assert begun == {"claims": {"1": "claim-1", "2": "claim-2"}}
    claims = [make.claim(0), make.claim(1, uid="new"), make.claim(2)]
    arriving = site(
        {1: make.node(None, database=None, never_synced=True), 2: make.node(B)},
        claims=claims,
        volumes=[make.volume(0), make.volume(1, claim_uid="new"), make.volume(2)],
    )
    plan = deciding.reset(arriving, [1, 2], [export(), export(B)], begun, NOW)
    assert [(step["do"], step.get("ordinal")) for step in plan["steps"]] == [
        ("wait_pod", 1),
        ("delete_claim", 2),
        ("delete_pod", 2),
        ("wait_pod", 2),
        ("wait_replicated", None),
    ]


def test_hazard_an_old_primary_is_fenced_until_its_old_volume_can_not_start_any_more() -> None:
    """Let go before its pod was gone, the guard's next try would start LiteFS on it, and its tail were lost."""
    record = make.record("recorded", A, ordinal=1)
    leads = {0: gone(), 1: make.node(primary=True)}
    pods = [make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)]
    state = site(leads, record=record, fenced="0", pods=pods, rendered_ordinal=1)
    saved = [export(), export(verified=True, volume_of=0, position_proven=True)]

    def kinds(state: dict[str, Any], checkpoint: dict[str, Any]) -> list[str]:
        plan = deciding.reset(state, [0], saved, checkpoint, NOW)
        assert plan["refusal"] is None and plan["volume_export"] == []
        return [step["do"] for step in plan["steps"]]

    checkpoint = deciding.replaced(state, [0])
    act = ["delete_pod", "wait_claim", "release", "wait_pod", "wait_replicated"]
    assert kinds(state, checkpoint) == ["delete_claim", *act]
    going = [make.claim(0, deletionTimestamp="x"), make.claim(1), make.claim(2)]
    assert kinds(site(leads, record=record, fenced="0", pods=pods, claims=going), checkpoint) == act
    renewed = {
        "claims": [make.claim(0, uid="new"), make.claim(1), make.claim(2)],
        "volumes": [make.volume(0, claim_uid="new"), make.volume(1), make.volume(2)],
    }
    assert kinds(site(leads, record=record, fenced="0", pods=pods, **renewed), checkpoint) == act[2:]
    follows = {**leads, 0: make.node()}
    assert kinds(site(follows, record=record, fenced="0", **renewed), checkpoint) == act[2:]
    assert kinds(site(follows, record=record, **renewed), checkpoint) == []


AHEAD = make.Said(
    f"abaci-app-2 is fenced: its volume ends at TXID {9:016x} of sqlite.db, and the primary at 10.0.0.1 has TXID "
    f"{5:016x} with other content; playbooks/replica_reset.yml -e replica_reset_targets=[2] exports it and "
    "re-seeds it. Nothing was changed.",
    cases.Exit.AHEAD,
)


def test_a_replica_that_its_guard_holds_for_what_only_it_has_is_exported_before_it_is_re_seeded() -> None:
    pods = [make.pod(0), make.pod(1), make.stopped(2, AHEAD)]
    state = site({2: gone()}, pods=pods)
    plan = deciding.reset(state, [2], [export()], deciding.replaced(state, [2]), NOW)
    assert plan["refusal"] is None and plan["volume_export"] == [2]
    saved = [export(), export(verified=True, volume_of=2, position_proven=True)]
    plan = deciding.reset(state, [2], saved, deciding.replaced(state, [2]), NOW)
    assert plan["volume_export"] == []
    assert [one["do"] for one in plan["steps"]][:2] == ["delete_claim", "delete_pod"]


@pytest.mark.parametrize("time", ["2026-01-01T12:30:00Z", "yesterday", None])
def test_hazard_a_volumes_export_that_is_not_of_a_time_before_now_does_not_count(time: str | None) -> None:
    state = site({2: gone()}, pods=[make.pod(0), make.pod(1), make.stopped(2, AHEAD)])
    saved = [export(), export(volume_of=2, position_proven=True, time=time)]
    assert deciding.reset(state, [2], saved, deciding.replaced(state, [2]), NOW)["volume_export"] == [2]


def test_a_guard_that_tries_again_by_itself_is_waited_for_and_nothing_is_advised_against_the_data() -> None:
    said = (
        "abaci-app-0 refuses to start as primary: the record ConfigMap abaci-app-litefs-identity says that ordinal 0 "
        "is the primary, and litefs.yml names '1 1 ' (candidate and hostname): let playbooks/promote.yml finish, or "
        "run site.yml; it tries again by itself. Nothing was changed. What to do: docs/runbooks/primary-refused.md"
    )
    plan = deciding.reset(guarded(said), [1], [], {}, NOW)
    assert "let playbooks/promote.yml finish, or run site.yml; it tries again by itself." in plan["refusal"]
    assert "kept volume" not in plan["refusal"]


SCALE: list[tuple[str, dict[str, Any], Any, bool, str | None, list[str]]] = [
    ("up by two, one at a time", site(), 5, False, None, ["scale", "scale"]),
    ("to what it is", site(), 3, False, None, []),
    ("as text", site(), "4", False, None, ["scale"]),
    ("down keeps the volumes", site(), 2, False, None, ["scale"]),
    ("down to the primary alone", site(), 1, False, None, ["scale"]),
    ("0", site(), 0, False, "scale_replicas is 0", []),
    ("negative", site(), -1, False, "whole number", []),
    ("no number", site(), "three", False, "whole number", []),
    ("true", site(), True, False, "whole number", []),
    (
        "below the primary's ordinal",
        site(
            {0: make.node(), 1: make.node(), 2: make.node(primary=True)},
            record=make.record("recorded", A, ordinal=2),
        ),
        2,
        False,
        "the primary is abaci-app-2",
        [],
    ),
    ("up while the guard holds pod-0", guarded(), 5, False, "primary-volume-empty No running primary", []),
    ("down while the guard holds pod-0", guarded(), 1, False, "primary-volume-empty No running primary", []),
    ("down while an empty primary runs", FOREIGN_PRIMARY, 1, False, "primary-volume-empty .*delete nothing", []),
    ("down would stop the best copy", site({2: make.node(txid=9)}), 2, False, "older-volume .*does not have", []),
    ("two primaries", TWO_PRIMARIES, 1, False, "two-primaries split brain", []),
    ("Keel is rolling it out", ROLLING, 4, False, "is being rolled out", []),
    ("rolling, and nothing to do", ROLLING, 3, False, None, []),
    (
        "up while a replica is mismatched",
        site({2: make.node(B)}),
        4,
        False,
        "replica-of-another-cluster replica_reset",
        [],
    ),
    ("down takes a mismatched replica away and keeps its volume", site({2: make.node(B)}), 2, False, None, ["scale"]),
    ("down with its volume", site(), 2, True, None, ["scale", "delete_claim 2", "remove_volume"]),
    ("down with the volume of a mismatched one", site({2: make.node(B)}), 2, True, "not the recorded", []),
    ("down with the volume of a silent one", site({2: gone()}), 2, True, "does not answer", []),
    (
        "down with the volume of a diverged one",
        site({2: make.node(checksum="bad0000000000005")}),
        2,
        True,
        "another checksum",
        [],
    ),
    ("no record", NO_RECORD, 2, False, "no ConfigMap", []),
    ("nothing exists", NOTHING, 3, False, "There is no StatefulSet", []),
    (
        "below the recorded ordinal, whatever runs",
        site({1: make.node(primary=True), 0: make.node()}, record=make.record("recorded", A, ordinal=1)),
        1,
        False,
        "the primary is abaci-app-1",
        [],
    ),
]


@pytest.mark.parametrize(
    ("name", "state", "replicas", "remove", "refusal", "steps"), SCALE, ids=[case[0] for case in SCALE]
)
def test_scale(
    name: str, state: dict[str, Any], replicas: Any, remove: bool, refusal: str | None, steps: list[str]
) -> None:
    number = int(replicas) if str(replicas).isdigit() else 0
    checkpoint = deciding.proven(state, number, remove)
    plan = deciding.scaled(state, replicas, remove, [export()], checkpoint, NOW)
    check(plan, refusal, steps)


def test_scale_up_proves_each_replica_before_the_next() -> None:
    plan = deciding.scaled(site(), 5, now=NOW)
    assert [(step["do"], step.get("replicas", step.get("ordinal"))) for step in plan["steps"]] == [
        ("wait_replicated", None),
        ("scale", 4),
        ("wait_pod", 3),
        ("scale", 5),
        ("wait_pod", 4),
        ("wait_replicated", None),
    ]


_RE_SEED = "re-seed it with playbooks/replica_reset.yml -e 'replica_reset_targets=[2]'"
_NO_ROOM = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node fits"}]


def _waiting(reason: str, message: str | None) -> dict[str, Any]:
    """The pod of ordinal 2, whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return make.pod(2, containerStatuses=[{"name": "app", "restartCount": 0, "state": state}])


@pytest.mark.parametrize(
    ("pod", "fenced", "why"),
    [
        (
            make.stopped(2, cases.FENCED),
            "2",
            f"abaci-app-2 is fenced as an old primary: {_RE_SEED}, which exports it first.",
        ),
        (
            make.stopped(2, make.Said("its owner is 0", cases.Exit.UNREADABLE)),
            "",
            f"abaci-app-2 does not start (its owner is 0): {_RE_SEED}.",
        ),
        (make.stopped(2, make.Said("no pod answers", cases.Exit.NOT_NOW)), "", None),
        (make.stopped(2, make.Said("it is ahead", cases.Exit.AHEAD)), "", None),
        (
            make.pod(2, phase="Pending", conditions=_NO_ROOM),
            "",
            "abaci-app-2 cannot be placed (no node fits): make what it lacks available, which kubectl -n abaci "
            "describe pod abaci-app-2 says.",
        ),
        (
            _waiting("ImagePullBackOff", "no such image"),
            "",
            "abaci-app-2 does not start (no such image): correct app_image and app_guard_image and run site.yml "
            "--tags app.",
        ),
        (
            _waiting("CreateContainerConfigError", 'secret "app-env" not found'),
            "",
            'abaci-app-2 does not start (secret "app-env" not found): run site.yml --tags app, which makes what its '
            "containers are given.",
        ),
        (
            _waiting("CrashLoopBackOff", "transaction does not match LTX post-apply checksum"),
            "",
            f"abaci-app-2 does not start (transaction does not match LTX post-apply checksum): {_RE_SEED}.",
        ),
        (
            _waiting("CrashLoopBackOff", "no space left on device"),
            "",
            "abaci-app-2 does not start (no space left on device): make room on node node-2, with k3s crictl rmi "
            "--prune there.",
        ),
        (
            _waiting("CrashLoopBackOff", "back-off 5m0s"),
            "",
            "abaci-app-2 does not start (back-off 5m0s): heal what its last words name, which kubectl -n abaci logs "
            "abaci-app-2 -c app --previous shows.",
        ),
        (_waiting("PodInitializing", None), "", None),
    ],
    ids=[
        *("an old primary", "held by its guard", "looks again", "ahead", "no room", "no image", "no secret"),
        *("does not apply", "a full disk", "ends for another reason", "only starts"),
    ],
)
@pytest.mark.parametrize("replicas", [3, 5])
def test_scale_waits_for_nobody_that_could_not_follow_before(
    pod: dict[str, Any], fenced: str, why: str | None, replicas: int
) -> None:
    pods = [make.pod(0), make.pod(1), pod, *([make.pod(3)] if replicas == 3 else [])]
    count = len(pods)
    state = site({2: gone()}, pods=pods, statefulset=make.statefulset(replicas=count), fenced=fenced)
    plan = deciding.scaled(state, replicas, now=NOW, lost_replicas=[2])
    assert plan["refusal"] is None
    waits = [step["without"] for step in plan["steps"] if step["do"] == "wait_replicated"]
    assert waits == [[2] if why else []] * (1 if replicas == 3 else 2)
    assert [note for note in plan["notes"] if "waited for" in note] == (
        [f"{why} It is left out of all that is waited for."] if why else []
    )
    # What is advised is not refused.
    if _RE_SEED in str(why):
        assert deciding.reset(state, "[2]", [export()], now=NOW)["refusal"] is None


def test_a_pod_whose_volume_is_on_a_node_that_takes_none_is_told_by_that_node() -> None:
    pods = [make.pod(0), make.pod(1), make.pod(2, phase="Pending", conditions=_NO_ROOM)]
    del pods[2]["spec"]["nodeName"]

    def said(*more: dict[str, Any]) -> str:
        nodes = [make.kube_node("node-0"), make.kube_node("node-1"), *more]
        state = site({2: gone()}, pods=pods, nodes=nodes)
        found = situation.look(state)
        assert isinstance(found, situation.Situation)
        return situation.cannot_follow(state, found)[2]

    cordoned = said(make.kube_node("node-2", unschedulable=True))
    assert cordoned.endswith("its volume is on node node-2, which takes no pods: kubectl uncordon node-2.")
    assert """"replica_reset_node_off": "node-2"}'.""" in said(make.kube_node("node-2", ready=False))
    assert """"replica_reset_node_off": "node-2"}'.""" in said()


def test_hazard_a_kept_volume_that_is_newer_than_the_primary_is_not_started() -> None:
    state = site(pods=[make.pod(0)], statefulset=make.statefulset(replicas=1))
    assert deciding.scaled(state, 2, now=NOW)["look"] == ["pvc-1"]

    def refusal(found: dict[str, Any]) -> str:
        plan = deciding.scaled(state, 2, now=NOW, volumes={"pvc-1": found})
        assert plan["look"] == [] and (plan["refusal"] is None) == bool(plan["steps"])
        return str(plan["refusal"] or "")

    assert "Volume pvc-1 of litefs-data-abaci-app-1 holds TXID 0000000000000064" in refusal(held(A, f"{100:016x}"))
    assert "would be overwritten" in refusal(held(None, f"{100:016x}")), "it may have lost only its id"
    assert "cannot be read, and it may hold more" in refusal(held(None, problem="volume pvc-1 cannot be read."))
    assert not refusal(held(A, f"{5:016x}")) and not refusal(held(B, f"{100:016x}")) and not refusal(held(None))


def test_removal_of_a_volume_needs_the_proof_that_was_taken_while_its_pod_ran() -> None:
    kept = [make.claim(ordinal) for ordinal in range(3)]
    volumes = [make.volume(ordinal) for ordinal in range(3)]
    scaled = site(
        pods=[make.pod(0), make.pod(1)], claims=kept, volumes=volumes, statefulset=make.statefulset(replicas=2)
    )
    without = deciding.scaled(scaled, 2, True, [export()], {}, NOW)
    assert destructive(without) == [] and "nothing proves" in without["notes"][0]
    checkpoint = deciding.proven(site(), 2, True)
    assert checkpoint == {"volumes": {"2": {"claim": "litefs-data-abaci-app-2", "uid": "claim-2", "volume": "pvc-2"}}}
    assert destructive(deciding.scaled(scaled, 2, True, [export()], checkpoint, NOW)) == [
        ("delete_claim", 2),
        ("remove_volume", "pvc-2"),
    ]
    other = site(
        pods=[make.pod(0), make.pod(1)],
        claims=[make.claim(0), make.claim(1), make.claim(2, uid="other")],
        volumes=[make.volume(0), make.volume(1), make.volume(2, claim_uid="other")],
        statefulset=make.statefulset(replicas=2),
    )
    assert destructive(deciding.scaled(other, 2, True, [export()], checkpoint, NOW)) == [], (
        "a claim that came since stays"
    )
    gone_again = site(
        pods=[make.pod(0), make.pod(1)],
        claims=[make.claim(0), make.claim(1)],
        volumes=[make.volume(0), make.volume(1), make.volume(2, claim_uid="other")],
        statefulset=make.statefulset(replicas=2),
    )
    assert destructive(deciding.scaled(gone_again, 2, True, [export()], checkpoint, NOW)) == [], (
        "another claim had the volume since, and may have written to it"
    )
    assert deciding.scaled(site(), 2, True, [], checkpoint, NOW)["export"] == ["abaci-app-2"]


FIGURE = f"{5:016x}"
FORCED = dead_node(pods=[cases.homeless(0), make.pod(1), make.pod(2)])
ACCEPT = {"accept_loss_after": FIGURE}
PROMOTE: list[tuple[str, dict[str, Any], dict[str, Any], str | None, list[str]]] = [
    (
        "the volume is lost, the figure is asked for",
        guarded(),
        {},
        f"primary-volume-empty promote_accept_loss_after={FIGURE}",
        [],
    ),
    ("a wrong figure", guarded(), {"accept_loss_after": f"{4:016x}"}, "primary-volume-empty is 0000000000000004", []),
    (
        "yes is no figure",
        guarded(),
        {"accept_loss_after": "yes"},
        "primary-volume-empty promote_accept_loss_after=",
        [],
    ),
    (
        "the volume is lost and the loss accepted",
        guarded(),
        ACCEPT,
        None,
        ["record", "stop 0", "render 1", "restart 1", "restart 2"],
    ),
    (
        "the highest position is taken",
        guarded(answers={1: alone(4), 2: alone(5)}),
        ACCEPT,
        None,
        ["record", "stop 0", "render 2", "restart 2", "restart 1"],
    ),
    (
        "a successor that is not the best",
        guarded(answers={1: alone(4), 2: alone(5)}),
        {**ACCEPT, "successor": 1},
        "throw transactions away",
        [],
    ),
    (
        "a successor among equals",
        guarded(),
        {**ACCEPT, "successor": "2"},
        None,
        ["record", "stop 0", "render 2", "restart 2", "restart 1"],
    ),
    ("a healthy primary", site(), ACCEPT, "nothing to promote", []),
    ("two primaries", TWO_PRIMARIES, ACCEPT, "two-primaries each say", []),
    (
        "the node is away and nobody said that it is off",
        dead_node(),
        ACCEPT,
        "primary-node-gone promote_node_off=node-0",
        [],
    ),
    (
        "another node was named",
        dead_node(),
        {**ACCEPT, "node_off": "node-1"},
        "primary-node-gone promote_node_off=node-0",
        [],
    ),
    (
        "the node is off",
        dead_node(),
        {**ACCEPT, "node_off": "node-0"},
        None,
        ["record", "stop 0", "render 1", "restart 1", "restart 2"],
    ),
    (
        "its pod was deleted by force, so it may still run",
        FORCED,
        ACCEPT,
        "primary-node-gone promote_node_off=node-0",
        [],
    ),
    (
        "deleted by force, and the node is off",
        FORCED,
        {**ACCEPT, "node_off": "node-0"},
        None,
        ["record", "stop 0", "render 1", "restart 1", "restart 2"],
    ),
    (
        "a replica has no pod, and its volume may have more",
        guarded(pods=[make.stopped(0, cases.LOST), make.pod(1)]),
        ACCEPT,
        "replica-away abaci-app-2 is not there while its claim is",
        [],
    ),
    (
        "the recorded primary answers, as no primary, and has the most",
        site({0: alone(9), 1: alone(5), 2: alone(5)}),
        ACCEPT,
        "older-volume abaci-app-0 answers, though not as primary",
        [],
    ),
    (
        "a node is named that is up",
        guarded(),
        {**ACCEPT, "node_off": "node-1"},
        "primary-node-gone leave the variable out",
        [],
    ),
    (
        "no replica holds the recorded cluster",
        guarded(answers={1: alone(5, B), 2: alone(5, B)}),
        ACCEPT,
        "no-copy-left kept volume",
        [],
    ),
    ("no replica answers", guarded(answers={1: gone(), 2: gone()}), ACCEPT, "no-copy-left restore.yml", []),
    (
        "one replica does not answer and may have more",
        guarded(answers={2: gone()}),
        ACCEPT,
        "replica-away may have more",
        [],
    ),
    (
        "it is given up",
        guarded(answers={2: gone()}),
        {**ACCEPT, "lost_replicas": [2]},
        None,
        ["record", "stop 0", "stop 2", "render 1", "restart 1"],
    ),
    (
        "two histories at one TXID",
        guarded(answers={2: alone(5, checksum="bad0000000000005")}),
        ACCEPT,
        "two-primaries two histories",
        [],
    ),
    (
        "an empty primary runs; it is stopped and the guard holds it",
        FOREIGN_PRIMARY,
        ACCEPT,
        None,
        ["record", "stop 0", "render 1", "restart 1", "restart 2"],
    ),
    ("no record", NO_RECORD | {"record": None}, ACCEPT, "records no cluster", []),
    ("bootstrap", BOOTSTRAP, ACCEPT, "records no cluster", []),
    ("nothing exists", NOTHING, ACCEPT, "There is no StatefulSet", []),
    (
        "a stranger says that it is primary",
        site({0: gone(), 1: make.node(B, primary=True), 2: alone(5)}),
        ACCEPT,
        "two-primaries neither the recorded primary",
        [],
    ),
]


@pytest.mark.parametrize(
    ("name", "state", "parameters", "refusal", "steps"), PROMOTE, ids=[case[0] for case in PROMOTE]
)
def test_promote(
    name: str, state: dict[str, Any], parameters: dict[str, Any], refusal: str | None, steps: list[str]
) -> None:
    plan = deciding.promoted(state, parameters, [export(), export(B)], NOW, nothing_in(state))
    check(plan, refusal, steps)


def nothing_in(state: dict[str, Any]) -> dict[str, Any]:
    """Every volume was looked into, and holds nothing."""
    return {volume["name"]: held(None) for volume in state["volumes"]}


def test_promote_goes_on_where_a_run_died() -> None:
    record = make.record("recorded", A, ordinal=1)
    fenced = make.stopped(0, cases.FENCED)
    pods = [fenced, make.pod(1), make.pod(2)]
    lonely = {0: gone(), 1: alone(5), 2: alone(5)}

    def steps(state: dict[str, Any]) -> list[str]:
        plan = deciding.promoted(state, {}, [], NOW, nothing_in(state))
        assert plan["refusal"] is None
        return [f"{step['do']} {step.get('ordinal', '')}".strip() for step in plan["steps"]]

    recorded = site(lonely, record=record, fenced="0", pods=[make.pod(0), make.pod(1), make.pod(2)])
    assert steps(recorded)[:2] == ["stop 0", "render 1"]
    stopped = site(lonely, record=record, fenced="0", pods=pods)
    assert steps(stopped) == ["render 1", "restart 1", "restart 2", "wait_followers"]
    rendered = site(lonely, record=record, fenced="0", pods=pods, rendered_ordinal=1)
    assert steps(rendered) == ["restart 1", "restart 2", "wait_followers"]
    leads = make.node(primary=True)
    restarted = site(lonely | {1: leads}, record=record, fenced="0", pods=pods, rendered_ordinal=1)
    assert steps(restarted) == ["restart 2", "wait_followers"]
    follows = make.node() | {"primary_hostname": "abaci-app-1"}
    done = site(lonely | {1: leads, 2: follows}, record=record, fenced="0", pods=pods, rendered_ordinal=1)
    assert steps(done) == []


def test_promote_takes_the_replica_that_received_more_until_the_old_primary_stopped() -> None:
    record = make.record("recorded", A, ordinal=1)
    pods = [make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)]
    state = site({0: gone(), 1: alone(5), 2: alone(6)}, record=record, fenced="0", pods=pods)
    plan = deciding.promoted(state, {}, [], NOW, nothing_in(state))
    assert plan["successor"] == 2 and plan["steps"][0]["do"] == "record" and plan["steps"][0]["fenced"] == [0]


def test_promote_begins_anew_when_the_next_primary_is_lost_while_the_first_is_still_fenced() -> None:
    record = make.record("recorded", A, ordinal=1)
    pods = [
        make.stopped(0, cases.FENCED),
        make.stopped(1, make.Said(cases.LOST.replace("-0", "-1"), cases.Exit.EMPTY)),
        make.pod(2),
    ]
    state = site({0: gone(), 1: gone(), 2: alone(5)}, record=record, fenced="0", pods=pods, rendered_ordinal=1)
    assert deciding.promoted(state, {}, [export()], NOW, nothing_in(state))["loss"]["pod"] == "abaci-app-2"
    plan = deciding.promoted(state, ACCEPT, [export()], NOW, nothing_in(state))
    assert plan["refusal"] is None and plan["steps"][0] | {"say": "", "promote": ""} == {
        "do": "record",
        "say": "",
        "primary_ordinal": 2,
        "fenced": [0, 1],
        "promote": "",
        "given_up": True,
    }


def test_promote_exports_every_reachable_copy_first() -> None:
    plan = deciding.promoted(FOREIGN_PRIMARY, ACCEPT, [], NOW)
    assert plan["export"] == ["abaci-app-0", "abaci-app-1", "abaci-app-2"]


def test_hazard_a_wrong_primary_that_is_written_to_is_exported_once() -> None:
    """Each round would find it one transaction further, and the site stays down meanwhile."""
    state = site({0: make.node(B, txid=7, primary=True), 1: alone(5), 2: alone(5)})
    plan = deciding.promoted(state, ACCEPT, [export(), export(B, txid=6)], NOW)
    assert plan["export"] == [] and plan["steps"]


def test_promote_says_what_may_be_lost_and_since_when() -> None:
    plan = deciding.promoted(guarded(), {}, [], NOW, nothing_in(guarded()))
    assert plan["loss"] == {"after_txid": FIGURE, "pod": "abaci-app-1", "seconds": 40.0}
    assert "40.0 s ago" in plan["refusal"]


def held(cluster: str | None, txid: str | None = None, **more: Any) -> dict[str, Any]:
    """What a look into a volume found."""
    found = {"cluster_id": cluster, "txid": txid, "checksum": txid and f"c0ffee{int(txid, 16):010x}"}
    return {**found, "page_size": None, "journal_mode": None, "problem": None, **more}


BLIND = held(None, problem="volume pvc-2 on node node-2 cannot be read (it did not start).")
NEWER = {"pvc-0": held(None), "pvc-1": held(B, "30"), "pvc-2": held(B)}
ALL_FOREIGN = guarded(answers={1: alone(5, B), 2: alone(5, B)})
RESTORING = site({0: gone(), 1: alone(5, B), 2: alone(5, B)}, record=make.record("restore", A), rendered_quiet=True)
LOST_STEPS = ["render 0", "record_restore", "restart 0", "import", "record_id 0", "render 0"]
LAST_NODE_GONE = site(
    {0: gone()},
    pods=[cases.homeless(0)],
    claims=[make.claim(0)],
    volumes=[make.volume(0)],
    statefulset=make.statefulset(replicas=1),
    nodes=[make.kube_node("node-1"), make.kube_node("node-2")],
)
LAST_NODE_GONE["pods"][0]["unschedulable"] = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
NEW_CLAIM = site(
    {0: gone()},
    pods=[make.pod(0, initContainerStatuses=[{"name": "guard", "restartCount": 0, "state": {"running": {}}}])],
    claims=[make.claim(0, uid="new") | {"spec": {**make.claim(0)["spec"], "volumeName": "pvc-new"}}],
    volumes=[make.volume(0), make.volume(1, name="pvc-new", claim_uid="new")],
    statefulset=make.statefulset(replicas=1),
    nodes=[make.kube_node("node-1")],
)
NEW_CLAIM["pods"][0]["node"] = "node-1"
RESTORE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], Any, str | None, list[str]]] = [
    ("a backup of this cluster", site(), file(), {}, None, None, ["import"]),
    ("its content is there already", site(), file(imported_checksum=f"c0ffee{5:010x}"), {}, None, None, []),
    (
        "another cluster's backup is not confirmed",
        site(),
        file(cluster_id=B),
        {},
        None,
        f"restore_overwrite_cluster_id={A}",
        [],
    ),
    (
        "another cluster's backup, the wrong word",
        site(),
        file(cluster_id=B),
        {"overwrite_cluster_id": B},
        None,
        f"restore_overwrite_cluster_id={A}",
        [],
    ),
    (
        "another cluster's backup, confirmed",
        site(),
        file(cluster_id=B),
        {"overwrite_cluster_id": A},
        None,
        None,
        ["import"],
    ),
    ("a plain file is not confirmed", site(), file(cluster_id=None), {}, None, "has no manifest", []),
    ("a plain file, confirmed", site(), file(cluster_id=None), {"overwrite_cluster_id": A}, None, None, ["import"]),
    ("another page size", site(), file(page_size=1024), {}, None, "file-does-not-fit page size 1024", []),
    (
        "another journal mode",
        site(),
        file(journal_mode="delete"),
        {},
        None,
        "file-does-not-fit journal mode delete",
        [],
    ),
    ("a file that is not sound", site(), file(verified=False, problem="it is broken"), {}, None, "it is broken", []),
    ("a file that nobody checked", site(), file(verified=None), {}, None, "not verified", []),
    ("a replica is ahead", REPLICA_AHEAD, file(), {}, None, "older-volume does not have", []),
    ("two primaries", TWO_PRIMARIES, file(), {}, None, "two-primaries split brain", []),
    (
        "an empty primary runs while replicas hold the data",
        FOREIGN_PRIMARY,
        file(),
        {},
        None,
        "primary-volume-empty delete nothing",
        [],
    ),
    (
        "the guard holds pod-0, a replica has the data",
        guarded(),
        file(),
        {},
        NEWER,
        "primary-volume-empty restore into the site that runs then",
        [],
    ),
    ("no copy left, volumes unseen: a look comes first", ALL_FOREIGN, file(), {}, {}, None, []),
    (
        "no copy left, but a volume has a database that lost its id",
        ALL_FOREIGN,
        file(),
        {},
        {**NEWER, "pvc-0": held(None, "64")},
        "no-copy-left Volume pvc-0 holds a database up to TXID 64 without a cluster id",
        [],
    ),
    (
        "no copy left, and pod-0's own volume has another page size",
        ALL_FOREIGN,
        file(),
        {},
        {**NEWER, "pvc-0": held(B, "1", page_size=1024, journal_mode="wal")},
        "file-does-not-fit page size 4096 and the database on the volume of abaci-app-0 1024; .*delete pvc litefs-data",
        [],
    ),
    (
        "the record says restore, and what pod 0 serves has another journal mode",
        site(
            {0: make.node(B, txid=5, primary=True), 1: gone(), 2: gone()},
            record=make.record("restore", A),
            rendered_quiet=True,
        ),
        file(journal_mode="delete"),
        {},
        None,
        "file-does-not-fit journal mode delete",
        [],
    ),
    (
        "no copy left, but a volume has it",
        ALL_FOREIGN,
        file(),
        {},
        {**NEWER, "pvc-2": held(A, "20")},
        f"no-copy-left Volume pvc-2 holds the recorded cluster {A} up to TXID 20; /backups/one.sqlite was taken",
        [],
    ),
    (
        "no copy left, but two volumes have it, and the first is the older",
        ALL_FOREIGN,
        file(),
        {},
        {**NEWER, "pvc-1": held(A, "1f"), "pvc-2": held(A, "20")},
        f"no-copy-left Volume pvc-2 holds the recorded cluster {A} up to TXID 20, the newest of 2;",
        [],
    ),
    (
        "no copy left, one volume cannot be seen",
        ALL_FOREIGN,
        file(),
        {},
        {**NEWER, "pvc-2": BLIND},
        "no-copy-left volume pvc-2 on node node-2 cannot be read",
        [],
    ),
    (
        "it is given up",
        ALL_FOREIGN,
        file(),
        {"lost_volumes": ["pvc-2"]},
        {**NEWER, "pvc-2": BLIND},
        None,
        ["render 0", "record_restore", "restart 0", "import", "record_id 0", "render 0"],
    ),
    (
        "no copy is left, proven",
        ALL_FOREIGN,
        file(),
        {},
        NEWER,
        None,
        ["render 0", "record_restore", "restart 0", "import", "record_id 0", "render 0"],
    ),
    (
        "the database was removed, on the replicas as well, and the guard holds pod-0",
        guarded(answers={n: make.node(A, txid=9, checksum="8000000000000000") for n in (1, 2)}),
        file(),
        {},
        {f"pvc-{n}": held(A, "9", checksum="8000000000000000") for n in range(3)},
        None,
        LOST_STEPS,
    ),
    ("no copy left, foreign file", ALL_FOREIGN, file(cluster_id=B), {}, NEWER, f"restore_overwrite_cluster_id={A}", []),
    (
        "the primary is not stopped, only away",
        dead_node(answers={1: gone(), 2: gone()}),
        file(),
        {},
        NEWER,
        "primary-node-gone not stopped.*kubectl delete node node-0",
        [],
    ),
    (
        "the last copy's node is gone for good, and its volume is not given up",
        LAST_NODE_GONE,
        file(),
        {},
        {"pvc-0": held(None, problem="volume pvc-0 is on node node-0, which does not answer.")},
        r"no-copy-left pvc-0 is on node node-0.*make sure that its node is off and give it up with .*\"pvc-0\"",
        [],
    ),
    (
        "the last copy's node is gone for good, and its volume is given up",
        LAST_NODE_GONE,
        file(),
        {"lost_volumes": ["pvc-0"]},
        {},
        None,
        ["delete_claim 0", "delete_pod 0", *LOST_STEPS],
    ),
    (
        "its claim is new, and its guard has not looked yet",
        NEW_CLAIM,
        file(),
        {"lost_volumes": ["pvc-0"]},
        {"pvc-new": held(None)},
        None,
        LOST_STEPS,
    ),
    ("no record", NO_RECORD, file(), {}, None, "no ConfigMap", []),
    ("bootstrap", BOOTSTRAP, file(), {}, None, "says bootstrap", []),
    ("nothing exists", NOTHING, file(), {}, None, "There is no StatefulSet", []),
    (
        "it goes on after the record said restore",
        RESTORING,
        file(),
        {},
        None,
        None,
        ["restart 0", "import", "record_id 0", "render 0"],
    ),
    (
        "killed before the restart, and the guard let pod 0 start with its commands",
        site(
            {0: make.node(B, primary=True, txid=0), 1: gone(), 2: gone()},
            record=make.record("restore", A),
            rendered_quiet=True,
            rendered_at="2026-01-01T08:00:00Z",
        ),
        file(),
        {},
        None,
        None,
        ["restart 0", "import", "record_id 0", "render 0"],
    ),
    (
        "recorded, and the configuration has no commands yet",
        site(rendered_quiet=True),
        file(imported_checksum=f"c0ffee{5:010x}"),
        {},
        None,
        None,
        ["render 0", "restart 0", "restart 1", "restart 2"],
    ),
    (
        "killed after the commands came back: pods of whatever revision that are older have none",
        site(
            pods=[make.pod(0), make.pod(1, created="2026-01-01T09:00:00Z"), make.pod(2)],
            rendered_at="2026-01-01T08:00:00Z",
        ),
        file(imported_checksum=f"c0ffee{5:010x}"),
        {},
        None,
        None,
        ["restart 0", "restart 2"],
    ),
    (
        "an old primary whose guard holds it runs nothing, and nobody waits for it",
        site(
            {0: gone(), 1: make.node(primary=True), 2: make.node()},
            record=make.record("recorded", A, ordinal=1),
            fenced="0",
            pods=[make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)],
            rendered_ordinal=1,
            rendered_at="2026-01-01T08:00:00Z",
        ),
        file(imported_checksum=f"c0ffee{5:010x}"),
        {},
        None,
        None,
        ["restart 1", "restart 2"],
    ),
    (
        "a replica on a node that is away is not stopped, and nobody waits for it",
        site(
            {2: gone()},
            pods=[make.pod(0), make.pod(1), make.pod(2)],
            nodes=[make.kube_node("node-0"), make.kube_node("node-1"), make.kube_node("node-2", ready=False)],
            rendered_at="2026-01-01T08:00:00Z",
        ),
        file(imported_checksum=f"c0ffee{5:010x}"),
        {},
        None,
        None,
        ["restart 0", "restart 1"],
    ),
]


@pytest.mark.parametrize(
    ("name", "state", "what", "parameters", "volumes", "refusal", "steps"), RESTORE, ids=[case[0] for case in RESTORE]
)
def test_restore(
    name: str,
    state: dict[str, Any],
    what: dict[str, Any],
    parameters: dict[str, Any],
    volumes: Any,
    refusal: str | None,
    steps: list[str],
) -> None:
    plan = deciding.restored(state, what, parameters, [export(), export(B)], volumes, NOW)
    check(plan, refusal, steps)


def test_hazard_a_database_that_was_removed_is_restored_where_no_application_has_it_open_still() -> None:
    """The removal is a transaction, which the replicas follow; in WAL mode an import beside the application hangs."""
    removed = "8000000000000000"
    answers = {0: make.node(primary=True, txid=9, checksum=removed)}
    answers |= {n: make.node(txid=9, checksum=removed) for n in (1, 2)}
    plan = deciding.restored(site(answers), file(), {}, [], None, NOW)
    assert plan["refusal"] is None and plan["export"] == []
    kinds = [one["do"] for one in plan["steps"]]
    assert kinds == ["render", "record_restore", "restart", "import", "record_id", "render", "wait_followers"]
    assert plan["steps"][0]["quiet"] and plan["steps"][2]["ordinal"] == 0 and plan["steps"][3]["exported"] is None


def test_a_volume_that_is_behind_the_backup_is_no_reason_to_refuse_it() -> None:
    """As one that a reset or a scale down kept; it stays. What no manifest gives a TXID is behind nothing."""
    removed = "8000000000000000"
    state = guarded(answers={n: make.node(A, txid=9, checksum=removed) for n in (1, 2)})
    gone_there = {f"pvc-{n}": held(A, "9", checksum=removed) for n in range(2)}

    def plan(txid: str, **changed: Any) -> Any:
        seen = {**gone_there, "pvc-2": held(A, txid)}
        return deciding.restored(state, file(cluster_id=A, txid=f"{5:016x}", **changed), {}, [], seen, NOW)

    behind = plan(f"{4:016x}")
    assert behind["refusal"] is None and "Volume pvc-2 is behind the backup, and stays as it is." in behind["notes"]
    assert behind["steps"]
    for ahead in (plan(f"{5:016x}"), plan(f"{6:016x}"), plan("")):
        assert "Volume pvc-2 holds the recorded cluster" in ahead["refusal"]


def test_nobody_is_asked_to_export_a_database_that_was_removed_there() -> None:
    removed = "8000000000000000"
    state = guarded(answers={n: make.node(A, txid=9, checksum=removed) for n in (1, 2)})
    seen = {f"pvc-{n}": held(A, "9", checksum=removed) for n in range(3)}
    plan = deciding.restored(state, file(), {}, [], seen, NOW)
    assert plan["refusal"] is None and plan["export"] == [] and plan["steps"]


def test_restore_exports_the_present_database_first() -> None:
    plan = deciding.restored(site(), file(), {}, [], None, NOW)
    assert plan["export"] == ["abaci-app-0"], "and the caller makes it before the first step"
    foreign = site(
        {0: make.node(B, primary=True), 1: gone(), 2: gone()}, record=make.record("restore", A), rendered_quiet=True
    )
    plan = deciding.restored(foreign, file(), {}, [], None, NOW)
    assert plan["export"] == ["abaci-app-0"], "what a foreign volume holds is kept, too"
    loud = deciding.restored({**foreign, "rendered_quiet": False}, file(), {}, [], None, NOW)
    assert loud["export"] == [] and [step["do"] for step in loud["steps"]][:2] == ["render", "restart"]


IMPORTED = {
    "state": "imported",
    "sha256": "ab" * 32,
    "cluster_id": A,
    "txid": f"{4:016x}",
    "before": f"{3:016x}",
    "time": "2026-01-01T06:00:00.5Z",
    "followers": [1, 2],
}


def continued(answers: dict[int, Any] | None = None, parameters: Any = None, **changed: Any) -> dict[str, Any]:
    """The plan of a restore that imported this file in an earlier run."""
    return deciding.restored(site(answers), file(), parameters or {}, [export()], None, NOW, IMPORTED | changed)


def test_restore_does_not_import_twice_where_the_application_wrote_since() -> None:
    plan = continued()
    assert destructive(plan) == []
    assert f"transaction {4:016x}, and abaci-app-0 is at {5:016x} since: it is not imported again" in plan["notes"][0]


@pytest.mark.parametrize(
    ("changed", "parameters"),
    [
        ({"sha256": "cd" * 32}, {}),
        ({"cluster_id": B}, {}),
        ({"txid": f"{6:016x}"}, {}),  # the primary does not have that transaction: it went with the one before it
        ({}, {"reimport": "yes"}),
        ({"reimport": "yes"}, {"reimport": f"{4:016x}"}),
        ({"state": "importing", "txid": None, "before": f"{5:016x}"}, {}),
    ],
    ids=["another file", "another cluster", "rolled back", "the word", "another word", "it never came"],
)
def test_restore_imports_what_is_not_there(changed: dict[str, Any], parameters: dict[str, Any]) -> None:
    assert destructive(continued(None, parameters, **changed)) == [("import", "abaci-app-0")]


@pytest.mark.parametrize(
    ("answers", "followers", "left"),
    [
        ({2: make.node(B)}, [1, 2], [2]),
        ({2: gone()}, [1], [2]),
        ({2: gone()}, [1, 2], []),
        ({1: make.node(txid=4)}, [1, 2], []),
        ({1: make.node(txid=4), 2: make.node(B)}, None, [2]),
    ],
    ids=["of another cluster", "did not follow before", "is to come back", "is behind", "nobody knows who followed"],
)
def test_a_restore_waits_for_those_that_followed_before_it(answers: Any, followers: Any, left: list[int]) -> None:
    plan = continued(answers, followers=followers)
    assert plan["without"] == left
    waits = [step["without"] for step in plan["steps"] if step["do"] == "wait_followers"]
    assert waits == ([left] if any(n not in left for n in answers) else [])


def test_restore_looks_into_the_volumes_before_it_says_that_no_copy_is_left() -> None:
    plan = deciding.restored(ALL_FOREIGN, file(), {}, [], None, NOW)
    assert plan["look"] == ["pvc-0", "pvc-1", "pvc-2"] and plan["steps"] == []


# Ordinal 1 is fenced, and 2 is of another cluster: what ends with them never follows.
ENDS: dict[str, list[tuple[str, Any]]] = {
    "scale": [("wait_replicated", [1])],
    "replica_reset": [("wait_pod", 1), ("wait_pod", 2)],
    "promote": [("wait_replicated", [1, 2])],
    "restore": [("wait_replicated", [1, 2])],
    "rollout": [("wait_replicated", [1]), ("wait_edge", None)],
    "rollback": [("wait_replicated", [1]), ("wait_edge", None)],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_hazard_no_operation_is_done_before_its_replicas_have_what_the_primary_has(operation: str) -> None:
    state = site({2: make.node(B)}, fenced="1")
    prove = getattr(OPERATIONS[operation], "prove", runner._prove)
    proof = prove(planning.plan(targets=[1, 2]), state)
    assert [(one["do"], one.get("without", one.get("ordinal"))) for one in proof] == ENDS[operation]


def test_restore_leaves_out_at_its_end_whom_it_left_out_before() -> None:
    state = site({2: make.node(B)}, fenced="1")
    (proof,) = OPERATIONS["restore"].prove(planning.plan(without=[3]), state)  # type: ignore[attr-defined]
    assert proof["without"] == [3, 2]


def test_there_are_cases_enough() -> None:
    assert len(RESET) + len(SCALE) + len(PROMOTE) + len(RESTORE) >= 60


# --- it never deletes or overwrites the primary's or the best copy --------------------------------------------------

# No copy of the recorded cluster is left in any of these.
LOST = {
    "no copy is left": ALL_FOREIGN,
    "nobody answers, and the guard holds pod-0": guarded(answers={1: gone(), 2: gone()}),
}
HOSTILE: dict[str, dict[str, Any]] = {
    **LOST,
    "pod-0 was deleted by force": FORCED,
    "a replica has no pod": guarded(pods=[make.stopped(0, cases.LOST), make.pod(1)]),
    "pod-0 answers with the most and is no primary": site({0: alone(9), 1: alone(5), 2: alone(5)}),
    "healthy": site(),
    "the guard holds pod-0": guarded(),
    "the guard holds pod-0, one replica behind": guarded(answers={1: alone(3)}),
    "only the id is missing": guarded(cases.NO_ID),
    "pod-0 is an older copy": guarded(cases.OLDER),
    "an empty primary runs": FOREIGN_PRIMARY,
    "an empty primary runs, one replica adopted it": site(
        {0: make.node(B, txid=1, primary=True), 1: make.node(B, txid=1), 2: alone(5)}
    ),
    "an empty primary that overtook in TXIDs": site(
        {0: make.node(B, txid=900, primary=True), 1: alone(5), 2: alone(5)}
    ),
    "the primary lost its id": LOST_ID_ONLY,
    "the primary is a stale copy": site({0: make.node(txid=2, primary=True)}),
    "one replica is ahead": REPLICA_AHEAD,
    "two primaries": TWO_PRIMARIES,
    "two primaries of two clusters": site({1: make.node(B, primary=True)}),
    "the second primary is the recorded one": site({0: make.node(B, txid=1, primary=True), 1: make.node(primary=True)}),
    "pod-1 is primary, the record says 0": site({0: gone(), 1: make.node(primary=True)}),
    "the primary has no database": site({0: make.node(primary=True, database=None)}),
    "the primary has another database": site({0: make.node(primary=True, database="other.db")}),
    "the primary has no id": site({0: make.node(None, primary=True)}),
    "the primary does not answer": site({0: gone()}),
    "the primary's node is away": dead_node(),
    "nobody answers": site({0: gone(), 1: gone(), 2: gone()}),
    "no pods": site(pods=[]),
    "no record": NO_RECORD,
    "the record says bootstrap": BOOTSTRAP,
    "the record is damaged": DAMAGED,
    "the record names a cluster that nobody has": site(record=make.record("recorded", "LFSCCCCCCCCCCCCCCCCC")),
    "the record names the replicas' cluster": site(
        {0: make.node(B, txid=1, primary=True)}, record=make.record("recorded", A)
    ),
    "the primary's claim is being deleted": site(
        claims=[make.claim(0, deletionTimestamp="x"), make.claim(1), make.claim(2)]
    ),
    "the claims share the primary's volume": site(
        {1: make.node(B)},
        claims=[make.claim(0), make.claim(1) | {"spec": make.claim(0)["spec"]}, make.claim(2)],
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("targets", ["mismatched", [0], [1], [2], [1, 2], [0, 1, 2]], ids=str)
def test_hazard_replica_reset_never_takes_the_primarys_or_the_best_copy(name: str, targets: Any) -> None:
    state = HOSTILE[name]
    recorded = (state["record"] or {}).get("cluster_id")
    every_export = [export(A, txid=2000), export(B, txid=2000)]
    plan = deciding.reset(state, targets, every_export, now=NOW)
    leaders = [pod["ordinal"] for pod in make.litefs.primaries(state)]
    best = _best(state, recorded)
    primary_volume = next(
        (claim["volume"] for claim in state["claims"] if leaders and claim["ordinal"] == leaders[0]), None
    )
    for step in plan["steps"]:
        if step["do"] in ("delete_claim", "delete_pod"):
            assert step["ordinal"] not in leaders, (name, step)
            assert len(best - {step["ordinal"]}) > 0, (name, step)
            claim = next(claim for claim in state["claims"] if claim["ordinal"] == step["ordinal"])
            assert claim["volume"] != primary_volume, (name, step)
    if leaders != [0] or not _sound(state, recorded):
        assert plan["refusal"] and not plan["steps"], name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("replicas", [0, 1, 2, 4])
@pytest.mark.parametrize("remove", [False, True])
def test_hazard_scale_never_stops_the_primary_or_removes_the_best_copy(name: str, replicas: int, remove: bool) -> None:
    state = HOSTILE[name]
    recorded = (state["record"] or {}).get("cluster_id")
    checkpoint = deciding.proven(state, replicas, remove)
    plan = deciding.scaled(state, replicas, remove, [export(A, txid=2000), export(B, txid=2000)], checkpoint, NOW)
    leaders = [pod["ordinal"] for pod in make.litefs.primaries(state)]
    for step in plan["steps"]:
        if step["do"] == "scale":
            assert step["replicas"] > max(leaders), (name, step)
            assert any(ordinal < step["replicas"] for ordinal in _best(state, recorded)), (name, step)
        if step["do"] in ("delete_claim", "remove_volume"):
            assert step.get("ordinal") not in leaders
            assert step.get("volume") not in {
                claim["volume"] for claim in state["claims"] if claim["ordinal"] in leaders
            }


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("successor", [None, 0, 1, 2])
def test_hazard_promote_never_picks_less_than_the_best_and_never_while_a_right_primary_runs(
    name: str, successor: Any
) -> None:
    state = HOSTILE[name]
    recorded = (state["record"] or {}).get("cluster_id")
    best = _best(state, recorded)
    for figure in {f"{pod_txid:016x}" for pod_txid in range(0, 12)}:
        parameters = {"successor": successor, "accept_loss_after": figure, "node_off": "node-0"}
        plan = deciding.promoted(
            state, parameters, [export(A, txid=2000), export(B, txid=2000)], NOW, nothing_in(state)
        )
        if not plan["steps"]:
            continue
        assert plan["successor"] in best, name
        leaders = make.litefs.primaries(state)
        assert not any(pod["litefs"]["cluster_id"] == recorded for pod in leaders), name
        kinds = [step["do"] for step in plan["steps"]]
        assert kinds.index("record") < kinds.index("restart"), "the record comes first"
        assert not {"delete_claim", "remove_volume", "import"} & set(kinds)


@pytest.mark.parametrize("name", HOSTILE)
def test_hazard_restore_never_overwrites_while_a_newer_copy_of_the_recorded_cluster_is_left(name: str) -> None:
    state = HOSTILE[name]
    recorded = (state["record"] or {}).get("cluster_id")
    looked = {volume["name"]: held(B) for volume in state["volumes"]}
    plan = deciding.restored(state, file(cluster_id=recorded), {}, [export(A), export(B)], looked, NOW)
    if name in LOST:
        assert "record_restore" in [one["do"] for one in plan["steps"]] and destructive(plan), name
    if not destructive(plan):
        return
    leaders = make.litefs.primaries(state)
    holders = _best(state, recorded)
    if leaders:
        assert leaders[0]["litefs"]["cluster_id"] == recorded and leaders[0]["ordinal"] in holders, name
    else:
        assert not holders, name


def _best(state: dict[str, Any], cluster: str | None) -> set[int]:
    """Ordinals with the highest position of the recorded cluster, computed apart from the code under test."""
    placed = {}
    for pod in state["pods"]:
        database = pod["litefs"]["databases"].get("sqlite.db")
        if pod["litefs"]["cluster_id"] == cluster and database and int(database["txid"], 16):
            placed[pod["ordinal"]] = int(database["txid"], 16)
    return {ordinal for ordinal, txid in placed.items() if txid == max(placed.values())}


def _sound(state: dict[str, Any], cluster: str | None) -> bool:
    return 0 in _best(state, cluster)
