"""What is wrong, for as long as it is: kept in a file, so that a restart forgets nothing. I/O.

A break in the history is over as soon as it is seen, and yet somebody has to see it: such an alarm stays for a day.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

STAYS_S = 24 * 3600.0


class Alarm(TypedDict):
    """``until`` is 0 while the cause lasts."""

    kind: str
    database: str
    sentence: str
    since: float
    until: float


class Alarms:
    """The alarms of one archive. ``tell`` is called once for each, when it is raised."""

    def __init__(self, path: Path, tell: Callable[[Alarm], None], now: Callable[[], float] = time.time) -> None:
        self._path, self._tell, self._now = path, tell, now
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Alarm] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            self._known = {(one["kind"], one["database"]): one for one in json.loads(path.read_text())}

    def raise_(self, kind: str, sentence: str, database: str = "", stays: float = 0.0) -> None:
        """Say it, unless it is said already. ``stays``: for how many seconds, where nothing ends it."""
        with self._lock:
            old, now = self._known.get((kind, database)), self._now()
            if old and old["until"] and old["until"] <= now:
                old = None  # over, and nobody looked since
            if old and old["sentence"] == sentence:
                return
            # A cause that lasts may change its figures; that is no new alarm.
            lasts = old is not None and not old["until"] and not stays
            since, until = old["since"] if old and lasts else now, now + stays if stays else 0.0
            alarm = Alarm(kind=kind, database=database, sentence=sentence, since=since, until=until)
            self._known[(kind, database)] = alarm
            self._save()
        if not lasts:
            self._tell(alarm)

    def clear(self, kind: str, database: str = "") -> None:
        """The cause is gone."""
        with self._lock:
            if self._known.pop((kind, database), None):
                self._save()

    def active(self) -> list[Alarm]:
        """Those that are, the oldest first."""
        with self._lock:
            now = self._now()
            over = [key for key, one in self._known.items() if one["until"] and one["until"] <= now]
            for key in over:
                del self._known[key]
            if over:
                self._save()
            return sorted(self._known.values(), key=lambda one: one["since"])

    def _save(self) -> None:
        draft = self._path.with_suffix(".part")
        # A full disk must not keep the follower from going on; the alarm stands in memory.
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(list(self._known.values())))
            os.replace(draft, self._path)
