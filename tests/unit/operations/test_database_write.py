"""A change by query.yml: tried on a copy, run on the primary after a backup, and nothing of it where that fails."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.modules import database_write
from archived import Site
from fake_api import run


class Writable(Site):  # type: ignore[misc]
    """The primary's database is a file beside the export; commands are run with these programs only."""

    def __init__(self, folder: Path, content: bytes, programs: Sequence[str]) -> None:
        super().__init__(folder, content=content)
        self.file, self.path = folder / "primary.db", folder / "bin"
        self.file.write_bytes(content)
        self.path.mkdir()
        self.asked: list[str] = []
        for name in ("sh", *programs):
            (self.path / name).symlink_to(Path("/bin/sh" if name == "sh" else sys.executable).resolve())

    def run(self, _namespace: str, pod: str, container: str, command: list[str], timeout: float, called: str) -> str:
        self.asked.append(f"{pod}/{container}")
        here = [str(self.file) if word == "/litefs/sqlite.db" else word for word in command]
        done = subprocess.run(here, capture_output=True, text=True, timeout=timeout, env={"PATH": str(self.path)})
        if done.returncode:
            raise kube.KubeError(f"{called} in container {container} of pod {pod} failed: {done.stderr.strip()}.")
        return done.stdout

    def count(self) -> int:
        with closing(sqlite3.connect(self.file)) as db:
            return int(db.execute("SELECT count(*) FROM t").fetchone()[0])


def site(folder: Path, programs: Sequence[str] = ("python3",), *pragmas: str) -> Writable:
    (folder / "site").mkdir()
    with closing(sqlite3.connect(folder / "content")) as db:
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        db.execute("INSERT INTO t VALUES (1), (2), (3)")
        db.commit()
    return Writable(folder / "site", (folder / "content").read_bytes(), programs)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Writable]:
    made = site(tmp_path)
    yield made
    made.close()


def write(api: Writable, folder: Path, sql: str, **more: Any) -> dict[str, Any]:
    return run(database_write, api, sql=sql, directory=str(folder / "backups"), **more)


def test_rows_are_changed_on_the_primary_after_a_backup(api: Writable, tmp_path: Path) -> None:
    answer = write(api, tmp_path, "-- what was never confirmed\nDELETE FROM t WHERE id > 1 RETURNING id")
    assert answer["changed"] and answer["rows"] == 2 and api.count() == 1
    assert api.asked == [f"{make.NAME}-0/app"]
    with closing(sqlite3.connect(answer["backup"])) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (3,)
    assert answer["said"][0].startswith(f"2 rows were changed on {make.NAME}-0, with transaction ")
    assert f"playbooks/restore.yml -e restore_from={answer['backup']}" in answer["said"][-1]


def test_in_check_mode_only_the_copy_is_asked(api: Writable, tmp_path: Path) -> None:
    answer = write(api, tmp_path, "DELETE FROM t", check=True, holder="ann@ops/1")
    assert answer["changed"] and answer["rows"] == 3 and "would change 3 rows" in answer["said"][0]
    assert api.asked == [] and api.count() == 3 and not (tmp_path / "backups").exists()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM absent", "no such table"),
        ("INSERT INTO t VALUES (1)", "UNIQUE constraint failed"),
        ("PRAGMA journal_mode = delete", "does something else"),
        ("VACUUM", "does something else"),
    ],
)
def test_what_fails_on_the_copy_never_reaches_the_primary(api: Writable, tmp_path: Path, sql: str, words: str) -> None:
    answer = write(api, tmp_path, sql)
    assert answer["failed"] and words in answer["msg"]
    assert api.asked == [] and not (tmp_path / "backups").exists()


@pytest.mark.parametrize(
    ("vacuum", "mode", "refused"), [("FULL", "WAL", True), ("FULL", "DELETE", False), ("NONE", "WAL", False)]
)
def test_hazard_what_would_lock_all_writes_for_good_is_refused(
    tmp_path: Path, vacuum: str, mode: str, refused: bool
) -> None:
    """LiteFS does not survive a file in WAL mode that becomes smaller, and auto_vacuum makes it so at a DELETE."""
    api = site(tmp_path, ("python3",), f"auto_vacuum = {vacuum}", f"journal_mode = {mode}")
    with closing(sqlite3.connect(api.file)) as db:
        db.execute("CREATE TABLE large AS SELECT zeroblob(40000) AS x FROM t")
        db.commit()
    api.node(0).write(api.file.read_bytes())
    for check in (True, False):
        answer = write(api, tmp_path, "DELETE FROM large", check=check)
        assert bool(answer.get("failed")) is refused, answer
        assert not refused or "docs/runbooks/writes-locked.md" in answer["msg"]
    assert bool(api.asked) is not refused
    api.close()


def test_what_fails_on_the_primary_says_so(api: Writable, tmp_path: Path) -> None:
    with closing(sqlite3.connect(api.file)) as db:
        db.execute("INSERT INTO t VALUES (4)")  # since the copy was made
        db.commit()
    answer = write(api, tmp_path, "INSERT INTO t VALUES (4)")
    assert answer["failed"] and "UNIQUE constraint failed" in answer["msg"] and "whole or not at all" in answer["msg"]
    assert api.count() == 4


def test_an_image_without_a_client_is_named(tmp_path: Path) -> None:
    api = site(tmp_path, programs=())
    answer = write(api, tmp_path, "DELETE FROM t")
    api.close()
    assert answer["failed"] and "none of sqlite3, python3 and node" in answer["msg"] and api.count() == 3


def test_hazard_nothing_is_written_while_nobody_knows_the_primary(api: Writable, tmp_path: Path) -> None:
    api.node(0).running = False
    answer = write(api, tmp_path, "DELETE FROM t")
    assert answer["failed"] and answer["msg"].startswith("Nothing was written. ") and api.asked == []


def test_hazard_nothing_is_written_without_the_lock(api: Writable, tmp_path: Path) -> None:
    """Somebody took it while the exports were made."""
    answer = write(api, tmp_path, "DELETE FROM t", holder="ann@ops/1")
    assert answer["failed"] and "not by ann@ops/1" in answer["msg"] and api.asked == [] and api.count() == 3
