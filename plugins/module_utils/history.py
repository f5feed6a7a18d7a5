"""What the archive has, in lines for a person. Pure."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import moments, sqlquery

if TYPE_CHECKING:
    from .archive.status import HistoryDoc, TransactionDoc

By = Literal["transaction", "minute", "hour", "day"]
_LENGTH = {"minute": 16, "hour": 13, "day": 10}  # of a stamp
_COLUMNS = ["time (UTC)", "transactions", "pages", "bytes", "last TXID"]


@dataclass(frozen=True)
class Sum:
    """Transactions of one minute, hour or day; or one of them."""

    time: str
    count: int
    pages: int
    size: int
    txid: str


def summed(transactions: Iterable[TransactionDoc], by: By) -> Iterator[Sum]:
    """In the order in which they come."""
    now: Sum | None = None
    for one in transactions:
        time = one["time"].replace("T", " ").removesuffix("Z")[: _LENGTH.get(by)]
        if now is not None and now.time == time and by != "transaction":
            now = Sum(time, now.count + 1, now.pages + one["pages"], now.size + one["bytes"], one["txid"])
            continue
        if now is not None:
            yield now
        now = Sum(time, 1, one["pages"], one["bytes"], one["txid"])
    if now is not None:
        yield now


def listed(transactions: Iterable[TransactionDoc], by: By, limit: int) -> list[str]:
    """A table of the newest ``limit``, and what was left out."""
    kept: collections.deque[Sum] = collections.deque(maxlen=limit)
    count = lines = 0
    for one in summed(transactions, by):
        count, lines = count + one.count, lines + 1
        kept.append(one)
    if not count:
        return ["There are no transactions in that time."]
    rows = [[one.time, str(one.count), str(one.pages), str(one.size), one.txid] for one in kept]
    more = f"; the newest {limit} lines of {lines} are shown (history_limit)" if lines > limit else ""
    return [*sqlquery.table(_COLUMNS, rows), f"{count} transactions{more}."]


def described(histories: Iterable[HistoryDoc]) -> list[str]:
    """A line for each history, one for each of its gaps, and one for its bases."""
    lines = []
    for one in histories:
        first, last = one["first"], one["last"]
        lines.append(
            f"History {one['history']} of cluster {one['cluster']}: {first['txid']} of {first['time']} to "
            f"{last['txid']} of {last['time']}, followed until {one['followed']}; {one['files']} files, "
            f"{one['bytes'] / 1e6:.1f} MB."
        )
        lines += [f"  lacks {gap['first']} to {gap['last']}" for gap in one["gaps"]]
        if one["bases"]:
            lines.append(f"  {len(one['bases'])} bases, the newest at {one['bases'][-1]}")
        lines += [f"  {problem}" for problem in one["problems"]]
    return lines or ["The archive has nothing of this database yet."]


def shrank(found: Iterable[tuple[int, TransactionDoc]]) -> list[str]:
    """Where the database became smaller."""
    lines = [
        f"{by} pages less with transaction {one['txid']} of {one['time']}, which left {one['commit']} pages."
        for by, one in found
    ]
    return lines or [
        "The database never became smaller in that time. SQLite keeps the pages of deleted rows, so that only a VACUUM "
        "shows: history_lost finds rows."
    ]


def lost(found: moments.Fall | None, times: dict[int, str], asked: int, newest: bool, history: str) -> list[str]:
    """Where an answer became smaller. ``times``: of the transactions that were rebuilt, ``asked``: among how many."""
    cost = f"{len(times)} databases were rebuilt for {asked} transactions."
    if found is None:
        return [
            f"The answer was not seen to become smaller: {cost} One that rose and fell in between may be found in a "
            "shorter time (history_since, history_until)."
        ]
    where = "" if newest else f" -e restore_history={history}"
    return [
        f"The answer fell from {_said(found.was)} to {_said(found.became)} with transaction {found.after:016x} of "
        f"{times[found.after]}.",
        f"The last moment before it is transaction {found.before:016x} of {times[found.before]}: playbooks/restore.yml "
        f"-e restore_at={found.before:016x}{where} goes back there.",
        cost,
    ]


def _said(value: float) -> str:
    return "nothing" if value == float("-inf") else f"{value:.15g}"
