"""Asking the archive as the playbooks do: its real server on a real store, behind a pod of the fake API."""

from __future__ import annotations

import datetime
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube, moments
from ansible_collections.abaci.infra.plugins.module_utils.archive_client import Archive, ArchiveError
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, from_archive, retention
from archived import POD, Site, archive_pod


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, 20)
    yield made
    made.close()


def site(api: Any) -> act.Site:
    return act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)


def archive(api: Any) -> Archive:
    return from_archive.archive_of(site(api), 10)


def wanted(at: str, history: str = "") -> from_archive.Wanted:
    return from_archive.Wanted(at, history, "restore_at")


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM t").fetchone()[0])


def test_the_database_of_a_moment_comes_proven_and_with_what_came_after(api: Site, tmp_path: Path) -> None:
    asked, manifest, made = from_archive.keep(site(api), archive(api), wanted(f"{8:016x}"), tmp_path)
    assert made and asked.later.count == 12 and asked.later.txid == f"{20:016x}"
    assert manifest["txid"] == f"{8:016x}" and manifest["cluster_id"] == make.A and manifest["verified"] is True
    assert manifest["checksum"] == asked.found.checksum and rows(Path(manifest["path"])) == 7
    assert [one["reason"] for one in retention.read(tmp_path)] == ["moment"]
    # A second run finds it.
    again, there, made = from_archive.keep(site(api), archive(api), wanted(f"{8:016x}"), tmp_path)
    assert not made and there["path"] == manifest["path"] and again.found == asked.found
    assert len(retention.read(tmp_path)) == 1


def test_who_only_asks_gets_no_file(api: Site, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    asked = from_archive.ask(site(api), archive(api), wanted(asked_time(api, 8, 30)))
    assert asked.found.txid == f"{8:016x}" and asked.later.count == 12
    assert asked.notes("restore_at")[0].endswith("-e restore_at=0000000000000008 is the same one.")
    assert "12 transactions after it, up to 0000000000000014 of" in asked.notes("restore_at")[1]
    assert list((tmp_path / "folder").iterdir()) == []


def asked_time(api: Site, txid: int, seconds: float) -> str:
    """So many seconds after a transaction."""
    when = api.primary.time - 60 * (20 - txid) + seconds
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()


def test_a_gap_is_refused_in_the_archives_own_words_where_only_times_tell(api: Site) -> None:
    folder = next((api.folder / "store").glob(f"*/{make.DATABASE}/*"))
    next(folder.glob(f"*{8:016x}-{8:016x}*")).unlink()
    with pytest.raises(ArchiveError, match=r"^Transactions 8 to 8 of sqlite.db are missing in history .* is 7\.$"):
        from_archive.ask(site(api), archive(api), wanted(asked_time(api, 8, 30)))
    with pytest.raises(moments.Refused, match=r"lacks the transactions 0{15}8 to 0{15}8"):
        from_archive.ask(site(api), archive(api), wanted(f"{8:016x}"))


def test_an_altered_archive_is_named(api: Site) -> None:
    folder = next((api.folder / "store").glob(f"*/{make.DATABASE}/*"))
    path = next(folder.glob(f"*{8:016x}-{8:016x}*"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=f"{8:016x}"):
        from_archive.ask(site(api), archive(api), wanted(f"{12:016x}"))
    assert from_archive.ask(site(api), archive(api), wanted(f"{7:016x}")).found.txid == f"{7:016x}"


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (None, "There is no archive of StatefulSet abaci/abaci-app.*set archive_image"),
        (archive_pod("Pending"), f"its pod {POD} is Pending"),
    ],
)
def test_an_archive_that_is_away_is_one_sentence(api: Site, pod: Any, words: str) -> None:
    api.drop("Pod", POD)
    if pod:
        api.put(pod)
    with pytest.raises(ArchiveError, match=words):
        archive(api).histories()


class Answers:
    """An archive that answers this to everything."""

    def __init__(self, body: bytes, head: str = "HTTP/1.0 200 OK") -> None:
        self.body = f"{head}\r\n\r\n".encode() + body

    def dial(self, *_where: Any) -> Any:
        return SimpleNamespace(
            error="", send=lambda _data: None, close=lambda: None, makefile=lambda _mode: io.BytesIO(self.body)
        )

    def list(self, *_where: Any) -> list[Any]:
        return [archive_pod()]


@pytest.mark.parametrize(
    ("body", "head", "words"),
    [
        (b'{"txid": "1"}\n{"end": true, "count": 2}\n', "HTTP/1.0 200 OK", "broke off its list after 1 transactions"),
        (b'{"txid": "1"}\n', "HTTP/1.0 200 OK", "broke off its list after 1 transactions"),
        (b'{"txid": ', "HTTP/1.0 200 OK", "half a document"),
        (b"[]\n", "HTTP/1.0 200 OK", "something else than a document"),
        (b'{"error": "It says no."}', "HTTP/1.0 409 Conflict", "^It says no[.]$"),
        (b"{}", "HTTP/1.0 500 Error", "answered 500 to /transactions"),
    ],
)
def test_half_an_answer_is_none(body: bytes, head: str, words: str) -> None:
    api: Any = Answers(body, head)
    with pytest.raises(ArchiveError, match=words):
        list(Archive(api, "abaci", "abaci-app", "sqlite.db", 5).transactions("LFSC1"))


def test_a_database_that_is_cut_or_another_is_kept_nowhere(tmp_path: Path) -> None:
    head = "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n" + "\r\n".join(
        f"Archive-{name}: 1" for name in ("Cluster", "History", "Txid", "Time", "Checksum")
    )
    cut: Any = Answers(b"SQLite", head)
    with pytest.raises(kube.KubeError, match=r"Transaction 1 from the archive .* broke off before the end"):
        from_archive.rebuild(Archive(cut, "abaci", "abaci-app", "sqlite.db", 5), {}, tmp_path / "one")
    other: Any = Answers(b"<html>..>", head)
    with pytest.raises(ArchiveError, match="as the archive sent it, is no SQLite database"):
        from_archive.rebuild(Archive(other, "abaci", "abaci-app", "sqlite.db", 5), {}, tmp_path / "one")
