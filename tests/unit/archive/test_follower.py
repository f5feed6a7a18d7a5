"""The follower against a primary on loopback that says what a test wants: cuts, silence, garbage, other clusters."""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import follower, stream
from ansible_collections.abaci.infra.plugins.module_utils.archive.alarms import Alarm, Alarms
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Position
from keepers import Kept, ltx
from primary import Answer, Primary

KEY = ("LFSC1", "sqlite.db")


def frame(kind: int, fields: bytes = b"") -> bytes:
    return struct.pack(">I", kind) + fields


def named(name: str) -> bytes:
    return struct.pack(">I", len(name)) + name.encode()


def file(data: bytes, name: str = "sqlite.db", end: bool = True) -> bytes:
    pieces = [data[at : at + 60000] for at in range(0, len(data), 60000)]
    chunks = b"".join(struct.pack(">H", len(one)) + one for one in pieces)
    return frame(1, bytes(8) + named(name)) + chunks + (b"\0\0" if end else b"")


READY, HEARTBEAT, END = frame(2), frame(7, bytes(8)), frame(3)


class Run:
    """A follower in a thread, and all that it did."""

    def __init__(self, folder: Path, primaries: list[Primary], recorded: str = "LFSC1") -> None:
        self.store, self.told = Kept(), list[Alarm]()
        self.alarms = Alarms(folder / "alarms.json", self.told.append)
        self.folder, self.recorded = folder, recorded
        self.follower = follower.Follower(
            self.store,
            self.alarms,
            folder,
            "00000000000000AB",
            lambda: [one.address for one in primaries],
            lambda: self.recorded,
        )
        self.thread = threading.Thread(target=self.follower.run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        self.follower.end()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    monkeypatch.setattr(follower, "SILENT_S", 0.5)
    monkeypatch.setattr(follower, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(follower, "FIRST_PAUSE_S", 0.02)
    runs: list[Run] = []
    made: list[Primary] = []

    def make(*primaries: Primary, **more: Any) -> Run:
        runs.append(Run(tmp_path, list(primaries), **more))
        made.extend(primaries)
        return runs[-1]

    yield make
    for one in runs:
        if one.thread.ident:
            one.end()
    for primary in made:
        primary.close()
        assert primary.errors == []


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def says(*data: bytes, stay: bool = True) -> Callable[[Answer], None]:
    """Send these, and then heartbeats for as long as somebody listens, or the end."""

    def script(answer: Answer) -> None:
        answer.head()
        for one in data:
            answer.send(one)
        while stay:
            answer.send(HEARTBEAT)
            time.sleep(0.05)
        answer.end()

    return script


FIRST, SECOND = ltx(1, 10, 0, 7, b"pages" * 20), ltx(11, 11, 7, 8)


def test_files_are_kept_in_their_order_and_heartbeats_are_noted(run: Callable[..., Run]) -> None:
    primary = Primary(says(file(FIRST), READY, file(SECOND)))
    one = run(primary)
    one.start()
    until(lambda: len(one.store.files) == 2 and one.store.followed_by)
    assert [data for _, _, data in one.store.files] == [FIRST, SECOND] and one.told == []
    headers, body = primary.streams[0]
    assert (headers[":method"], headers[":path"], headers["litefs-id"]) == ("POST", "/stream", "00000000000000AB")
    assert body == bytes(4)
    seen = one.follower.seen
    assert (seen.primary, seen.ready, seen.cluster_id) == ("127.0.0.1", True, "LFSC1")
    assert not list(one.folder.glob("*.part"))


def test_after_a_cut_it_asks_from_what_it_holds_and_half_a_file_is_nothing(run: Callable[..., Run]) -> None:
    primary = Primary(
        says(file(FIRST), READY, file(SECOND, end=False), stay=False),
        lambda answer: answer.reset(),
        says(file(SECOND)),
    )
    one = run(primary)
    one.start()
    until(lambda: len(one.store.files) == 2)
    held = struct.pack(">I", 1) + named("sqlite.db")
    assert primary.streams[1][1] == primary.streams[2][1] == held + struct.pack(">QQ", 10, 7)
    assert one.store.held == {KEY: Position(11, 8)} and one.told == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda answer: answer.head(503), "answered 503"),
        (says(READY, END, stay=False), "ended the stream"),
        (lambda answer: (answer.head(), answer.cut()), "the connection was closed"),
        (says(b"HTTP/1.1 400 Bad Request", stay=False), "a frame of kind"),
        (lambda answer: (answer.head(), answer.wait_gone()), "nothing came for too long"),
        (says(file(b"no LTX"), stay=False), "is cut"),
    ],
    ids=["refused", "ended", "killed", "garbage", "silent", "no LTX"],
)
def test_what_goes_wrong_is_in_the_status_and_tried_again(run: Callable[..., Run], script: Any, words: str) -> None:
    primary = Primary(script)
    one = run(primary)
    one.start()
    until(lambda: len(primary.streams) >= 2 and words in one.follower.seen.error)
    assert one.store.files == []


def test_a_file_of_many_windows_passes_through_with_little_memory(run: Callable[..., Run]) -> None:
    big = ltx(1, 1, 0, 9, bytes(5 * stream.WINDOW))
    one = run(Primary(says(file(big))))
    one.start()
    until(lambda: one.store.files, 20)
    assert one.store.files[0][2] == big


@pytest.mark.parametrize("recorded", ["LFSC1", ""])
def test_a_foreign_primary_is_told_and_not_asked(run: Callable[..., Run], recorded: str) -> None:
    primary = Primary(says(), cluster="LFSC2")
    one = run(primary, recorded=recorded)
    one.store.held[KEY] = Position(10, 7)
    one.start()
    until(lambda: one.told)
    assert one.told[0]["kind"] == "foreign_cluster" and "LFSC2" in one.told[0]["sentence"]
    assert primary.streams == []
    primary.info["clusterID"] = "LFSC1"
    until(lambda: one.alarms.active() == [] and primary.streams)


def test_a_stream_of_another_cluster_than_its_node_said_is_told(run: Callable[..., Run]) -> None:
    def script(answer: Answer) -> None:
        answer.head(cluster="LFSC3")
        answer.send(file(FIRST))

    one = run(Primary(script))
    one.start()
    until(lambda: one.told)
    assert one.told[0]["kind"] == "foreign_cluster" and one.store.files == []


def test_replicas_are_passed_over_and_of_two_primaries_ours_is_followed(run: Callable[..., Run]) -> None:
    replica, foreign = Primary(says(), primary=False), Primary(says(), cluster="LFSC2")
    primary = Primary(says(file(FIRST)))
    one = run(replica, foreign, primary)
    one.start()
    until(lambda: one.store.files)
    assert replica.streams == foreign.streams == [] and one.told == []


def test_a_primary_without_the_database_is_told_until_it_has_it_again(run: Callable[..., Run]) -> None:
    drop = frame(4, named("sqlite.db"))
    one = run(Primary(says(drop, READY, HEARTBEAT, stay=False), says(READY, HEARTBEAT)))
    one.store.held[KEY] = Position(10, 7)
    one.start()
    until(lambda: one.told)
    assert one.told[0]["kind"] == "no_database" and one.store.held[KEY] == Position(10, 7)
    until(lambda: one.alarms.active() == [])


def test_hazard_heartbeats_of_a_primary_without_the_database_say_nothing_of_it(run: Callable[..., Run]) -> None:
    other = ("LFSC1", "other.db")
    one = run(Primary(says(frame(4, named("sqlite.db")), READY)))
    one.store.held |= {KEY: Position(10, 7), other: Position(3, 4)}
    one.start()
    until(lambda: one.store.followed_by.count(other) >= 3)
    assert KEY not in one.store.followed_by and KEY not in one.follower.seen.level
    assert [alarm["kind"] for alarm in one.alarms.active()] == ["no_database"]


@pytest.mark.parametrize(
    ("came", "kind"),
    [(ltx(1, 4, 0, 9), "primary_behind"), (ltx(1, 10, 0, 9), "fork"), (ltx(1, 20, 0, 9), "gap")],
)
def test_a_break_is_told_and_what_was_kept_stays(run: Callable[..., Run], came: bytes, kind: str) -> None:
    one = run(Primary(says(file(came))))
    one.store.held[KEY] = Position(10, 7)
    one.start()
    until(lambda: one.told)
    assert [alarm["kind"] for alarm in one.told] == [kind]


def test_a_snapshot_soon_after_the_primary_was_heard_is_another_history(run: Callable[..., Run]) -> None:
    one = run(Primary(says(file(ltx(1, 20, 0, 9)))))
    one.store.held[KEY] = Position(10, 7)
    one.follower.heard_before(*KEY, time.time() - 60)
    one.start()
    until(lambda: one.told)
    assert one.told[0]["kind"] == "fork"


def test_a_full_disk_is_told_and_over_when_it_is(run: Callable[..., Run]) -> None:
    one = run(Primary(says(file(FIRST))))
    one.store.fails = OSError(errno.ENOSPC, "No space left on device")
    one.start()
    until(lambda: one.told)
    assert one.told[0]["kind"] == "buffer" and "No space left" in one.told[0]["sentence"]
    one.store.fails = None
    until(lambda: one.store.files and one.alarms.active() == [])


def test_the_identity_is_made_once(tmp_path: Path) -> None:
    made = follower.node_identity(tmp_path / "node-id")
    assert len(made) == 16 and int(made, 16) and follower.node_identity(tmp_path / "node-id") == made
    (tmp_path / "node-id").write_text("cut")
    assert follower.node_identity(tmp_path / "node-id") != "cut"


def test_a_disk_that_is_full_while_a_file_arrives_is_told_until_one_is_kept(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    full.set()

    class Full:
        """As on a full disk: what is buffered fails at the close."""

        def write(self, _data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open

    def open_(path: Path, *args: Any, **more: Any) -> Any:
        if full.is_set() and path.name == "stream.part":
            opened(path, *args, **more).close()
            return Full()
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "open", open_)
    one = run(Primary(says(file(FIRST), READY)))
    one.start()
    until(lambda: one.told)
    assert {(alarm["kind"], alarm["database"]) for alarm in one.alarms.active()} == {("buffer", "sqlite.db")}
    assert "No space left" in one.told[0]["sentence"] and one.store.files == []
    full.clear()
    until(lambda: one.store.files and not one.alarms.active())
    assert len(one.told) == 1


def test_a_note_of_having_followed_that_cannot_be_written_is_told(run: Callable[..., Run]) -> None:
    one = run(Primary(says(file(FIRST), READY), says(READY)))
    one.store.fails_to_note = OSError(errno.EROFS, "Read-only file system")
    one.start()
    until(lambda: one.told)
    assert {(alarm["kind"], alarm["database"]) for alarm in one.alarms.active()} == {("buffer", "")}
    one.store.fails_to_note = None
    until(lambda: not one.alarms.active())


def test_what_the_store_began_anew_meanwhile_is_asked_for_and_no_alarm(run: Callable[..., Run]) -> None:
    begun = threading.Event()

    def first(answer: Answer) -> None:
        answer.head()
        answer.send(file(FIRST) + READY)
        begun.wait(5)
        answer.send(file(SECOND))
        answer.wait_gone()

    primary = Primary(first, says(file(ltx(1, 12, 0, 9)), READY))
    one = run(primary)
    one.start()
    until(lambda: one.store.files)
    one.store.held.clear()
    begun.set()
    until(lambda: len(one.store.files) == 2)
    assert primary.streams[1][1] == bytes(4) and one.told == []


def test_a_call_to_reconnect_is_heard_while_the_stream_begins(run: Callable[..., Run]) -> None:
    primary = Primary(says(READY))
    one = run(primary)
    asked = 0
    position = one.store.position
    one.store.held[KEY] = Position(10, 7)

    def at_the_worst_moment(cluster: str, database: str) -> Position | None:
        nonlocal asked
        asked += 1
        found = position(cluster, database)
        if asked == 1:
            one.follower.reconnect()
        return found

    one.store.position = at_the_worst_moment  # type: ignore[method-assign]
    one.start()
    until(lambda: len(primary.streams) == 2 and one.follower.seen.ready)


def test_a_second_primary_of_the_cluster_is_told_and_the_one_that_was_followed_stays(run: Callable[..., Run]) -> None:
    second, first = Primary(says(), primary=False), Primary(says(file(FIRST)), says())
    one = run(second, first)
    one.start()
    until(lambda: one.store.files)
    second.info["isPrimary"] = True
    one.follower.look_for_two()
    assert [alarm["kind"] for alarm in one.told] == ["two_primaries"]
    one.follower.reconnect()
    until(lambda: len(first.streams) > 1)
    assert second.streams == [] and len(one.told) == 1
    second.info["isPrimary"] = False

    # The stream is asked for before the follower knows that it has it.
    def all_clear() -> bool:
        one.follower.look_for_two()
        return one.alarms.active() == []

    until(all_clear)
