# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While a module runs, say every 5 s what it waits for, how far it is and how long it may take. On the controller. I/O.

A module that runs on the controller tells it by a file (module_utils/telling.py). With one on a host behind SSH no file
is shared: of it the name of its task is said, since when it runs, and for how long it may.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.abaci.infra.plugins.module_utils import telling

CLEAR = "\r\x1b[K"
# What other callbacks write to stdout is for programs, such as JSON.
FOR_PEOPLE = ("default", "ansible.builtin.default")


@contextlib.contextmanager
def said(action: ActionBase, variables: dict[str, Any]) -> Iterator[None]:
    """Say how far the action's module is, while the body runs it."""
    task = action._task
    environment = task.environment
    alone = bool(task.run_once) or len(variables.get("ansible_play_batch") or []) <= 1
    host = variables.get("inventory_hostname", "localhost")
    screen = Screen(columns(os.getppid()) if alone else 0, "" if host == "localhost" else f"{host}: ")
    # Only this user may read it (0600).
    with tempfile.NamedTemporaryFile(prefix="told-", dir=constants.DEFAULT_LOCAL_TMP) as file:
        # A task without a log tells only its name.
        if action._connection.transport == "local" and not task.no_log:
            task.environment = [*(environment or []), {telling.VARIABLE: file.name}]
        ended = threading.Event()
        line = Line(Path(file.name), str(task.get_name()), limit(task.args))
        thread = threading.Thread(target=_say, args=(ended, line, screen), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            screen.clear()
            task.environment = environment


def _say(ended: threading.Event, line: Line, screen: Screen) -> None:
    while not ended.wait(telling.EVERY):
        screen.show(line.now())


class Line:
    """What is to be said of one task at any moment."""

    def __init__(self, path: Path, task: str, timeout: float | None) -> None:
        self._path, self._task, self._timeout = path, task, timeout
        self._began = time.monotonic()

    def now(self) -> str:
        """The line of this moment."""
        told = telling.read(self._path.read_text(errors="replace"))
        elapsed = time.monotonic() - self._began
        return str(telling.sentence(told, time.time(), elapsed, self._task, self._timeout))


class Screen:
    """Where a line goes: in place on a terminal of so many ``columns``, and in a log one below the other."""

    def __init__(self, columns: int, prefix: str = "", display: Any = None) -> None:
        self._columns, self._prefix, self._shown = columns, prefix, False
        self._display = display or Display()
        self._people = constants.DEFAULT_STDOUT_CALLBACK in FOR_PEOPLE

    def show(self, line: str) -> None:
        """Show it, in place of the one before."""
        text = "".join(letter if letter.isprintable() else " " for letter in f"{self._prefix}{line}")
        if not self._columns or not self._people:
            self._display.display(text, stderr=not self._people)
            return
        # The cursor is left at the line's begin, so that what is shown next stands there.
        self._display.display(f"{CLEAR}{text[: self._columns - 1]}\r", screen_only=True, newline=False)
        self._display.display(text, log_only=True)
        self._shown = True

    def clear(self) -> None:
        """Take away what was shown in place."""
        if self._shown:
            self._display.display(f"{CLEAR}\r", screen_only=True, newline=False)


def columns(process: int) -> int:
    """Of the terminal that a process has as its stdout; 0 where that is none, or is not known.

    An action runs in a worker process, whose own stdout leads nowhere.
    """
    path = f"/proc/{process}/fd/1"
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return 0
        handle = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            # A terminal that nobody told its size says 0.
            return (os.get_terminal_size(handle).columns or 80) if os.isatty(handle) else 0
        finally:
            os.close(handle)
    except OSError:
        return 0


def limit(arguments: dict[str, Any]) -> float | None:
    """s that the module may take, by its option timeout; None where it has none."""
    try:
        return float(arguments["timeout"]) or None
    except (KeyError, TypeError, ValueError):
        return None
