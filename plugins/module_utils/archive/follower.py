"""Follows the primary as a replica does, and keeps each transaction that it sends. I/O.

It never takes part in a write, so that a follower which is slow or away costs the primary nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from . import judging, wire
from .alarms import STAYS_S, Alarms
from .ltx import Altered, Position
from .store import Received, Refused
from .stream import Stream, StreamError

Address = tuple[str, int]

# A primary sends a heartbeat each second.
SILENT_S = 10.0
CONNECT_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
# Under LiteFS's data.retention, by the time that it takes to remove files.
KEPT_S = 540.0


class Keeping(Protocol):
    """What the follower asks of the store."""

    def databases(self) -> list[tuple[str, str]]: ...
    def newest_cluster(self) -> str: ...
    def position(self, cluster: str, database: str) -> Position | None: ...
    def receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received: ...
    def followed(self, cluster: str, database: str) -> None: ...


@dataclass
class Seen:
    """What the status shows of the following. Written by the follower alone."""

    primary: str = ""  # its address while connected, else ""
    ready: bool = False  # all that it had was received
    since: float = field(default_factory=time.time)  # of connected or not
    heard: float = 0.0  # the last frame, by this machine's clock
    theirs: float = 0.0  # the primary's clock at its last heartbeat
    error: str = ""  # why it is not connected
    cluster_id: str = ""
    files: int = 0
    level: dict[tuple[str, str], float] = field(default_factory=dict)  # (cluster, database) -> when it last had all


def addresses(service: str, port: int) -> list[Address]:
    """Of the pods, behind a Service without an address of its own."""
    found = socket.getaddrinfo(service, port, type=socket.SOCK_STREAM)
    return sorted({(str(item[4][0]), port) for item in found})


def cluster_of(address: Address) -> str | None:
    """The cluster id of a node that says that it is primary; None of any other, or none that answers."""
    connection = http.client.HTTPConnection(address[0], address[1], timeout=CONNECT_S)
    try:
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read(1 << 16))
        return str(info.get("clusterID") or "") if info.get("isPrimary") is True else None
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return None
    finally:
        connection.close()


class Follower:
    """One thread that follows whoever is primary, until ``stop`` is set."""

    def __init__(
        self,
        store: Keeping,
        alarms: Alarms,
        incoming: Path,
        node_id: str,
        nodes: Callable[[], list[Address]],
        recorded: Callable[[], str],
    ) -> None:
        self.seen = Seen()
        self._store, self._alarms, self._incoming, self._node_id = store, alarms, incoming, node_id
        self._nodes, self._recorded = nodes, recorded
        self._heard = self.seen.level
        self._stream: Stream | None = None
        self._last: Address | None = None  # whom it followed last
        self._again = threading.Event()
        self.stop = threading.Event()

    def heard_before(self, cluster: str, database: str, when: float) -> None:
        """From an earlier run: until when a primary was heard."""
        self._heard[(cluster, database)] = when

    def run(self) -> None:
        """Reconnect for ever; the pause grows to LONGEST_PAUSE_S and is short again after a stream that was good."""
        pause = FIRST_PAUSE_S
        while not self.stop.is_set():
            self.seen.ready = False
            try:
                self._once()
            except (OSError, http.client.HTTPException, wire.WireError, Altered, Refused) as exc:
                self.seen.error = str(exc) or type(exc).__name__
            self._disconnected()
            pause = FIRST_PAUSE_S if self.seen.ready else min(pause * 2, LONGEST_PAUSE_S)
            # Not all archives of a host that comes back at once.
            self.stop.wait(pause * random.uniform(0.8, 1.2))

    def end(self) -> None:
        """From another thread: end the stream and the run."""
        self.stop.set()
        self.reconnect()

    def reconnect(self) -> None:
        """From another thread: give the primary the positions anew, as they are now."""
        # The stream may just be beginning, with positions that were.
        self._again.set()
        stream = self._stream
        if stream is not None:
            stream.shut()

    def _disconnected(self) -> None:
        if self.seen.primary:
            self.seen.primary, self.seen.since = "", time.time()

    def _once(self) -> None:
        """Find the primary and follow it until the stream ends."""
        found = [(one, cluster) for one in self._nodes() if (cluster := cluster_of(one)) is not None]
        if not found:
            raise StreamError("no pod says that it is the primary")
        # Without a record the archive says whose transactions they are; an empty one takes the first that come.
        expected = self._recorded() or self._store.newest_cluster()
        ours = [one for one, cluster in found if cluster and expected in ("", cluster)]
        self._tell_two(ours)
        if not ours:
            wrong = judging.foreign(expected, found[0][1])
            if wrong is None:
                raise StreamError("the primary has no cluster id yet")
            self._alarms.raise_(wrong.kind, wrong.sentence)
            raise StreamError(wrong.sentence)
        # Of two it stays with the one that it had: to change over would end what is known of it.
        self._follow(next((one for one in ours if one == self._last), ours[0]), expected)

    def look_for_two(self) -> None:
        """From another thread: whether a second primary of the cluster came beside the one that is followed."""
        cluster = self.seen.cluster_id
        if self.seen.primary and cluster:
            self._tell_two([one for one in self._nodes() if cluster_of(one) == cluster])

    def _tell_two(self, ours: list[Address]) -> None:
        kept = next((one for one in ours if one == self._last), ours[0] if ours else ("", 0))
        found = judging.two([address for address, _port in ours], kept[0])
        if found is not None:
            self._alarms.raise_(found.kind, found.sentence)
        elif ours:
            self._alarms.clear("two_primaries")

    def _follow(self, address: Address, expected: str) -> None:
        """One stream. What an earlier stream left half is removed first."""
        self._again.clear()
        for left in self._incoming.glob("*.part"):
            left.unlink()
        cluster = expected or cluster_of(address) or ""
        held = {
            name: position
            for owner, name in self._store.databases()
            if owner == cluster and (position := self._store.position(owner, name)) is not None
        }
        body = wire.positions({name: (one.txid, one.checksum) for name, one in held.items()})
        stream = Stream(address, self._node_id, body, SILENT_S)
        self._stream = stream
        try:
            if self._again.is_set() or self.stop.is_set():
                raise StreamError("the archive asks anew")
            # The pod may have been replaced since it was asked.
            if (wrong := judging.foreign(cluster, stream.cluster_id)) is not None:
                self._alarms.raise_(wrong.kind, wrong.sentence)
                raise StreamError(wrong.sentence)
            self._alarms.clear("foreign_cluster")
            seen, self._last = self.seen, address
            seen.primary, seen.since, seen.error, seen.cluster_id = address[0], time.time(), "", cluster
            Session(self._store, self._alarms, self._incoming, cluster, held, self._heard, seen).run(stream.pieces())
        finally:
            self._stream = None
            stream.close()


class Session:
    """What one stream brings, kept."""

    def __init__(
        self,
        store: Keeping,
        alarms: Alarms,
        incoming: Path,
        cluster: str,
        held: dict[str, Position],
        heard: dict[tuple[str, str], float],
        seen: Seen,
    ) -> None:
        self._store, self._alarms, self._cluster = store, alarms, cluster
        self._part = incoming / "stream.part"
        self._held, self._heard, self._seen = held, heard, seen
        # Of which the primary says that it has none.
        self._missing: set[str] = set()
        self._file: BinaryIO | None = None
        self._coming = ""
        # How long it was away counts when the stream begins, not after a large snapshot.
        self._began = time.time()

    def run(self, pieces: Iterator[bytes]) -> None:
        """Until the stream ends, which is a StreamError."""
        parser = wire.Parser()
        try:
            for piece in pieces:
                self._seen.heard = time.time()
                for event in parser.feed(piece):
                    self.take(event)
        finally:
            with contextlib.suppress(OSError):
                if self._file is not None:
                    self._file.close()
            # On a full disk it takes the room of what could be kept.
            with contextlib.suppress(OSError):
                self._part.unlink()

    def take(self, event: wire.Event) -> None:
        """One event. A broken connection leaves no half file, since only a whole one reaches the store."""
        if isinstance(event, wire.FileBegin):
            self._coming = event.database
            with self._writing(self._coming):
                self._file = self._part.open("wb")
        elif isinstance(event, wire.FileData):
            with self._writing(self._coming):
                self._opened().write(event.data)
        elif isinstance(event, wire.FileEnd):
            with self._writing(self._coming):
                self._opened().close()
            self._file = None
            self._keep(event.database)
        elif isinstance(event, wire.Drop):
            self._dropped(event.database)
        elif isinstance(event, wire.Heartbeat):
            self._seen.theirs = event.time_ms / 1000
            self._beat()
        elif isinstance(event, wire.Ready):
            self._seen.ready = True
        elif isinstance(event, wire.End):
            raise StreamError("the primary ended the stream")

    @contextlib.contextmanager
    def _writing(self, database: str) -> Iterator[None]:
        """A disk that is full or read-only is told, wherever it shows first."""
        try:
            yield
        except OSError as exc:
            self._alarms.raise_("buffer", f"The archive cannot write what the primary sends: {exc}", database)
            raise

    def _opened(self) -> BinaryIO:
        """The file that is coming; the parser lets nothing of one come before it began."""
        if self._file is None:
            raise AssertionError("no file began")
        return self._file

    def _keep(self, database: str) -> None:
        key = (self._cluster, database)
        held = self._held.get(database)
        try:
            with self._writing(database):
                came = self._store.receive(self._cluster, database, self._part)
        except (Altered, Refused) as exc:
            if held is not None and self._store.position(self._cluster, database) is None:
                raise StreamError(f"the archive asks for all of {database} anew") from exc
            sentence = f"The primary sent what the archive cannot keep: {exc}"
            self._alarms.raise_("refused_file", sentence, database, STAYS_S)
            raise
        self._alarms.clear("buffer", database)
        heard = self._heard.get(key)
        away = max(self._began - heard, 0.0) if heard is not None else float("inf")
        finding = judging.broke(database, held, came, away, KEPT_S)
        self._held[database] = came.position
        now = time.time()
        self._heard[key] = now
        self._seen.files += 1
        self._missing.discard(database)
        self._alarms.clear("no_database", database)
        if finding is not None:
            self._alarms.raise_(finding.kind, finding.sentence, database, STAYS_S)

    def _dropped(self, database: str) -> None:
        self._missing.add(database)
        if database in self._held:
            finding = judging.without_database(database, self._held[database])
            self._alarms.raise_(finding.kind, finding.sentence, database)

    def _beat(self) -> None:
        """Nothing came after what is held, of the databases that the primary has."""
        now = time.time()
        for database in self._held:
            if database not in self._missing:
                self._heard[(self._cluster, database)] = now
                self._alarms.clear("no_database", database)
                # Not the alarm of a database: that ends with the first file that is kept.
                with self._writing(""):
                    self._store.followed(self._cluster, database)
        self._alarms.clear("buffer")


def node_identity(path: Path) -> str:
    """The 16 hex digits by which LiteFS knows this follower: made once for each archive, and kept with it."""
    with contextlib.suppress(OSError):
        text = path.read_text().strip()
        if len(text) == 16 and int(text, 16):
            return text
    text = f"{random.SystemRandom().getrandbits(64) or 1:016X}"
    draft = path.with_suffix(".part")
    draft.write_text(text)
    os.replace(draft, path)
    return text
