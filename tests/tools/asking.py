"""The other end of tests/tools/callbacks/interrupt.py in its mode `ask`: runs a playbook that asks before each task."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A run that has ended: its return code, its output, and the task before which it died, 0 where it came to its end.

    ``last`` is the last task before which it asked.
    """

    rc: int
    output: str
    died: int
    last: int


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    first: int,
    die: Callable[[], bool],
    seconds: float,
) -> Asked:
    """Run an ansible-playbook in ``folder`` that asks before its ``first`` task, and each one after it, whether to die.

    ``die`` is called while the run pauses. ``seconds``: the longest that a task, or an answer, may take.
    Raises AssertionError where it dies of anything but that answer, and TimeoutError where a task takes longer.
    """
    with contextlib.ExitStack() as stack:
        # A socket's path has to be short, so not below pytest's folder.
        path = f"{stack.enter_context(tempfile.TemporaryDirectory(prefix='ask-'))}/socket"
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(1)
        server.settimeout(seconds)
        output = stack.enter_context(tempfile.TemporaryFile("w+"))
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "INTERRUPT": f"ask:{first}:{path}", "INTERRUPT_AFTER": str(seconds), **environment},
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        connection, _ = server.accept()
        stack.enter_context(connection)
        connection.settimeout(seconds)
        died = last = 0
        # It ends with the run, since nobody else has the other end.
        for line in stack.enter_context(connection.makefile("r")):
            last = int(line)
            if die():
                died = last
            with contextlib.suppress(ConnectionError):  # its output says why it did not wait
                connection.sendall(b"die" if died else b"go")
        code = process.wait(seconds)
        output.seek(0)
        said = output.read()
    assert ("INTERRUPTED" in said) == bool(died) and "neither go nor die" not in said, said[-4000:]
    return Asked(code, said, died, last)
