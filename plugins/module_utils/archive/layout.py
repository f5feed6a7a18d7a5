"""Where the archive's files are, what their names say, and which of them make a chain. Reads names of files only."""

from __future__ import annotations

import calendar
import os
import re
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import disk

_CHAIN = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx(\.gz)?")
_BASE = re.compile(r"base-([0-9a-f]{16})\.gz")
_HISTORY = re.compile(r"(\d{8}T\d{6}Z)-(\d{3,})")
FOLLOWED = "followed"


@dataclass(frozen=True, slots=True)
class Piece:
    """A raw file or a pack: the transactions from first to last. There may be a hundred thousand, so it is small."""

    first: int
    last: int
    place: Path
    packed: bool

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.place / (raw_name(self.first, self.last) + (".gz" if self.packed else ""))

    @property
    def name(self) -> str:
        """As errors name it."""
        return label(self.path)


@dataclass(frozen=True)
class Base:
    """A copy of the database as it was after this transaction."""

    txid: int
    path: Path

    @property
    def name(self) -> str:
        """As errors name it."""
        return label(self.path)


@dataclass(frozen=True)
class Missing:
    """TXIDs of a chain that are in no file."""

    first: int
    last: int


@dataclass(frozen=True)
class Folder:
    """What one history has in its directories."""

    cluster: str
    database: str
    history: str
    pieces: tuple[Piece, ...]  # by first; of those with the same first the longest is first
    bases: tuple[Base, ...]  # by TXID
    unnoted: tuple[Path, ...]  # packs and bases without a description
    notes: tuple[Path, ...]  # descriptions whose file is missing
    unfinished: tuple[Path, ...]  # what was being written or removed, in the order in which it can go

    @property
    def files(self) -> tuple[Piece | Base, ...]:
        """All that counts."""
        return self.pieces + self.bases


def label(path: Path) -> str:
    """A file as errors name it: with its history."""
    return f"{path.parent.name}/{path.name}"


def note_of(path: Path) -> Path:
    """The description beside a pack or a base."""
    return path.with_name(path.name[: -len(".gz")] + ".json")


def raw_name(first: int, last: int) -> str:
    """Of the file of a transaction."""
    return f"{first:016x}-{last:016x}.ltx"


def quoted(name: str) -> str:
    """A name as that of a directory, which is none of ours and does not lead out of the root."""
    quoted_name = urllib.parse.quote(name, safe="")
    return "%2E" + quoted_name[1:] if quoted_name.startswith(".") else quoted_name


def next_history(now: float, newest: str | None) -> str:
    """A name that comes after the newest, also where the clock went back."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    match = _HISTORY.fullmatch(newest or "")
    if match and match[1] >= stamp:
        return f"{match[1]}-{int(match[2]) + 1:03d}"
    return f"{stamp}-001"


def opened(history: str) -> float:
    """The time in its name."""
    return float(calendar.timegm(time.strptime(history[:16], "%Y%m%dT%H%M%SZ")))


def names(path: Path) -> list[str]:
    """What is in a directory; nothing where it is not there."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def databases(roots: Iterable[Path]) -> list[tuple[str, str]]:
    """Cluster id and database of all that is there."""
    found = {
        (cluster, database)
        for root in roots
        for cluster in names(root)
        if not cluster.startswith(".") and cluster != "lost+found"
        for database in names(root / cluster)
        if not database.startswith(".")
    }
    return [(urllib.parse.unquote(cluster), urllib.parse.unquote(database)) for cluster, database in sorted(found)]


def histories(roots: Iterable[Path], cluster: str, database: str) -> list[str]:
    """Oldest first."""
    places = (root / quoted(cluster) / quoted(database) for root in roots)
    # The counter may get more digits than three.
    found = {match[0]: (match[1], int(match[2])) for place in places for match in map(_match, names(place)) if match}
    return sorted(found, key=found.__getitem__)


def _match(name: str) -> re.Match[str] | None:
    return _HISTORY.fullmatch(name)


def folder(roots: Sequence[Path], cluster: str, database: str, history: str) -> Folder:
    """What one history has; a file that is whole in several roots is that of the first."""
    whole: dict[str, Path] = {}  # to the directory
    unnoted: dict[str, Path] = {}
    notes: dict[str, Path] = {}
    withdrawn, unfinished = [], []
    for root in roots:
        place = root / quoted(cluster) / quoted(database) / history
        found = set(names(place))
        for name in found:
            if name.endswith(".ltx") and not name.startswith(disk.UNFINISHED):
                whole.setdefault(name, place)
                continue
            path, described = place / name, name[: -len(".json")] + ".gz"
            if name.startswith(disk.UNFINISHED):
                unfinished.append(path)
            elif name.endswith(".gz"):
                if note_of(path).name in found:
                    whole.setdefault(name, place)
                else:
                    unnoted.setdefault(name, path)
            elif not name.endswith(".json"):
                continue
            elif disk.UNFINISHED + described in found:
                withdrawn.append(path)
            elif described not in found:
                notes.setdefault(name, path)
    pieces, bases = [], []
    for name, place in whole.items():
        if match := _CHAIN.fullmatch(name):
            pieces.append(Piece(int(match[1], 16), int(match[2], 16), place, match[3] is not None))
        elif match := _BASE.fullmatch(name):
            bases.append(Base(int(match[1], 16), place / name))
    return Folder(
        cluster,
        database,
        history,
        tuple(sorted(pieces, key=lambda piece: (piece.first, -piece.last, not piece.packed))),
        tuple(sorted(bases, key=lambda base: base.txid)),
        tuple(path for name, path in sorted(unnoted.items()) if name not in whole),
        tuple(path for name, path in sorted(notes.items()) if name[: -len(".json")] + ".gz" not in whole),
        (*withdrawn, *unfinished),
    )


def span(path: Path) -> tuple[int, int] | None:
    """The TXIDs that the name of a pack, its description or a raw file says; None for that of a base."""
    match = re.match(r"([0-9a-f]{16})-([0-9a-f]{16})\.", path.name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def chain(pieces: Iterable[Piece], after: int) -> Iterator[Piece | Missing]:
    """The pieces that lead on from a transaction, the longest first, and what is missing between them."""
    at = after
    best: Piece | None = None
    for piece in pieces:
        if best and piece.first > at + 1:
            yield best
            at, best = best.last, None
        if piece.last <= at:
            continue
        if piece.first > at + 1:
            yield Missing(at + 1, piece.first - 1)
            at = piece.first - 1
        if best is None or piece.last > best.last:
            best = piece
    if best:
        yield best


def covers(pieces: Iterable[Piece], first: int, last: int) -> bool:
    """Whether every transaction from first to last is in one of them."""
    at = first - 1
    for link in chain(pieces, at):
        if at >= last or isinstance(link, Missing):
            break
        at = link.last
    return at >= last


def runs(pieces: Iterable[Piece]) -> list[tuple[int, int]]:
    """First and last TXID of each part of the chain that has no gap."""
    found: list[tuple[int, int]] = []
    for link in chain(pieces, 0):
        if isinstance(link, Missing):
            continue
        if found and link.first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], link.last)
        else:
            found.append((link.first, link.last))
    return found
