"""What the archive gives to a replica that lacks transactions, and what the guard is told."""

from __future__ import annotations

import contextlib
import io
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ltx_files
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import feed, giving, wire
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Altered, Compressed, Copy, Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.reading import History, Refused
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Store
from ansible_collections.abaci.infra.plugins.module_utils.archive.stream import Stream, StreamError

OURS, DATABASE = "LFSC1", "sqlite.db"
HEARD = 1_800_000_000.0


class Held:
    """What feed.Archive asks, of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def newest_cluster(self) -> str:
        return OURS

    def histories(self) -> list[History]:
        return self.store.moments()

    def heard(self) -> float:
        return HEARD

    def given_up(self) -> str:
        return "2026-11-30T14:05:00Z"

    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]:
        return self.store.following(cluster, database, at)


class Site:
    """A primary whose transactions are archived, and the positions and copies that it had."""

    def __init__(self, folder: Path, transactions: int) -> None:
        (folder / "store").mkdir()
        self.store = Store(folder / "store", time.time)
        self.primary = ltx_files.Primary(folder / "primary")
        self.folder = folder
        self.at: list[Position] = []
        self.copies: list[bytes] = []
        self.write("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        for _ in range(transactions - 1):
            self.write()

    def write(self, *statements: str) -> None:
        self.store.receive(OURS, DATABASE, self.primary.write(*statements))
        self.at.append(self.primary.position)
        self.copies.append(self.primary.path.read_bytes())

    def files(self) -> list[Path]:
        return sorted(self.folder.glob(f"store/{OURS}/{DATABASE}/*/*.ltx*"))

    def copy(self, txid: int) -> Copy:
        """A replica that has so many transactions."""
        path = self.folder / f"copy-{txid}"
        path.write_bytes(self.copies[txid - 1])
        return Copy(path, txid)

    def given(self, at: Position) -> list[giving.Given]:
        return list(self.store.following(OURS, DATABASE, at))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, 8)


@pytest.mark.parametrize("packed", [False, True], ids=["as they came", "in a pack"])
def test_what_follows_a_position_leads_from_it_to_the_last(site: Site, packed: bool) -> None:
    if packed:
        assert site.store.pack(ltx_files.START + 10**6).made > 0
        assert any(path.suffix == ".gz" for path in site.files())
    with site.copy(5) as copy:
        assert copy.position == site.at[4]
        for one in site.store.following(OURS, DATABASE, copy.position):
            assert copy.apply(one.content, "given") == one.position
        assert copy.position == site.at[-1]
    assert site.given(site.at[-1]) == []
    assert site.given(Position(99, 1)) == []


def test_all_of_it_comes_where_the_replica_has_no_such_database(site: Site, tmp_path: Path) -> None:
    with Copy(tmp_path / "none") as copy:
        for one in site.store.following(OURS, DATABASE, giving.NOTHING):
            copy.apply(one.content, "given")
        assert copy.position == site.at[-1]


def altered(site: Site) -> None:
    path = site.files()[6]
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(bytes(data))


def gone(site: Site) -> None:
    site.files()[6].unlink()


@pytest.mark.parametrize(
    ("at", "damage", "error", "words"),
    [
        (Position(5, 77), lambda _site: None, Refused, "another history"),
        (Position(8, 77), lambda _site: None, Refused, "another history"),
        (None, altered, Altered, "altered"),
        (None, gone, Refused, "0000000000000007 to 0000000000000007 .* are not in history"),
    ],
)
def test_what_cannot_be_proven_to_follow_is_refused(
    site: Site, at: Position | None, damage: Callable[[Site], None], error: type[Exception], words: str
) -> None:
    damage(site)
    with pytest.raises(error, match=words):
        site.given(at or site.at[4])


def test_a_replica_of_before_the_history_is_refused(site: Site) -> None:
    """The primary lost two transactions by a promotion, and then went on."""
    before = site.at[4]
    state = site.primary.state()
    site.write()
    site.primary.restore(state)
    site.store.receive(OURS, DATABASE, site.primary.snapshot())
    site.write()
    with pytest.raises(Refused, match=r"not in history .* begins with"):
        site.given(before)


def test_what_is_compressed_is_not_given(tmp_path: Path) -> None:
    site = Site(tmp_path, 3)
    file = ltx_files.file_of({1: bytes(1024)}, 1024, 2, (4, 4), (site.at[-1].checksum, 5 | 1 << 63), 0, flags=1)
    (tmp_path / "compressed").write_bytes(file)
    site.store.receive(OURS, DATABASE, tmp_path / "compressed")
    with pytest.raises(Compressed):
        site.given(site.at[1])


# --- over the wire ---------------------------------------------------------------------------------------------------


@pytest.fixture
def served(site: Site) -> Iterator[tuple[str, int]]:
    server = feed.Feed(Held(site.store), 0)
    server.start()
    yield "127.0.0.1", server.server_address[1]
    server.shutdown()
    server.server_close()


def received(address: tuple[str, int], held: dict[str, Position]) -> tuple[str, dict[str, list[bytes]]]:
    """What a replica gets until it is level, and the cluster id."""
    asked = wire.positions({name: (at.txid, at.checksum) for name, at in held.items()})
    stream, parser = Stream(address, "0123456789ABCDEF", asked, 60), wire.Parser()
    found: dict[str, list[bytes]] = {}
    with contextlib.closing(stream):
        for piece in stream.pieces():
            for event in parser.feed(piece):
                if isinstance(event, wire.FileBegin):
                    found.setdefault(event.database, []).append(b"")
                    name = event.database
                elif isinstance(event, wire.FileData):
                    found[name][-1] += event.data
                elif isinstance(event, wire.Ready):
                    return stream.cluster_id, found
    raise AssertionError("it never was level")


def test_a_replica_is_fed_as_by_a_primary(site: Site, served: tuple[str, int]) -> None:
    site.write("INSERT INTO t (body) VALUES (hex(randomblob(2000000)))")  # more than a window
    with site.copy(5) as copy:
        cluster, files = received(served, {DATABASE: copy.position})
        assert cluster == OURS and list(files) == [DATABASE]
        for data in files[DATABASE]:
            copy.apply(io.BytesIO(data), "fed")
        assert copy.position == site.at[-1]
    assert received(served, {DATABASE: site.at[-1]})[1] == {}


def test_what_comes_later_is_fed_as_well(site: Site, served: tuple[str, int]) -> None:
    stream, parser = (
        Stream(served, "0123456789ABCDEF", wire.positions({DATABASE: (8, site.at[-1].checksum)}), 60),
        wire.Parser(),
    )
    with contextlib.closing(stream):
        for event in (event for piece in stream.pieces() for event in parser.feed(piece)):
            if isinstance(event, wire.Ready):
                site.write()
            if isinstance(event, wire.FileEnd):
                break


def test_what_could_not_be_given_is_tried_again_on_the_same_stream(
    site: Site, served: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "AGAIN_S", 0.1)
    missing = site.files()[6]
    content = missing.read_bytes()
    missing.unlink()
    asked = wire.positions({DATABASE: (6, site.at[5].checksum)})
    stream, parser, ended = Stream(served, "0123456789ABCDEF", asked, 60), wire.Parser(), time.monotonic() + 10
    with contextlib.closing(stream):
        for event in (event for piece in stream.pieces() for event in parser.feed(piece)):
            assert time.monotonic() < ended
            if isinstance(event, wire.Ready):
                missing.write_bytes(content)
            if isinstance(event, wire.FileEnd):
                break


def test_nothing_is_sent_to_a_replica_of_another_history(site: Site, served: tuple[str, int]) -> None:
    site.store.receive(OURS, "other.db", ltx_files.Primary(site.folder / "other").write("CREATE TABLE t (a)"))
    _, files = received(served, {DATABASE: Position(5, 77)})
    assert list(files) == ["other.db"]


@pytest.mark.parametrize("body", [b"", wire.positions({DATABASE: (5, 7)})[:-1], wire.positions({}) + b"x"])
def test_a_stream_that_is_none_is_ended(served: tuple[str, int], body: bytes) -> None:
    with pytest.raises(StreamError):
        Stream(served, "0123456789ABCDEF", body, 5)


def test_the_guard_is_told_as_by_a_replica(site: Site, served: tuple[str, int]) -> None:
    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://{served[0]}:{served[1]}{path}", timeout=5) as answer:
            return answer.read().decode()

    assert json.loads(get("/info")) == {
        "isPrimary": False,
        "clusterID": OURS,
        "archive": True,
        "heard": "2027-01-15T08:00:00Z",
        "givenUp": "2026-11-30T14:05:00Z",
    }
    end = site.at[-1]
    assert f'"name":"{DATABASE}","txid":"{end.txid:016x}","checksum":"{end.checksum:016x}"' in get("/debug/vars")
    with pytest.raises(urllib.error.HTTPError):
        get("/stream")


def test_positions_are_read_as_they_are_written() -> None:
    held = {"a.db": (1, 2), "b.db": (3, 1 << 63)}
    assert wire.held(wire.positions(held)) == held
