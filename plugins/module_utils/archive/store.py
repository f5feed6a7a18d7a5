"""The archive on disk: receive, pack, prune, list, rebuild. I/O.

<root>/<cluster id>/<database, quoted>/<history>/ has <min>-<max>.ltx as they came, packs <min>-<max>.ltx.gz and
base-<txid>.gz, each of the latter two with a .json beside it. Times are seconds since 1970.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Union

from .ltx import Position

Clock = Callable[[], float]
Moment = Union[int, datetime.datetime]  # a TXID, or a time with its zone


class Refused(Exception):
    """Not to be had, or not allowed; one sentence."""


@dataclass(frozen=True)
class Received:
    kind: Literal["continued", "new_history", "duplicate"]
    # Of a new history: first | back (the primary is behind us) | forked (same TXID, other checksum) | absent
    cause: Literal["", "first", "back", "forked", "absent"]
    why: str  # one sentence; "" for continued
    position: Position
    history: str
    verified: bool  # False: compressed, kept as it came


@dataclass(frozen=True)
class Transaction:
    txid: int
    time: float
    pages: int
    commit: int  # pages of the database afterwards
    history: str
    size: int  # bytes of its LTX file


@dataclass(frozen=True)
class Gap:
    first: int  # TXIDs that are missing
    last: int


@dataclass(frozen=True)
class History:
    cluster: str
    database: str
    history: str
    opened: float
    first: int  # the first and the last TXID that can be rebuilt
    first_time: float
    last: int
    last_time: float
    checksum: int  # after the last
    followed: float  # until when nothing came after the last
    gaps: tuple[Gap, ...]
    bases: tuple[int, ...]
    files: int
    size: int
    problems: tuple[str, ...]  # one sentence each


@dataclass(frozen=True)
class Rebuilt:
    txid: int
    time: float
    checksum: int
    following: int | None
    history: str
    problems: tuple[str, ...]  # files that were altered, but not needed


@dataclass(frozen=True)
class Done:
    """What pack, make_base or prune did."""

    made: int
    removed: int
    problems: tuple[str, ...]  # one sentence each; what is altered is left as it is


@dataclass(frozen=True)
class Moved:
    files: int
    behind_files: int
    behind_bytes: int
    behind_since: float | None  # time of the oldest that is only in the buffer
    lost: tuple[str, ...]  # one sentence each, what was dropped beyond the buffer's size, ever
    error: str  # "" or why the target did not take more


class Store:
    """Reading looks at ``root`` and ``also`` (the other of buffer and target); writing is to ``root`` only."""

    def __init__(self, root: Path, clock: Clock, also: Path | None = None) -> None:
        raise NotImplementedError

    def claim(self, owner: str, seconds: float) -> None:
        """Become or stay the one who writes here, for so long; Refused where another is alive. Call it again to renew."""
        raise NotImplementedError

    def tidy(self) -> Done:
        """At the start: finish or undo what a killed process left. pack() and prune() need it done."""
        raise NotImplementedError

    def databases(self) -> list[tuple[str, str]]:
        """Cluster id and database of all that is here."""
        raise NotImplementedError

    def position(self, cluster: str, database: str) -> Position | None:
        """What the newest history holds; None where there is none or its end is altered (a snapshot has to come)."""
        raise NotImplementedError

    def receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received:
        """Keep one file for good (fsynced); the given file is moved or removed. Altered where it is none or does not follow."""
        raise NotImplementedError

    def followed(self, cluster: str, database: str) -> None:
        """Call it at heartbeats: up to now nothing came after the position. Written at most every 10 seconds."""
        raise NotImplementedError

    def begin_anew(self, cluster: str, database: str) -> None:
        """Open a new, empty history: position() is None, so that a snapshot comes (after a loss)."""
        raise NotImplementedError

    def pack(
        self,
        now: float,
        minute_after: float = 600,
        hour_after: float = 2 * 3600,
        day_after: float = 2 * 86400,
    ) -> Done:
        """Raw files to minutes, these to hours, these to days, once they are so old; verified before parts are removed."""
        raise NotImplementedError

    def make_base(self, now: float, every: float = 86400) -> Done:
        """A base at the end of each newest history that has transactions and none for so long."""
        raise NotImplementedError

    def prune(self, now: float, keep_seconds: float, max_bytes: int | None = None) -> Done:
        """Remove what no moment within keep needs, then the oldest beyond max_bytes; never the newest base and what follows."""
        raise NotImplementedError

    def transactions(self, cluster: str, database: str, since: float, until: float) -> Iterator[Transaction]:
        """By history and TXID."""
        raise NotImplementedError

    def moments(self) -> list[History]:
        """All histories, oldest first within their database."""
        raise NotImplementedError

    def check(self) -> Iterator[str]:
        """Read everything; one sentence for each file that is altered, cut or missing."""
        raise NotImplementedError

    def rebuild(
        self, cluster: str, database: str, moment: Moment, out_path: Path, history: str | None = None
    ) -> Rebuilt:
        """Write the database of that moment (the last transaction not later than a time), every checksum verified.

        Refused or ltx.Altered with one sentence where it cannot be had; then there is no out_path.
        """
        raise NotImplementedError


class Mover:
    """Copies finished files from the buffer to the target, verified. The newest stays in the buffer, for position()."""

    def __init__(self, buffer: Store, target: Store, owner: str, max_bytes: int) -> None:
        raise NotImplementedError

    def run(self) -> Moved:
        """Never raises for a target that is away, full or another's: it goes on at the next call."""
        raise NotImplementedError
