"""The archive on disk: receive, pack, prune, list, rebuild. I/O.

<root>/<cluster id>/<database, quoted>/<history>/ has <min>-<max>.ltx as they came, packs <min>-<max>.ltx.gz and
base-<txid>.gz, each of the latter two with a .json beside it. Times are seconds since 1970.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from . import disk, giving, layout, ltx, packs, reading
from .ltx import Altered, Compressed, Position
from .mover import Moved, Mover
from .reading import Gap, History, Lacking, Moment, Rebuilt, Refused, Transaction

__all__ = [
    "Altered",
    "Clock",
    "Compressed",
    "Done",
    "Gap",
    "History",
    "Lacking",
    "Moment",
    "Moved",
    "Mover",
    "Position",
    "Rebuilt",
    "Received",
    "Refused",
    "Store",
    "Transaction",
]

Clock = Callable[[], float]
MARKED = 10  # seconds between two notes that the follower was there


@dataclass(frozen=True)
class Received:
    """What became of a file that came."""

    kind: Literal["continued", "new_history", "duplicate"]
    # Of a new history: back is a primary behind us, forked one with the same TXID and another checksum, absent that
    # transactions between ours and its were not kept for us.
    cause: Literal["", "first", "back", "forked", "absent"]
    why: str  # one sentence; "" for continued
    position: Position
    history: str
    verified: bool  # False: compressed, kept as it came


@dataclass(frozen=True)
class Done:
    """What pack, make_base, prune or tidy did."""

    made: int
    removed: int
    problems: tuple[str, ...]  # one sentence each; what is altered is left as it is


@dataclass
class _Tail:
    """Where the newest history ends; kept, so that a file that comes needs no look into the directory."""

    history: str | None
    position: Position | None
    why: str = ""  # where there is no position though there are files


class Store:
    """Reading looks at ``root`` and ``also`` (the other of buffer and target); writing is to ``root`` only."""

    def __init__(self, root: Path, clock: Clock, also: Path | None = None) -> None:
        self.root, self._clock = root, clock
        self._also = also
        self._tails: dict[tuple[str, str], _Tail] = {}
        self._receiving = threading.RLock()  # a mover of another thread may begin anew
        self._marked: dict[tuple[str, str], float] = {}
        self._altered: dict[Path, str] = {}  # files that pack() leaves alone

    # Who writes here

    def claim(self, owner: str, seconds: float) -> None:
        """Become or stay the one who writes here for so long; Refused where another is alive. Call it to renew, too.

        Each owner has a file with the next number, which only one can create.
        """
        if not self.root.is_dir():
            raise Refused(f"{self.root} is no directory: the target is not there, or has to be made first.")
        number, who, until = self._owner()
        lease = json.dumps({"id": owner, "until": self._clock() + seconds}) + "\n"
        if number and who == owner:
            disk.write_text(self._owner_file(number), lease)
            return
        if number and until > self._clock():
            raise Refused(
                f"{self.root} belongs to the archive {who or '(being claimed)'} until {reading.shown(until)}: two "
                "archives need a target each, and one that ended leaves it after that time."
            )
        try:
            self._owner_file(number + 1).open("x").close()
        except FileExistsError:
            raise Refused(f"{self.root} was claimed by another archive at this moment.") from None
        disk.write_text(self._owner_file(number + 1), lease)
        if number:
            disk.remove(self._owner_file(number))

    def owner(self) -> str:
        """Who claimed it last; "" for nobody."""
        return self._owner()[1]

    def claimed(self) -> bool:
        """Whether somebody claimed it ever; a mount point on which nothing is mounted was not."""
        return self._owner()[0] > 0

    def _owner_file(self, number: int) -> Path:
        return self.root / f".owner-{number:06d}.json"

    def _owner(self) -> tuple[int, str, float]:
        """Number, id and end of the last lease; one that is just being written counts for a minute."""
        there = [name for name in layout.names(self.root) if name.startswith(".owner-") and name.endswith(".json")]
        if not there:
            return 0, "", 0.0
        path = self.root / there[-1]
        try:
            lease = json.loads(path.read_text(encoding="utf-8"))
            return int(there[-1][7:13]), str(lease["id"]), float(lease["until"])
        except (ValueError, KeyError, TypeError):
            return int(there[-1][7:13]), "", path.stat().st_mtime + 60

    # What comes

    def databases(self) -> list[tuple[str, str]]:
        """Cluster id and database of all that is here."""
        return layout.databases(self._roots)

    def position(self, cluster: str, database: str) -> Position | None:
        """What the newest history holds; None where there is none or its end is altered (a snapshot has to come)."""
        return self._tail(cluster, database).position

    def _tail(self, cluster: str, database: str) -> _Tail:
        with self._receiving:
            known = self._tails.get((cluster, database))
            if known is None:
                of = self._reading(cluster, database)
                known = self._tails[cluster, database] = of.settled(lambda: self._look(of))
            return known

    @staticmethod
    def _look(of: reading.Reading) -> _Tail:
        there = of.histories()
        if not there:
            return _Tail(None, None)
        folder = of.folder(there[-1])
        if not reading.last_txid(folder):
            return _Tail(there[-1], None)
        try:
            return _Tail(there[-1], reading.tail(folder, True)[0])
        except Altered as exc:
            return _Tail(there[-1], None, str(exc))

    def receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received:
        """Keep one file for good (fsynced); the given file is moved, or removed as a duplicate.

        Altered where it is no LTX file, or is neither the next transaction nor a snapshot.
        """
        with self._receiving:
            return self._receive(cluster, database, path_of_ltx)

    def _receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received:
        file, tail = ltx.inspect(path_of_ltx), self._tail(cluster, database)
        header, at = file.header, tail.position
        if at and tail.history and (header.min_txid, header.before) == (at.txid + 1, at.checksum):
            self._keep(cluster, database, tail.history, path_of_ltx, file)
            return Received("continued", "", "", file.position, tail.history, file.verified)
        if at and tail.history and self._duplicate(cluster, database, tail.history, file, at):
            disk.remove(path_of_ltx)
            why = f"The archive has transaction {header.max_txid} of {database} already."
            return Received("duplicate", "", why, at, tail.history, file.verified)
        if header.min_txid != 1:
            where = f"which is at {at}" if at else "which needs a snapshot first"
            raise Altered(
                path_of_ltx.name,
                f"has transaction {header.min_txid} after {header.before:016x} and does not follow the archive of "
                f"{database}, {where}",
            )
        cause, why = self._why(cluster, database, file, tail)
        history = tail.history
        if not history or reading.last_txid(self._reading(cluster, database).folder(history)):
            history = layout.next_history(self._clock(), history)
        self._keep(cluster, database, history, path_of_ltx, file)
        return Received("new_history", cause, why, file.position, history, file.verified)

    def _keep(self, cluster: str, database: str, history: str, path: Path, file: ltx.File) -> None:
        place = self._place(cluster, database) / history
        disk.make_directory(place)
        to = place / layout.raw_name(file.header.min_txid, file.header.max_txid)
        if to.exists():
            raise Refused(f"{to} is there already and is not overwritten.")
        self._tails.pop((cluster, database), None)
        disk.take_in(path, to)
        self._tails[cluster, database] = _Tail(history, file.position)

    def _duplicate(self, cluster: str, database: str, history: str, file: ltx.File, at: Position) -> bool:
        """Whether what the file leads to is known; of a snapshot only the newest, else the primary went back."""
        if file.header.min_txid == 1 or file.header.max_txid > at.txid:
            return file.position == at
        return self._checksum(cluster, database, history, file.header.max_txid) == file.after

    def _checksum(self, cluster: str, database: str, history: str, txid: int) -> int | None:
        """After a transaction that is in a history; None where it cannot be read."""
        of = self._reading(cluster, database)
        with contextlib.suppress(Altered, Compressed, FileNotFoundError):
            link = next(layout.chain(of.folder(history).pieces, txid - 1), None)
            if isinstance(link, layout.Piece):
                for reader in packs.transactions(link):
                    if reader.header.max_txid == txid:
                        return reader.after
        return None

    def _before(self, cluster: str, database: str, tail: _Tail) -> tuple[str | None, Position | None]:
        """The newest history that has something, and where it ends, as far as it can be read."""
        if tail.position:
            return tail.history, tail.position
        of = self._reading(cluster, database)
        for name in reversed(of.histories()):
            folder = of.folder(name)
            if reading.last_txid(folder):
                with contextlib.suppress(Altered):
                    return name, reading.tail(folder, False)[0]
                return name, None
        return None, None

    def _why(
        self, cluster: str, database: str, file: ltx.File, tail: _Tail
    ) -> tuple[Literal["first", "back", "forked", "absent"], str]:
        """The cause of a new history, and the sentence about it."""
        new = file.position
        if tail.why:
            return "absent", f"The end of history {tail.history} cannot be continued: {tail.why}"
        history, at = self._before(cluster, database, tail)
        if not history:
            return "first", f"{database} of cluster {cluster} was not in the archive before."
        if not at:
            return "absent", f"The end of history {history} of {database} cannot be read."
        if new.txid < at.txid:
            known = self._checksum(cluster, database, history, new.txid) == new.checksum
            state = "a state that the archive has" if known else "a state that the archive does not have"
            return "back", (
                f"The primary went back: it is at {new}, {state}, and the archive of {database} is at {at} "
                f"(history {history})."
            )
        if new.txid == at.txid and new.checksum != at.checksum:
            return "forked", (
                f"The primary has another transaction {at.txid} of {database} than the archive: {new} in place of {at} "
                f"(history {history})."
            )
        return "absent", (
            f"The primary sent all of {database} at {new}: the transactions after {at.txid} were not kept for the "
            f"archive, which is at {at} (history {history})."
        )

    def followed(self, cluster: str, database: str) -> None:
        """Call it at heartbeats: up to now nothing came after the position. Written every 10 seconds."""
        now, history = self._clock(), self._tail(cluster, database).history
        marked = self._marked.get((cluster, database), float("-inf"))
        # A clock that went back is no reason to note nothing.
        if history and not 0 <= now - marked < MARKED:
            place = self._place(cluster, database) / history
            disk.make_directory(place)
            disk.write_text(place / layout.FOLLOWED, f"{now:.3f}\n")
            self._marked[cluster, database] = now

    def begin_anew(self, cluster: str, database: str) -> None:
        """Open a new, empty history: position() is None, so that a snapshot comes (after a loss)."""
        with self._receiving:
            self._tails.pop((cluster, database), None)
            tail = self._tail(cluster, database)
            if tail.history and (tail.position or tail.why):
                name = layout.next_history(self._clock(), tail.history)
                disk.make_directory(self._place(cluster, database) / name)
            self._tails.pop((cluster, database), None)

    # What is done with it

    def tidy(self) -> Done:
        """At the start: finish or undo what a killed process left. Only for the owner."""
        removed, problems = 0, []
        for folder in self._own():
            for path in folder.unfinished:
                disk.remove(path)
                removed += 1
            for path in folder.unnoted:
                if self._is_elsewhere(folder, path):
                    disk.remove(path)
                    removed += 1
                else:
                    problems.append(f"{layout.label(path)} has no description beside it.")
            problems += [f"{layout.label(path)} describes a file that is missing." for path in folder.notes]
            gone, wrong = _inner(folder)
            removed += gone
            problems += wrong
        return Done(0, removed, tuple(problems))

    def _is_elsewhere(self, folder: layout.Folder, path: Path) -> bool:
        """Whether what a file without description has can be had without it."""
        span = layout.span(path)
        if span:
            return layout.covers(folder.pieces, *span)
        txid = int(path.name[5:21], 16)
        return any(
            start.txid <= txid and layout.covers(folder.pieces, start.after + 1, txid)
            for start in reading.starts(folder)
        )

    def pack(
        self,
        now: float,
        minute_after: float = 600,
        hour_after: float = 2 * 3600,
        day_after: float = 2 * 86400,
        first_stays: bool = False,
    ) -> Done:
        """Raw files to minutes, these to hours, these to days, once they are so old.

        Verified by reading back before the parts are removed. Call tidy() once before. ``first_stays``: of a buffer, as
        the target may have the first of each history, and two packs must not have a part in common.
        """
        made = removed = 0
        for level, after in ((60, minute_after), (3600, hour_after), (86400, day_after)):
            for folder in self._own():
                some = replace(folder, pieces=folder.pieces[1:]) if first_stays else folder
                for parts in _groups(some, level, now, after, self._altered):
                    if len(parts) > 1 or not parts[0].packed:
                        count = self._pack(parts, level)
                        made += count > 0
                        removed += count
        return Done(made, removed, tuple(self._altered.values()))

    def _pack(self, parts: list[layout.Piece], level: int) -> int:
        """How many files went into a pack. One that is altered stays as it is, and its neighbours go without it."""
        try:
            packs.make(parts, level)
            return len(parts)
        except Altered as exc:
            at = next((place for place, part in enumerate(parts) if exc.name in _labels(part)), None)
            if at is None:
                raise
            self._altered[parts[at].path] = str(exc)
            return sum(self._pack(some, level) for some in (parts[:at], parts[at + 1 :]) if some)

    def make_base(self, now: float, every: float = 86400) -> Done:
        """A base at the end of each newest history that has transactions and none for so long."""
        made, problems = 0, []
        for cluster, database in layout.databases((self.root,)):
            of = self._reading(cluster, database)
            there = of.histories()
            if not there:
                continue
            folder = of.folder(there[-1])
            begin, last = reading.starts(folder), reading.last_txid(folder)
            try:
                if not begin or begin[-1].txid == last or begin[-1].time + every > now:
                    continue
                self._base(of, folder, last)
                made += 1
            except (Altered, Compressed, Refused) as exc:
                problems.append(str(exc))
        return Done(made, 0, tuple(problems))

    def _base(self, of: reading.Reading, folder: layout.Folder, txid: int) -> None:
        place = self._place(folder.cluster, folder.database) / folder.history
        disk.make_directory(place)
        path = place / f"{disk.UNFINISHED}database"
        with disk.dropped_on_error(path):
            found = of.rebuild(txid, folder.history, path)
            with path.open("rb") as file:
                head = file.read(18)
            page_size = {1: 65536}.get(size := int.from_bytes(head[16:18], "big"), size)
            packs.make_base(path, place, Position(found.txid, found.checksum), found.time, page_size)
        disk.remove(path)

    def prune(self, now: float, keep_seconds: float, max_bytes: int | None = None) -> Done:
        """Remove what no moment within keep needs, then the oldest beyond max_bytes.

        Never the newest base and what follows it; what stays begins with a base.
        """
        spans = [
            span
            for cluster, database in layout.databases((self.root,))
            for span in _spans(self._folders((self.root,), cluster, database))
        ]
        size = sum(_size(one.path) for folder in self._own() for one in folder.files)
        removed, problems = 0, []
        for span in sorted(spans, key=lambda span: span.until):
            if span.until > now - keep_seconds and (max_bytes is None or size <= max_bytes):
                continue
            try:
                _verify_start(span)
            except (Altered, Compressed) as exc:
                problems.append(str(exc))
                continue
            for path in span.files:
                size -= _size(path)
                packs.withdraw(path)
                removed += 1
            if span.place:
                _remove_directory(span.place)
        return Done(0, removed, tuple(problems))

    # What can be had

    def transactions(self, cluster: str, database: str, since: float, until: float) -> Iterator[Transaction]:
        """By history and TXID."""
        return self._reading(cluster, database).transactions(since, until)

    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]:
        """The LTX files of the newest history after a position, each proven; see giving.files()."""
        return giving.files(self._reading(cluster, database), database, at)

    def moments(self) -> list[History]:
        """All histories, oldest first within their database."""
        found = []
        for cluster, database in self.databases():
            of = self._reading(cluster, database)
            found += of.summary()
        return found

    def check(self) -> Iterator[str]:
        """Read everything; one sentence for each file that is altered, cut or missing."""
        for cluster, database in self.databases():
            yield from self._reading(cluster, database).check()

    def rebuild(
        self, cluster: str, database: str, moment: Moment, out_path: Path, history: str | None = None
    ) -> Rebuilt:
        """Write the database of that moment (the last transaction not later than a time), every checksum verified.

        Refused, Altered or Compressed with one sentence where it cannot be had; then out_path is not touched.
        """
        return self._reading(cluster, database).rebuild(moment, history, out_path)

    def _place(self, cluster: str, database: str) -> Path:
        return self.root / layout.quoted(cluster) / layout.quoted(database)

    @property
    def _roots(self) -> tuple[Path, ...]:
        """Without the other one where that cannot be read: what comes is kept all the same."""
        if self._also:
            with contextlib.suppress(OSError):
                layout.names(self._also)
                return self.root, self._also
        return (self.root,)

    def _reading(self, cluster: str, database: str) -> reading.Reading:
        return reading.Reading(self._roots, cluster, database)

    def _own(self) -> Iterator[layout.Folder]:
        for cluster, database in layout.databases((self.root,)):
            yield from self._folders((self.root,), cluster, database)

    @staticmethod
    def _folders(roots: tuple[Path, ...], cluster: str, database: str) -> list[layout.Folder]:
        there = layout.histories(roots, cluster, database)
        return [layout.folder(roots, cluster, database, name) for name in there]


def _size(path: Path) -> int:
    return path.stat().st_size


def _files(folder: layout.Folder) -> list[Path]:
    return [piece.path for piece in folder.pieces] + [base.path for base in folder.bases]


def _remove_directory(place: Path) -> None:
    for name in layout.names(place):
        if name == layout.FOLLOWED or name.startswith(disk.UNFINISHED):
            disk.remove(place / name)
    if not layout.names(place):
        disk.step("rmdir", place)
        place.rmdir()


def _inner(folder: layout.Folder) -> tuple[int, list[str]]:
    """Remove the parts of packs, where the pack is whole: what a process that was killed while it did so left."""
    chain = [link for link in layout.chain(folder.pieces, 0) if isinstance(link, layout.Piece)]
    removed, problems, sound = 0, [], set()
    for piece in set(folder.pieces) - set(chain):
        outer = next(link for link in chain if link.first <= piece.first and piece.last <= link.last)
        try:
            if outer not in sound:
                packs.verify(outer)
                sound.add(outer)
        except (Altered, Compressed) as exc:
            problems.append(str(exc))
            continue
        packs.withdraw(piece.path)
        removed += 1
    return removed, problems


def _labels(piece: layout.Piece) -> tuple[str, ...]:
    return piece.name, layout.label(layout.note_of(piece.path)) if piece.packed else ""


def _groups(
    folder: layout.Folder, level: int, now: float, after: float, left: Mapping[Path, str]
) -> Iterator[list[layout.Piece]]:
    """What becomes one pack: neighbours of the same span of time that is over for so long; a whole database alone."""
    run: list[layout.Piece] = []
    known: tuple[float, bool] | None = None
    for link in layout.chain(folder.pieces, 0):
        note = None if isinstance(link, layout.Missing) or link.path in left else _described(link)
        key = None
        if note and isinstance(link, layout.Piece):
            span = note.first_time // level
            # A time far ahead is that of a clock that was wrong, and does not hold up what came after it.
            late = now - after < (span + 1) * level <= now + 86400
            if late and not link.packed:
                break
            whole = link.first == 1
            if not late and note.last_time < (span + 1) * level and note.level < level and not (whole and link.packed):
                key = (span, whole)
        if run and key != known:
            yield run
            run = []
        known = key
        if key and isinstance(link, layout.Piece):
            run.append(link)
    if run:
        yield run


def _described(piece: layout.Piece) -> packs.Pack | None:
    try:
        return packs.describe(piece)
    except Altered:
        return None


@dataclass(frozen=True)
class _Span:
    """What can go once no moment before ``until`` is wanted; in the order in which it goes."""

    until: float
    files: tuple[Path, ...]
    start: reading.Start | None  # what is then the first of its history
    place: Path | None  # the directory, where nothing stays in it


def _verify_start(span: _Span) -> None:
    """What comes before it goes only where it is whole."""
    if span.start and span.files:
        if isinstance(span.start.source, layout.Base):
            packs.check_base(span.start.source)
        else:
            packs.verify(span.start.source)


def _spans(folders: list[layout.Folder]) -> list[_Span]:
    """Of one database, from the oldest to the last start of its newest history.

    A moment's history is the newest that was open at it, so an older one can go once the next was open for so long.
    What it began with goes first: what a killed process leaves before the first start is no gap, and goes next time.
    """
    found = []
    for place, folder in enumerate(folders):
        following = next((later for later in folders[place + 1 :] if reading.starts(later)), None)
        closed = layout.opened(following.history) if following else float("inf")
        done: set[Path] = set()
        until = float("-inf")
        for start in reading.starts(folder):
            try:
                # In the order of the chain, whatever the clocks say: the primary's may go back, or be ahead of ours.
                until = min(max(until, start.time), closed)
            except Altered:
                continue  # nothing goes for its sake
            gone = [piece.path for piece in folder.pieces if piece.last <= start.txid and piece != start.source]
            gone += [base.path for base in folder.bases if base.txid <= start.txid and base != start.source]
            found.append(_Span(until, tuple(_sorted(folder, gone, done)), start, None))
            done |= set(gone)
        if following and _files(folder):
            files = _sorted(folder, _files(folder), done)
            found.append(_Span(closed, tuple(files), None, _files(folder)[0].parent))
    return found


def _sorted(folder: layout.Folder, paths: list[Path], without: set[Path]) -> list[Path]:
    """What it began with, then the chain."""
    order = {piece.path: (piece.first != 1, piece.first) for piece in folder.pieces}
    order.update({base.path: (False, base.txid) for base in folder.bases})
    return sorted(set(paths) - without, key=order.__getitem__)
