"""What can be had from the archive's files: transactions, moments, the database of a moment. I/O, reading only."""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Union

from . import disk, layout, ltx, packs

_Found = TypeVar("_Found")
TRIES = 5  # where a file was packed between its name and its content
Moment = Union[int, datetime.datetime]  # a TXID, or a time with its zone


class Refused(Exception):
    """Not to be had, or not allowed; one sentence."""


class Lacking(Refused):
    """A transaction in the midst of a history is gone, and with it all that follows."""


@dataclass(frozen=True)
class Transaction:
    """One that is in the archive."""

    txid: int
    time: float
    pages: int
    commit: int  # pages of the database afterwards
    history: str
    size: int  # bytes of its LTX file


@dataclass(frozen=True)
class Gap:
    """TXIDs that are missing."""

    first: int
    last: int


@dataclass(frozen=True)
class History:
    """What the archive has of one history; first and last are the TXIDs that can be rebuilt."""

    cluster: str
    database: str
    history: str
    opened: float
    first: int  # 0 where nothing is in it
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
    """The database of a moment."""

    txid: int
    time: float
    checksum: int
    following: int | None
    history: str
    problems: tuple[str, ...]  # bases that are altered and were not needed


@dataclass(frozen=True)
class Start:
    """Where rebuilding may begin: a base, or the snapshot that opened the history."""

    txid: int
    source: layout.Base | layout.Piece

    @property
    def after(self) -> int:
        """The transaction that one has before the chain is applied."""
        return self.txid if isinstance(self.source, layout.Base) else 0

    @property
    def time(self) -> float:
        """Of the transaction."""
        if isinstance(self.source, layout.Base):
            return packs.base_note(self.source).time
        return packs.describe(self.source).last_time


def starts(folder: layout.Folder) -> list[Start]:
    """By TXID. What comes with MinTXID 1 is a whole database, and is never packed with others."""
    opening = [Start(piece.last, piece) for piece in folder.pieces if piece.first == 1]
    return sorted([Start(base.txid, base) for base in folder.bases] + opening, key=lambda start: start.txid)


def links(folder: layout.Folder) -> list[layout.Piece | layout.Missing]:
    """The chain from the first start on."""
    found = starts(folder)
    return list(layout.chain(folder.pieces, found[0].after)) if found else []


def last_txid(folder: layout.Folder) -> int:
    """Of all that is there; 0 for none."""
    return max([piece.last for piece in folder.pieces] + [base.txid for base in folder.bases], default=0)


def tail(folder: layout.Folder, verify: bool) -> tuple[ltx.Position, float]:
    """Position and time of the last transaction; Altered where its file is."""
    last = last_txid(folder)
    for base in folder.bases:
        if base.txid == last:
            note = packs.base_note(base)
            return ltx.Position(last, int(note.checksum, 16)), note.time
    piece = next(piece for piece in folder.pieces if piece.last == last)
    if piece.packed:
        pack = packs.describe(piece)
        return ltx.Position(last, int(pack.after, 16)), pack.last_time
    if verify:
        found = ltx.inspect(piece.path, piece.name)
        return found.position, found.header.time
    return ltx.Position(last, ltx.read_after(piece.path, piece.name)), packs.describe(piece).last_time


def shown(when: float) -> str:
    """A time in a sentence."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))


class Reading:
    """One database in the archive's roots."""

    def __init__(self, roots: tuple[Path, ...], cluster: str, database: str) -> None:
        self._roots, self._cluster, self._database = roots, cluster, database

    def histories(self) -> list[str]:
        """Oldest first."""
        return layout.histories(self._roots, self._cluster, self._database)

    def folder(self, history: str) -> layout.Folder:
        """Its files at this moment."""
        return layout.folder(self._roots, self._cluster, self._database, history)

    def followed(self, history: str) -> float:
        """Until when nothing came after the last transaction, as the follower noted."""
        found = 0.0
        for root in self._roots:
            place = root / layout.quoted(self._cluster) / layout.quoted(self._database) / history / layout.FOLLOWED
            try:
                found = max(found, float(place.read_text()))
            except (OSError, ValueError):
                continue
        return found

    def transactions(self, since: float, until: float) -> Iterator[Transaction]:
        """By history and TXID; Altered where a file is, after all that comes before it."""
        for history in self.histories():
            at, tries = 0, 0
            while True:
                try:
                    for one in self._listed(history, at, since, until):
                        at, tries = one.txid, 0
                        yield one
                    break
                except FileNotFoundError:  # packed or pruned meanwhile
                    tries += 1
                    if tries == TRIES:
                        raise self._unsettled() from None

    def _listed(self, history: str, after: int, since: float, until: float) -> Iterator[Transaction]:
        folder = self.folder(history)
        begin = starts(folder)
        after = max(after, begin[0].txid - 1 if begin else 0)
        for piece in links(folder):
            if isinstance(piece, layout.Missing) or piece.last <= after or not _within(piece, since, until):
                continue
            for reader in packs.transactions(piece):
                header = reader.header
                if since <= header.time <= until and header.max_txid > after:
                    yield Transaction(header.max_txid, header.time, reader.count, header.commit, history, reader.size)

    def summary(self) -> list[History]:
        """All that can be said of the histories without reading their transactions."""
        return self.settled(lambda: [self._history(name) for name in self.histories()])

    def settled(self, act: Callable[[], _Found]) -> _Found:
        """Again where a file was packed or pruned between its name and its content."""
        for _try in range(TRIES):
            try:
                return act()
            except FileNotFoundError:
                continue
        raise self._unsettled()

    def _unsettled(self) -> Refused:
        return Refused(f"The files of {self._database} change faster than they can be read: try again.")

    def _history(self, name: str) -> History:
        folder = self.folder(name)
        chain, begin = links(folder), starts(folder)
        problems = [f"{layout.label(path)} has no description beside it." for path in folder.unnoted]
        problems += [f"{layout.label(path)} describes a file that is missing." for path in folder.notes]
        files = folder.files
        position, first_time, last_time = ltx.Position(0, 0), 0.0, 0.0
        try:
            if begin:
                first_time = begin[0].time
            if files:
                position, last_time = tail(folder, False)
        except ltx.Altered as exc:
            problems.append(str(exc))
        return History(
            self._cluster,
            self._database,
            name,
            layout.opened(name),
            begin[0].txid if begin else 0,
            first_time,
            last_txid(folder),
            last_time,
            position.checksum,
            self.followed(name),
            tuple(Gap(link.first, link.last) for link in chain if isinstance(link, layout.Missing)),
            tuple(base.txid for base in folder.bases),
            len(files),
            sum(_size(one.path) for one in files),
            tuple(problems),
        )

    def check(self) -> Iterator[str]:
        """Read everything; one sentence for each file that is altered, cut or missing."""
        for history in self.histories():
            yield from self._check(history)

    def _check(self, history: str) -> Iterator[str]:
        folder = self.folder(history)
        for path in folder.unnoted:
            yield f"{layout.label(path)} has no description beside it."
        for path in folder.notes:
            yield f"{layout.label(path)} describes a file that is missing."
        for link in links(folder):
            if isinstance(link, layout.Missing):
                yield f"{history} lacks the transactions {link.first} to {link.last} of {self._database}."
        for one in folder.files:
            try:
                if isinstance(one, layout.Piece):
                    packs.verify(one)
                else:
                    packs.check_base(one)
            except (ltx.Altered, ltx.Compressed) as exc:
                yield str(exc)
            except FileNotFoundError:
                if one.path.exists():
                    raise

    # A moment

    def choose(self, moment: Moment, history: str | None) -> str:
        """The history that a moment is in, or the one that is named."""
        there = self.histories()
        if not there or (history is not None and history not in there):
            what = f"no history {history}" if there else "nothing"
            raise Refused(f"The archive has {what} of {self._database} of cluster {self._cluster}.")
        if history is not None:
            return history
        filled = [name for name in there if last_txid(self.folder(name))] or there
        if isinstance(moment, datetime.datetime):
            before = [name for name in filled if layout.opened(name) <= moment.timestamp()]
            return before[-1] if before else filled[0]
        if not self._has(filled[-1], moment):
            for name in reversed(filled[:-1]):
                if self._has(name, moment):
                    raise Refused(
                        f"Transaction {moment} of {self._database} is in history {name}, not in the newest: name that "
                        "history if it is the one that is meant."
                    )
        return filled[-1]

    def _has(self, history: str, txid: int) -> bool:
        folder = self.folder(history)
        begin = starts(folder)
        return bool(begin) and begin[0].txid <= txid <= last_txid(folder)

    def target(self, moment: Moment, history: str) -> int:
        """The TXID of a moment; Refused where the history has none."""
        folder = self.folder(history)
        begin = starts(folder)
        if not begin:
            raise Refused(
                f"History {history} of {self._database} has neither base nor snapshot, so nothing to begin with."
            )
        last = last_txid(folder)
        if isinstance(moment, int):
            if moment < begin[0].txid:
                raise self._before(moment, begin[0], history)
            if moment > last:
                raise self._after(moment, folder)
            return moment
        if moment.tzinfo is None:
            raise Refused(f"The time {moment} has no zone: say which one is meant.")
        found = _last_until(links(folder), moment.timestamp())
        if found is None:
            if moment.timestamp() > max(tail(folder, False)[1], self.followed(history)):
                raise self._after(moment, folder)
            found = last if _not_later(begin[0], moment.timestamp()) else 0
        if found < begin[0].txid:
            raise self._before(moment, begin[0], history)
        return found

    def _before(self, moment: Moment, begin: Start, history: str) -> Refused:
        return Refused(
            f"History {history} of {self._database} begins with transaction {begin.txid} at {shown(begin.time)}: "
            f"{_named(moment)} is before it."
        )

    def _after(self, moment: Moment, folder: layout.Folder) -> Refused:
        until = max(self.followed(folder.history), tail(folder, False)[1])
        return Refused(
            f"History {folder.history} of {self._database} ends with transaction {last_txid(folder)}, and was followed "
            f"until {shown(until)}: {_named(moment)} is after it."
        )

    def rebuild(self, moment: Moment, history: str | None, out_path: Path) -> Rebuilt:
        """Write the database of a moment; Refused or Altered where it cannot be had, and then there is no file."""
        beside = disk.unfinished(out_path)

        def built() -> Rebuilt:
            chosen = self.choose(moment, history)
            return self._rebuild(self.target(moment, chosen), chosen, beside)

        try:
            found = self.settled(built)
            disk.flush(beside)
            disk.rename(beside, out_path)
            return found
        finally:
            beside.unlink(missing_ok=True)

    def _rebuild(self, target: int, history: str, path: Path) -> Rebuilt:
        folder, problems = self.folder(history), []
        refusal: ltx.Altered | None = None
        for start in reversed([one for one in starts(folder) if one.txid <= target]):
            try:
                copy, when = _begin(start, path)
            except ltx.Altered as exc:
                refusal = refusal or exc
                problems.append(str(exc))
                continue
            with copy:
                when = self._advance(copy, when, folder, target)
                position = copy.position
            _integrity(path, position.txid)
            following = _following(folder, target)
            return Rebuilt(position.txid, when, position.checksum, following, history, tuple(problems))
        raise refusal or Refused(f"History {history} of {self._database} has no base before transaction {target}.")

    def _advance(self, copy: ltx.Copy, when: float, folder: layout.Folder, target: int) -> float:
        """Apply the chain up to a transaction; its time."""
        for link in layout.chain(folder.pieces, copy.txid):
            if copy.txid >= target:
                break
            if isinstance(link, layout.Missing):
                raise Lacking(
                    f"Transactions {link.first} to {link.last} of {self._database} are missing in history "
                    f"{folder.history}: transaction {target} cannot be had, the last one before that is {copy.txid}."
                )
            for stream in packs.streams(link):
                reader = ltx.Reader(stream, link.name)
                if reader.header.max_txid <= copy.txid:
                    reader.skip()
                    continue
                copy.follow(reader, link.name)
                when = reader.header.time
                if copy.txid >= target:
                    break
            else:
                if copy.txid < link.last:
                    raise ltx.Altered(link.name, f"is cut: it ends at transaction {copy.txid}")
        if copy.txid != target:
            raise Refused(f"Transaction {target} of {self._database} is not one that the archive has by itself.")
        return when


def _begin(start: Start, path: Path) -> tuple[ltx.Copy, float]:
    path.unlink(missing_ok=True)
    if isinstance(start.source, layout.Base):
        return packs.open_base(start.source, path), start.time
    return ltx.Copy(path), 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # packed meanwhile


def _named(moment: Moment) -> str:
    return shown(moment.timestamp()) if isinstance(moment, datetime.datetime) else f"transaction {moment}"


def _following(folder: layout.Folder, txid: int) -> int | None:
    link = next(layout.chain(folder.pieces, txid), None)
    return txid + 1 if isinstance(link, layout.Piece) else None


def _not_later(begin: Start, when: float) -> bool:
    try:
        return begin.time <= when
    except ltx.Altered:
        return True  # told when it is needed


def _times(piece: layout.Piece) -> tuple[float, float] | None:
    """The earliest and the latest of a piece; None where it does not say."""
    try:
        note = packs.describe(piece)
    except ltx.Altered:
        return None
    return note.first_time, note.last_time


def _within(piece: layout.Piece, since: float, until: float) -> bool:
    times = _times(piece)
    return times is None or (times[0] <= until and since <= times[1])


def _last_until(chain: list[layout.Piece | layout.Missing], when: float) -> int | None:
    """The last transaction before the first that is later than a time; None where none is later.

    A piece that does not say its times may have that one, unless a later piece has one that is not later.
    """
    pieces = [link for link in chain if isinstance(link, layout.Piece)]
    times = [_times(piece) for piece in pieces]
    place = next((place for place, one in enumerate(times) if one and one[1] > when), len(pieces))
    found = _last_within(pieces[place], when) if place < len(pieces) else None
    while (found is None or found < pieces[place].first) and place and times[place - 1] is None:
        place -= 1
        inside = _last_within(pieces[place], when)
        found = found if inside is None else inside
    return found


def _last_within(piece: layout.Piece, when: float) -> int | None:
    at = piece.first - 1
    for reader in packs.transactions(piece):
        if reader.header.time > when:
            _verify_until(piece, reader.header.max_txid)
            return at
        at = reader.header.max_txid
    return None


def _verify_until(piece: layout.Piece, txid: int) -> None:
    """The time of a transaction counts only where its checksum is right."""
    for stream in packs.streams(piece):
        reader = ltx.Reader(stream, piece.name)
        if reader.header.max_txid < txid:
            reader.skip()
            continue
        for _page in reader.pages():
            pass
        return


def _integrity(path: Path, txid: int) -> None:
    if not path.stat().st_size:
        return  # a database that was removed
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as exc:
        found = [str(exc)]
    if found != ["ok"]:
        raise Refused(f"The database after transaction {txid} fails its integrity check: {'; '.join(found)}.")
