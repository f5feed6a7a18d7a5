"""The copy before a migration (roles/app/files/before_migration.sh), with a litefs that exports the file as it is."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "roles/app/files/before_migration.sh"
DATABASE = "sqlite.db"
TOOLS = ("od", "rm", "mkdir", "chmod", "wc", "mv", "date", "cat", "head", "cmp", "cp")


class Volume:
    """A primary's volume, and the starts on it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.copies, self.tools = folder / "data", folder / "copies", folder / "bin"
        self.database = self.data / "dbs" / DATABASE / "database"
        self.database.parent.mkdir(parents=True)
        self.tools.mkdir()
        for tool in TOOLS:
            self.tools.joinpath(tool).symlink_to(str(shutil.which(tool)))
        self.tool("litefs", f"for to; do :; done; cp {self.database} $to")
        self.clock = 0
        self.log = ""

    def tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, row: str) -> None:
        with closing(sqlite3.connect(self.database)) as db:
            db.execute("CREATE TABLE IF NOT EXISTS t (x)")
            db.execute("INSERT INTO t VALUES (?)", (row,))
            db.commit()

    def start(self, keep: int, migration: str = "", *, succeeds: bool) -> None:
        """What LiteFS runs one after the other; ``migration`` is the row that it writes, whether it succeeds or not."""
        self.clock += 1
        self.tool("date", f"echo 20260101T{self.clock:06}Z")
        done = subprocess.run(
            ["/bin/sh", str(SCRIPT), DATABASE, str(self.data), "20202", str(self.copies), str(keep)],
            env={"PATH": str(self.tools)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        self.log = done.stderr
        assert done.returncode == 0, done.stderr
        if migration:
            self.write(migration)
        if succeeds:
            (self.copies / f"{DATABASE}.unfinished").unlink(missing_ok=True)

    def kept(self) -> list[list[str]]:
        found = []
        for path in sorted(self.copies.glob("*.before-migration.sqlite")):
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
                found.append([row[0] for row in db.execute("SELECT x FROM t")])
        return found


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    volume = Volume(tmp_path)
    volume.write("good")
    return volume


GOOD, ONE, TWO, THREE = (["good", *("damage",) * times] for times in range(4))


@pytest.mark.parametrize(
    ("keep", "starts", "kept"),
    [
        (2, [("damage", False)] * 4, [GOOD, THREE]),
        (1, [("damage", False)] * 4, [GOOD, THREE]),
        (3, [("damage", False)] * 4, [GOOD, TWO, THREE]),
        (2, [("damage", False)] + [("", False)] * 5, [GOOD, ONE]),  # the same again is not kept again
        (2, [("damage", True)] + [("", True)] * 5, [GOOD, ONE]),  # nor where only the application cannot start
        (2, [("damage", True)] * 4, [TWO, THREE]),  # each succeeded: the last two
        (1, [("damage", True)] * 4, [THREE]),
        (2, [("damage", False)] * 3 + [("damage", True), ("damage", True)], [THREE, [*THREE, "damage"]]),
    ],
)
def test_the_first_copy_since_the_last_success_stays_and_the_number_is_bounded(
    volume: Volume, keep: int, starts: list[tuple[str, bool]], kept: list[list[str]]
) -> None:
    for migration, succeeds in starts:
        volume.start(keep, migration, succeeds=succeeds)
        assert len(volume.kept()) <= max(keep, 2)
    assert volume.kept() == kept


def test_it_says_whether_the_integrity_was_checked(volume: Volume) -> None:
    volume.start(2, succeeds=True)
    assert "not checked: no sqlite3 in the image" in volume.log
    volume.tool("sqlite3", "echo ok")
    volume.start(2, succeeds=True)
    assert "its integrity check is ok" in volume.log


@pytest.mark.parametrize(
    ("export", "words"),
    [
        ("printf 'export failed' >$to", "is no SQLite database"),
        ("head -c 4096 {} >$to", "has 1 pages, and its header says 2"),
        ("head -c 5000 {} >$to", "no whole pages"),
    ],
)
def test_an_export_that_is_not_whole_stops_the_start_also_without_sqlite3(
    volume: Volume, export: str, words: str
) -> None:
    volume.tool("litefs", f"for to; do :; done; {export.format(volume.database)}")
    with pytest.raises(AssertionError, match=words):
        volume.start(2, succeeds=True)
    assert list(volume.copies.iterdir()) == []
