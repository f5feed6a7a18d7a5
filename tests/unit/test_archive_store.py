"""The archive on disk: every moment of what came can be rebuilt, or is refused by name."""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import random
import shutil
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import ltx_files
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import disk, layout, ltx, packs, store
from ltx_files import START, Primary

CLUSTER, DATABASE = "LFSC0123456789ABCDEF", "sqlite.db"
DAY = 86400


class Clock:
    """The archive's clock."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Archive:
    """A primary and an archive that gets each of its transactions; ``states`` are the databases after each."""

    def __init__(self, folder: Path, page_size: int = 512) -> None:
        self.clock, self.root = Clock(), folder / "archive"
        self.store = store.Store(self.root, self.clock)
        self.primary = Primary(folder / "primary", page_size)
        self.out = folder / "rebuilt.db"
        self.states: dict[int, str] = {}

    def write(self, count: int = 1, seconds: float = 1.0) -> None:
        for _ in range(count):
            made = [] if self.primary.txid else ["CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)"]
            self.send(self.primary.write(*made, seconds=seconds))

    def send(self, path: Path) -> store.Received:
        self.clock.now = max(self.clock.now, self.primary.time)
        received = self.store.receive(CLUSTER, DATABASE, path)
        self.states[self.primary.txid] = hashlib.sha256(self.primary.path.read_bytes()).hexdigest()
        return received

    def again(self) -> store.Store:
        """Another process."""
        self.store = store.Store(self.root, self.clock)
        self.store.tidy()
        return self.store

    def rebuild(self, moment: store.Moment, history: str | None = None) -> store.Rebuilt:
        found = self.store.rebuild(CLUSTER, DATABASE, moment, self.out, history)
        assert hashlib.sha256(self.out.read_bytes()).hexdigest() == self.states[found.txid]
        self.out.unlink()
        return found

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    @property
    def place(self) -> Path:
        return self.root / CLUSTER / DATABASE / self.store.moments()[-1].history


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was made durable; what the disk of the machine makes of it is not asked here."""
    found: list[Path] = []
    monkeypatch.setattr(disk.os, "fsync", lambda handle: found.append(Path(os.readlink(f"/proc/self/fd/{handle}"))))
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


# What comes


def test_what_follows_is_kept_as_it_came(archive: Archive) -> None:
    first = archive.primary.write("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    second = archive.primary.write()
    contents = [first.read_bytes(), second.read_bytes()]
    assert archive.store.position(CLUSTER, DATABASE) is None
    received = archive.send(first)
    assert (received.kind, received.cause, received.position.txid) == ("new_history", "first", 1)
    received = archive.send(second)
    assert (received.kind, received.why, received.position) == ("continued", "", archive.primary.position)
    assert [path.name for path in archive.files()] == [f"{n:016x}-{n:016x}.ltx" for n in (1, 2)]
    assert [path.read_bytes() for path in archive.files()] == contents
    assert not first.exists() and not second.exists()
    assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position


def test_a_file_is_durable_before_its_name_and_both_before_it_counts(archive: Archive, synced: list[Path]) -> None:
    archive.write(1)
    path = archive.primary.write()
    synced.clear()
    archive.send(path)
    assert synced == [path, archive.place]


def test_what_came_twice_is_a_duplicate(archive: Archive) -> None:
    archive.write(3)
    again = shutil.copy(archive.place / layout.raw_name(2, 2), archive.out.with_name("again"))
    for path in (archive.primary.snapshot(), Path(again)):
        received = archive.store.receive(CLUSTER, DATABASE, path)
        assert (received.kind, received.position) == ("duplicate", archive.primary.position)
        assert not path.exists()
    shutil.copy(archive.place / layout.raw_name(2, 2), again)
    archive.clock.now += DAY
    archive.store.pack(archive.clock())
    assert archive.store.receive(CLUSTER, DATABASE, Path(again)).kind == "duplicate"
    assert len(archive.store.moments()) == 1


def test_what_does_not_follow_is_refused_and_stays_where_it_is(archive: Archive) -> None:
    archive.write(2)
    archive.primary.write()
    skipped = archive.primary.write()
    with pytest.raises(
        store.Altered, match=r"has transaction 4 after \w+ and does not follow the archive of sqlite.db"
    ):
        archive.store.receive(CLUSTER, DATABASE, skipped)
    with pytest.raises(store.Altered, match="needs a snapshot first"):
        archive.store.receive(CLUSTER, "another.db", skipped)
    cut = skipped.with_name("cut.incoming")
    cut.write_bytes(skipped.read_bytes()[:-3])
    with pytest.raises(store.Altered, match=r"cut\.incoming is cut"):
        archive.store.receive(CLUSTER, DATABASE, cut)
    assert skipped.exists() and cut.exists() and len(archive.files()) == 2


def test_hazard_what_stands_there_by_its_name_is_not_overwritten(archive: Archive) -> None:
    """Whoever wrote it since the end was looked at: it may be the only copy of its transaction."""
    archive.write(2)
    there = archive.place / layout.raw_name(3, 3)
    there.write_bytes(b"of somebody else")
    path = archive.primary.write()
    with pytest.raises(store.Refused, match="is there already and is not overwritten"):
        archive.store.receive(CLUSTER, DATABASE, path)
    assert there.read_bytes() == b"of somebody else" and path.exists()


def test_a_primary_that_went_back_is_a_new_history_and_the_old_one_stays(archive: Archive) -> None:
    archive.write(5)
    state = archive.primary.state()
    archive.write(5)
    before, kept = archive.store.position(CLUSTER, DATABASE), {path: path.read_bytes() for path in archive.files()}
    old = archive.store.moments()[0].history
    archive.primary.restore(state)
    received = archive.send(archive.primary.snapshot())
    assert (received.kind, received.cause) == ("new_history", "back")
    assert received.why == (
        f"The primary went back: it is at {archive.primary.position}, a state that the archive has, and the archive of "
        f"sqlite.db is at {before} (history {old})."
    )
    assert all(path.read_bytes() == content for path, content in kept.items())
    archive.write(1)
    assert [(one.first, one.last) for one in archive.store.moments()] == [(1, 10), (5, 6)]
    assert archive.rebuild(5).history != old
    with pytest.raises(store.Refused, match=f"Transaction 9 of sqlite.db is in history {old}, not in the newest"):
        archive.rebuild(9)
    with pytest.raises(store.Refused, match=r"is in history .*, not in the newest"):
        archive.rebuild(4)
    found = archive.store.rebuild(CLUSTER, DATABASE, 10, archive.out, old)
    assert before == store.Position(found.txid, found.checksum)


def test_a_fork_and_an_absence_are_told_apart(archive: Archive) -> None:
    archive.write(5)
    state = archive.primary.state()
    archive.write(1)
    archive.primary.restore(state)
    archive.primary.write("INSERT INTO t (body) VALUES ('another')")
    received = archive.send(archive.primary.snapshot())
    assert received.cause == "forked" and "has another transaction 6 of sqlite.db than the archive" in received.why
    archive.primary.write()
    archive.primary.write()
    received = archive.send(archive.primary.snapshot())
    assert received.cause == "absent" and "transactions after 6 were not kept for the archive" in received.why
    archive.primary.restore(state)
    archive.primary.write("INSERT INTO t (body) VALUES ('a third')")
    assert "a state that the archive does not have" in archive.send(archive.primary.snapshot()).why
    names = [one.history for one in archive.store.moments()]
    assert names == sorted(names) and len(set(names)) == 4


def test_another_cluster_and_odd_names_have_places_of_their_own(archive: Archive) -> None:
    archive.write(1)
    for cluster, name in (("LFSCother", DATABASE), (CLUSTER, "../../up"), (CLUSTER, "..")):
        assert archive.store.receive(cluster, name, archive.primary.snapshot()).cause == "first"
    assert {path.relative_to(archive.root).parts[1] for path in archive.files()} == {
        *(DATABASE, "%2E.%2F..%2Fup", "%2E."),
    }
    assert (CLUSTER, "../../up") in archive.store.databases()


def test_a_compressed_file_is_kept_and_said_to_be_unverified(archive: Archive) -> None:
    archive.write(2)
    path = archive.primary.snapshot(flags=1)
    received = archive.store.receive("LFSCother", DATABASE, path)
    assert not received.verified
    assert [one.txid for one in archive.store.transactions("LFSCother", DATABASE, 0, 1e12)] == [2]
    archive.clock.now += DAY
    assert archive.store.pack(archive.clock()).problems == ()
    with pytest.raises(store.Compressed, match=r"data\.compress: false"):
        archive.store.rebuild("LFSCother", DATABASE, 2, archive.out)
    assert [text for text in archive.store.check() if "compressed" in text]


def test_the_end_that_is_altered_is_not_continued(archive: Archive) -> None:
    archive.write(3)
    flip(archive.place / layout.raw_name(3, 3), 900)
    assert archive.again().position(CLUSTER, DATABASE) is None
    archive.primary.write()
    received = archive.send(archive.primary.snapshot())
    assert received.cause == "absent" and "0000000000000003-0000000000000003.ltx is altered" in received.why
    assert archive.rebuild(4).txid == 4


def test_what_comes_is_kept_whatever_became_of_the_old_files(archive: Archive) -> None:
    archive.write(5)
    state = archive.primary.state()
    archive.write(5)
    (archive.place / layout.raw_name(5, 5)).write_bytes(b"LTX")
    (archive.root / "lost+found").mkdir(mode=0)
    archive.primary.restore(state)
    assert archive.send(archive.primary.snapshot()).cause == "back"
    path = archive.place / layout.raw_name(1, 5)
    path.write_bytes(b"LTX")
    archive.store.begin_anew(CLUSTER, DATABASE)
    received = archive.send(archive.primary.snapshot())
    assert received.cause == "absent" and "cannot be read" in received.why
    assert path.name in archive.store.moments()[1].problems[0]
    assert archive.rebuild(5).txid == 5


# Moments


def test_every_moment_can_be_had_by_transaction_and_by_time(archive: Archive) -> None:
    archive.write(40, seconds=30)
    archive.clock.now += DAY
    for _stage in range(2):
        for txid in (1, 2, 17, 40):
            found = archive.rebuild(txid)
            assert (found.txid, found.time, found.following) == (
                *(txid, START + 30 * txid),
                txid + 1 if txid < 40 else None,
            )
            assert archive.rebuild(at(START + 30 * txid)).txid == txid
            if txid < 40:
                assert archive.rebuild(at(START + 30 * txid + 29.9)).txid == txid
        archive.store.pack(archive.clock())
    listed = list(archive.store.transactions(CLUSTER, DATABASE, START + 60, START + 300))
    assert [one.txid for one in listed] == list(range(2, 11))
    assert all(one.commit >= one.pages > 0 and one.size > 512 * one.pages for one in listed)
    with closing(sqlite3.connect(archive.primary.path)) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (39,)


def test_what_cannot_be_had_is_refused_in_a_sentence(archive: Archive) -> None:
    archive.write(10, seconds=60)
    archive.clock.now = START + 6000
    rows: list[tuple[store.Moment, str]] = [
        (0, r"begins with transaction 1 at 2027-01-15 08:01:00 UTC: transaction 0 is before it"),
        (at(START), "begins with transaction 1 at .*: 2027-01-15 08:00:00 UTC is before it"),
        (11, r"ends with transaction 10, and was followed until 2027-01-15 08:10:00 UTC: transaction 11 is after it"),
        (at(START + 700), "ends with transaction 10.*: 2027-01-15 08:11:40 UTC is after it"),
        (datetime.datetime(2027, 1, 15, 8), "has no zone"),
    ]
    for moment, words in rows:
        with pytest.raises(store.Refused, match=words):
            archive.rebuild(moment)
    with pytest.raises(store.Refused, match=r"nothing of x\.db of cluster"):
        archive.store.rebuild(CLUSTER, "x.db", 1, archive.out)
    with pytest.raises(store.Refused, match="has no history 1999"):
        archive.rebuild(1, "1999")
    archive.clock.now = START + 800
    archive.store.followed(CLUSTER, DATABASE)
    assert archive.rebuild(at(START + 700)).txid == 10
    assert not archive.out.exists() and not list(archive.out.parent.glob(".tmp*"))


def test_a_gap_is_named_and_what_is_around_it_can_be_had(archive: Archive) -> None:
    archive.write(10, seconds=60)
    archive.store.make_base(archive.clock(), every=0)
    archive.write(2)
    for txid in (5, 6):
        (archive.place / layout.raw_name(txid, txid)).unlink()
    assert archive.store.moments()[0].gaps == (store.Gap(5, 6),)
    for moment in (5, 7, at(START + 6.5 * 60)):
        with pytest.raises(store.Refused, match=r"Transactions 5 to 6 of sqlite.db are missing in history .*: trans"):
            archive.rebuild(moment)
    assert archive.rebuild(4).txid == 4 and archive.rebuild(12).txid == 12
    assert [text for text in archive.store.check() if "lacks the transactions 5 to 6" in text]


def test_a_base_that_is_altered_is_told_and_the_chain_leads_past_it(archive: Archive) -> None:
    archive.write(5)
    archive.store.make_base(archive.clock(), every=0)
    archive.write(1)
    assert archive.rebuild(6).problems == ()
    base = next(archive.place.glob("base-*.gz"))
    flip(base, 400)
    found = archive.rebuild(6)
    assert found.txid == 6 and base.name in found.problems[0]


def test_files_that_are_packed_while_they_are_read_are_found_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are read, then a process packs, then the content is read."""
    archive.write(40, seconds=30)
    archive.clock.now += 3 * DAY
    whole = layout.folder
    for ages in ((600, 1e9, 1e9), (600, 0, 1e9)):

        def late(*arguments: object, ages: tuple[float, float, float] = ages) -> layout.Folder:
            found = whole(*arguments)  # type: ignore[arg-type]
            monkeypatch.setattr(layout, "folder", whole)
            archive.store.pack(archive.clock(), *ages)
            return found

        monkeypatch.setattr(layout, "folder", late)
        assert archive.rebuild(40).txid == 40
        monkeypatch.setattr(layout, "folder", late)
        assert [one.txid for one in archive.store.transactions(CLUSTER, DATABASE, 0, 1e12)] == list(range(1, 41))
        monkeypatch.setattr(layout, "folder", late)
        assert archive.store.moments()[0].problems == ()
        monkeypatch.setattr(layout, "folder", late)
        assert list(archive.store.check()) == []


# Packs


def test_a_list_of_transactions_is_whole_or_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.write(20)
    real, gone = packs.transactions, 0

    def packed_meanwhile(piece: layout.Piece) -> Iterator[ltx.Reader]:
        nonlocal gone
        gone += 1
        if gone % 2:
            raise FileNotFoundError(piece.path)
        yield from real(piece)

    monkeypatch.setattr(packs, "transactions", packed_meanwhile)
    assert [one.txid for one in archive.store.transactions(CLUSTER, DATABASE, 0, 1e12)] == list(range(1, 21))

    def always(piece: layout.Piece) -> Iterator[ltx.Reader]:
        raise FileNotFoundError(piece.path)

    monkeypatch.setattr(packs, "transactions", always)
    with pytest.raises(store.Refused, match="faster than they can be read"):
        list(archive.store.transactions(CLUSTER, DATABASE, 0, 1e12))


def test_packs_go_from_minutes_to_hours_to_days(archive: Archive) -> None:
    archive.write(300, seconds=30)
    sizes = [sum(path.stat().st_size for path in archive.files())]
    levels = []
    for hours in (0, 0.5, 3, 24 * 3):
        archive.clock.now = archive.primary.time + hours * 3600
        done = archive.store.pack(archive.clock())
        assert done.problems == ()
        assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position
        assert list(archive.store.check()) == []
        for txid in (1, 2, 150, 151, 299, 300):
            assert archive.rebuild(txid).txid == txid
        notes = [disk.read_note(path) for path in archive.files() if path.suffix == ".json"]
        levels.append(sorted({int(note["level"]) for note in notes}))
        sizes.append(sum(path.stat().st_size for path in archive.files()))
    assert levels == [[60], [60, 3600], [60, 3600], [60, 86400]]  # the first transaction is alone
    assert len(archive.files()) == 4 and sizes[-1] < sizes[0] / 3
    assert [one.txid for one in archive.store.transactions(CLUSTER, DATABASE, 0, 1e12)] == list(range(1, 301))
    archive.write(1)
    assert archive.rebuild(301).txid == 301


def test_hazard_a_pack_that_reads_back_differently_takes_nothing_away(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a disk that breaks what it is given: its digest is then that of what is broken."""
    archive.write(10)
    before = archive.files()
    digest = disk.sha256

    def breaks(path: Path) -> str:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return digest(path)

    monkeypatch.setattr(disk, "sha256", breaks)
    with pytest.raises(store.Altered):
        archive.store.pack(archive.clock() + DAY)
    assert archive.files() == before and list(archive.store.check()) == []


def test_a_file_that_is_altered_is_not_packed_and_its_neighbours_are(archive: Archive) -> None:
    archive.write(30)
    bad = archive.place / layout.raw_name(10, 10)
    flip(bad, 700)
    archive.clock.now += 3600
    for _time in range(2):
        done = archive.store.pack(archive.clock())
        assert len(done.problems) == 1 and bad.name in done.problems[0]
    assert bad.exists() and [path.name for path in archive.place.glob("*.ltx")] == [bad.name]
    assert archive.rebuild(9).txid == 9
    with pytest.raises(store.Altered, match=bad.name):
        archive.rebuild(11)


def test_a_clock_that_jumps_takes_nothing_away(archive: Archive) -> None:
    archive.write(5)
    archive.primary.time += 7200
    archive.write(5)
    archive.primary.time -= 7200
    archive.write(5)
    archive.clock.now = START + 3 * DAY
    archive.store.pack(archive.clock())
    assert list(archive.store.check()) == []
    assert [archive.rebuild(txid).txid for txid in (4, 8, 15)] == [4, 8, 15]


# Killed


class Killed(BaseException):
    """As kill -9: nothing is done afterwards."""


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> bool:
    """Do it, and stop before the act of that number on the disk; whether it came so far."""
    done = 0

    def step(_what: str, _path: Path) -> None:
        nonlocal done
        done += 1
        if done > number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(disk, "step", step)
        try:
            act()
        except Killed:
            return True
    return False


def test_a_full_disk_at_any_write_leaves_nothing_that_fills_it(
    archive: Archive, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.write(200, seconds=1)
    archive.clock.now = START + 3 * DAY
    acts: list[Callable[[], object]] = [
        lambda: archive.store.pack(archive.clock()),
        lambda: archive.store.make_base(archive.clock(), every=0),
        lambda: archive.store.followed(CLUSTER, DATABASE),
    ]
    for act in acts:
        for number in range(1000):
            count = 0

            def full(_handle: int, number: int = number) -> None:
                nonlocal count
                count += 1
                if count == number + 1:
                    raise OSError(errno.ENOSPC, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(disk.os, "fsync", full)
                try:
                    act()
                except OSError:
                    assert [path for path in archive.files() if path.name.startswith(".tmp-")] == []
                    assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position
                    continue
            break
        assert number > 1
    assert list(archive.store.check()) == [] and archive.rebuild(100).txid == 100


@pytest.fixture
def worked(archive: Archive) -> Archive:
    """Two histories with packs of all levels, raw files and bases."""
    archive.write(40, seconds=20)
    archive.clock.now = START + 3 * DAY
    archive.store.pack(archive.clock())
    archive.store.make_base(archive.clock(), every=0)
    archive.primary.time = START + 3 * DAY
    archive.write(30, seconds=20)
    archive.store.pack(archive.clock() + 660)
    archive.write(3)
    archive.store.make_base(archive.clock(), every=0)
    archive.write(3)
    return archive


@pytest.mark.parametrize("act", ["pack", "make_base", "receive", "prune", "prune_size"])
def test_a_kill_at_any_step_loses_nothing(worked: Archive, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = worked.root.with_name("original")
    shutil.move(worked.root, original)
    now = worked.clock() + DAY
    incoming, last = worked.primary.write(), worked.primary.txid
    kept = incoming.read_bytes()
    worked.states[last] = hashlib.sha256(worked.primary.path.read_bytes()).hexdigest()

    def run() -> None:
        there = worked.again() if act != "receive" else worked.store
        if act == "pack":
            there.pack(now, 0, 0, 0)
        elif act == "make_base":
            there.make_base(now, every=0)
        elif act == "receive":
            there.receive(CLUSTER, DATABASE, incoming)
        elif act == "prune":
            there.prune(now, keep_seconds=now - START - 2 * DAY)
        else:
            there.prune(now, keep_seconds=1e9, max_bytes=0)

    number = 0
    while True:
        shutil.copytree(original, worked.root)
        incoming.write_bytes(kept)
        worked.store = store.Store(worked.root, worked.clock)
        went = killed_at(number, monkeypatch, run)
        # A new process: all that was there before, and nothing is wrong.
        assert worked.again().tidy().problems == (), number
        assert list(worked.store.check()) == [], number
        history = worked.store.moments()[-1]
        position = worked.store.position(CLUSTER, DATABASE)
        assert position and (position.txid == last or (position.txid == last - 1 and incoming.exists())), number
        for txid in (history.first, 41, 60, 73, 75, position.txid):
            if txid >= history.first:
                assert worked.rebuild(txid).txid == txid, number
        assert act.startswith("prune") or history.first == 1
        if incoming.exists() and act == "receive":
            worked.store.receive(CLUSTER, DATABASE, incoming)
        run_again = act != "receive"
        if run_again:
            run()
        assert not [path for path in worked.files() if disk.UNFINISHED in path.name], number
        shutil.rmtree(worked.root)
        if not went:
            break
        number += 1
    assert number > {"pack": 15, "make_base": 3, "receive": 1, "prune": 5, "prune_size": 8}[act]


# Altered


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


def test_one_bit_in_any_of_200_places_is_found_by_name(worked: Archive) -> None:
    """Whatever the file: refused by name where it is needed, and the moments before it can be had."""
    chance = random.Random(14)
    files = [path for path in worked.files() if path.suffix in (".ltx", ".gz", ".json")]
    assert {path.name[:4] == "base" for path in files} == {True, False}
    last = worked.primary.txid
    refused = 0
    for turn in range(200):
        path = files[turn % len(files)]
        whole = path.read_bytes()
        if turn % 8 == 7:
            path.write_bytes(whole[: chance.randrange(len(whole))])  # or cut
        else:
            flip(path, chance.randrange(8 * len(whole)))
        fresh = worked.again()
        assert any(path.name in text for text in fresh.check()), (path.name, turn)
        span = layout.span(path)
        for txid in {last, span[1] if span else last}:
            try:
                found = worked.rebuild(txid)
            except store.Altered as exc:
                assert path.name in str(exc), (path.name, turn, exc)
                refused += 1
            else:
                assert found.txid == txid
        if span and span[0] > 1:
            assert worked.rebuild(span[0] - 1).txid == span[0] - 1, (path.name, turn)
        path.write_bytes(whole)
    assert refused > 100


def test_moments_within_a_pack_before_the_altered_place_can_be_had(archive: Archive) -> None:
    archive.write(200, seconds=60)
    archive.clock.now = START + 3 * DAY
    archive.store.pack(archive.clock())
    pack = archive.place / f"{layout.raw_name(2, 200)}.gz"
    flip(pack, 8 * pack.stat().st_size * 3 // 4)
    had = []
    for txid in range(5, 201, 15):
        try:
            had.append(archive.rebuild(txid).txid)
        except store.Altered as exc:
            assert pack.name in str(exc)
    assert had[:3] == [5, 20, 35] and 200 not in had
    assert archive.rebuild(at(START + 60 * 20)).txid == 20


# Kept and pruned


def test_every_moment_within_keep_has_a_base_before_it(archive: Archive) -> None:
    for _day in range(6):
        archive.write(4, seconds=DAY / 4)
        archive.store.make_base(archive.clock(), every=DAY / 2)
        archive.store.pack(archive.clock())
    archive.store.prune(archive.clock(), keep_seconds=2 * DAY)
    assert archive.rebuild(at(archive.clock() - 2 * DAY)).txid == 16
    history = archive.store.moments()[0]
    assert (history.first, history.last, history.gaps) == (16, 24, ())
    with pytest.raises(store.Refused, match="begins with transaction 16"):
        archive.rebuild(15)
    assert [archive.rebuild(txid).txid for txid in range(16, 25)] == list(range(16, 25))
    archive.store.prune(archive.clock() + 1000 * DAY, keep_seconds=DAY)
    assert archive.store.moments()[0].first == 24
    assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position
    archive.write(2)
    assert archive.rebuild(26).txid == 26


def test_older_histories_go_when_no_moment_within_keep_is_in_them(archive: Archive) -> None:
    archive.write(5)
    state = archive.primary.state()
    archive.write(5)
    archive.clock.now = archive.primary.time = START + DAY
    archive.primary.restore(state)
    archive.send(archive.primary.snapshot())
    archive.write(2)
    assert archive.store.prune(archive.clock(), keep_seconds=DAY).removed == 0
    assert archive.store.prune(archive.clock() + DAY + 60, keep_seconds=DAY).removed == 10
    assert [one.last for one in archive.store.moments()] == [7]
    assert archive.rebuild(7).txid == 7


def test_what_goes_is_the_same_whatever_the_primarys_clock_did(archive: Archive) -> None:
    archive.write(5)
    archive.store.make_base(archive.clock(), every=0)
    archive.primary.time -= 3600
    archive.write(5)
    archive.store.make_base(archive.clock(), every=0)
    state = archive.primary.state()
    # Ahead of ours, it writes at a time that comes after the next history began.
    archive.primary.time += 5 * DAY
    archive.store.receive(CLUSTER, DATABASE, archive.primary.write())
    archive.store.make_base(START + 30 * DAY, every=0)
    archive.primary.restore(state)
    archive.send(archive.primary.snapshot())
    for now in (START - 1800, START, START + 30 * DAY):
        assert archive.store.prune(now, keep_seconds=600).problems == ()
        assert list(archive.store.check()) == []
    assert len(archive.store.moments()) == 1 and archive.rebuild(10).txid == 10


def test_the_newest_base_stays_also_where_a_newer_history_has_none(archive: Archive) -> None:
    archive.write(5)
    archive.store.begin_anew(CLUSTER, DATABASE)
    archive.primary.time += 60
    archive.send(archive.primary.snapshot())
    archive.write(2)
    (archive.place / layout.raw_name(1, 5)).unlink()
    assert archive.store.prune(archive.clock() + 9 * DAY, keep_seconds=60).removed == 0
    found = archive.store.moments()
    assert archive.rebuild(5, found[0].history).txid == 5
    with pytest.raises(store.Refused, match="has neither base nor snapshot"):
        archive.rebuild(7, found[1].history)


def test_beyond_its_size_the_oldest_goes_but_never_the_newest_base(archive: Archive) -> None:
    for _turn in range(4):
        archive.write(20)
        archive.store.make_base(archive.clock(), every=0)
    size = sum(path.stat().st_size for path in archive.files())
    archive.store.prune(archive.clock(), keep_seconds=DAY, max_bytes=size // 2)
    assert archive.store.moments()[0].first in (40, 60)
    archive.store.prune(archive.clock(), keep_seconds=DAY, max_bytes=0)
    assert archive.store.moments()[0].first == 80 and archive.rebuild(80).txid == 80


def test_nothing_goes_for_the_sake_of_a_base_that_is_altered(archive: Archive) -> None:
    archive.write(5)
    archive.store.make_base(archive.clock(), every=0)
    base = next(archive.place.glob("base-*.gz"))
    flip(base, 800)
    done = archive.store.prune(archive.clock() + DAY, keep_seconds=60)
    assert done.removed == 0 and base.name in done.problems[0]
    assert archive.rebuild(5).txid == 5


# Two archives, and two roots


def test_a_target_has_one_owner(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (store.Store(tmp_path / "target", clock) for _ in range(2))
    with pytest.raises(store.Refused, match="target is no directory"):
        one.claim("one", 60)
    one.root.mkdir()
    one.claim("one", 60)
    one.claim("one", 60)
    with pytest.raises(store.Refused, match=r"belongs to the archive one until 2027-01-15 08:01:00 UTC: two archives"):
        two.claim("two", 60)
    clock.now += 61
    two.claim("two", 60)
    assert one.owner() == "two"
    with pytest.raises(store.Refused, match="belongs to the archive two"):
        one.claim("one", 60)


def test_a_claim_is_durable_and_one_that_was_cut_holds_for_a_minute(tmp_path: Path, synced: list[Path]) -> None:
    root = tmp_path / "target"
    root.mkdir()
    one = store.Store(root, time.time)
    assert not one.claimed()
    one.claim("me", -1)
    assert root in synced and one.claimed()
    (root / ".owner-000002.json").touch()
    assert one.claimed() and one.owner() == ""
    with pytest.raises(store.Refused, match="being claimed"):
        one.claim("me", 600)
    os.utime(root / ".owner-000002.json", (time.time() - 61, time.time() - 61))
    one.claim("me", 600)
    assert one.owner() == "me"


def test_a_clock_that_went_back_does_not_end_the_notes(archive: Archive) -> None:
    archive.write(2)
    archive.store.followed(CLUSTER, DATABASE)
    archive.clock.now -= 3600
    archive.store.followed(CLUSTER, DATABASE)
    assert archive.store.moments()[0].followed == archive.clock.now


@pytest.fixture
def pair(archive: Archive) -> tuple[Archive, store.Store, store.Mover]:
    """The archive's root is the buffer of a target."""
    root = archive.root.with_name("target")
    root.mkdir()
    target = store.Store(root, archive.clock, archive.root)
    target.claim("me", 1e9)
    archive.store = store.Store(archive.root, archive.clock, root)
    return archive, target, store.Mover(archive.store, target, "me", 100_000)


def test_the_buffer_goes_to_the_target_and_both_are_read(pair: tuple[Archive, store.Store, store.Mover]) -> None:
    archive, target, mover = pair
    archive.write(10)
    archive.store.followed(CLUSTER, DATABASE)
    assert mover.run() == store.Moved(10, 0, 0, None, (), "")
    assert [path.name for path in archive.files()] == [layout.raw_name(10, 10), "followed"]
    archive.write(2)
    for there in (archive.store, target):
        assert (there.moments()[0].first, there.moments()[0].last) == (1, 12)
        assert there.rebuild(CLUSTER, DATABASE, 12, archive.out).txid == 12
    archive.clock.now += DAY
    target.pack(archive.clock())  # what is still in the buffer is in a pack there
    mover.run()
    assert [path.name for path in archive.files()] == [layout.raw_name(12, 12), "followed"]
    assert list(target.check()) == []


def test_a_target_that_is_away_is_told_and_caught_up(
    pair: tuple[Archive, store.Store, store.Mover], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, target, mover = pair
    archive.write(3)
    mover.run()
    away = target.root.with_name("away")
    target.root.rename(away)
    archive.write(4)
    moved = mover.run()
    assert (moved.files, moved.behind_files) == (0, 4 + 1) and "is not there, or belongs to nobody" in moved.error
    target.root.mkdir()  # the mount is away: an empty directory
    assert mover.run().error and not list(target.root.iterdir())
    assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position
    target.root.rmdir()
    away.rename(target.root)

    def full(_path: Path, _to: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "copy", full)
        moved = mover.run()
        assert "No space left on device" in moved.error
        assert (moved.behind_files, moved.behind_since) == (4, START + 4)
    assert mover.run().behind_files == 0
    assert target.rebuild(CLUSTER, DATABASE, 7, archive.out).txid == 7


def test_hazard_what_the_target_gives_back_differently_stays_in_the_buffer(
    pair: tuple[Archive, store.Store, store.Mover], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, target, mover = pair
    archive.write(3)
    before = archive.files()

    def breaks(source: BinaryIO, to: BinaryIO, _length: int) -> None:
        to.write(source.read()[:-1] + b"?")

    with monkeypatch.context() as patch:
        patch.setattr(disk.shutil, "copyfileobj", breaks)
        moved = mover.run()
    assert "reads back differently" in moved.error and moved.behind_files == 3
    assert archive.files() == before and not list(target.root.rglob("*.ltx")), "nor is anything of it left there"
    assert mover.run().error == "" and list(target.check()) == []


def test_a_packed_buffer_and_the_target_have_no_part_in_common(
    pair: tuple[Archive, store.Store, store.Mover], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, target, mover = pair
    for turn in range(3):
        archive.write(20)
        mover.run()
        with monkeypatch.context() as patch:
            patch.setattr(mover, "_refusal", lambda: "away")
            archive.write(30)
            archive.clock.now += DAY
            assert mover.run().behind_files == 30
            assert archive.store.pack(archive.clock(), first_stays=True).problems == ()
            assert mover.run().behind_files < 5
        assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position
        assert killed_at(turn + 2, monkeypatch, mover.run)
        archive.write(1)
        archive.clock.now += DAY
        assert archive.store.pack(archive.clock(), first_stays=True).problems == ()
        assert mover.run().error == ""
        target.tidy()
        assert target.pack(archive.clock()).problems == ()
        assert list(target.check()) == []
    listed = [one.txid for one in target.transactions(CLUSTER, DATABASE, 0, 1e12)]
    assert listed == list(range(1, archive.primary.txid + 1))
    assert target.rebuild(CLUSTER, DATABASE, 75, archive.out).txid == 75


def test_hazard_a_pack_of_which_the_target_has_the_beginning_is_moved_all_the_same(
    pair: tuple[Archive, store.Store, store.Mover],
) -> None:
    """A run was killed when it had copied two files, and then the buffer was packed."""
    archive, target, mover = pair
    archive.write(4)
    mover.run()
    archive.write(4)
    for txid in (5, 6):
        name = layout.raw_name(txid, txid)
        shutil.copy(archive.place / name, target.root / CLUSTER / DATABASE / archive.place.name / name)
    archive.clock.now += DAY
    assert archive.store.pack(archive.clock(), first_stays=True).made == 1
    archive.write(1)
    assert mover.run().behind_files == 0
    alone = store.Store(target.root, archive.clock)
    assert alone.rebuild(CLUSTER, DATABASE, 8, archive.out).txid == 8


def test_beyond_the_buffer_the_oldest_is_lost_and_said_and_a_snapshot_mends_it(
    pair: tuple[Archive, store.Store, store.Mover],
) -> None:
    archive, target, mover = pair
    archive.write(3)
    mover.run()
    away = target.root.with_name("away")
    target.root.rename(away)
    for _turn in range(20):
        archive.write(10)
        moved = mover.run()
        assert moved.behind_bytes <= 100_000
    history = archive.store.moments()[0].history
    assert len(moved.lost) == 1
    assert moved.lost[0].startswith("Transactions 3 to ") and history in moved.lost[0]
    away.rename(target.root)
    assert mover.run().error == ""
    assert archive.store.position(CLUSTER, DATABASE) is None
    assert archive.send(archive.primary.snapshot()).cause == "absent"
    archive.write(2)
    assert mover.run().lost == moved.lost
    found = target.moments()
    assert [one.last for one in found] == [203, 205] and found[0].gaps[0].first == 4
    assert target.rebuild(CLUSTER, DATABASE, 205, archive.out).txid == 205


def test_hazard_the_newest_stays_in_a_buffer_that_has_no_room_even_for_it(
    pair: tuple[Archive, store.Store, store.Mover],
) -> None:
    """Without it the archive would not know where it is, and take the whole database anew."""
    archive, target, _mover = pair
    archive.write(3)
    target.root.rename(target.root.with_name("away"))
    moved = store.Mover(archive.store, target, "me", 0).run()
    assert [one.split(" of ")[0] for one in moved.lost] == ["Transactions 1 to 2"]
    assert [path.name for path in archive.files() if path.suffix == ".ltx"] == [layout.raw_name(3, 3)]
    assert archive.again().position(CLUSTER, DATABASE) == archive.primary.position


def test_a_kill_at_any_step_of_moving_loses_nothing(
    pair: tuple[Archive, store.Store, store.Mover], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, target, mover = pair
    number = 0
    while True:
        archive.write(3)
        went = killed_at(number, monkeypatch, mover.run)
        target.tidy()
        assert list(store.Store(archive.root, archive.clock, target.root).check()) == [], number
        assert target.rebuild(CLUSTER, DATABASE, archive.primary.txid, archive.out).txid == archive.primary.txid
        mover.run()
        if not went:
            break
        number += 1
    assert number > 6


# Figures


def test_figures_of_20000_transactions(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    primary, size = archive.primary, 0
    archive.write(1)
    began = time.process_time()  # whatever else the machine does
    for path in ltx_files.many(primary, 20_000, seconds=0.5):
        size += path.stat().st_size
        archive.clock.now = primary.time
        archive.store.receive(CLUSTER, DATABASE, path)
    received, files = time.process_time(), len(archive.files())
    archive.clock.now += 3 * DAY
    archive.store.pack(archive.clock())
    packed = time.process_time()
    found = archive.store.rebuild(CLUSTER, DATABASE, primary.txid, archive.out)
    rebuilt = time.process_time()
    assert found.checksum == primary.checksum and archive.out.read_bytes() == primary.path.read_bytes()
    after = sum(path.stat().st_size for path in archive.files())
    with capsys.disabled():
        print(
            f"\n20,000 transactions: {size / 1e6:.1f} MB in {files} files, packed {after / 1e6:.2f} MB in "
            f"{len(archive.files())}; seconds of one processor: made and received {received - began:.1f}, packed "
            f"{packed - received:.1f}, rebuilt {rebuilt - packed:.1f}"
        )
    assert after < size / 5 and len(archive.files()) < 12


def test_memory_holds_20000_raw_files(tmp_path: Path) -> None:
    root, away = tmp_path / "buffer", tmp_path / "away"
    place = root / CLUSTER / DATABASE / "20270115T080001Z-001"
    place.mkdir(parents=True)
    head = ltx_files.file_of({}, 512, 1, (1, 1), (0, ltx.FLAG), START)
    for number in range(1, 20001):
        (place / layout.raw_name(number, number)).write_bytes(head)
    buffer = store.Store(root, lambda: START)
    mover = store.Mover(buffer, store.Store(away, lambda: START), "me", 1 << 40)
    layout.folder((root,), CLUSTER, DATABASE, place.name)
    tracemalloc.start()
    try:
        buffer.tidy()
        buffer.moments()
        assert mover.run().behind_files == 20000
        # A pod of 128 Mi: a hundred thousand are ten minutes of what SQLite writes at most.
        assert tracemalloc.get_traced_memory()[1] < 20000 * 700
    finally:
        tracemalloc.stop()


def test_memory_stays_flat_with_a_snapshot_of_60_mb(tmp_path: Path) -> None:
    clock = Clock()
    with closing(sqlite3.connect(tmp_path / "one.db", isolation_level=None)) as db:
        db.execute("PRAGMA page_size = 65536")
        db.execute("CREATE TABLE t (body BLOB)")
        db.execute("INSERT INTO t SELECT randomblob(60 << 20)")
    data = (tmp_path / "one.db").read_bytes()
    pages = {number + 1: data[65536 * number : 65536 * (number + 1)] for number in range(len(data) // 65536)}
    total = 0
    for number, content in pages.items():
        total ^= ltx.page_checksum(number, content)
    path = tmp_path / "snapshot"
    path.write_bytes(ltx_files.file_of(pages, 65536, len(pages), (1, 9), (0, ltx.FLAG | total), START))
    del pages, data
    there = store.Store(tmp_path / "archive", clock)
    tracemalloc.start()
    try:
        assert there.receive(CLUSTER, DATABASE, path).position.txid == 9
        there.pack(START + DAY)
        assert there.rebuild(CLUSTER, DATABASE, 9, tmp_path / "out").txid == 9
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "one.db").read_bytes()
    assert peak < 8 << 20, peak
