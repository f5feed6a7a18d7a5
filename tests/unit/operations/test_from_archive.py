"""The modules of the ways back, on a site with an archive: what they answer, write and refuse."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import drill, retention, saying
from ansible_collections.abaci.infra.plugins.modules import (
    archive_file,
    archive_history,
    archive_tail,
    backup_file,
    database_query,
    operation,
    restore_drill,
)
from archived import POD, Site
from fake_api import run
from playing import operate


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    made = Site(tmp_path / "site", 20)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def everything(api: Site) -> tuple[Any, ...]:
    return tuple(api.changes())


def test_a_moment_becomes_a_file_that_restore_takes(api: Site, folder: Path, tmp_path: Path) -> None:
    answer = run(archive_file, api, at=f"{8:016x}", directory=str(folder), work=str(tmp_path), variable="restore_at")
    assert answer["changed"] and answer["file"]["verified"] and answer["file"]["rows"] == {"t": 7}
    assert answer["file"]["notes"] == answer["notes"] and "12 transactions after it" in answer["notes"][1]
    described = run(backup_file, None, path=answer["manifest"]["path"])["file"]
    assert described.items() <= answer["file"].items()
    assert not run(archive_file, api, at=f"{8:016x}", directory=str(folder))["changed"]
    assert everything(api) == ()


def test_in_check_mode_the_archive_is_only_asked(api: Site, folder: Path) -> None:
    answer = run(archive_file, api, check=True, at=f"{8:016x}", directory=str(folder / "not"))
    assert answer["changed"] and answer["manifest"] == {} and list(folder.iterdir()) == []
    assert answer["file"]["txid"] == f"{8:016x}" and answer["file"]["cluster_id"] == make.A
    plan = run(operation, api, check=True, operation="restore", file=answer["file"])
    assert plan["plan"]["refusal"] is None and plan["said"][-len(answer["notes"]) :] != []
    assert set(answer["notes"]) <= set(plan["plan"]["notes"])
    assert [step["do"] for step in plan["plan"]["steps"]] == ["import", "wait_followers"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"at": "2026-11-30 14:05"}, "restore_at .* has no zone"),
        ({"at": "0" * 16}, "restore_at: transaction 0{16} is not in history"),
        ({"at": "30d ago"}, "is before the first transaction"),
        ({"at": "0s ago"}, "is after .* until when the archive followed"),
        ({"at": f"{8:016x}", "history": "1"}, "no history 1"),
        ({"at": f"{8:016x}", "encrypt_command": ["cat"], "work": "/tmp"}, "restore_decrypt_command is not"),
    ],
)
def test_what_cannot_be_had_leaves_no_file(api: Site, folder: Path, more: dict[str, Any], words: str) -> None:
    answer = run(archive_file, api, directory=str(folder), variable="restore_at", **more)
    assert answer["failed"] and re.search(words, answer["msg"]) and list(folder.iterdir()) == []


def test_an_encrypted_moment_is_read_again(api: Site, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    turn = ["python3", "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"]
    more = {"directory": str(folder), "work": str(tmp_path / "work"), "encrypt_command": turn, "decrypt_command": turn}
    answer = run(archive_file, api, at=f"{9:016x}", **more)
    assert answer["manifest"]["encrypted"] and answer["file"]["rows"] == {"t": 8}
    assert not run(archive_file, api, at=f"{9:016x}", **more)["changed"]


def test_a_moment_is_asked_in_sql(api: Site) -> None:
    answer = run(database_query, api, sql="SELECT count(*) AS n FROM t", at=f"{5:016x}")
    assert answer["txid"] == f"{5:016x}" and answer["said"][1:] == ["n", "-", "4"]
    answer = run(database_query, api, check=True, sql="SELECT id FROM t", at=f"{5:016x}", rows=2, format="json")
    assert json.loads(answer["answer"]) == [{"id": 1}, {"id": 2}] and answer["said"][-1].startswith(
        "There are more than 2"
    )
    refused = run(database_query, api, sql="DELETE FROM t", at=f"{5:016x}")
    assert refused["failed"] and "may only read" in refused["msg"] and "query_write" not in refused["msg"]
    assert everything(api) == ()


def test_without_a_moment_a_replica_is_exported(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "content")) as db:
        db.execute("CREATE TABLE t (id)")
        db.execute("INSERT INTO t VALUES (41), (42)")
        db.commit()
    (tmp_path / "site").mkdir()
    api = Site(tmp_path / "site", content=(tmp_path / "content").read_bytes())
    answer = run(database_query, api, sql="SELECT max(id) FROM t")
    assert answer["said"][-1] == "42" and "as abaci-app-2 has it" in answer["said"][0] and everything(api) == ()
    refused = run(database_query, api, sql="DELETE FROM t")
    assert refused["failed"] and "With query_write the database of now is changed" in refused["msg"]
    api.close()


def test_where_rows_were_lost_is_found_with_few_rebuilds(api: Site) -> None:
    api.write("DELETE FROM t WHERE id > 3")
    for _ in range(12):
        api.write()
    answer = run(archive_history, api, lost="SELECT count(*) FROM t")
    assert answer["fall"] == {"before": f"{20:016x}", "after": f"{21:016x}"}
    assert answer["rebuilt"] == api.archive.rebuilds <= 10
    text = "\n".join(answer["said"])
    assert "fell from 19 to 3 with transaction" in text and f"-e restore_at={20:016x} goes back there" in text
    assert f"{answer['rebuilt']} databases were rebuilt for 33 transactions" in text and everything(api) == ()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1 FROM t WHERE id = 99", "was not seen to become smaller"),
        ("SELECT 1 FROM t WHERE id = 7", "was not seen to become smaller"),
    ],
)
def test_nothing_that_was_lost_is_said(api: Site, sql: str, words: str) -> None:
    assert words in "\n".join(run(archive_history, api, lost=sql)["said"])


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT count(*) FROM nobody", "history_lost is not answered: SQLite says no such table: nobody"),
        ("DELETE FROM t", "may only read"),
        ("SELECT body FROM t", "is no number"),
    ],
)
def test_a_question_that_has_no_answer_anywhere_is_refused(api: Site, sql: str, words: str) -> None:
    answer = run(archive_history, api, lost=sql)
    assert answer["failed"] and words in answer["msg"]


def test_a_table_that_was_dropped_is_a_loss(api: Site) -> None:
    api.write("DROP TABLE t")
    api.write("CREATE TABLE u (id)")
    answer = run(archive_history, api, lost="SELECT count(*) FROM t")
    assert answer["fall"]["after"] == f"{21:016x}" and "fell from 19 to nothing" in "\n".join(answer["said"])


def test_what_there_is_by_time(api: Site) -> None:
    said = run(archive_history, api, limit=3)["said"]
    assert said[0].startswith("History ") and said[-1] == (
        "20 transactions; the newest 3 lines of 20 are shown (history_limit)."
    )
    assert said[-2].endswith(f"{20:016x}") and said[1].startswith("time (UTC)")
    hours = run(archive_history, api, by="day")["said"]
    assert sum(int(line.split()[1]) for line in hours[3:-1]) == 20
    assert "never became smaller" in run(archive_history, api, shrank=True)["said"][-1]
    refused = run(archive_history, api, since=f"{1:016x}")
    assert refused["failed"] and "history_since 0000000000000001 is a TXID" in refused["msg"]
    none = run(archive_history, api, since="1m ago")["said"]
    assert none[-1] == "There are no transactions in that time."


def test_a_drill_leaves_its_result(api: Site, folder: Path) -> None:
    answer = run(restore_drill, api, directory=str(folder), query="SELECT count(*) FROM t")
    found = drill.read(folder, make.NAMESPACE, make.NAME, make.DATABASE)
    assert answer["changed"] and found is not None and found == answer["result"] and found["ok"]
    assert [one["which"] for one in found["moments"]] == ["newest", "random"]
    assert found["moments"][0]["txid"] == f"{20:016x}" and found["moments"][0]["answer"] == [["count(*)"], ["19"]]
    assert retention.read(folder) == [] and [one.suffixes[-2:] for one in folder.iterdir()] == [[".drill", ".json"]]


def test_a_bad_drill_fails_and_is_kept(api: Site, folder: Path) -> None:
    answer = run(restore_drill, api, directory=str(folder), query="SELECT 1 FROM t WHERE id = 99")
    assert answer["failed"] and "answers with no row" in answer["msg"]
    found = drill.read(folder, make.NAMESPACE, make.NAME, make.DATABASE)
    assert found is not None and not found["ok"]


def test_a_drill_in_check_mode_writes_nothing(api: Site, folder: Path) -> None:
    answer = run(restore_drill, api, check=True, directory=str(folder / "not"))
    assert answer["changed"] and len(answer["said"]) == 2 and list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (archive_file, {"at": "1h ago", "directory": "/nowhere"}),
        (archive_history, {}),
        (database_query, {"sql": "SELECT 1", "at": "1h ago"}),
        (restore_drill, {"directory": "/nowhere"}),
    ],
)
def test_without_an_archive_each_says_so(api: Site, module: Any, arguments: dict[str, Any]) -> None:
    api.drop("Pod", POD)
    answer = run(module, api, check=True, **arguments)
    assert answer["failed"] and answer["msg"].startswith("There is no archive of StatefulSet abaci/abaci-app")


def test_what_the_archive_has_last_is_told_and_its_absence_stops_nothing(api: Site) -> None:
    found = run(archive_tail, api, check=True)["archive"]
    assert (found["cluster_id"], found["txid"]) == (make.A, f"{20:016x}")
    # The pods are at 5 with another checksum than it was here.
    assert "another history" in found["more"]["abaci-app-1"][make.DATABASE]["problem"]
    api.close()
    away = run(archive_tail, api)["archive"]
    assert list(away) == ["problem"] and POD in away["problem"]
    api.drop("Pod", POD)
    assert run(archive_tail, api)["archive"] == {}


def test_a_site_goes_back_and_says_what_that_changed(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "site").mkdir()
    source = Site(tmp_path / "source", 20)
    source.write("DELETE FROM t WHERE id > 3")
    api = Site(tmp_path / "site", content=source.primary.path.read_bytes())
    api.archive.store, api.primary = source.archive.store, source.primary
    before = run(archive_history, api, lost="SELECT count(*) FROM t")["fall"]["before"]
    more = {"directory": str(folder), "work": str(tmp_path), "variable": "restore_at"}
    moment = run(archive_file, api, at=before, **more)
    ended = operate(api, "restore", {}, folder, file=moment["file"])
    assert ended.rc == 0, ended.msg
    plan = " ".join(ended.said)
    assert f"-e restore_at={before} is the same one" in plan and "1 transaction after it" in plan
    (imported,) = [line for line in ended.did if line.startswith("import ")]
    assert imported.endswith("into abaci-app-0 (rows: t 3 -> 19)")
    assert api.node(0).imported == [Path(moment["manifest"]["path"]).read_bytes()]
    # A second run goes by the same file, and imports nothing.
    again = run(archive_file, api, at=before, **more)
    assert not again["changed"] and again["file"]["path"] == moment["file"]["path"]
    assert operate(api, "restore", {}, folder, file=again["file"]).rc == 0 and len(api.node(0).imported) == 1
    for one in (source, api):
        one.close()


@pytest.mark.parametrize(
    ("before", "then", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, ""),
        ({"a": 1, "b": 2}, {"a": 3}, "a 1 -> 3, b 2 -> none"),
        ({str(n): 1 for n in range(9)}, {}, "0 1 -> none, 1 1 -> none and 7 more tables"),
    ],
)
def test_rows_are_compared(before: dict[str, int], then: dict[str, int], wanted: str) -> None:
    assert saying.rows(before, then, most=2) == wanted
