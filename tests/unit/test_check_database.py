"""What is looked at in the primary's database around the migration (roles/app/files/check_database.sh)."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "roles/app/files/check_database.sh"
DATABASE = "sqlite.db"


class Primary:
    """A volume and the record, with the few tools that the script may use."""

    def __init__(self, folder: Path) -> None:
        self.data, self.record, self.tools = folder / "data", folder / "record", folder / "bin"
        self.database = self.data / "dbs" / DATABASE / "database"
        for made in (self.database.parent, self.record, self.tools):
            made.mkdir(parents=True)
        for tool in ("od", "cat"):
            self.tools.joinpath(tool).symlink_to(str(shutil.which(tool)))

    def holds(self, *pragmas: str) -> None:
        with closing(sqlite3.connect(self.database, isolation_level=None)) as db:
            for pragma in pragmas:
                db.execute(f"PRAGMA {pragma}").fetchall()
            db.execute("CREATE TABLE t (x)")

    def recorded(self, **keys: str) -> None:
        for key, value in keys.items():
            (self.record / key).write_text(value)

    def check(self) -> tuple[int, str]:
        command = ["/bin/sh", str(SCRIPT), DATABASE, str(self.data), str(self.record)]
        env = {"PATH": str(self.tools)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
        return done.returncode, done.stderr


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return Primary(tmp_path)


@pytest.mark.parametrize("left", ["no file", "an empty file", "no folder"])
def test_a_recorded_database_that_is_not_there_stops_the_start(primary: Primary, left: str) -> None:
    """LiteFS threw it away, or the volume lost it: a migration would make an empty one for all pods."""
    if left == "an empty file":
        primary.database.touch()
    if left == "no folder":
        primary.database.parent.rmdir()
    primary.recorded(state="recorded", clusterID="LFSC0123456789ABCDEF", journalMode="wal")
    code, said = primary.check()
    assert code == 1 and "The start stops here" in said and "docs/runbooks/primary-refused.md" in said


@pytest.mark.parametrize("state", ["bootstrap", "", None])
def test_a_first_start_makes_its_database(primary: Primary, state: str | None) -> None:
    if state is not None:
        primary.recorded(state=state)
    assert primary.check() == (0, f"database {DATABASE}: there is none yet.\n")


@pytest.mark.parametrize(
    ("pragmas", "recorded", "words"),
    [
        (["journal_mode=WAL"], "wal", ""),
        (["journal_mode=WAL"], "", ""),
        (["journal_mode=WAL"], "delete", ""),  # that way round every replica follows
        ([], "delete", ""),
        ([], "", ""),
        ([], "wal", "docs/runbooks/journal-mode.md"),
        (["auto_vacuum=FULL"], "delete", ""),  # a rollback journal bears it
        (["auto_vacuum=FULL", "journal_mode=WAL"], "wal", "docs/runbooks/writes-locked.md"),
        (["auto_vacuum=INCREMENTAL", "journal_mode=WAL"], "wal", "docs/runbooks/writes-locked.md"),
    ],
)
def test_what_a_header_tells_is_said_and_stops_nothing(
    primary: Primary, pragmas: list[str], recorded: str, words: str
) -> None:
    primary.holds(*pragmas)
    primary.recorded(state="recorded", journalMode=recorded)
    code, said = primary.check()
    assert code == 0
    assert (words in said and "WARNING" in said) if words else said == ""
