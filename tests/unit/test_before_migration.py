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
TOOLS = ("od", "rm", "mkdir", "chmod", "wc", "mv", "date", "cat", "head", "cmp", "cp", "df")


class Volume:
    """A primary's volume, and the starts on it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.copies, self.tools = folder / "data", folder / "copies", folder / "bin"
        self.mount = folder / "mount"
        self.database = self.data / "dbs" / DATABASE / "database"
        self.database.parent.mkdir(parents=True)
        self.tools.mkdir()
        self.mount.mkdir()
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
            ["/bin/sh", str(SCRIPT), DATABASE, str(self.data), str(self.mount), "20202", str(self.copies), str(keep)],
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

    def free(self, kilobytes: int) -> None:
        """What df says of a volume on which the copies take what they take."""
        used = f"$(cat {self.copies}/*.sqlite 2>/dev/null | wc -c)"
        row = f"echo /dev/very-long 9 9 $(({kilobytes} - {used} / 1024)) 9% /"
        self.tool("df", f"echo Filesystem 1024-blocks Used Available Capacity Mounted on; {row}")

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


def test_an_integrity_check_that_is_not_ok_stops_the_start(volume: Volume) -> None:
    volume.tool("sqlite3", "echo 'Tree 2 page 3: btreeInitPage() returns error code 11'")
    with pytest.raises(AssertionError, match=r"fails its integrity check \(Tree 2 page 3"):
        volume.start(2, succeeds=True)
    volume.tool("sqlite3", "echo 'file is not a database' >&2; exit 26")
    with pytest.raises(AssertionError, match=r"fails its integrity check \(not readable\)"):
        volume.start(2, succeeds=True)
    assert volume.kept() == []


def test_nothing_is_copied_where_nothing_was_written_since_the_newest_copy(volume: Volume) -> None:
    position = volume.mount / f"{DATABASE}-pos"
    position.write_text("0000000000000001/8000000000000001\n")
    volume.start(2, succeeds=True)
    volume.tool("litefs", "echo exported anyway >&2; exit 1")
    volume.start(2, succeeds=False)
    assert "nothing was written since" in volume.log and volume.kept() == [GOOD]
    assert (volume.copies / f"{DATABASE}.unfinished").exists(), "it is the copy from before a migration that may fail"
    (copy,) = volume.copies.glob("*.sqlite")
    copy.unlink()
    with pytest.raises(AssertionError, match="exported anyway"):
        volume.start(2, succeeds=True)
    position.write_text("0000000000000002/8000000000000002\n")
    with pytest.raises(AssertionError, match="the export failed"):
        volume.start(2, succeeds=True)


@pytest.mark.parametrize(
    ("free", "starts", "kept", "warned"),
    [
        # The database has 8 kB, so a copy wants 13: the volume has room for two, the oldest goes before the next.
        (28, [("more", True)] * 4, [["good", "more", "more"], ["good", "more", "more", "more"]], False),
        # The first since the last success is not given up, what came after it is.
        (28, [("damage", False)] * 4, [GOOD, THREE], False),
        # There is room for one only: it stays, and the start goes on without another.
        (18, [("more", True)] * 4, [GOOD], True),
        (18, [("damage", False)] * 4, [GOOD], True),
        (5, [("more", True)] * 2, [], True),
    ],
)
def test_too_little_room_never_stops_a_start_and_the_last_copy_stays(
    volume: Volume, free: int, starts: list[tuple[str, bool]], kept: list[list[str]], warned: bool
) -> None:
    volume.free(free)
    for migration, succeeds in starts:
        volume.start(2, migration, succeeds=succeeds)
    assert volume.kept() == kept
    assert ("WARNING: none was made" in volume.log) is warned
    assert not list(volume.copies.glob("*.partial"))


def test_hazard_a_first_copy_that_somebody_removed_protects_nothing_but_what_is_left(volume: Volume) -> None:
    for _start in range(2):
        volume.start(2, "damage", succeeds=False)
    min(volume.copies.glob("*.before-migration.sqlite")).unlink()
    volume.free(18)
    volume.start(2, "damage", succeeds=False)
    assert "WARNING: none was made" in volume.log and volume.kept() == [ONE], "the last one does not make room"
    volume.free(99)
    for _start in range(3):
        volume.start(2, "damage", succeeds=False)
    assert len(volume.kept()) == 2 and volume.kept()[0] == ONE, "it is the first by now"


def test_an_export_that_fills_the_volume_after_all_is_taken_away_and_the_start_goes_on(volume: Volume) -> None:
    volume.tool("litefs", f"for to; do :; done; echo part >$to; echo 9 >{volume.copies}/big.sqlite; exit 1")
    first = f"[ -e {volume.copies}/big.sqlite ] && left=1 || left=99"
    volume.tool("df", f"{first}; echo Filesystem Blocks Used Available Capacity Mounted on; echo x 9 9 $left 9% /")
    volume.start(2, succeeds=True)
    assert "WARNING: none was made, since 1 kB are free" in volume.log and volume.kept() == []
    assert not list(volume.copies.glob("*.partial"))
