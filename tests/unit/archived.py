"""A site of the fake API with an archive: the real server on a real store, behind the port-forward of its pod."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factory_objects as make
import ltx_files
from ansible_collections.abaci.infra.plugins.module_utils.archive import giving, serve, status
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import (
    History,
    Moment,
    Rebuilt,
    Store,
    Transaction,
)
from fake_api import Cluster

POD = f"{make.NAME}-archive-7d9f"


class Held:
    """What serve.Archive asks, of a store that nobody writes to meanwhile."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store, self._scratch = store, scratch
        self.rebuilds = 0

    def alive(self) -> bool:
        return True

    def document(self) -> status.Document:
        raise NotImplementedError

    def histories(self) -> list[History]:
        return self.store.moments()

    def transactions(self, cluster: str, database: str, since: float, until: float) -> Iterator[Transaction]:
        return self.store.transactions(cluster, database, since, until)

    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]:
        return self.store.following(cluster, database, at)

    @contextlib.contextmanager
    def rebuilt(
        self, cluster: str, database: str, moment: Moment, history: str | None
    ) -> Iterator[tuple[Path, Rebuilt]]:
        self.rebuilds += 1
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "database"
            yield path, self.store.rebuild(cluster, database, moment, path, history)


class _Stream:
    error = ""

    def __init__(self, address: Any) -> None:
        self._socket = socket.create_connection(address, timeout=10)
        self.send, self.close, self.makefile = self._socket.sendall, self._socket.close, self._socket.makefile


class Site(Cluster):  # type: ignore[misc]
    """Its archive has what ``primary`` wrote, one transaction a minute up to a minute ago."""

    def __init__(self, folder: Path, transactions: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        self.primary = ltx_files.Primary(folder / "primary")
        self.primary.time = time.time() - 60 * 200
        (folder / "store").mkdir()
        self.archive = Held(Store(folder / "store", lambda: self.primary.time), folder)
        self.answers = serve.Server(self.archive, 0, local=True)
        self.answers.start()
        self.put(archive_pod())
        if transactions:
            self.write("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        for _ in range(transactions - 1):
            self.write()

    def write(self, *statements: str, lost: bool = False) -> None:
        """One transaction; ``lost``: the archive does not get it."""
        file = self.primary.write(*statements, seconds=60)
        if not lost:
            self.archive.store.receive(make.A, make.DATABASE, file)
            self.archive.store.followed(make.A, make.DATABASE)

    def dial(self, namespace: str, pod: str, port: int, deadline: float) -> Any:
        if pod == POD and port == 9103:
            return _Stream(self.answers.server_address)
        return super().dial(namespace, pod, port, deadline)

    def close(self) -> None:
        self.answers.shutdown()
        self.answers.server_close()


def archive_pod(phase: str = "Running") -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": make.NAME, "app.kubernetes.io/component": "archive"}
    return {"kind": "Pod", "metadata": {"name": POD, "labels": labels}, "status": {"phase": phase}}
