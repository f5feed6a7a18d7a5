"""Alarms: said once, gone with their cause, kept over a restart."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.abaci.infra.plugins.module_utils.archive.alarms import STAYS_S, Alarm, Alarms


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(path: Path) -> tuple[Alarms, list[Alarm], Clock]:
    told: list[Alarm] = []
    clock = Clock()
    return Alarms(path / "alarms.json", told.append, clock), told, clock


def test_a_cause_that_lasts_is_said_once_and_ends(tmp_path: Path) -> None:
    alarms, told, clock = made(tmp_path)
    alarms.raise_("target", "It is full: 1 file.")
    clock.now = 1010.0
    alarms.raise_("target", "It is full: 1 file.")
    alarms.raise_("target", "It is full: 2 files.")
    assert [one["sentence"] for one in told] == ["It is full: 1 file."]
    (active,) = alarms.active()
    assert (active["sentence"], active["since"]) == ("It is full: 2 files.", 1000.0)
    alarms.clear("target")
    assert alarms.active() == []
    alarms.raise_("target", "It is full: 2 files.")
    assert len(told) == 2


def test_a_break_stays_for_its_time_and_a_second_one_is_said_again(tmp_path: Path) -> None:
    alarms, told, clock = made(tmp_path)
    alarms.raise_("fork", "At 1.", "a.db", stays=60)
    alarms.raise_("fork", "At 1.", "a.db", stays=60)
    alarms.raise_("fork", "At 2.", "a.db", stays=60)
    alarms.raise_("fork", "At 1.", "b.db", stays=60)
    assert [(one["database"], one["sentence"]) for one in told] == [
        ("a.db", "At 1."),
        ("a.db", "At 2."),
        ("b.db", "At 1."),
    ]
    clock.now = 1060.0
    assert alarms.active() == []


def test_a_restart_forgets_nothing_and_says_nothing_again(tmp_path: Path) -> None:
    alarms, _, _ = made(tmp_path)
    alarms.raise_("no_database", "It has none.", "a.db")
    again, told, _ = made(tmp_path)
    again.raise_("no_database", "It has none.", "a.db")
    assert told == [] and [one["kind"] for one in again.active()] == ["no_database"]
    (tmp_path / "alarms.json").write_text("[{")
    assert made(tmp_path)[0].active() == []


def test_what_is_still_so_after_a_day_is_told_again(tmp_path: Path) -> None:
    told: list[Alarm] = []
    now = 1000.0
    alarms = Alarms(tmp_path / "alarms.json", told.append, lambda: now)
    alarms.raise_("refused_file", "It is altered.", "a.db", STAYS_S)
    alarms.raise_("refused_file", "It is altered.", "a.db", STAYS_S)
    now += STAYS_S
    alarms.raise_("refused_file", "It is altered.", "a.db", STAYS_S)
    assert len(told) == 2 and [one["since"] for one in alarms.active()] == [now]
