"""The lock: one at a time, and dead holders."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, backup, lock

NOW = "2026-01-01T12:00:00.000000Z"
ME, MINE_DEAD, OTHER = "ann@ops+c0ffee00/100", "ann@ops+c0ffee00/99", "bob@desk+c0ffee00/7"


def taken(holder: str, renewed: str = "2026-01-01T11:59:00.000000Z") -> dict[str, Any]:
    lease, _note, problem = lock.take(
        lock.render("abaci", "abaci-app"), holder, "replica_reset", 900, renewed, alive=True
    )
    assert lease is not None and problem is None
    held: dict[str, Any] = lease
    return held


def attempt(lease: dict[str, Any], holder: str = ME, operation: str = "replica_reset", **options: Any) -> Any:
    return lock.take(lease, holder, operation, 900, NOW, **{"alive": False, **options})


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
    lease, _note, problem = attempt(taken(holder), **options)
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


def test_a_lock_ends_by_itself() -> None:
    lease, note, _problem = attempt(taken(OTHER, "2026-01-01T11:44:59.000000Z"))
    assert lease is not None and lock.holder_of(lease) == ME and f"{OTHER} did not give the lock back" in note
    lease, _note, problem = attempt(taken(OTHER, "2026-01-01T11:45:01.000000Z"))
    assert lease is None and f"{OTHER} is at work here (replica_reset since" in problem and " 1 s" in problem


def test_what_is_given_back_is_free_and_says_nothing_of_what_it_was_taken_for() -> None:
    given = taken(OTHER)
    given["metadata"]["annotations"]["abaci.infra/checkpoint"] = "of an older version"
    back = lock.free(given)
    assert lock.holder_of(back) == "" and back["metadata"]["annotations"] == {}
    lease, note, _problem = attempt(back, operation="scale")
    assert lease is not None and note is None
    assert lease["metadata"]["annotations"] == {lock.OPERATION: "scale"}


def test_a_step_of_somebody_whose_lock_was_taken_away_is_not_done() -> None:
    assert lock.renew(taken(OTHER), ME, NOW) is None
    assert lock.renew(None, ME, NOW) is None
    renewed = lock.renew(taken(ME), ME, NOW)
    assert renewed is not None and renewed["spec"]["renewTime"] == NOW


def test_the_audit_log_keeps_the_newest_lines() -> None:
    text = ""
    for number in range(120):
        text = act.ring(text, {"n": number})
    lines = text.splitlines()
    assert len(lines) == 100 and lines[-1] == '{"n": 119}' and lines[0] == '{"n": 20}'


# Backups


MINE, ELSE = "c0ffee0000000001", "bad0000000000002"


@pytest.mark.parametrize(
    ("before", "after", "shown", "txid"),
    [
        (("0" * 15 + "5", MINE), ("0" * 15 + "9", ELSE), {}, "0" * 15 + "5"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "5", MINE), {}, "0" * 15 + "5"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "9", ELSE), {ELSE: "0" * 15 + "9", MINE: "0" * 15 + "7"}, "0" * 15 + "7"),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "9", ELSE), {ELSE: "0" * 15 + "7"}, None),
        (("0" * 15 + "3", ELSE), ("0" * 15 + "3", ELSE), {}, None),
        (None, None, {}, None),
    ],
    ids=["before", "after", "in between", "others in between", "other content", "nothing known"],
)
def test_the_position_of_an_export_is_proven_by_its_checksum(before: Any, after: Any, shown: Any, txid: Any) -> None:
    found, problem = backup.position(MINE, before, after, shown)
    assert found == txid and (problem is None) == (txid is not None)
