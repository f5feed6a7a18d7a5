"""How far a wait or a copy is, for whoever runs the module. tell() is I/O, the rest is pure. Standard library only.

The action plugin (plugins/plugin_utils/live.py) names a file in the environment, and shows what is written to it. Where
it names none, as on a host behind SSH or for a module that is run without it, tell() does nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import IO, Any

VARIABLE = "ABACI_INFRA_TELL"
EVERY = 5.0  # s between two lines, and before the first
PAUSE = 1.0  # s between two tellings of one thing
BYTES = "bytes"
LONGEST = 300  # characters of what is waited for


@dataclasses.dataclass(frozen=True)
class Told:
    """What was told.

    Attributes:
        what: what is waited for or copied, without a secret.
        done: how much of it, in ``unit``; None where that has no number.
        total: of how much; None where that is not known.
        unit: such as ``bytes`` or ``pods ready``.
        left: s until it is given up; None where it is not.
        at: when, in seconds since the epoch.
    """

    what: str
    done: float | None
    total: float | None
    unit: str
    left: float | None
    at: float


class Teller:
    """Writes to the file that the action plugin reads; to an empty path nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last: Told | None = None

    def tell(
        self,
        what: str,
        done: float | None = None,
        total: float | None = None,
        unit: str = BYTES,
        deadline: float | None = None,
    ) -> None:
        """Write it down, at most once in PAUSE seconds for one thing, but for its end."""
        if not self._path:
            return
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        told = Told(" ".join(what.split())[:LONGEST], done, total or None, unit, left, time.time())
        if not due(self._last, told):
            return
        self._last = told
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, json.dumps(dataclasses.asdict(told)).encode() + b"\n")
            finally:
                os.close(handle)
        except OSError:
            self._path = ""  # another user's, or nobody listens any more: what waits goes on without


# Taken out of the environment: no program that the module runs has to know of it.
_teller = Teller(os.environ.pop(VARIABLE, ""))


def tell(
    what: str,
    done: float | None = None,
    total: float | None = None,
    unit: str = BYTES,
    deadline: float | None = None,
) -> None:
    """Say how far a wait or a copy is; cheap, never raises, and does nothing where nobody listens.

    Args:
        what: what is waited for or copied; names of objects, and no secret.
        done: how much of it; None where that has no number.
        total: of how much; None or 0 where that is not known.
        unit: what is counted.
        deadline: when it is given up, by time.monotonic(); None where it is not.
    """
    _teller.tell(what, done, total, unit, deadline)


class Reading:
    """A file, or an answer, that tells how much of it was read: for copies and checksums."""

    def __init__(self, file: IO[bytes] | Any, what: str, total: float | None = None) -> None:
        self._file, self._what, self._total, self._done = file, what, total, 0
        tell(what, 0, total)  # the speed is reckoned from here

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self._file.read(size)
        self._done += len(piece)
        tell(self._what, self._done, self._total)
        return piece


def copy_file(source: Path, target: Path, what: str) -> None:
    """Copy a file's bytes, told as ``what``."""
    with source.open("rb") as given, target.open("wb") as made:
        shutil.copyfileobj(Reading(given, what, source.stat().st_size), made, 1 << 20)


def due(last: Told | None, told: Told) -> bool:
    """Whether to write it down: something else, its end, or PAUSE seconds later."""
    if last is None or last.what != told.what or (told.done == told.total and last.done != told.done):
        return True
    return not 0 <= told.at - last.at < PAUSE


def read(text: str) -> list[Told]:
    """What was told, in its order; half a line at the end, and what is none, is passed over."""
    found = []
    for line in text.splitlines():
        try:
            found.append(Told(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def sentence(told: list[Told], now: float, elapsed: float, task: str, timeout: float | None) -> str:
    """One line: what is waited for, how far it is, and how long it may take.

    Args:
        told: what was told, in its order; where there is nothing, the task is named.
        now: s since the epoch.
        elapsed: s since the task began.
        task: its name.
        timeout: s that the task may take; None where that is not known.
    """
    if not told:
        left = None if timeout is None else max(timeout - elapsed, 0.0)
        return f"Still waiting for: {task}; {_times(elapsed, None, left)}"
    last = told[-1]
    age = max(now - last.at, 0.0)
    how_far = f": {amount(last)}" if last.done is not None else ""
    silent = f", and nothing new for {age:.0f} s" if last.done is not None and age >= 2 * EVERY else ""
    left = None if last.left is None else max(last.left - age, 0.0)
    return f"{last.what.rstrip('.')}{how_far}{silent}; {_times(elapsed, remaining(told), left)}"


def _times(elapsed: float, about: float | None, left: float | None) -> str:
    parts = [f"{elapsed:.0f} s so far"]
    if about is not None:
        parts.append(f"about {about:.0f} s more")
    if left is not None:
        parts.append(f"at most {left:.0f} s more")
    return ", ".join(parts)


def amount(told: Told) -> str:
    """Such as ``12.0 of 48.0 MB (25 %)`` or ``2 of 3 pods ready``."""
    done, total = told.done or 0.0, told.total
    if told.unit != BYTES:
        return f"{done:g} of {total:g} {told.unit}" if total else f"{done:g} {told.unit}"
    size, unit = next(((n, u) for n, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if (total or done) >= n), (1.0, "B"))
    if not total:
        return f"{done / size:.1f} {unit}"
    # Less than all is never 100 %.
    return f"{done / size:.1f} of {total / size:.1f} {unit} ({min(int(100 * done / total), 100)} %)"


def remaining(told: list[Told]) -> float | None:
    """s that a copy will take at the speed that it had so far; None where that is not known."""
    last = told[-1]
    first = next(one for one in told if one.what == last.what and one.unit == last.unit)
    if last.unit != BYTES or not last.total or last.done is None or first.done is None:
        return None
    speed = (last.done - first.done) / max(last.at - first.at, 1e-9)
    return max(last.total - last.done, 0.0) / speed if speed > 0 else None
