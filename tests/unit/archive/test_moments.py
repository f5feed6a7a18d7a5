"""Which moment is meant, whether it can be had, what came after it, and where the data was lost: as tables."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import moments
from ansible_collections.abaci.infra.plugins.module_utils.moments import Later, Moment, Refused

NOW = datetime.datetime(2026, 11, 30, 14, 0, tzinfo=datetime.UTC)


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text + "+00:00")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-30 14:05:00 Europe/Berlin", utc("2026-11-30T13:05:00")),
        ("2026-07-01T14:05:00 Europe/Berlin", utc("2026-07-01T12:05:00")),
        ("2026-11-30T14:05:00[Europe/Berlin]", utc("2026-11-30T13:05:00")),
        ("2026-11-30 13:05 UTC", utc("2026-11-30T13:05:00")),
        ("2026-11-30T14:05:00+01:00", utc("2026-11-30T13:05:00")),
        ("2026-11-30T13:05:00.250Z", utc("2026-11-30T13:05:00.250")),
        (" 2026-10-25 03:30:00 Europe/Berlin ", utc("2026-10-25T02:30:00")),
        ("15m ago", utc("2026-11-30T13:45:00")),
        ("2h ago", utc("2026-11-30T12:00:00")),
        ("1d2h", utc("2026-11-29T12:00:00")),
        ("0s ago", NOW),
        ("00000000000000A7", 0xA7),
    ],
)
def test_a_moment_is_read(text: str, wanted: datetime.datetime | int) -> None:
    found = moments.parse(text, NOW, "restore_at")
    assert found == (Moment(txid=wanted) if isinstance(wanted, int) else Moment(time=wanted))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-30 14:05:00", "has no zone"),
        ("2026-11-30", "has no zone"),
        ("2026-11-30T15:00:00+01:00 Europe/Berlin", "names two zones"),
        (
            "2026-11-30 15:05:00 Europe/Berlin",
            "is in the future: by the clock of the API server it is 2026-11-30 14:00:00",
        ),
        ("2026-11-30 14:05:00 Europe/Bärlin", "is no moment"),
        ("2026-11-30 14:05:00 Europe/Atlantis", "zone Europe/Atlantis, which this machine does not know"),
        (
            "2026-10-25 02:30:00 Europe/Berlin",
            "was twice.*give 2026-10-25T02:30:00[+]02:00 or 2026-10-25T02:30:00[+]01:00",
        ),
        ("2026-03-29 02:30:00 Europe/Berlin", "leave out"),
        ("2026-11-30T14:05:00[Europe/Berlin", "is no moment"),
        ("yesterday", "is no moment: give .*15m ago"),
        ("a7", "is no moment"),
        ("15m later", "is no moment"),
        ("99999999999999d ago", "longer ago"),
        ("", "is no moment"),
    ],
)
def test_what_says_no_moment_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(Refused, match=rf"^restore_at .*{words}") as caught:
        moments.parse(text, NOW, "restore_at")
    assert str(caught.value).endswith((".", '"'))


def point(txid: int, time: str) -> dict[str, str]:
    return {"txid": f"{txid:016x}", "time": f"2026-11-30T{time}Z"}


def history(name: str = "1", **more: Any) -> Any:
    """From transaction 10 at noon to 99 at 13:00, without 40 to 49, after which there is a base at 60."""
    made = {
        "cluster": "LFSC1",
        "database": "sqlite.db",
        "history": name,
        "opened": "2026-11-30T11:59:00Z",
        "first": point(10, "12:00:00"),
        "last": point(99, "13:00:00"),
        "followed": "2026-11-30T13:30:00Z",
        "gaps": [{"first": f"{40:016x}", "last": f"{49:016x}"}],
        "bases": [f"{60:016x}"],
    }
    return made | more


NEWER = history(
    "2", opened="2026-11-30T13:40:00Z", first=point(80, "13:40:00"), last=point(90, "13:50:00"), gaps=[], bases=[]
)
EMPTY = history("3", opened="2026-11-30T13:59:00Z", first=point(0, "00:00:00"), last=point(0, "00:00:00"))


@pytest.mark.parametrize(
    ("text", "named", "wanted"),
    [
        ("2026-11-30T12:10:00Z", "", "1"),
        ("2026-11-30T13:20:00Z", "", "1"),
        ("2026-11-30T13:45:00Z", "", "2"),
        (f"{85:016x}", "", "2"),
        (f"{85:016x}", "1", "1"),
        (f"{39:016x}", "1", "1"),
        (f"{60:016x}", "1", "1"),
    ],
)
def test_a_moment_has_its_history(text: str, named: str, wanted: str) -> None:
    moment = moments.parse(text, NOW, "restore_at")
    assert moments.chosen(moment, [history(), NEWER, EMPTY], named, "restore_at")["history"] == wanted


@pytest.mark.parametrize(
    ("text", "named", "words"),
    [
        (
            "2026-11-30T11:00:00Z",
            "",
            "restore_at: 2026-11-30 11:00:00 UTC is before the first transaction of history 1",
        ),
        ("2026-11-30T13:35:00Z", "", "is after 2026-11-30 13:30:00 UTC, until when the archive followed history 1"),
        (f"{70:016x}", "", "is in history 1, not in the newest: give -e restore_history=1"),
        (f"{95:016x}", "", "is in history 1, not in the newest"),
        (f"{9:016x}", "", "is not in history 2"),
        (f"{100:016x}", "1", "is not in history 1, which has 000000000000000a of"),
        (
            f"{45:016x}",
            "1",
            "lacks the transactions 0000000000000028 to 0000000000000031: the last one .* 0000000000000027",
        ),
        (f"{55:016x}", "1", "lacks the transactions"),
        (f"{85:016x}", "7", "no history 7 of this database: it has 1, 2, 3"),
        (f"{85:016x}", "3", "neither a base nor a snapshot"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_rebuilt(text: str, named: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        moments.chosen(moments.parse(text, NOW, "restore_at"), [history(), NEWER, EMPTY], named, "restore_at")


def test_an_empty_archive_has_no_moment() -> None:
    with pytest.raises(Refused, match="no transaction of this database yet"):
        moments.chosen(Moment(txid=1), [EMPTY], "", "restore_at")


def test_a_random_moment_is_one_that_can_be_had() -> None:
    assert moments.spans(history()) == [(10, 39), (60, 99)]
    assert moments.spans(history(bases=[])) == [(10, 39)] and moments.spans(EMPTY) == []
    picked = [moments.pick(history(), part / 1000) for part in range(1001)]
    assert set(picked) == {*range(10, 40), *range(60, 100)} and moments.pick(EMPTY, 0.5) is None


def transaction(txid: int, name: str = "1", commit: int = 5) -> Any:
    return point(txid, f"12:{txid % 60:02d}:00") | {"history": name, "pages": 2, "commit": commit, "bytes": 9}


def test_what_came_after_is_counted() -> None:
    listed = [transaction(8), transaction(9), transaction(10), transaction(9, "2"), transaction(9, "0")]
    found = moments.later(listed, "1", f"{9:016x}")
    assert (found.count, found.txid, found.pages) == (2, f"{9:016x}", 4)
    assert moments.after(Later()) == "Nothing came after it."
    assert "1 transaction after it, up to 0a of noon (2 pages), is taken back" in moments.after(
        Later(1, "0a", "noon", 2)
    )


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([1, 2, 3, 0], (2, 3)),
        ([5, 0, 1, 2, 3], (0, 1)),
        ([0, 1, 2, 3, 4], None),
        ([3, 3, 3], None),
        ([3], None),
        ([], None),
        ([9, 9, 4, 4, 2, 2], (3, 4)),
        ([1, -math.inf], (0, 1)),
        ([*range(1000), *range(600)], (999, 1000)),
    ],
)
def test_the_last_moment_before_a_fall_is_found(answers: list[float], wanted: tuple[int, int] | None) -> None:
    txids = [100 + place for place in range(len(answers))]
    found = moments.fall(txids, lambda txid: answers[txid - 100])
    assert (None if found is None else (found.before - 100, found.after - 100)) == wanted
    if found is not None:
        assert (found.was, found.became) == (answers[found.before - 100], answers[found.after - 100])


@pytest.mark.parametrize("place", [1, 2, 3, 500_000, 999_998, 999_999])
def test_the_number_of_rebuilds_is_logarithmic(place: int) -> None:
    asked: list[int] = []

    def answer(txid: int) -> float:
        asked.append(txid)
        return 7 if txid < place else 3

    found = moments.fall(range(1_000_000), answer)
    assert found is not None and found.after == place and len(asked) == len(set(asked)) <= 2 * 20 + 1


def test_where_it_shrank_most() -> None:
    commits = [5, 9, 4, 8, 7]
    listed = [transaction(place, commit=commit) for place, commit in enumerate(commits)]
    found = moments.shrinks([*listed, transaction(9, "2", 1)], 2)
    assert [(by, int(one["txid"], 16)) for by, one in found] == [(5, 2), (1, 4)]
