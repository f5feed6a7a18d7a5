"""The archive as a program: follow, keep, move, pack, check, answer. I/O.

Run as `python3 archive.pyz <settings.json>`. SIGTERM ends it at once: what is half received is asked for again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from . import cluster, disk, feed, follower, giving, layout, serve, settings, status
from .alarms import STAYS_S, Alarm, Alarms
from .ltx import FLAG, Altered, Compressed, Position
from .store import History, Lacking, Moment, Moved, Mover, Rebuilt, Received, Refused, Store, Transaction

# How long a claim of the target holds without being renewed, and how often it is.
CLAIM_S, MOVE_S, PACK_S, PRUNE_S = 600.0, 5.0, 60.0, 3600.0
REMOTE_LATE_S = 900.0
# moments() reads folders; the status is asked by probes and scrapes.
LOOK_S = 5.0
HANGS_S = 60.0
TWO_S = 10.0
# Transactions that are read before they are sent.
AT_ONCE = 1000
# For which a drill's query may run.
QUERY_S = 60.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Look:
    """What the folders held at one moment."""

    when: float
    histories: list[History]
    size: int


class RanState(TypedDict):
    time: float
    seconds: float
    problems: list[str]


class State(TypedDict):
    """What a restart must not forget."""

    last: dict[str, RanState]
    drills: NotRequired[list[status.DrillDoc]]  # of an older version there are none
    verified: list[tuple[str, str, tuple[int, float]]]


class Archive:
    """All of it; what serve.Archive asks is answered here."""

    def __init__(self, told: settings.Settings, nodes: Callable[[], list[follower.Address]], api: cluster.Api) -> None:
        self.told, self._api = told, api
        root = Path(told.buffer)
        self._scratch, incoming = root / "scratch", root / "incoming"
        for folder in (root / "archive", incoming, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)
        for left in self._scratch.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        target = Path(told.target) if told.target else None
        self.buffer = Store(root / "archive", time.time, target)
        self.target = Store(target, time.time, root / "archive") if target else None
        self._kept = self.target or self.buffer
        identity = follower.node_identity(root / "node-id")
        # Two archives of one name, in two clusters, are two at one target.
        self._owner = f"{told.namespace}/{told.app} {identity}"
        self._room = settings.size(told.buffer_size)
        most = self._room or sys.maxsize
        self._mover = Mover(self.buffer, self.target, self._owner, most) if self.target else None
        self._moved: Moved | None = None
        self._state = root / "state.json"
        self._last: dict[str, status.Ran] = {}
        self._drills: list[status.DrillDoc] = []
        self._verified: dict[tuple[str, str], status.Point] = {}
        self._remember()
        self.alarms = Alarms(root / "alarms.json", self._tell)
        self.follower = follower.Follower(self, self.alarms, incoming, identity, nodes, api.cluster_id)
        self._thread = threading.Thread(target=self.follower.run, daemon=True)
        self._known: set[tuple[str, str]] = set()
        self._started = self._tidied = False
        # Whether what is kept is ours to write to.
        self._ours = self.target is None
        self._renew = float("-inf")
        self._began = time.time()
        # What changes files (pack, move, prune) and what reads many of them do not run at one time; receiving does.
        self._files = threading.Lock()
        # One copy of a database at a time, so that those who read slowly do not fill the claim.
        self._giving = threading.Lock()
        self._looked = Look(float("-inf"), [], 0)
        # What the record said was given up of the archive when a primary was last level, and what it says since.
        self._mark = root / "given-up"
        self._given_up = self._mark.read_text() if self._mark.exists() else ""
        self._since: tuple[str, float] | None = None

    # What the follower asks: the store, and a note of what was proven

    def databases(self) -> list[tuple[str, str]]:
        """The target is asked at the start only: a share that is away may hang, and the follower must not."""
        self._known.update(layout.databases((self.buffer.root,)))
        return sorted(self._known)

    def newest_cluster(self) -> str:
        return max(((one.opened, one.cluster) for one in self.buffer.moments()), default=(0.0, ""))[1]

    def position(self, owner: str, database: str) -> Position | None:
        return self.buffer.position(owner, database)

    def followed(self, owner: str, database: str) -> None:
        self.buffer.followed(owner, database)

    def receive(self, owner: str, database: str, path_of_ltx: Path) -> Received:
        received = self.buffer.receive(owner, database, path_of_ltx)
        if received.verified:
            self._proven(owner, database, received.position.txid)
        return received

    def _proven(self, owner: str, database: str, txid: int) -> None:
        self._verified[(owner, database)] = status.Point(txid, time.time())

    # What is served

    def alive(self) -> bool:
        """Whether the follower does what it is for; a defect that ended it is the kubelet's to end with a restart."""
        return not self._started or self._thread.is_alive()

    def histories(self) -> list[History]:
        return self._look().histories

    def _look(self) -> Look:
        """Not older than LOOK_S, but for when something that takes long is at the files."""
        if time.monotonic() - self._looked.when > LOOK_S:
            # Whoever asks first has to wait.
            waits = -1.0 if self._looked.when < 0 else 1.0
            if self._files.acquire(timeout=waits):
                try:
                    self._looked = Look(time.monotonic(), self.buffer.moments(), size(Path(self.told.buffer)))
                finally:
                    self._files.release()
        return self._looked

    def transactions(self, owner: str, database: str, since: float, until: float) -> Iterator[Transaction]:
        found = self._kept.transactions(owner, database, since, until)
        # Whoever reads slowly keeps nothing from being moved, packed and pruned.
        while True:
            with self._files:
                some = list(itertools.islice(found, AT_ONCE))
            if not some:
                return
            yield from some

    @contextlib.contextmanager
    def rebuilt(self, owner: str, database: str, moment: Moment, history: str | None) -> Iterator[tuple[Path, Rebuilt]]:
        with self._giving, tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "database"
            with self._files:
                made = self._kept.rebuild(owner, database, moment, path, history)
            yield path, made

    def following(self, owner: str, database: str, at: Position) -> Iterator[giving.Given]:
        return self._kept.following(owner, database, at)

    def heard(self) -> float:
        """Until when every database of the newest cluster was level with a primary, by this clock.

        Not merely connected: while a whole database is on its way, what is held is still what was before. Of one that
        was removed nothing comes any more.
        """
        owner, level = self.newest_cluster(), self.follower.seen.level
        known = [one for one in status.newest(self.histories()) if one.cluster == owner and one.last]
        ends = [one for one in known if one.checksum != FLAG]
        return min((max(one.followed, level.get((owner, one.database), 0.0)) for one in ends), default=0.0)

    def given_up(self) -> str:
        """What the record said was given up of the archive, when every database was level with a primary."""
        return self._given_up

    def note_given_up(self) -> None:
        """Take over what the record says, once a primary was level after it said so. Called every few seconds."""
        said = self._api.given_up()
        if said is None or said == self._given_up:
            self._since = None
        elif self._since is None or self._since[0] != said:
            self._since = said, time.time()
        elif self.heard() > self._since[1]:
            disk.write_text(self._mark, said)
            self._given_up = said

    def document(self) -> status.Document:
        root = Path(self.told.buffer)
        look = self._look()
        return status.document(
            status.View(
                now=time.time(),
                seen=self.follower.seen,
                histories=look.histories,
                verified=dict(self._verified),
                moved=self._moved,
                remote=self._remote(),
                buffer={
                    "bytes": look.size,
                    "max_bytes": self._room,
                    "free_bytes": shutil.disk_usage(root).free,
                },
                last=dict(self._last),
                drills=self._drills,
                alarms=self.alarms.active(),
            )
        )

    # What runs on a schedule

    def start(self) -> None:
        """Finish what a killed process left in the buffer, then follow."""
        self.buffer.tidy()
        for one in self.buffer.moments():
            self.follower.heard_before(one.cluster, one.database, one.followed)
            self._known.add((one.cluster, one.database))
            self.buffer.position(one.cluster, one.database)
        self._thread.start()
        threading.Thread(target=self._watch_primaries, daemon=True).start()
        if self.target is not None:
            threading.Thread(target=self._watch_target, args=(self.target,), daemon=True).start()
        self._started = True

    def turn(self) -> None:
        """Do what is due; called every second."""
        told = self.told
        if self._mover is not None and self._due("move", MOVE_S):
            self._run("move", self._move)
        if (self._ours or self._away()) and self._due("pack", PACK_S):
            self._run("pack", self._pack)
        # What is wrong with the target is said once, and a check would miss all that is there.
        if self._ours:
            if self._due("base", min(told.base_every, PRUNE_S)):
                self._run("base", lambda: self._kept.make_base(time.time(), told.base_every).problems)
            if self._due("prune", PRUNE_S):
                self._run("prune", self._prune)
            if self._due("drill", told.drill_every) and any(one.last for one in self.histories()):
                self._run("drill", self._drill)
            if self._due("check", told.check_every):
                self._run("check", self._check)
        self._watch_remote()

    def _due(self, what: str, every: float) -> bool:
        ran = self._last.get(what)
        # What went wrong is looked at again, and its alarm ended, before a day is over.
        return ran is None or not 0 <= time.time() - ran.time < (min(every, PRUNE_S) if ran.problems else every)

    def _run(self, what: str, act: Callable[[], tuple[str, ...]]) -> None:
        began = time.time()
        with self._files:
            problems = self._trying(what, act)
        self._last[what] = status.Ran(began, time.time() - began, problems)
        if what != "move":
            self.save()

    def _trying(self, what: str, act: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        """Problems are alarms, and the archive goes on."""
        try:
            problems = act()
        except (OSError, Refused, Altered, Compressed) as exc:
            problems = (str(exc),)
        if problems:
            more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
            self.alarms.raise_(what, f"{problems[0]}{more}")
        else:
            self.alarms.clear(what)
        return problems

    def _claim(self) -> None:
        """Become or stay the one who writes to the target; Refused where that is another, or nothing is mounted."""
        if self.target is None:
            raise AssertionError("there is no target")
        ours, self._ours = self._ours, False
        if ours and time.monotonic() < self._renew and self.target.owner() == self._owner:
            self._ours = True
            return
        # A directory on which something is no longer mounted is empty, and no place for an archive.
        mark = Path(self.told.buffer) / "claimed"
        if mark.exists() and not self.target.claimed():
            raise Refused(
                f"The target {self.target.root} is empty, and the archive was there: mount again what is away, or, for "
                f"a new target, remove {mark} in the pod."
            )
        self.target.claim(self._owner, CLAIM_S)
        mark.touch()
        if not self._tidied:
            self.target.tidy()
            self._tidied = True
        self._ours, self._renew = True, time.monotonic() + PACK_S

    def _watch_primaries(self) -> None:
        """A second primary makes no stream end, so that somebody has to look."""
        while not self.follower.stop.wait(TWO_S):
            with contextlib.suppress(OSError):
                self.follower.look_for_two()
            with contextlib.suppress(OSError, Refused, Altered):
                self.note_given_up()

    def _watch_target(self, target: Store) -> None:
        """A share that is away may hang whoever asks, for ever: that is told by somebody who does not ask.

        The buffer is packed and kept below its size from here, as whoever else would do that may be one who hangs.
        """
        packed = float("-inf")
        answered = time.monotonic()

        def ask() -> None:
            nonlocal answered
            while not self.follower.stop.wait(HANGS_S / 10):
                with contextlib.suppress(OSError):
                    target.owner()
                answered = time.monotonic()

        threading.Thread(target=ask, daemon=True).start()
        while not self.follower.stop.wait(HANGS_S / 10):
            if time.monotonic() - answered > HANGS_S:
                sentence = f"The target {target.root} does not answer for {HANGS_S:.0f} s: see to its mount."
                self.alarms.raise_("move", sentence)
                if time.monotonic() - packed > min(PACK_S, HANGS_S):
                    packed = time.monotonic()
                    with contextlib.suppress(OSError, Altered, Compressed):
                        self._alone(sentence)

    def _alone(self, sentence: str) -> None:
        """What has to be done of the buffer while the target hangs."""
        if self._mover is None:
            raise AssertionError("there is no target")
        known = len(self._mover.lost())
        self.buffer.pack(time.time(), self.told.pack_after, first_stays=True)
        self._moved = self._mover.bound(sentence)
        self._tell_lost(self._moved, known)

    def _move(self) -> tuple[str, ...]:
        if self._mover is None:
            raise AssertionError("nothing is moved")
        known = len(self._mover.lost())
        try:
            self._claim()
        finally:
            # It also keeps the buffer below its size.
            self._moved = self._mover.run()
            self._tell_lost(self._moved, known)
            if self._moved.anew:
                self.follower.reconnect()
        return (self._moved.error,) if self._moved.error else ()

    def _tell_lost(self, moved: Moved, known: int) -> None:
        if len(moved.lost) > known:
            self.alarms.raise_("lost", moved.lost[-1], stays=STAYS_S)

    def _remote(self) -> float | None:
        """When all was last copied to the remote; the start of this process where it never was."""
        if not self.told.remote_stamp:
            return None
        with contextlib.suppress(OSError):
            return Path(self.told.remote_stamp).stat().st_mtime
        return self._began

    def _watch_remote(self) -> None:
        remote = self._remote()
        if remote is None or time.time() - remote < REMOTE_LATE_S:
            return self.alarms.clear("remote")
        since = status.stamp(remote)[:19]
        self.alarms.raise_(
            "remote", f"Nothing was copied to the remote since {since}Z: see the log of the container rclone."
        )

    def _away(self) -> bool:
        return self._moved is not None and self._moved.error != ""

    def _pack(self) -> tuple[str, ...]:
        """Also the buffer while the target takes nothing: one file a transaction outgrows memory before its room."""
        now, after = time.time(), self.told.pack_after
        problems: tuple[str, ...] = ()
        if self._away():
            problems += self.buffer.pack(now, after, first_stays=True).problems
        if self._ours:
            problems += self._kept.pack(now, after).problems
        return problems

    def _prune(self) -> tuple[str, ...]:
        """By the clock that is behind: one that jumps ahead must not make everything old."""
        now = min(time.time(), self.follower.seen.theirs)
        return self._kept.prune(now, self.told.keep, settings.size(self.told.max_size) or None).problems

    def _check(self) -> tuple[str, ...]:
        """Read everything, and ask SQLite about the newest moment of each database."""
        found = list(self._kept.check())
        for one in status.newest(self._kept.moments()):
            with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                path = Path(folder) / "database"
                try:
                    made = self._kept.rebuild(one.cluster, one.database, one.last, path, one.history)
                except (Refused, Altered, Compressed) as exc:
                    found.append(str(exc))
                    if isinstance(exc, (Altered, Lacking)) and one.cluster == self.follower.seen.cluster_id:
                        # Nothing that is yet to come could be had without a copy of the whole database.
                        self.buffer.begin_anew(one.cluster, one.database)
                        self.follower.reconnect()
                    continue
                if said := integrity(path):
                    found.append(f"{one.database} at {made.txid:016x} is proven and yet not sound: {said}")
                self._proven(one.cluster, one.database, made.txid)
        return tuple(found)

    def _drill(self) -> tuple[str, ...]:
        """Rebuild the newest moment of each database and one at random, as a restore would, and look into both."""
        found: list[str] = []
        drills: list[status.DrillDoc] = []
        for one in status.newest(self._kept.moments()):
            for txid in dict.fromkeys((one.last, at_random(one)) if one.last else ()):
                began = time.monotonic()
                with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                    path = Path(folder) / "database"
                    try:
                        made = self._kept.rebuild(one.cluster, one.database, txid, path, one.history)
                        problem, answer = integrity(path), asked(path, self.told.drill_query)
                        size = path.stat().st_size
                    except (Refused, Altered, Compressed, sqlite3.Error) as exc:
                        found.append(f"{one.database} as it was at {txid:016x} cannot be had: {exc}")
                        continue
                if problem:
                    found.append(f"{one.database} as it was at {txid:016x} is not sound: {problem}")
                drills.append(
                    status.DrillDoc(
                        cluster=one.cluster,
                        database=one.database,
                        txid=status.hexadecimal(made.txid),
                        time=status.stamp(made.time),
                        seconds=round(time.monotonic() - began, 1),
                        bytes=size,
                        answer=answer,
                    )
                )
        self._drills = drills
        return tuple(found)

    def _tell(self, alarm: Alarm) -> None:
        """Not on the follower's time: the API may be away."""
        say(f"{alarm['kind']}: {alarm['sentence']}")

        def post() -> None:
            for pause in (1.0, 5.0, 30.0, 120.0, 0.0):
                try:
                    return self._api.tell(alarm, status.stamp(time.time())[:19] + "Z")
                except (OSError, KeyError, ValueError) as exc:
                    say(f"The event could not be noted: {exc}")
                time.sleep(pause)

        threading.Thread(target=post, daemon=True).start()

    def _remember(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept: State = json.loads(self._state.read_text())
            self._last = {
                name: status.Ran(one["time"], one["seconds"], tuple(one["problems"]))
                for name, one in kept["last"].items()
            }
            self._verified = {(owner, name): status.Point(*at) for owner, name, at in kept["verified"]}
            self._drills = kept.get("drills", [])

    def save(self) -> None:
        """At each turn that did something, and at the end."""
        draft = self._state.with_suffix(".part")
        kept = State(
            last={
                name: {"time": ran.time, "seconds": ran.seconds, "problems": list(ran.problems)}
                for name, ran in self._last.items()
            },
            drills=self._drills,
            verified=[(owner, name, (at.txid, at.time)) for (owner, name), at in dict(self._verified).items()],
        )
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(kept))
            os.replace(draft, self._state)


def size(folder: Path) -> int:
    """Bytes of all files below; those that go meanwhile do not count."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.stat(os.path.join(place, name)).st_size
    return found


def at_random(one: History) -> int:
    """A transaction of a history that can be had; the last where all tries fall into gaps."""
    for _try in range(100):
        txid = random.randint(one.first, one.last)
        if not any(gap.first <= txid <= gap.last for gap in one.gaps):
            return txid
    return one.last


def asked(path: Path, query: str) -> str:
    """The first row that a database answers, as text; "" without a query. sqlite3.Error where it is none."""
    if not query or not path.stat().st_size:
        return ""
    end = time.monotonic() + QUERY_S
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        db.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        row = db.execute(query).fetchone()
    return "" if row is None else ", ".join(str(value) for value in row)[:200]


def integrity(path: Path) -> str:
    """What SQLite finds wrong with a file; "" where it is sound. An empty file is a database that was removed."""
    if not path.stat().st_size:
        return ""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        try:
            rows = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
        except sqlite3.Error as exc:
            rows = [str(exc)]
    return "" if rows == ["ok"] else "; ".join(rows)


def main(arguments: list[str]) -> int:
    try:
        told = settings.read(Path(arguments[0]))
    except (OSError, ValueError, IndexError) as exc:
        say(f"The archive has no settings: {exc}")
        return 2
    api = cluster.Api(told.namespace, told.app, told.record)
    archive = Archive(told, lambda: follower.addresses(told.service, told.port), api)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    serve.Server(archive, told.metrics_port, local=False).start()
    serve.Server(archive, told.local_port, local=True).start()
    feed.Feed(archive, told.feed_port).start()
    archive.start()
    while not ended.wait(1):
        archive.turn()
    archive.follower.end()
    archive.save()
    return 0
