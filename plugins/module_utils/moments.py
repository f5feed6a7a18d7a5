"""Moments of the database: what a person writes, where it lies in the histories, where the data was lost. Pure.

What can be had at all, the archive decides when it is asked; what is refused here needs no rebuilding, and is said in
the words of the variable that was given.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import clock

if TYPE_CHECKING:
    from .archive.status import HistoryDoc, TransactionDoc

_TXID = re.compile(r"[0-9a-fA-F]{16}")
_AGO = re.compile(r"((?:[0-9]+[smhd])+)(?: +ago)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# After a blank, or in brackets as in RFC 9557, which a command line takes without further quotes.
_ZONE = re.compile(r"(.+?)(?: +([A-Za-z][A-Za-z0-9_+/-]*)|\[([A-Za-z][A-Za-z0-9_+/-]*)\])")
FORMS = '2026-11-30T14:05:00[Europe/Berlin], 2026-11-30T14:05:00+01:00, a TXID of 16 digits, or "15m ago"'


class Refused(Exception):
    """No moment that can be had; one sentence."""


@dataclass(frozen=True)
class Moment:
    """A TXID, or a time in UTC; never both."""

    txid: int | None = None
    time: datetime.datetime | None = None

    def question(self) -> dict[str, str]:
        """As the archive is asked."""
        if self.time is None:
            return {"txid": f"{self.txid or 0:016x}"}
        return {"time": self.time.isoformat()}

    def __str__(self) -> str:
        if self.time is None:
            return f"transaction {self.txid or 0:016x}"
        return f"{self.time:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Later:
    """The transactions after a moment, in its history and in newer ones."""

    count: int = 0
    txid: str = ""  # the last, and its time
    time: str = ""
    pages: int = 0


def parse(text: str, now: datetime.datetime, variable: str) -> Moment:
    """The moment that a text says, by the clock ``now`` (of the API server). Refused where it says none."""
    text = text.strip()
    if _TXID.fullmatch(text):
        return Moment(txid=int(text, 16))
    if ago := _AGO.fullmatch(text):
        parts = re.findall(r"([0-9]+)([smhd])", ago[1])
        try:
            passed = datetime.timedelta(seconds=sum(int(count) * _SECONDS[unit] for count, unit in parts))
            return Moment(time=now.astimezone(datetime.UTC) - passed)
        except OverflowError as exc:
            raise Refused(f"{variable} {text} is longer ago than any clock shows: give {FORMS}.") from exc
    found = _time(text, variable).astimezone(datetime.UTC)
    if found > now:
        raise Refused(
            f"{variable} {text} is in the future: by the clock of the API server it is {now:%Y-%m-%d %H:%M:%S} UTC."
        )
    return Moment(time=found)


def _time(text: str, variable: str) -> datetime.datetime:
    named = _ZONE.fullmatch(text)
    try:
        found = datetime.datetime.fromisoformat(named[1] if named else text)
    except ValueError as exc:
        raise Refused(f"{variable} {text} is no moment: give {FORMS}.") from exc
    if found.tzinfo is not None:
        if named:
            raise Refused(f"{variable} {text} names two zones: give {FORMS}.")
        return found
    if not named:
        raise Refused(f"{variable} {text} has no zone, and nobody knows whose clock is meant: give {FORMS}.")
    return _in_zone(found, named[2] or named[3], f"{variable} {text}")


def _in_zone(found: datetime.datetime, name: str, given: str) -> datetime.datetime:
    """A time by the clocks of a place, which show an hour twice, or not at all, when they are put back or forward."""
    try:
        zone = zoneinfo.ZoneInfo({"Z": "UTC"}.get(name, name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise Refused(f"{given} has the zone {name}, which this machine does not know: give {FORMS}.") from exc
    first, second = found.replace(tzinfo=zone), found.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first
    if first.astimezone(datetime.UTC).astimezone(zone).replace(tzinfo=None) != found:
        raise Refused(f"{given} is in the hour that clocks there leave out when they are put forward: give another.")
    raise Refused(
        f"{given} was twice, since clocks there were put back: give {first.isoformat()} or {second.isoformat()}."
    )


def chosen(moment: Moment, histories: Sequence[HistoryDoc], named: str, variable: str) -> HistoryDoc:
    """The history that a moment is in; Refused where the archive's description shows already that it cannot be had.

    ``histories``: those of one database and cluster, oldest first. ``named``: the one that is asked for; "" for none.
    ``variable``: of the moment; that of the history ends in _history.
    """
    by_name = f"{variable.removesuffix('_at')}_history"
    if named:
        found = _named(histories, named)
    else:
        filled = [one for one in histories if _number(one["last"]["txid"])]
        if not filled:
            raise Refused("The archive has no transaction of this database yet.")
        found = _default(moment, filled)
        if moment.txid is not None and not _has(found, moment.txid):
            other = next((one for one in reversed(filled) if _has(one, moment.txid)), None)
            if other is not None:
                raise Refused(
                    f"{variable}: {moment} is in history {other['history']}, not in the newest: give "
                    f"-e {by_name}={other['history']} if it is the one that is meant."
                )
    _check_within(moment, found, variable)
    return found


def newest(histories: Sequence[HistoryDoc], named: str = "") -> HistoryDoc | None:
    """The newest history that has something, or the one that is named; None where nothing is there."""
    if named:
        return _named(histories, named)
    return next((one for one in reversed(histories) if _number(one["last"]["txid"])), None)


def _named(histories: Sequence[HistoryDoc], named: str) -> HistoryDoc:
    found = next((one for one in reversed(histories) if one["history"] == named), None)
    if found is None:
        names = ", ".join(one["history"] for one in histories) or "none"
        raise Refused(f"The archive has no history {named} of this database: it has {names}.")
    return found


def _default(moment: Moment, filled: Sequence[HistoryDoc]) -> HistoryDoc:
    if moment.time is None:
        return filled[-1]
    before = [one for one in filled if _at(one["opened"]) <= moment.time]
    return before[-1] if before else filled[0]


def _check_within(moment: Moment, one: HistoryDoc, variable: str) -> None:
    first, last = one["first"], one["last"]
    if not _number(first["txid"]):
        raise Refused(f"History {one['history']} has neither a base nor a snapshot, so nothing of it can be had.")
    until = max(_at(last["time"]), _at(one["followed"]))
    if moment.time is not None:
        if moment.time < _at(first["time"]):
            raise Refused(
                f"{variable}: {moment} is before the first transaction of history {one['history']}, {first['txid']} of "
                f"{first['time']}."
            )
        if moment.time > until:
            raise Refused(
                f"{variable}: {moment} is after {until:%Y-%m-%d %H:%M:%S} UTC, until when the archive followed history "
                f"{one['history']}; its last transaction is {last['txid']} of {last['time']}."
            )
        return
    txid = moment.txid or 0
    if not _has(one, txid):
        raise Refused(
            f"{variable}: {moment} is not in history {one['history']}, which has {first['txid']} of {first['time']} to "
            f"{last['txid']} of {last['time']}."
        )
    lacking = _lacking(one, txid)
    if lacking is not None:
        raise Refused(
            f"{variable}: {moment} cannot be had, since history {one['history']} lacks the transactions "
            f"{lacking[0]:016x} to {lacking[1]:016x}: the last one before them is {lacking[0] - 1:016x}."
        )


def _lacking(one: HistoryDoc, txid: int) -> tuple[int, int] | None:
    """The gap that stands between a transaction and the last base, or snapshot, that is not after it."""
    starts = [_number(one["first"]["txid"]), *map(_number, one["bases"])]
    start = max((at for at in starts if at <= txid), default=0)
    gaps = [(_number(gap["first"]), _number(gap["last"])) for gap in one["gaps"]]
    return next(((first, last) for first, last in gaps if first <= txid and last > start), None)


def spans(one: HistoryDoc) -> list[tuple[int, int]]:
    """The TXIDs of a history that can be had, as its description says: first and last of each span."""
    first, last = _number(one["first"]["txid"]), _number(one["last"]["txid"])
    if not first:
        return []
    found, at = [], first
    for gap in sorted(one["gaps"], key=lambda gap: gap["first"]):
        begin, end = _number(gap["first"]), _number(gap["last"])
        if begin > at:
            found.append((at, begin - 1))
        later = [_number(base) for base in one["bases"] if _number(base) >= end]
        if not later:
            return found
        at = max(at, min(later))
    return [*found, (at, last)]


def pick(one: HistoryDoc, fraction: float) -> int | None:
    """A TXID that can be had; ``fraction`` (0 to 1) says which. None where there is none."""
    places = spans(one)
    count = sum(last - first + 1 for first, last in places)
    place = min(int(fraction * count), count - 1)
    for first, last in places:
        if place <= last - first:
            return first + place
        place -= last - first + 1
    return None


def later(transactions: Iterable[TransactionDoc], history: str, txid: str) -> Later:
    """Those after a transaction of a history; names of histories sort by their age."""
    count, pages, last = 0, 0, ("", "")
    for one in transactions:
        if one["history"] > history or (one["history"] == history and one["txid"] > txid):
            count, pages, last = count + 1, pages + one["pages"], (one["txid"], one["time"])
    return Later(count, *last, pages)


def after(found: Later) -> str:
    """What a return to the moment takes back."""
    if not found.count:
        return "Nothing came after it."
    few = found.count == 1
    return (
        f"{found.count} {'transaction' if few else 'transactions'} after it, up to {found.txid} of {found.time} "
        f"({found.pages} pages), {'is' if few else 'are'} taken back."
    )


# Where the data was lost

Answer = Callable[[int], float]


@dataclass(frozen=True)
class Fall:
    """Two neighbours of the transactions that were given; the answer after the second is smaller."""

    before: int
    after: int
    was: float
    became: float


def fall(txids: Sequence[int], answer: Answer) -> Fall | None:
    """The last of the falls that its looks show, by bisection; None where they show none.

    ``answer`` costs a rebuilt database, so it is asked a number of times that grows with the logarithm only: once for
    each doubling of the distance from the end, then by halves between the two neighbours of those that fall last. A
    fall that the data made good between two looks is not seen: fewer ``txids`` are looked at more closely.
    """
    known: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in known:
            known[place] = answer(txids[place])
        return known[place]

    end, step = len(txids) - 1, 1
    if end < 1:
        return None
    high = end
    while high > 0:
        low = max(end - step, 0)
        if at(low) > at(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if at(middle) > at(high) else (low, middle)
            return Fall(txids[low], txids[high], at(low), at(high))
        high, step = low, step * 2
    return None


def shrinks(transactions: Iterable[TransactionDoc], most: int) -> list[tuple[int, TransactionDoc]]:
    """Pages by which the database shrank, and the transaction; the greatest first. Transactions in their order."""
    found: list[tuple[int, TransactionDoc]] = []
    before: TransactionDoc | None = None
    for one in transactions:
        if before and before["history"] == one["history"] and one["commit"] < before["commit"]:
            found = sorted([*found, (before["commit"] - one["commit"], one)], key=lambda pair: -pair[0])[:most]
        before = one
    return found


def _has(one: HistoryDoc, txid: int) -> bool:
    first = _number(one["first"]["txid"])
    return bool(first) and first <= txid <= _number(one["last"]["txid"])


def _number(text: str) -> int:
    return int(text, 16)


def _at(stamp: str) -> datetime.datetime:
    found = clock.moment(stamp)
    if found is None:
        raise Refused(
            f"The archive says {stamp} where a time is expected: it is of another version than this playbook."
        )
    return found
