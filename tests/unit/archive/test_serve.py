"""What the archive answers: on the pod's address that it lives and figures, on 127.0.0.1 the rest."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import giving, serve, status
from ansible_collections.abaci.infra.plugins.module_utils.archive.follower import Seen
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Altered, Header, Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import (
    Gap,
    History,
    Moment,
    Moved,
    Rebuilt,
    Refused,
    Transaction,
)

NOW = 1_800_000_000.0


def history(name: str = "1", cluster: str = "LFSC1", database: str = "sqlite.db", last: int = 200) -> History:
    return History(
        cluster=cluster,
        database=database,
        history=name,
        opened=NOW - 1000,
        first=1,
        first_time=NOW - 900,
        last=last,
        last_time=NOW - 60,
        checksum=(1 << 63) + 5,
        followed=NOW - 2,
        gaps=(Gap(7, 9),),
        bases=(1, 100),
        files=12,
        size=4096,
        problems=(),
    )


class Fake:
    """An archive of two histories of one database."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.asked: list[Any] = []
        self.fails: Exception | None = None
        self.found = [history("1"), history("2", last=120)]
        seen = Seen(primary="10.0.0.5", ready=True, since=NOW - 500, heard=NOW - 1, cluster_id="LFSC1")
        seen.level[("LFSC1", "sqlite.db")] = NOW - 0.5
        self.view = status.View(
            now=NOW,
            seen=seen,
            histories=self.found,
            verified={("LFSC1", "sqlite.db"): status.Point(119, NOW - 61)},
            moved=Moved(0, 3, 300, NOW - 7.5, ("Dropped one.",), "It is full."),
            remote=NOW - 4,
            buffer={"bytes": 5000, "max_bytes": 0, "free_bytes": 10**9},
            last={"pack": status.Ran(NOW - 30, 0.25, ("a is altered.",))},
            drills=[],
            alarms=[
                {"kind": "fork", "database": "sqlite.db", "sentence": 'It "forked".', "since": NOW - 99, "until": 0.0}
            ],
        )

    lives = True

    def alive(self) -> bool:
        return self.lives

    def document(self) -> status.Document:
        return status.document(self.view)

    def histories(self) -> list[History]:
        return self.found

    def transactions(self, cluster: str, database: str, since: float, until: float) -> Iterator[Transaction]:
        self.asked.append((cluster, database, since, until))
        for txid in (1, 2):
            yield Transaction(txid, NOW + txid, 3, 40, "2", 4200)

    def following(self, cluster: str, database: str, at: Position) -> Iterator[giving.Given]:
        self.asked.append((cluster, database, at))
        if self.fails:
            raise self.fails
        for txid in (6, 7):
            commit = 0 if self.removed and txid == 7 else 3
            header = Header(0, 4096, commit, txid, txid, NOW + txid, 5)
            yield giving.Given(header, (1 << 63) + txid, "2", io.BytesIO())

    removed = False

    @contextlib.contextmanager
    def rebuilt(
        self, cluster: str, database: str, moment: Moment, history: str | None
    ) -> Iterator[tuple[Path, Rebuilt]]:
        self.asked.append((cluster, database, moment, history))
        if self.fails:
            raise self.fails
        path = self.scratch / "database"
        path.write_bytes(b"SQLite" * 1000)
        yield path, Rebuilt(119, NOW - 61.5, (1 << 63) + 9, 120, "2", ())
        path.unlink()


class Running:
    def __init__(self, folder: Path) -> None:
        self.archive = Fake(folder)
        self.public = serve.Server(self.archive, 0, local=False)
        self.local = serve.Server(self.archive, 0, local=True)

    def get(self, path: str, local: bool = True) -> tuple[int, dict[str, str], bytes]:
        port = (self.local if local else self.public).server_address[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()

    def json(self, path: str) -> tuple[int, Any]:
        code, headers, body = self.get(path)
        assert headers["content-type"] == "application/json"
        return code, json.loads(body)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    for server in (one.public, one.local):
        server.start()
    yield one
    for server in (one.public, one.local):
        server.shutdown()
        server.server_close()


def test_the_pods_address_shows_nothing_of_the_data(running: Running) -> None:
    assert running.get("/healthz", local=False)[0] == running.get("/metrics", local=False)[0] == 200
    for path in ("/status", "/moments", "/transactions?database=sqlite.db", "/database?database=sqlite.db&txid=1"):
        assert running.get(path, local=False)[0] == 404
    running.archive.lives = False
    assert running.get("/healthz", local=False)[0] == 503
    assert running.local.server_address[0] == "127.0.0.1"
    # Pods have one family of addresses or both.
    assert running.public.address_family == (socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)


def test_the_status_has_its_schema(running: Running) -> None:
    code, found = running.json("/status")
    assert code == 200 and found["schema"] == 1 and set(found) == set(status.Document.__annotations__)
    (database,) = found["databases"]
    assert database == {
        "cluster": "LFSC1",
        "database": "sqlite.db",
        "history": "2",
        "received": {"txid": f"{120:016x}", "time": status.stamp(NOW - 60)},
        "verified": {"txid": f"{119:016x}", "time": status.stamp(NOW - 61)},
        "behind_seconds": 0.5,
        "gaps": [{"first": f"{7:016x}", "last": f"{9:016x}"}],
    }
    assert found["target"] == {
        "behind_files": 3,
        "behind_bytes": 300,
        "behind_seconds": 7.5,
        "lost": ["Dropped one."],
        "error": "It is full.",
    }
    assert (found["remote_behind_seconds"], found["primary"]["connected"]) == (4.0, True)
    assert found["last"]["pack"]["problems"] == ["a is altered."] and found["alarms"][0]["kind"] == "fork"


def test_metrics_are_prometheus_text(running: Running) -> None:
    lines = running.get("/metrics", local=False)[2].decode().splitlines()
    labels = '{cluster="LFSC1",database="sqlite.db"}'
    for line in (
        "abaci_archive_connected 1",
        f"abaci_archive_received_txid{labels} 120",
        f"abaci_archive_verified_txid{labels} 119",
        f"abaci_archive_verified_time_seconds{labels} {NOW - 61:.15g}",
        "abaci_archive_target_lag_seconds 7.5",
        "abaci_archive_buffer_bytes 5000",
        'abaci_archive_alarm{kind="fork",database="sqlite.db"} 1',
        'abaci_archive_problems{what="pack"} 1',
    ):
        assert line in lines
    for line in lines:
        assert line.startswith("# ") or line.startswith("abaci_archive_")


def test_moments_and_transactions(running: Running) -> None:
    code, found = running.json("/moments")
    assert code == 200 and [one["history"] for one in found["histories"]] == ["1", "2"]
    assert found["histories"][0]["bases"] == [f"{1:016x}", f"{100:016x}"]
    query = "/transactions?database=sqlite.db&since=2026-11-30T14:00:00Z&until=2026-11-30T16:00:00%2B01:00"
    code, headers, body = running.get(query)
    lines = [json.loads(line) for line in body.splitlines()]
    assert code == 200 and headers["content-type"] == "application/x-ndjson"
    assert [line.get("txid") for line in lines] == [f"{1:016x}", f"{2:016x}", None]
    assert lines[-1] == {"end": True, "count": 2}
    ((cluster, database, since, until),) = running.archive.asked
    assert (cluster, database, until - since) == ("LFSC1", "sqlite.db", 3600.0)


def test_what_a_copy_lacks_is_told(running: Running) -> None:
    code, found = running.json("/following?database=sqlite.db&txid=0000000000000005&checksum=c0ffee0000000005")
    assert (code, running.archive.asked[-1]) == (200, ("LFSC1", "sqlite.db", Position(5, 0xC0FFEE0000000005)))
    assert found == {
        "cluster": "LFSC1",
        "database": "sqlite.db",
        "history": "2",
        "count": 2,
        "first_time": status.stamp(NOW + 6),
        "last": f"{7:016x}",
        "checksum": f"{(1 << 63) + 7:016x}",
        "time": status.stamp(NOW + 7),
    }
    running.archive.removed = True
    assert running.json("/following?database=sqlite.db&txid=5&checksum=5")[1]["count"] == 2
    code, found = running.json("/following?database=sqlite.db&txid=0&checksum=0")
    assert (code, found["count"], found["last"], found["time"]) == (200, 0, "0" * 16, None)
    for wrong in ("txid=5", "txid=5&checksum=x", ""):
        code, found = running.json(f"/following?database=sqlite.db&{wrong}")
        assert code == 400 and "Give txid= and checksum=" in found["error"]
    running.archive.fails = Refused("It is of another history.")
    code, found = running.json("/following?database=sqlite.db&txid=5&checksum=5")
    assert (code, found) == (409, {"error": "It is of another history."})


def test_a_database_comes_whole_with_its_position(running: Running) -> None:
    code, headers, body = running.get("/database?database=sqlite.db&txid=77")
    assert code == 200 and body == b"SQLite" * 1000 and headers["content-length"] == "6000"
    assert headers["archive-txid"] == f"{119:016x}" and headers["archive-checksum"] == "8000000000000009"
    assert headers["archive-time"] == status.stamp(NOW - 61.5) and headers["archive-following"] == f"{120:016x}"
    assert running.archive.asked == [("LFSC1", "sqlite.db", 0x77, None)]
    deadline = time.monotonic() + 5
    while (running.archive.scratch / "database").exists():
        assert time.monotonic() < deadline
    assert running.get("/database?database=sqlite.db&time=2026-11-30T14:05:00Z&history=1&cluster=LFSC1")[0] == 200
    assert running.archive.asked[1][3] == "1"


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/", 404, "There is nothing at /"),
        ("/database", 400, "database is missing"),
        ("/database?database=other.db&txid=1", 404, "no database other.db"),
        ("/database?database=sqlite.db&cluster=LFSC9&txid=1", 404, "of cluster LFSC9"),
        ("/database?database=sqlite.db", 400, "either txid="),
        ("/database?database=sqlite.db&txid=1&time=2026-11-30T14:05:00Z", 400, "either txid="),
        ("/database?database=sqlite.db&txid=xyz", 400, "no hexadecimal number"),
        ("/database?database=sqlite.db&time=yesterday", 400, "is no time"),
        ("/database?database=sqlite.db&time=2026-11-30T14:05:00", 400, "has no zone"),
        ("/database?database=sqlite.db&txid=1&txid=2", 400, "given twice"),
        ("/database?database=sqlite.db&tixd=1", 400, "tixd is no parameter"),
        ("/transactions?database=sqlite.db&since=2026-11-30", 400, "has no zone"),
    ],
)
def test_a_question_that_does_not_fit_is_a_sentence(running: Running, path: str, code: int, words: str) -> None:
    found, body = running.json(path)
    assert found == code and words in body["error"] and running.archive.asked == []


@pytest.mark.parametrize("error", [Refused("There is nothing before it."), Altered("2.ltx", "is cut")])
def test_a_moment_that_cannot_be_had_is_a_sentence(running: Running, error: Exception) -> None:
    running.archive.fails = error
    assert running.json("/database?database=sqlite.db&txid=1") == (409, {"error": str(error)})
