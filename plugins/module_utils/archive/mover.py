"""From the buffer to the target, which may be away or full. I/O."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import disk, layout, ltx, packs

if TYPE_CHECKING:
    from .store import Store

LOST = ".lost.json"


@dataclass(frozen=True)
class Lost:
    """What was dropped from a full buffer before the target had it."""

    cluster: str
    database: str
    history: str
    first: int
    last: int
    healed: bool  # a new history was begun since then

    def __str__(self) -> str:
        return (
            f"Transactions {self.first} to {self.last} of {self.database} (history {self.history}) are lost: the "
            "target was away and the buffer full."
        )


@dataclass(frozen=True)
class Moved:
    """How far the target is."""

    files: int
    behind_files: int
    behind_bytes: int
    behind_since: float | None  # time of the oldest transaction that is only in the buffer
    lost: tuple[str, ...]  # one sentence each, what was dropped beyond the buffer's size, ever
    error: str  # "" or why the target did not take more
    anew: bool = False  # whole databases have to come, as what follows a loss cannot be had without


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file of the buffer."""

    folder: layout.Folder
    what: layout.Piece | layout.Base
    newest: bool  # the last of the newest history: it stays, for the position
    time: float
    size: int

    @property
    def path(self) -> Path:
        return self.what.path


class Mover:
    """Copies finished files from the buffer to the target, verified. The newest stays in the buffer, for position().

    ``owner`` is the one that claimed the target: a mount that is away may look like an empty directory.
    """

    def __init__(self, buffer: Store, target: Store, owner: str, max_bytes: int) -> None:
        self._buffer, self._target, self._owner, self._max_bytes = buffer, target, owner, max_bytes

    def run(self) -> Moved:
        """Never raises for a target that is away, full or another's: it goes on at the next call."""
        moved, error, left = 0, self._refusal(), []
        for folder, files in self._waiting():
            try:
                if not error:
                    moved += self._move(folder, files)
            except OSError as exc:
                error = f"The target {self._target.root} takes nothing: {exc}."
            if error:
                left += self._missing(folder, files)
        anew = not error and self._heal()
        return self._told(moved, left, error, anew)

    def bound(self, error: str) -> Moved:
        """Keep the buffer below its size while the target must not be asked, because it does not answer."""
        return self._told(0, [one for _folder, files in self._waiting() for one in files], error)

    def _told(self, moved: int, left: list[_Waiting], error: str, anew: bool = False) -> Moved:
        left = self._drop(left)
        since = min((one.time for one in left), default=None)
        return Moved(moved, len(left), sum(one.size for one in left), since, self.lost(), error, anew)

    def lost(self) -> tuple[str, ...]:
        """One sentence each, what was dropped beyond the buffer's size, ever."""
        return tuple(str(one) for one in self._lost())

    def _refusal(self) -> str:
        try:
            owner = self._target.owner()
        except OSError as exc:
            return f"The target {self._target.root} cannot be read: {exc}."
        if owner == self._owner:
            return ""
        return f"The target {self._target.root} is not there, or belongs to {owner or 'nobody'}."

    def _waiting(self) -> Iterator[tuple[layout.Folder, list[_Waiting]]]:
        """The buffer's files by history, oldest first within their database."""
        root = self._buffer.root
        for cluster, database in layout.databases((root,)):
            there = layout.histories((root,), cluster, database)
            for history in there:
                folder = layout.folder((root,), cluster, database, history)
                last = folder.pieces[-1:] if history == there[-1] else ()
                files = [_waiting(folder, one, one in last) for one in folder.files]
                yield folder, files

    def _place(self, folder: layout.Folder) -> Path:
        return self._target.root / layout.quoted(folder.cluster) / layout.quoted(folder.database) / folder.history

    def _move(self, folder: layout.Folder, files: list[_Waiting]) -> int:
        """Copy what the target does not have; remove what it has."""
        moved, place, has = 0, self._place(folder), self._has(folder)
        for one in files:
            if not has(one.path):
                disk.make_directory(place)
                _copy(one.path, place / one.path.name)
                moved += 1
            if not one.newest:
                packs.withdraw(one.path)
        self._mark(folder, place)
        return moved

    def _has(self, folder: layout.Folder) -> Callable[[Path], bool]:
        """Whether the target has a file: by itself, or in a pack that was made there since."""
        there = layout.folder((self._target.root,), folder.cluster, folder.database, folder.history)
        runs = layout.runs(there.pieces)
        bases = {base.path.name for base in there.bases}

        def has(path: Path) -> bool:
            span = layout.span(path)
            if not span:
                return path.name in bases
            place = bisect.bisect_right(runs, (span[0], 1 << 64)) - 1
            return place >= 0 and span[1] <= runs[place][1]

        return has

    def _missing(self, folder: layout.Folder, files: list[_Waiting]) -> list[_Waiting]:
        """What is only in the buffer, as far as can be seen."""
        try:
            has = self._has(folder)
            return [one for one in files if one.path.exists() and not has(one.path)]
        except OSError:
            return [one for one in files if one.path.exists()]

    def _mark(self, folder: layout.Folder, place: Path) -> None:
        """Until when the archive followed."""
        try:
            text = (self._buffer_place(folder) / layout.FOLLOWED).read_text()
        except FileNotFoundError:
            return
        if not (place / layout.FOLLOWED).exists() or (place / layout.FOLLOWED).read_text() != text:
            disk.make_directory(place)
            disk.write_text(place / layout.FOLLOWED, text)

    def _buffer_place(self, folder: layout.Folder) -> Path:
        return self._buffer.root / layout.quoted(folder.cluster) / layout.quoted(folder.database) / folder.history

    # Beyond the buffer

    def _drop(self, left: list[_Waiting]) -> list[_Waiting]:
        """Remove the oldest beyond the buffer's size; what goes is noted before."""
        size = sum(one.size for one in left)
        gone = []
        for one in sorted(left, key=lambda one: one.time):
            if size <= self._max_bytes:
                break
            if not one.newest:
                gone.append(one)
                size -= one.size
        if gone:
            lost = self._lost()
            for one in gone:
                _note_loss(lost, one)
            self._write_lost(lost)
        for one in gone:
            packs.withdraw(one.path)
        went = set(map(id, gone))
        return [one for one in left if id(one) not in went]

    def _lost(self) -> list[Lost]:
        try:
            found = json.loads((self._buffer.root / LOST).read_text(encoding="utf-8"))
            return [Lost(**one) for one in found]
        except FileNotFoundError:
            return []

    def _write_lost(self, lost: list[Lost]) -> None:
        disk.write_text(self._buffer.root / LOST, json.dumps([asdict(one) for one in lost], indent=1) + "\n")

    def _heal(self) -> bool:
        """The target is back: what follows a loss can be had only from a new snapshot on. Whether one is needed."""
        lost, anew = self._lost(), False
        for one in lost:
            there = layout.histories((self._buffer.root,), one.cluster, one.database)
            if not one.healed and there and there[-1] == one.history:
                self._buffer.begin_anew(one.cluster, one.database)
                anew = True
        if any(not one.healed for one in lost):
            self._write_lost([replace(one, healed=True) for one in lost])
        return anew


def _waiting(folder: layout.Folder, what: layout.Piece | layout.Base, newest: bool) -> _Waiting:
    path = what.path
    try:
        with path.open("rb") as file:
            head = file.read(100)
        when = ltx.header(head, path.name).time
    except ltx.Altered:
        when = path.stat().st_mtime  # a pack or a base: when it was made
    return _Waiting(folder, what, newest, when, path.stat().st_size)


def _copy(path: Path, to: Path) -> None:
    """The file, then its description: it counts once that is there."""
    disk.copy(path, to)
    if path.suffix == ".gz":
        disk.copy(layout.note_of(path), layout.note_of(to))


def _note_loss(lost: list[Lost], one: _Waiting) -> None:
    span, folder = layout.span(one.path), one.folder
    if not span:
        return  # a base is made again
    new = Lost(folder.cluster, folder.database, folder.history, *span, False)
    for place, known in enumerate(lost):
        if replace(known, first=0, last=0) == replace(new, first=0, last=0) and known.last + 1 == new.first:
            lost[place] = replace(known, last=new.last)
            return
    lost.append(new)
