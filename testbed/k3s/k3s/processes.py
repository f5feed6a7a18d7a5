"""Child processes, systemd's readiness protocol and the background loops of one k3s process."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence


def log(message: str, level: str = "info") -> None:
    """One line for the journal, in k3s's own form."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = message.replace("\\", "\\\\").replace('"', '\\"')
    print(f'time="{stamp}" level={level} msg="{text}"', file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd; nothing where it does not ask."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.sendall(state.encode())


class Stop(Exception):
    """Ends the process with this message and a non-zero code."""


class Processes:
    """Starts children in order, watches them, and takes them down in the opposite order.

    Pods are not children: their shims live on, as k3s documents it for a stopped service. A child that ends takes the
    whole process with it, and the service manager starts it anew, as with k3s, where all of them are one process.
    """

    def __init__(self, path: str) -> None:
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._env = {**os.environ, "PATH": path}
        self._env.pop("NOTIFY_SOCKET", None)
        self.ending = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: pathlib.Path | None = None,
        output: pathlib.Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a child that dies with this process. Call it from the main thread: the kernel ties it to the thread."""
        log(f"Running {name}")
        stream = output.open("ab") if output else None
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            cwd=cwd,
            env={**self._env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
        if stream:
            stream.close()
        self._children.append((name, child))

    def check(self) -> None:
        """Raise Stop if a child has ended or if this process was asked to end."""
        if self.ending.is_set():
            raise Stop("")
        for name, child in self._children:
            if child.poll() is not None:
                raise Stop(f"{name} exited: {child.returncode}")

    def wait_for(self, what: str, ready: Callable[[], bool], every: float = 0.2) -> None:
        """Ask until it is so; whatever ends meanwhile ends the wait."""
        begun, told = time.monotonic(), 0.0
        while not ready():
            self.check()
            waited = time.monotonic() - begun
            if waited - told > 10:
                told = waited
                log(f"Waiting for {what}")
            self.ending.wait(every)

    def background(self, name: str, step: Callable[[], None], every: float) -> None:
        """Call ``step`` again and again in a thread; an error is logged once per text and never ends the process."""

        def loop() -> None:
            last = ""
            while not self.ending.is_set():
                try:
                    step()
                    last = ""
                except Exception as error:
                    text = f"{name}: {error}"
                    if text != last:
                        log(text, "error")
                    last = text
                self.ending.wait(every)

        threading.Thread(target=loop, name=name, daemon=True).start()

    def watch(self) -> None:
        """Return never; ends by Stop."""
        while True:
            self.check()
            self.ending.wait(0.5)

    def end(self) -> None:
        """Ask the children to end, the last started first, and kill those that have not after 5 s."""
        self.ending.set()
        for _, child in reversed(self._children):
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + 5
        for _, child in reversed(self._children):
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
