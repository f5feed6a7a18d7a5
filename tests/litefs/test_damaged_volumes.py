"""What real LiteFS does at its start with each kind of damaged or foreign volume, and what the guard says of it before.

Each kind is tried on the primary's volume while a replica with all rows waits, on a replica's while the primary runs,
and on that of a replica which is ahead of its primary; in both journal modes. LiteFS alone

    keeps     every row is on both nodes after the application's migration and one more write
    loses     rows are missing afterwards
    splits    the other node does not follow any more, or no write can be committed
    refuses   it does not start, so nothing is lost

The guard has to refuse what is lost or split, and to let through what is kept, but for what nothing proves. What LiteFS
refuses itself the guard may let through: sh does not see a wrong page, LiteFS's checksum does.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from litefs_cluster import APP, DATABASE, Cluster, Node, request, until
from test_guard_with_litefs import Pods

PAGE = 4096
BULK, SINGLE = 60, 5
ROWS = BULK + SINGLE


def folder(node: Node) -> Path:
    path: Path = node.data / "dbs" / DATABASE
    return path


def file(node: Node) -> Path:
    path: Path = folder(node) / "database"
    return path


def ltx(node: Node) -> list[Path]:
    """The transaction files, the newest last."""
    return sorted((folder(node) / "ltx").glob("*.ltx"), key=lambda path: path.name[17:])


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as target:
        target.seek(at)
        target.write(content)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def another_database(path: Path, page_size: int = PAGE) -> None:
    """A sound SQLite file with one row that nobody wrote here."""
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA page_size = {page_size}")
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("INSERT INTO records (body) VALUES ('another')")
        db.commit()


def wal_of_another(node: Node) -> None:
    """A WAL whose salts are not those of the newest transaction file."""
    header = struct.pack(">IIIIII", 0x377F0682, 3007000, PAGE, 0, 0x11111111, 0x22222222) + bytes(8)
    (folder(node) / "wal").write_bytes(header + os.urandom(PAGE + 24))


def journal_of_another(node: Node) -> None:
    """A rollback journal that is well formed: LiteFS copies its page back before it checks anything."""
    page, nonce = os.urandom(PAGE), 12345
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 1, nonce, 3, 512, PAGE)
    checksum = nonce
    for at in range(PAGE - 200, 0, -200):
        checksum = (checksum + page[at]) & 0xFFFFFFFF
    record = struct.pack(">I", 2) + page + struct.pack(">I", checksum)
    (folder(node) / "journal").write_bytes(header.ljust(512, b"\0") + record)


def close_to_others(path: Path) -> None:
    """Root without CAP_DAC_OVERRIDE, as in the pod, may not read it."""
    os.chown(path, 1000, 1000)
    path.chmod(0o700 if path.is_dir() else 0o600)


def without_ltx(damage: Callable[[Node], object]) -> Callable[[Node], None]:
    def both(node: Node) -> None:
        damage(node)
        shutil.rmtree(folder(node) / "ltx")

    return both


def rename_newest(node: Node) -> None:
    ltx(node)[-1].rename(ltx(node)[-1].with_name(f"{255:016x}-{255:016x}.ltx"))


def keep_newest(node: Node) -> None:
    for path in ltx(node)[:-1]:
        path.unlink()


def wal(node: Node) -> Path:
    """The WAL, which has all that is not in the database file yet."""
    path = folder(node) / "wal"
    assert path.stat().st_size > PAGE
    return path


@dataclass(frozen=True)
class Kind:
    """A damage, what LiteFS does on a primary's and on a replica's volume, and what the guard says of the primary's.

    ``guard`` None: it has to refuse exactly what LiteFS loses or splits. ``wal``: what LiteFS does in WAL mode on the
    primary's, where it differs. ``modes``: journal modes in which there is such a thing; ``replica`` None: not on a
    replica's, whose WAL LiteFS keeps empty.
    """

    damage: Callable[[Node], object]
    primary: str
    replica: str | None = "keeps"
    guard: str | None = None
    wal: str | None = None
    modes: tuple[str, ...] = ("delete", "wal")


KINDS = {
    "nothing": Kind(lambda node: None, "keeps"),
    # the database file
    "the first 100 bytes are zero": Kind(lambda node: overwrite(file(node), 0, bytes(100)), "loses"),
    "the magic string is zero": Kind(lambda node: overwrite(file(node), 0, bytes(16)), "loses"),
    "the first page is zero": Kind(lambda node: overwrite(file(node), 0, bytes(PAGE)), "loses"),
    "shorter than a header": Kind(lambda node: cut(file(node), 50), "loses"),
    "an encrypted file in its place": Kind(
        lambda node: file(node).write_bytes(b"age-encryption.org/v1\n" + os.urandom(40000)), "loses"
    ),
    "a compressed file in its place": Kind(
        lambda node: file(node).write_bytes(gzip.compress(file(node).read_bytes())), "loses"
    ),
    "the database is empty": Kind(lambda node: cut(file(node), 0), "refuses", "refuses", "refuses"),
    "the database is missing": Kind(lambda node: file(node).unlink(), "refuses", "refuses", "refuses"),
    "cut to half": Kind(
        lambda node: cut(file(node), file(node).stat().st_size // 2 // PAGE * PAGE), "refuses", "refuses"
    ),
    "cut within its last page": Kind(
        lambda node: cut(file(node), file(node).stat().st_size - 1000), "keeps", wal="refuses"
    ),
    "longer by less than a page": Kind(
        lambda node: file(node).write_bytes(file(node).read_bytes() + b"x" * 1000), "keeps"
    ),
    "longer by two pages": Kind(
        lambda node: file(node).write_bytes(file(node).read_bytes() + b"x" * 2 * PAGE), "keeps"
    ),
    "a page in the middle is zero": Kind(
        lambda node: overwrite(file(node), 10 * PAGE, bytes(PAGE)), "refuses", "refuses"
    ),
    "of another page size": Kind(lambda node: another_database(file(node), 1024), "refuses", "refuses", "refuses"),
    "a page size of 0": Kind(lambda node: overwrite(file(node), 16, bytes(2)), "refuses", "refuses", "refuses"),
    "a page size of 1001": Kind(
        lambda node: overwrite(file(node), 16, struct.pack(">H", 1001)), "refuses", "refuses", "refuses"
    ),
    "another sound database in its place": Kind(lambda node: another_database(file(node)), "refuses", "refuses"),
    # the transaction files
    "no transaction file": Kind(without_ltx(lambda node: None), "splits"),
    "no transaction file, another database": Kind(
        without_ltx(lambda node: another_database(file(node))), "loses", wal="splits"
    ),
    "no transaction file, a page in the middle is zero": Kind(
        without_ltx(lambda node: overwrite(file(node), 10 * PAGE, bytes(PAGE))), "splits"
    ),
    "no transaction file, of another page size": Kind(
        without_ltx(lambda node: another_database(file(node), 1024)), "loses", "refuses", wal="splits"
    ),
    "the newest transaction file is missing": Kind(lambda node: ltx(node)[-1].unlink(), "loses"),
    "the newest transaction file is cut": Kind(
        lambda node: cut(ltx(node)[-1], ltx(node)[-1].stat().st_size // 2), "refuses", "refuses"
    ),
    "the newest transaction file is empty": Kind(lambda node: cut(ltx(node)[-1], 0), "refuses", "refuses", "refuses"),
    "the newest transaction file has a higher name": Kind(rename_newest, "keeps"),
    "a gap in the transaction files": Kind(lambda node: ltx(node)[-3].unlink(), "keeps"),
    "a gap before the newest transaction file": Kind(lambda node: ltx(node)[-2].unlink(), "keeps"),
    "only the newest transaction file": Kind(keep_newest, "keeps"),
    "files of other names among them": Kind(
        lambda node: (folder(node) / "ltx" / "backup.ltx").write_bytes(b"x"), "keeps"
    ),
    # WAL and journal
    "the WAL is missing": Kind(lambda node: wal(node).unlink(), "refuses", replica=None, modes=("wal",)),
    "the WAL is empty": Kind(lambda node: cut(wal(node), 0), "refuses", replica=None, modes=("wal",)),
    "the WAL is cut in the middle": Kind(
        lambda node: cut(wal(node), wal(node).stat().st_size // 2), "refuses", replica=None, modes=("wal",)
    ),
    "the WAL is cut within its last transaction": Kind(
        lambda node: cut(wal(node), wal(node).stat().st_size - 2000), "keeps", replica=None, modes=("wal",)
    ),
    "the WAL of another database": Kind(wal_of_another, "refuses", modes=("wal",)),
    "the WAL is named wal.removed": Kind(
        lambda node: wal(node).rename(folder(node) / "wal.removed"), "refuses", replica=None, modes=("wal",)
    ),
    "the WAL and every transaction file are missing": Kind(
        without_ltx(lambda node: wal(node).unlink()), "splits", replica=None, modes=("wal",)
    ),
    "a WAL where none should be": Kind(wal_of_another, "keeps", modes=("delete",)),
    "a wal.removed beside it": Kind(lambda node: (folder(node) / "wal.removed").write_bytes(os.urandom(9000)), "keeps"),
    "a journal that is none": Kind(
        lambda node: (folder(node) / "journal").write_bytes(os.urandom(9000)), "refuses", "refuses"
    ),
    "a journal of another database": Kind(journal_of_another, "refuses", "refuses"),
    # the cluster id and the folders
    "the cluster id is missing": Kind(lambda node: (node.data / "clusterid").unlink(), "splits"),
    "the cluster id is cut": Kind(
        lambda node: (node.data / "clusterid").write_text("LFSC0123"), "refuses", "refuses", "refuses"
    ),
    "the cluster id is empty": Kind(
        lambda node: (node.data / "clusterid").write_text(""), "refuses", "refuses", "refuses"
    ),
    "another cluster id": Kind(
        lambda node: (node.data / "clusterid").write_text("LFSC0123456789ABCDEF\n"), "splits", "refuses"
    ),
    "nothing but the cluster id": Kind(lambda node: shutil.rmtree(node.data / "dbs"), "loses"),
    "an empty volume": Kind(Node.empty_volume, "splits"),
    "a file among the databases": Kind(
        lambda node: (node.data / "dbs" / "backup.sqlite").write_bytes(b"x"), "refuses", "refuses"
    ),
    "a copy of the folder among the databases": Kind(
        lambda node: shutil.copytree(folder(node), node.data / "dbs" / "copy"), "keeps"
    ),
    # another owner
    "the database belongs to another user": Kind(
        lambda node: close_to_others(file(node)), "refuses", "refuses", "refuses"
    ),
    "the folder belongs to another user": Kind(
        lambda node: close_to_others(node.data / "dbs"), "refuses", "refuses", "refuses"
    ),
    "the cluster id belongs to another user": Kind(
        lambda node: close_to_others(node.data / "clusterid"), "refuses", "refuses", "refuses"
    ),
}
AHEAD = {
    "nothing": "loses",
    "the first 100 bytes are zero": "loses",
    "no transaction file": "loses",
    "the cluster id is missing": "loses",
    "another cluster id": "refuses",
    "a page in the middle is zero": "refuses",
}
"""Kinds on the volume of a replica with a row that the running primary lacks, and what LiteFS does."""


@dataclass
class Volumes:
    """Two nodes that are stopped, and their volumes as a kill left them; `older` is the primary's, one row before."""

    cluster: Cluster
    pods: Pods
    kept: Path
    cluster_id: str
    txid: str

    @property
    def primary(self) -> Node:
        return self.cluster.primary

    @property
    def replica(self) -> Node:
        return self.cluster.replicas[0]

    def fresh(self, primary: str = "abaci-app-0") -> None:
        for node in self.cluster.nodes:
            node.kill()
            node.unmount()
        self.primary.copy_volume(self.kept / primary)
        self.replica.copy_volume(self.kept / self.replica.name)
        self.pods.record("recorded", self.cluster_id)
        (self.pods.identity / "lowWaterTXID").unlink(missing_ok=True)

    def guarded(self, node: Node, alone: bool = False) -> str:
        """Whether the guard lets this node start; `alone`: no pod answers, and the record has the low-water mark."""
        self.pods.listed = [node] if alone else list(self.cluster.nodes)
        if alone:
            (self.pods.identity / "lowWaterTXID").write_text(self.txid)
        code, _ = self.pods.ask(node)
        return "starts" if code == 0 else "refuses"


def least(binary: Path, root: Path) -> Path:
    """LiteFS with the capabilities that it has in its container."""
    script = root / "litefs"
    script.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-all,+sys_admin --inh-caps=-all {binary} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


@pytest.fixture(scope="module", params=["delete", "wal"])
def volumes(
    request: pytest.FixtureRequest, litefs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Volumes]:
    root = tmp_path_factory.mktemp("volumes")
    cluster = Cluster(least(litefs, root), root, 2).on_one_port()
    try:
        yield _made(cluster, request.param, root)
    finally:
        cluster.close()


def _made(cluster: Cluster, mode: str, root: Path) -> Volumes:
    cluster.start()
    primary = cluster.primary
    primary.create(mode, rows=0)
    with primary.database() as db:
        db.execute("BEGIN")
        for number in range(BULK):
            db.execute("INSERT INTO records (body) VALUES (?)", (f"bulk {number} {'x' * 2000}",))
        db.execute("COMMIT")
    cluster.wait_replicated()
    # In WAL mode the last connection that closes empties the WAL: these end without closing.
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(len(list(c.execute('SELECT 1 FROM records'))))"
    holders = [
        subprocess.Popen(
            [sys.executable, "-uc", f"{hold}; sys.stdin.read()", node.mount / DATABASE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for node in cluster.nodes
    ]
    for holder in holders:
        assert holder.stdout and holder.stdout.readline().strip() == b"60"
    primary.insert(*(f"single {number}" for number in range(SINGLE - 1)))
    cluster.wait_replicated()
    shutil.copytree(primary.data, root / "kept" / "older")
    primary.insert("the last")
    cluster.wait_replicated()
    cluster_id, txid = primary.cluster_id(), primary.position()[0]
    for holder in holders:
        holder.kill()
        holder.communicate()
    for node in cluster.nodes:
        node.kill()
        node.unmount()
        shutil.copytree(node.data, root / "kept" / node.name)
    return Volumes(cluster, Pods(cluster, root), root / "kept", cluster_id, txid)


def launched(node: Node, seconds: float = 6) -> bool:
    """Start LiteFS; whether it becomes ready."""
    node.launch()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert node.process
        if node.process.poll() is not None:
            return False
        with contextlib.suppress(OSError, ValueError):
            if request(node.proxy, "GET", "/litefs/health").status == 200:
                return True
        if "with a different cluster id" in node.log():
            return False
        time.sleep(0.05)
    return False


def content(node: Node) -> dict[str, bytes]:
    """What is on the volume, but for the file in which the guard keeps its finding."""
    files = [path for path in node.data.rglob("*") if path.is_file() and path.name != "ahead"]
    return {str(path): path.read_bytes() for path in files}


def rows(node: Node) -> int:
    """How many of the rows that were there before are there; -1: none can be read."""
    with contextlib.suppress(sqlite3.Error):
        return sum(body.startswith(("bulk", "single", "the last")) for body in node.bodies())
    return -1


def follows(replica: Node, primary: Node) -> bool:
    """Whether the replica comes to the primary's position."""
    with contextlib.suppress(AssertionError):
        until(lambda: replica.position() == primary.position(), 3)
        return True
    return False


def outcome(volumes: Volumes, node: Node) -> str:
    """What LiteFS does on this node while the other one runs already."""
    if not launched(node):
        return "refuses"
    primary, replica = volumes.primary, volumes.replica
    env = {"DATABASE_URL": str(primary.mount / DATABASE)}
    subprocess.run([sys.executable, APP / "migrate.py"], env=env, check=False, capture_output=True, timeout=20)
    with contextlib.suppress(sqlite3.Error):
        primary.insert("afterwards")
    if follows(replica, primary):
        return "keeps" if rows(primary) == rows(replica) == ROWS else "loses"
    return "splits" if rows(replica) == ROWS else "loses"


CASES = [(mode, name) for mode in ("delete", "wal") for name in KINDS if mode in KINDS[name].modes]


@pytest.mark.parametrize(("volumes", "name"), CASES, indirect=["volumes"])
def test_on_the_primarys_volume(
    volumes: Volumes, name: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    kind, primary, replica = KINDS[name], volumes.primary, volumes.replica
    volumes.fresh()
    kind.damage(primary)
    replica.launch()
    replica.wait_up()
    said, alone = volumes.guarded(primary), volumes.guarded(primary, alone=True)
    before = rows(replica)
    did = outcome(volumes, primary)
    record_property("volume", f"primary {did} {said}")
    record_property("lost", ROWS - (before if said == "refuses" else rows(replica)))
    assert before == ROWS
    in_wal_mode = request.node.callspec.params["volumes"] == "wal"
    assert did == ((in_wal_mode and kind.wal) or kind.primary), primary.log()
    expected = kind.guard or ("refuses" if did in ("loses", "splits") else "starts")
    assert (said, alone) == (expected, expected)
    if did == "refuses":
        assert rows(replica) == ROWS


@pytest.mark.parametrize(
    ("volumes", "name"), [(mode, name) for mode, name in CASES if KINDS[name].replica], indirect=["volumes"]
)
def test_on_a_replicas_volume(volumes: Volumes, name: str, record_property: Callable[[str, object], None]) -> None:
    """Whatever it holds, the primary has it: fenced is only what nothing tells the position of, or the content."""
    kind, primary, replica = KINDS[name], volumes.primary, volumes.replica
    volumes.fresh()
    kind.damage(replica)
    primary.start()
    said = volumes.guarded(replica)
    did = outcome(volumes, replica)
    record_property("volume", f"replica {did} {said}")
    record_property("lost", ROWS - rows(primary))
    assert did == kind.replica, replica.log()
    unknown = name.startswith(
        ("no transaction file", "the newest transaction file is cut", "the newest transaction file is empty")
    )
    closed = "belongs to another user" in name
    assert said == ("refuses" if unknown or closed else "starts")
    assert rows(primary) == ROWS


@pytest.mark.parametrize(
    ("volumes", "name"),
    [(mode, name) for mode in ("delete", "wal") for name in AHEAD],
    indirect=["volumes"],
)
def test_on_the_volume_of_a_replica_that_is_ahead(
    volumes: Volumes, name: str, record_property: Callable[[str, object], None]
) -> None:
    primary, replica = volumes.primary, volumes.replica
    volumes.fresh(primary="older")
    KINDS[name].damage(replica)
    primary.start()
    assert rows(primary) == ROWS - 1
    before = content(replica)
    said = volumes.guarded(replica)
    untouched = content(replica) == before
    did = outcome(volumes, replica)
    record_property("volume", f"ahead {did} {said}")
    record_property("lost", 0 if untouched and (said == "refuses" or did == "refuses") else 1)
    assert untouched
    assert did == AHEAD[name], replica.log()
    if did == "loses":
        assert said == "refuses"
