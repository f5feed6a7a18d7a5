"""The folder of a LiteFS volume on its host: copying the database out of it, while LiteFS runs on it or not. I/O.

For a cluster whose API is gone: only the standard library and sqlitefile.py.
"""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

from ..telling import copy_file
from . import sqlitefile

_LTX = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.ltx")


class Copy(sqlitefile.Facts):
    """What was copied."""

    volume: str  # the folder's name
    cluster_id: str
    txid: str
    position_proven: bool


def found(storage: Path, database: str) -> list[Path]:
    """The folders in a host's storage that hold this database, in the order of their names."""
    return sorted(path.parents[2] for path in storage.glob(f"*/dbs/{database}/database"))


def newest(folder: Path, database: str) -> tuple[str, str]:
    """(TXID, checksum) of the newest transaction file: its name, and the first half of its trailer; empty for none."""
    names = [path for path in (folder / "dbs" / database / "ltx").glob("*.ltx") if _LTX.fullmatch(path.name)]
    if not names:
        return "", ""
    path = max(names, key=lambda path: path.name.split("-")[1])
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - 16, 0))
        trailer = file.read()
    checksum = f"{struct.unpack('>Q', trailer[:8])[0]:016x}" if len(trailer) == 16 else ""
    return path.name.split("-")[1].removesuffix(".ltx"), checksum


def copy(folder: Path, database: str, target: Path, tries: int = 10, pause: float = 0.3) -> Copy:
    """Copy the database of a volume's folder into one whole file; what it is.

    LiteFS may be writing to it: the copy is taken again until its checksum is that of the newest transaction file. The
    last one that is sound is kept where none is, with position_proven false.

    Raises BadFile and OSError.
    """
    problem: Exception | None = None
    best: Copy | None = None
    there, work = folder / "dbs" / database, target.with_name(target.name + ".now")
    for number in range(tries):
        if number:
            time.sleep(pause)
        before = newest(folder, database)
        try:
            for name, ending in (("database", ""), ("wal", "-wal"), ("journal", "-journal")):
                if (there / name).is_file():
                    what = f"Copy of {name} of volume {folder.name}"
                    copy_file(there / name, work.with_name(work.name + ending), what)
            sqlitefile.settle(work)
            facts = sqlitefile.verify(work)
            after = newest(folder, database)
        except (sqlitefile.BadFile, OSError) as exc:
            problem = exc
            continue
        finally:
            for ending in ("-wal", "-shm", "-journal"):
                work.with_name(work.name + ending).unlink(missing_ok=True)
        proven = facts["checksum"] == after[1] and before == after
        clusterid = folder / "clusterid"
        best = {
            **facts,
            "volume": folder.name,
            "cluster_id": clusterid.read_text().strip() if clusterid.is_file() else "",
            "txid": after[0],
            "position_proven": proven,
        }
        work.chmod(0o600)
        work.rename(target)
        if proven:
            break
    work.unlink(missing_ok=True)
    if best is None:
        raise problem or sqlitefile.BadFile("could not be copied")
    return best
