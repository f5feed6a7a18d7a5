"""Kills the whole run, as a power cut would, at a chosen point of an operation (environment INTERRUPT).

act             right after the first step that changed something, so each run does one act and dies
during          while a step runs, INTERRUPT_AFTER seconds after it began
ask:N:<socket>  before the N-th task and each one after it, where the listener at this Unix socket says so: the run
                sends the task's number in a line and pauses until it is answered "go" or "die". It dies, too, where
                nobody answers within INTERRUPT_AFTER seconds
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

STEP = "Run the next step"
DOCUMENTATION = "name: interrupt\ntype: notification\nshort_description: see the module\ndescription: see the module\n"


def descendants(root: int) -> list[int]:
    """All processes below root: workers have sessions of their own."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def die(why: str) -> None:
    os.write(2, f"\nINTERRUPTED {why}\n".encode())
    for process in descendants(os.getpid()):
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:
            continue
    os.kill(os.getpid(), signal.SIGKILL)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """See the module."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.mode, _, rest = os.environ.get("INTERRUPT", "").partition(":")
        self.task = 0
        if self.mode == "ask":
            first, _, path = rest.partition(":")
            self.first = int(first)
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.settimeout(float(os.environ["INTERRUPT_AFTER"]))
            self.listener.connect(path)

    def ask(self, name: str) -> None:
        """Pause until the listener says how it goes on. Its silence, its end and what it may not say are a death."""
        try:
            self.listener.sendall(f"{self.task}\n".encode())
            answer = repr(self.listener.recv(16))
        except OSError as error:
            answer = str(error)
        if answer == repr(b"die"):
            die(f"before {name}")
        elif answer != repr(b"go"):
            die(f"before {name}, where neither go nor die was the answer but {answer}")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        del is_conditional
        self.task += 1
        if self.mode == "ask" and self.task >= self.first:
            self.ask(task.get_name())
        if self.mode == "during" and STEP in task.get_name():
            after = float(os.environ["INTERRUPT_AFTER"])
            timer = threading.Timer(after, die, (f"{after} s into a step",))
            timer.daemon = True
            timer.start()

    def v2_runner_on_ok(self, result: Any) -> None:
        if self.mode == "act" and STEP in result.task.get_name() and result.result.get("changed"):
            die(f"after {result.result.get('did')}")
