"""The lock: one at a time, dead holders, and what a second run remembers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, backup, lock

NOW = "2026-01-01T12:00:00.000000Z"
ME, MINE_DEAD, OTHER = "ann@ops+c0ffee00/100", "ann@ops+c0ffee00/99", "bob@desk+c0ffee00/7"
WISHES = {"targets": [1]}


def taken(holder: str, renewed: str = "2026-01-01T11:59:00.000000Z", **changed: Any) -> dict[str, Any]:
    lease, _memo, _note, problem = lock.take(
        lock.render("abaci", "abaci-app"), holder, "replica_reset", WISHES, 900, renewed, alive=True
    )
    assert lease is not None and problem is None
    renewed_lease = lock.renew(lease, holder, {"begun": renewed, "claims": {"1": "old"}}, renewed)
    assert renewed_lease is not None
    held: dict[str, Any] = renewed_lease | changed
    return held


def attempt(lease: dict[str, Any], holder: str = ME, operation: str = "replica_reset", **options: Any) -> Any:
    wishes = options.pop("wishes", WISHES)
    return lock.take(lease, holder, operation, wishes, 900, NOW, **{"alive": False, **options})


@pytest.mark.parametrize(
    ("holder", "options", "free"),
    [
        (OTHER, {}, False),
        (OTHER, {"alive": True}, False),
        (OTHER, {"take_over": "bob@desk+c0ffee00/8"}, False),
        (OTHER, {"take_over": OTHER}, True),
        (MINE_DEAD, {"alive": True}, False),
        (MINE_DEAD, {"alive": False}, True),
        ("ann@laptop+c0ffee00/99", {"alive": False}, False),
        ("eve@ops+c0ffee00/99", {"alive": False}, False),
        ("ann@ops+bad0bad0/99", {"alive": False}, False),  # another machine of this name, or another container
        ("ann@ops/99", {"alive": False}, False),  # as older versions wrote it
        (ME, {}, True),
    ],
)
def test_who_may_take_a_lock_that_is_held(holder: str, options: dict[str, Any], free: bool) -> None:
    lease, _memo, _note, problem = attempt(taken(holder), **options)
    assert (lease is not None) is free
    if not free:
        assert holder in problem and f"operation_take_over={holder}" in problem and problem.endswith(".")


MACHINE = ("b08dfa60", "6c5f0f2b-boot", "pid:[4026531836]")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (MACHINE, True),
        (("0000", *MACHINE[1:]), False),
        ((MACHINE[0], "later-boot", MACHINE[2]), False),
        ((*MACHINE[:2], "pid:[4026532500]"), False),
    ],
)
def test_a_holder_is_of_one_machine_boot_and_pid_namespace(other: tuple[str, ...], same: bool) -> None:
    one, two = lock.holder("ann", "ops", 99, MACHINE), lock.holder("ann", "ops", 100, other)
    assert one.startswith("ann@ops+") and one.endswith("/99")
    assert (one.rpartition("/")[0] == two.rpartition("/")[0]) is same


@pytest.mark.parametrize("unknown", [("", "", ""), ("b08dfa60", "", "pid:[1]"), ("b08dfa60", "boot", "")])
def test_where_the_boot_or_the_namespace_is_not_known_no_other_process_is_of_this_machine(
    unknown: tuple[str, ...],
) -> None:
    one, two = lock.holder("ann", "ops", 99, unknown), lock.holder("ann", "ops", 100, unknown)
    assert one.rpartition("/")[0] != two.rpartition("/")[0]
    assert one == lock.holder("ann", "ops", 99, unknown)


@pytest.mark.parametrize(
    ("lease", "alive", "free"),
    [
        (None, False, True),
        (lock.render("abaci", "abaci-app"), False, True),
        (lock.free(taken(OTHER), ended=False), False, True),
        (taken(OTHER), False, False),
        (taken(OTHER, "2026-01-01T11:44:59.000000Z"), True, True),
        (taken(MINE_DEAD), False, True),
        (taken(MINE_DEAD), True, False),
    ],
)
def test_the_site_is_applied_only_while_nobody_is_at_work(lease: Any, alive: bool, free: bool) -> None:
    problem = lock.refusal(lease, ME, NOW, alive=alive)
    assert (problem is None) is free
    if problem:
        assert f"{lock.holder_of(lease)} is at work here (replica_reset since" in problem and " 840 s " in problem


def test_a_lock_ends_by_itself() -> None:
    lease, _memo, note, _problem = attempt(taken(OTHER, "2026-01-01T11:44:59.000000Z"))
    assert lease is not None and lock.holder_of(lease) == ME and OTHER in note
    assert attempt(taken(OTHER, "2026-01-01T11:45:01.000000Z"))[0] is None


def test_the_memo_is_kept_for_the_same_operation_with_the_same_wishes_only() -> None:
    lease = taken(MINE_DEAD)
    assert attempt(lease)[1]["claims"] == {"1": "old"}
    assert attempt(lease, wishes={"targets": [2]})[1] == {}
    _lease, memo, note, _problem = attempt(lease, operation="scale")
    assert memo == {} and "left replica_reset unfinished" in note


def test_a_run_that_failed_is_remembered_and_one_that_ended_is_not() -> None:
    failed = lock.free(taken(ME), ended=False)
    assert lock.holder_of(failed) == "" and attempt(failed)[1]["claims"] == {"1": "old"}
    ended = lock.free(taken(ME), ended=True)
    assert lock.holder_of(ended) == "" and attempt(ended)[1] == {}


def test_a_passing_operation_has_the_lock_and_leaves_what_another_had_begun() -> None:
    lease, memo, note, _problem = attempt(taken(MINE_DEAD), operation="backup", wishes={}, passing=True)
    assert memo == {} and "left replica_reset unfinished" in note
    assert "(backup since" in attempt(lease, OTHER)[3]
    back = lock.free(lease, ended=False)
    assert lock.holder_of(back) == "" and attempt(back)[1]["claims"] == {"1": "old"}
    lease, _memo, _note, _problem = attempt(back)
    assert "(replica_reset since" in attempt(lease, OTHER)[3]


def test_what_was_begun_long_ago_is_forgotten() -> None:
    assert attempt(taken(MINE_DEAD, "2026-01-01T01:00:00.000000Z"))[1] == {}


def test_a_step_of_somebody_whose_lock_was_taken_away_is_not_done() -> None:
    assert lock.renew(taken(OTHER), ME, {}, NOW) is None
    assert lock.renew(None, ME, {}, NOW) is None
    renewed = lock.renew(taken(ME), ME, {"x": 1}, NOW)
    assert renewed is not None and renewed["spec"]["renewTime"] == NOW


def test_the_audit_log_keeps_the_newest_lines() -> None:
    text = ""
    for number in range(120):
        text = act.ring(text, {"n": number})
    lines = text.splitlines()
    assert len(lines) == 100 and lines[-1] == '{"n": 119}' and lines[0] == '{"n": 20}'


# Backups


LINE = 'level=INFO msg="ABCD: snapshot successfully exported @ 00000000000000{}/{}"\n'
MINE, ELSE = "c0ffee0000000001", "bad0000000000002"


@pytest.mark.parametrize(
    ("before", "after", "log", "txid"),
    [
        (("0" * 15 + "5", MINE), ("0" * 15 + "9", ELSE), "", "0" * 15 + "5"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "5", MINE), "", "0" * 15 + "5"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "9", ELSE), LINE.format("07", MINE), "0" * 15 + "7"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "9", ELSE), LINE.format("07", ELSE), None),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "3", ELSE), "", None),
        (None, None, "", None),
    ],
    ids=["before", "after", "by the log", "the log of another export", "other content", "nothing known"],
)
def test_the_position_of_an_export_is_proven_by_its_checksum(before: Any, after: Any, log: str, txid: Any) -> None:
    found, problem = backup.position(MINE, before, after, log)
    assert found == txid and (problem is None) == (txid is not None)
