"""What it means when a primary sends something else than the transaction after the last one. Pure.

The archive never decides which of two histories is the right one: it keeps both, and says what it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .ltx import Position
from .store import Received

Kind = Literal["primary_behind", "no_database", "foreign_cluster", "two_primaries", "fork", "gap"]


@dataclass(frozen=True)
class Finding:
    """Something that a person has to know."""

    kind: Kind
    sentence: str


def broke(name: str, held: Position | None, came: Received, away: float, kept: float) -> Finding | None:
    """Of what the store made of a file: what is wrong, or nothing.

    ``away``: seconds for which no primary of this cluster was heard. ``kept``: for how many seconds LiteFS keeps the
    files of its transactions, so that after a shorter absence the next one has to be there.
    """
    if came.kind != "new_history" or came.cause in ("", "first") or held is None:
        return None
    theirs, ours = f"transaction {came.position.txid:016x}", f"transaction {held.txid:016x}"
    if came.cause == "back":
        return Finding(
            "primary_behind",
            f"The primary's database {name} is at {theirs}, and the archive holds up to {ours}: the primary lost "
            f"{held.txid - came.position.txid} transactions that the archive has. Nothing was overwritten: what the "
            f"primary has now is history {came.history}.",
        )
    if came.cause == "forked":
        return Finding(
            "fork",
            f"The primary's database {name} and the archive both are at {ours}, with different content: the primary "
            f"has another history. Both are kept, the primary's as {came.history}.",
        )
    if away < kept:
        return Finding(
            "fork",
            f"The primary sent the whole database {name} at {theirs} where the one after {ours} was due, "
            f"{away:.0f} s after it was heard last: it has another history than the archive, or lost the files of its "
            f"transactions. Both are kept, the primary's as {came.history}.",
        )
    return Finding(
        "gap",
        f"The transactions of {name} between {ours} and {theirs} are not in the archive: no primary was heard for "
        f"{away:.0f} s, and LiteFS keeps them for {kept:.0f} s. So nothing proves that {theirs} comes of {ours} and "
        f"not of an older copy that was written to meanwhile: what the primary has is kept as another history, "
        f"{came.history}, which is complete from there on.",
    )


def without_database(name: str, held: Position) -> Finding:
    """The primary was given a position in a database that it does not have."""
    return Finding(
        "no_database",
        f"The primary has no database {name}, and the archive holds it up to transaction {held.txid:016x}: the primary "
        "was started on an empty or another volume. The archive keeps what it has.",
    )


def two(addresses: Sequence[str], followed: str) -> Finding | None:
    """Where several nodes of one cluster say at one time that they are primary."""
    if len(addresses) < 2:
        return None
    return Finding(
        "two_primaries",
        f"{' and '.join(addresses)} each say that they are the primary of this cluster, and what one of them "
        f"acknowledges the other does not have. The archive follows {followed} alone: stop the wrong one.",
    )


def foreign(expected: str, found: str) -> Finding | None:
    """Where the primary belongs to another LiteFS cluster than the site."""
    if not expected or found == expected:
        return None
    return Finding(
        "foreign_cluster",
        f"The primary's cluster id is {found or '(none)'}, and the site's is {expected}: it was started on an empty or "
        "a foreign volume. Nothing is taken from it.",
    )
