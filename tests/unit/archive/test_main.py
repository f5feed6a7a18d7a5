"""The archive as a whole: what it follows comes to its target, and what it says of that is true."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import cluster, layout, main, settings, status
from ansible_collections.abaci.infra.plugins.module_utils.archive.alarms import Alarm
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import FLAG
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Gap
from ltx_files import Primary as Database
from ltx_files import primary as database_of
from primary import Answer, Primary
from test_follower import READY, file, frame, until
from test_serve import history


class Api(cluster.Api):  # type: ignore[misc]
    """Notes events, and says whose primary it has to be."""

    def __init__(self) -> None:
        super().__init__("abaci", "abaci-app", "record")
        self.told: list[Alarm] = []
        self.mark: str | None = ""

    def cluster_id(self) -> str:
        return "LFSC1"

    def given_up(self) -> str | None:
        return self.mark

    def tell(self, alarm: Alarm, stamp: str) -> None:
        self.told.append(alarm)


class Site:
    """A primary that sends what is put into ``outbox``, and an archive of it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder, self.api = folder, Api()
        self.outbox: list[Path] = []
        self.sent = 0
        self.clock_ms = 0
        self.primary = Primary(self.script)
        told = {"service": "s", "port": 1, "namespace": "abaci", "app": "abaci-app", "record": "record"}
        self.told = replace(settings.Settings(**told, buffer=str(folder / "buffer")), **more)  # type: ignore[arg-type]
        self.start()

    def start(self) -> None:
        self.archive = main.Archive(self.told, lambda: [self.primary.address], self.api)
        streams = len(self.primary.streams)
        self.archive.start()
        until(lambda: len(self.primary.streams) > streams)

    def script(self, answer: Answer) -> None:
        answer.head()
        answer.send(READY)
        streams = len(self.primary.streams)
        # What is left goes to the stream that came after this one.
        while streams == len(self.primary.streams):
            while self.sent < len(self.outbox):
                answer.send(file(self.outbox[self.sent].read_bytes()))
                self.sent += 1
            answer.send(frame(7, struct.pack(">q", self.clock_ms)))
            time.sleep(0.05)

    def bring(self, *paths: Path) -> None:
        before = self.archive.follower.seen.files
        self.outbox += paths
        until(lambda: self.archive.follower.seen.files == before + len(paths))

    def beat(self, when: float) -> None:
        """The primary's clock."""
        self.clock_ms = int(when * 1000)
        until(lambda: self.archive.follower.seen.theirs == self.clock_ms / 1000)

    def turn(self) -> status.Document:
        """All schedules at once, and a fresh state."""
        self.archive._last.clear()
        self.archive._renew = float("-inf")
        self.archive.turn()
        self.archive._looked = replace(self.archive._looked, when=float("-inf"))
        return self.archive.document()

    def end(self) -> None:
        self.archive.follower.end()
        until(lambda: not self.archive._thread.is_alive())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**more: Any) -> Site:
        made.append(Site(tmp_path, **more))
        return made[-1]

    yield make
    for one in made:
        one.end()
        one.primary.close()


@pytest.fixture
def data(tmp_path: Path) -> tuple[Database, list[Path]]:
    return database_of(tmp_path / "site", 5)


def test_hazard_what_it_has_counts_again_only_once_a_primary_was_level_after_it_was_given_up(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    """No clock of another machine is asked: the record's word is taken as it is."""
    one = site()
    one.bring(data[1][0])
    one.beat(1)
    note = one.archive.note_given_up
    note()
    assert one.archive.given_up() == ""
    one.api.mark = "2099-01-01T00:00:00Z"
    one.end()
    note()
    note()
    assert one.archive.given_up() == "", "no primary was heard since"
    one.start()
    note = one.archive.note_given_up
    note()
    one.beat(2)
    until(lambda: note() or one.archive.given_up() == "2099-01-01T00:00:00Z")
    # And is not forgotten by a restart, nor while the API is away.
    one.end()
    one.api.mark = None
    one.start()
    one.archive.note_given_up()
    assert one.archive.given_up() == "2099-01-01T00:00:00Z"


def test_what_came_is_proven_checked_and_given_back(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site()
    one.bring(*data[1])
    doc = one.turn()
    (found,) = doc["databases"]
    txid = f"{data[0].txid:016x}"
    assert found["received"]["txid"] == txid and found["verified"] and found["verified"]["txid"] == txid
    assert doc["alarms"] == [] and one.api.told == [] and doc["primary"]["connected"]
    assert set(doc["last"]) == {"pack", "base", "prune", "drill", "check"} and doc["target"] is None
    assert all(ran["problems"] == [] for ran in doc["last"].values())
    assert doc["buffer"]["bytes"] > 0 and doc["buffer"]["free_bytes"] > 0
    with one.archive.rebuilt("LFSC1", "sqlite.db", data[0].txid, None) as (path, made):
        assert made.checksum == data[0].checksum
        with closing(sqlite3.connect(path)) as db:
            assert [row[0] for row in db.execute("SELECT body FROM t ORDER BY id")] == data[0].rows()
    assert list((one.folder / "buffer/scratch").iterdir()) == []
    json.dumps(doc)


def test_a_restart_remembers_what_was_proven_and_when_what_ran(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site()
    one.bring(*data[1])
    before = one.turn()
    one.end()
    one.start()
    after = one.archive.document()
    assert (after["databases"], after["last"]) == (before["databases"], before["last"]) or (
        after["databases"][0]["verified"] == before["databases"][0]["verified"] and after["last"] == before["last"]
    )
    one.bring(data[0].write())
    assert one.api.told == []


def test_a_target_gets_what_is_finished_and_one_that_is_away_is_told(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target))
    one.bring(*data[1])
    doc = one.turn()
    assert doc["target"] and (doc["target"]["error"], doc["target"]["behind_files"]) == ("", 0)
    (there,) = main.Store(target, time.time).moments()
    assert there.last == data[0].txid and doc["alarms"] == []
    # Unmounted below the archive: an empty directory of the host is in its place.
    os.rename(target, tmp_path / "away")
    target.mkdir()
    one.bring(data[0].write())
    doc = one.turn()
    assert {alarm["kind"] for alarm in doc["alarms"]} >= {"move"} and "mount again" in doc["alarms"][0]["sentence"]
    assert doc["target"] and doc["target"]["behind_files"] >= 1 and list(target.iterdir()) == []
    target.rmdir()
    os.rename(tmp_path / "away", target)
    doc = one.turn()
    assert doc["alarms"] == [] and doc["target"] and doc["target"]["behind_files"] == 0
    until(lambda: "move" in [alarm["kind"] for alarm in one.api.told])


def test_a_second_archive_at_a_target_is_told_and_writes_nothing(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    other = main.Store(target, time.time)
    other.claim("another", 600)
    one = site(target=str(target))
    one.bring(*data[1])
    doc = one.turn()
    assert "belongs to the archive another" in str(doc["alarms"]) and doc["target"] and doc["target"]["behind_files"]
    assert list(target.glob("LFSC1")) == []


def test_a_remote_that_gets_nothing_is_told(site: Callable[..., Site], tmp_path: Path) -> None:
    stamp = tmp_path / "copied"
    one = site(remote_stamp=str(stamp))
    assert one.turn()["remote_behind_seconds"] is not None and one.turn()["alarms"] == []
    stamp.touch()
    os.utime(stamp, (time.time() - 1000, time.time() - 1000))
    doc = one.turn()
    assert [alarm["kind"] for alarm in doc["alarms"]] == ["remote"]
    assert doc["remote_behind_seconds"] and 999 < doc["remote_behind_seconds"] < 1010
    stamp.touch()
    os.utime(stamp)
    assert one.turn()["alarms"] == []


def test_a_database_that_sqlite_finds_unsound_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a PRIMARY KEY)")
        db.executemany("INSERT INTO t VALUES (?)", [(str(number) * 50,) for number in range(500)])
        db.commit()
    assert main.integrity(path) == ""
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 3 + 200] = bytes(200)
    path.write_bytes(content)
    assert main.integrity(path) != ""
    path.write_bytes(b"")
    assert main.integrity(path) == ""


def test_who_reads_transactions_slowly_holds_nothing_up(
    site: Callable[..., Site], data: tuple[Database, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "AT_ONCE", 2, raising=False)
    one = site(pack_after=0)
    one.bring(*data[1])
    slow = one.archive.transactions("LFSC1", "sqlite.db", 0, float("inf"))
    assert next(slow).txid == 1
    assert one.archive._files.acquire(timeout=1)
    one.archive._files.release()
    # What is packed meanwhile comes all the same.
    assert one.archive._kept.pack(time.time() + 86400 * 1000, 0, 0, 0).made
    assert [at.txid for at in slow] == [2, 3, 4, 5]


def test_after_a_loss_the_whole_database_is_asked_for_once_there_is_room(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target), buffer_size="8Ki")
    one.bring(*data[1])
    one.turn()
    os.rename(target, tmp_path / "away")
    one.bring(*[data[0].write() for _ in range(10)])
    assert "lost" in [alarm["kind"] for alarm in one.turn()["alarms"]]
    streams = len(one.primary.streams)
    os.rename(tmp_path / "away", target)
    one.turn()
    until(lambda: len(one.primary.streams) > streams)
    assert one.primary.streams[-1][1] == bytes(4)
    one.bring(data[0].snapshot(), data[0].write())
    doc = one.turn()
    assert {alarm["kind"] for alarm in doc["alarms"]} <= {"lost", "check"}
    assert doc["databases"][0]["received"]["txid"] == f"{data[0].txid:016x}"


def test_a_loss_at_the_first_look_after_a_start_is_told(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    one = site(target=str(tmp_path / "nas"), buffer_size="8Ki")
    one.bring(*data[1], *[data[0].write() for _ in range(10)])
    assert {alarm["kind"] for alarm in one.turn()["alarms"]} == {"lost", "move"}


def test_a_clock_that_jumps_ahead_makes_nothing_old(
    site: Callable[..., Site], data: tuple[Database, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = site(keep=3600.0, base_every=0.0)
    one.bring(*data[1])
    one.turn()
    clock, ahead = time.time, 0.0
    monkeypatch.setattr(main.time, "time", lambda: clock() + ahead)

    def first() -> str:
        found: list[status.HistoryDoc] = [status.history(history) for history in one.archive.buffer.moments()]
        return found[0]["first"]["txid"]

    one.beat(data[0].time + 60)
    ahead = data[0].time + 30 * 86400 - clock()
    one.turn()
    assert first() == f"{1:016x}"
    one.beat(data[0].time + 2 * 3600)
    one.turn()
    assert first() == f"{5:016x}"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_target_that_cannot_be_read_keeps_nobody_from_following(
    site: Callable[..., Site],
    data: tuple[Database, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target))
    one.bring(*data[1])
    one.turn()
    state, listed = data[0].state(), os.listdir

    def stale(path: Path) -> list[str]:
        if Path(path).is_relative_to(target):
            raise OSError(code, os.strerror(code), str(path))
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(layout.os, "listdir", stale)
        streams = len(one.primary.streams)
        one.archive.follower.reconnect()
        until(lambda: len(one.primary.streams) > streams and one.archive.follower.seen.ready)
        one.bring(data[0].write())
        one.end()
        one.start()
        one.bring(data[0].write())
        # A primary that went back is a new history, whatever can be read of the old one.
        data[0].restore(state)
        one.bring(data[0].snapshot())
        doc = one.turn()
        assert {"move", "primary_behind"} <= {alarm["kind"] for alarm in doc["alarms"]}
    doc = one.turn()
    assert doc["databases"][0]["received"]["txid"] == f"{data[0].txid:016x}"
    assert [alarm["kind"] for alarm in doc["alarms"]] == ["primary_behind"]
    assert [history.last for history in one.archive.buffer.moments()] == [data[0].txid + 2, data[0].txid]


def test_the_buffer_is_packed_while_the_target_is_away(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target), pack_after=0.0)
    one.bring(*data[1])
    one.turn()
    os.rename(target, tmp_path / "away")
    one.bring(*[data[0].write(seconds=0.1) for _ in range(60)])
    one.turn()
    assert len(list((one.folder / "buffer/archive").rglob("*.ltx*"))) < 8
    one.bring(*[data[0].write() for _ in range(5)])
    os.rename(tmp_path / "away", target)
    doc = one.turn()
    assert doc["alarms"] == [] and doc["target"] and doc["target"]["behind_files"] == 0
    one.end()
    one.start()
    one.bring(data[0].write())
    assert one.turn()["alarms"] == [] and one.turn()["alarms"] == []
    listed = one.archive.transactions("LFSC1", "sqlite.db", 0, float("inf"))
    assert [at.txid for at in listed] == list(range(1, data[0].txid + 1))


@pytest.mark.parametrize("how", ["altered", "gone"])
def test_a_history_that_is_broken_within_is_begun_anew(
    site: Callable[..., Site], data: tuple[Database, list[Path]], how: str
) -> None:
    one = site()
    one.bring(*data[1])
    (third,) = (one.folder / "buffer/archive").rglob(f"{3:016x}-*.ltx")
    if how == "gone":
        third.unlink()
    else:
        content = bytearray(third.read_bytes())
        content[200] ^= 1
        third.write_bytes(content)
    streams = len(one.primary.streams)
    assert "check" in [alarm["kind"] for alarm in one.turn()["alarms"]]
    until(lambda: len(one.primary.streams) > streams)
    assert one.primary.streams[-1][1] == bytes(4)
    one.bring(data[0].snapshot(), data[0].write())
    assert {alarm["kind"] for alarm in one.turn()["alarms"]} <= {"check", "pack"}
    assert len(one.primary.streams) == streams + 1
    with one.archive.rebuilt("LFSC1", "sqlite.db", data[0].txid, None) as (_path, made):
        assert made.checksum == data[0].checksum


def test_a_target_that_went_away_since_the_claim_is_not_taken_for_empty(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target))
    one.bring(*data[1])
    one.turn()
    os.rename(target, tmp_path / "away")
    target.mkdir()
    one.archive._last.clear()
    one.archive.turn()
    assert {alarm["kind"] for alarm in one.archive.alarms.active()} == {"move"} and list(target.iterdir()) == []


def test_a_claim_that_was_cut_is_not_taken_for_a_mount_that_is_away(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path
) -> None:
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target))
    one.bring(*data[1])
    one.turn()
    for lease in target.glob(".owner-*"):
        lease.unlink()
    (target / ".owner-000007.json").touch()
    os.utime(target / ".owner-000007.json", (time.time() - 61, time.time() - 61))
    assert one.turn()["alarms"] == []


def test_one_copy_of_a_database_is_on_the_claim_at_a_time(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site()
    one.bring(*data[1])
    txids: list[int] = []

    def other() -> None:
        with one.archive.rebuilt("LFSC1", "sqlite.db", 4, None) as (_path, made):
            txids.append(made.txid)

    with one.archive.rebuilt("LFSC1", "sqlite.db", 5, None) as (path, _made):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        assert [txids, list((one.folder / "buffer/scratch").iterdir())] == [[], [path.parent]]
    thread.join(5)
    assert txids == [4]


def test_a_target_that_hangs_is_told_and_keeps_nobody_from_following(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "HANGS_S", 1.0)
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target))
    one.bring(*data[1])
    one.turn()
    listed, back = os.listdir, threading.Event()

    def hangs(path: Path) -> list[str]:
        if Path(path).is_relative_to(target):
            back.wait(20)
        return listed(path)

    monkeypatch.setattr(layout.os, "listdir", hangs)
    streams = len(one.primary.streams)
    one.archive.follower.reconnect()
    until(lambda: len(one.primary.streams) > streams and one.archive.follower.seen.ready)
    assert one.primary.streams[-1][1] != bytes(4)
    one.bring(data[0].write())
    until(lambda: "does not answer" in str(one.archive.alarms.active()))
    back.set()
    until(lambda: one.turn()["alarms"] == [])


def test_while_the_target_hangs_the_buffer_is_packed_and_bounded_and_the_loss_told(
    site: Callable[..., Site], data: tuple[Database, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "HANGS_S", 1.0)
    target = tmp_path / "nas"
    target.mkdir()
    one = site(target=str(target), buffer_size="40k", pack_after=-(10.0**10))
    one.bring(*data[1])
    one.turn()
    listed, back = os.listdir, threading.Event()

    def hangs(path: Path) -> list[str]:
        if Path(path).is_relative_to(target):
            back.wait(60)
        return listed(path)

    monkeypatch.setattr(layout.os, "listdir", hangs)
    # As in the pod: whoever does what is due hangs, with the lock of the files.
    stuck = threading.Thread(target=one.archive.turn)
    stuck.start()
    try:
        one.bring(*(data[0].write() for _ in range(60)))
        until(lambda: list((one.folder / "buffer/archive").rglob("*.ltx.gz")), 30)
        one.bring(*[data[0].write("INSERT INTO t (body) VALUES (hex(randomblob(30000)))") for _ in range(3)])
        until(lambda: "lost" in {alarm["kind"] for alarm in one.archive.alarms.active()}, 30)
        moved = one.archive._moved
        assert moved and moved.behind_files and "does not answer" in moved.error and "are lost" in moved.lost[-1]
    finally:
        back.set()
        stuck.join(60)
    assert not stuck.is_alive()


def test_a_drill_rebuilds_the_newest_moment_and_another_and_is_kept_over_a_restart(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site(drill_query="SELECT count(*), 'rows' FROM t")
    assert one.turn()["drills"] == [], "there is nothing to rebuild yet"
    one.bring(*data[1])
    until(lambda: one.turn()["drills"])
    drills = one.archive.document()["drills"]
    assert 1 <= len(drills) <= 2 and drills[0]["txid"] == f"{len(data[1]):016x}"
    assert drills[0]["answer"] == f"{len(data[0].rows())}, rows" and drills[0]["bytes"] > 0
    assert one.archive.document()["last"]["drill"]["problems"] == []
    one.archive.follower.end()
    one.start()
    assert one.archive.document()["drills"] == drills


def test_a_moment_that_a_drill_cannot_have_is_an_alarm(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site(drill_query="SELECT no_such_column FROM t")
    one.bring(*data[1])
    until(lambda: "drill" in {alarm["kind"] for alarm in one.turn()["alarms"]})
    (alarm,) = [alarm for alarm in one.archive.document()["alarms"] if alarm["kind"] == "drill"]
    assert "cannot be had: no such column" in alarm["sentence"] and one.archive.document()["drills"] == []


def test_what_the_guard_is_told_is_of_when_the_archive_was_level(
    site: Callable[..., Site], data: tuple[Database, list[Path]]
) -> None:
    one = site()
    assert one.archive.heard() == 0.0
    began = time.time()
    one.bring(*data[1])
    until(lambda: one.archive.heard() >= began)
    level = one.archive.follower.seen.level
    one.archive.follower.end()
    one.archive.follower.seen.heard = time.time() + 1000
    assert one.archive.heard() <= max(level.values())


@pytest.mark.parametrize(("checksum", "counts"), [(FLAG, False), (FLAG | 1, True)], ids=["removed", "there"])
def test_a_database_that_was_removed_does_not_keep_the_time_back(
    site: Callable[..., Site],
    data: tuple[Database, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    checksum: int,
    counts: bool,
) -> None:
    one = site()
    began = time.time()
    one.bring(*data[1])
    until(lambda: one.archive.heard() >= began)
    known = one.archive.histories()
    other = replace(known[-1], database="other.db", checksum=checksum, followed=1.0)
    monkeypatch.setattr(one.archive, "histories", lambda: [*known, other])
    assert (one.archive.heard() == 1.0) == counts


def test_at_random_never_in_a_gap() -> None:
    one = replace(history(), first=1, last=9, gaps=(Gap(2, 8),))
    assert {main.at_random(one) for _try in range(200)} == {1, 9}
