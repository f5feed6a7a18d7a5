"""The identity guard (roles/app/files/guard.sh) under busybox's sh, with peers that answer as LiteFS's port 20202."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import socketserver
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.guard import Exit

GUARD = Path(__file__).resolve().parents[2] / "roles/app/files/guard.sh"
RUNBOOK = "docs/runbooks/primary-refused.md"
OURS = "LFSC0123456789ABCDEF"
OTHER = "LFSCFEDCBA9876543210"
SERVICE = "abaci-app-headless.abaci.svc.cluster.local"
ARCHIVE = "abaci-app-archive.abaci.svc.cluster.local"
SELF = "127.0.0.1"
DATABASE = "sqlite.db"


def header(page_size: int = 4096, start: bytes = b"SQLite format 3\0") -> bytes:
    """The first bytes of a database file."""
    return start + struct.pack(">H", page_size) + bytes(82)


# As in the pod: root that has dropped every capability.
WITHOUT = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
WHOLE = header() + bytes(3996)


def ltx(last: int, page_size: int = 4096, commit: int = 1, checksum: str = "f" * 16) -> bytes:
    """A transaction file as far as the guard reads it: header, a page, and a trailer with the checksum after it."""
    begins = struct.pack(">4sIIIQQ", b"LTX1", 0, page_size, commit, last, last)
    return begins.ljust(100, b"\0") + bytes(50) + bytes.fromhex(checksum) + bytes(8)


@dataclass
class Peer:
    """What a pod's LiteFS says; ``silent`` accepts the connection and never answers."""

    cluster_id: str | None = None
    primary: bool = False
    txid: str | None = None
    database: str = DATABASE
    checksum: str = "f" * 16
    beside: str = "e" * 16  # the TXID of zlast.db
    silent: bool = False
    broken: bool = False
    heard: str = ""  # of an archive: until when it heard a primary
    given_up: str | None = ""  # and what the record said then of what was given up
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> bytes | None:
        self.asked.append(path)
        if self.broken:
            return b"<html>not LiteFS</html>"
        if path == "/info":
            info: dict[str, Any] = {
                "isPrimary": self.primary,
                "candidate": self.primary,
                "path": "/var/lib/litefs",
                "primary": {"hostname": "abaci-app-0"},
            }
            if self.cluster_id:
                info = {"clusterID": self.cluster_id, **info}
            if self.heard:
                info |= {"heard": self.heard} | ({} if self.given_up is None else {"givenUp": self.given_up})
            return json.dumps(info, indent=2).encode() + b"\n"  # as LiteFS does: indented
        if path == "/debug/vars":
            databases: dict[str, Any] = {}
            if self.txid is not None:
                position = {"txid": self.txid, "checksum": self.checksum, "locks": {"pending": "unlocked"}}
                databases["before.db"] = {"name": "before.db", **position, "txid": "0" * 15 + "1"}
                databases[self.database] = {"name": self.database, **position}
                databases["zlast.db"] = {"name": "zlast.db", **position, "txid": self.beside}
            store = {"isPrimary": self.primary, "candidate": False, "dbs": databases}
            parts = {"cmdline": ["litefs", "mount"], "memstats": {"BySize": [0] * 500}, "store": store}
            return (
                b"{\n"
                + b",\n".join(
                    json.dumps(key).encode() + b": " + json.dumps(value, separators=(",", ":")).encode()
                    for key, value in parts.items()
                )
                + b"\n}\n"
            )
        return None


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    peer: Peer


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.peer.silent:
            time.sleep(30)
            return
        body = self.server.peer.answer(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        del format, args


class Opening(Peer):
    """A LiteFS that has its database's name before it has its TXID."""

    def answer(self, path: str) -> bytes | None:
        body = super().answer(path)
        if path == "/debug/vars" and self.asked.count(path) > 2:
            self.txid = txid(9)
        return body


@dataclass
class Outcome:
    """How a run of the guard ended; ``took`` in seconds."""

    code: int
    log: str
    termination: str
    took: float


class Pod:
    """A pod's view: its volume, the record mounted into it, DNS, and the peers."""

    def __init__(self, folder: Path) -> None:
        self.volume = folder / "volume"
        self.identity = folder / "identity"
        self.dns_reply = folder / "dns"
        self.termination = folder / "termination-log"
        for made in (self.volume, self.identity):
            made.mkdir()
        self.termination.touch()
        self.busybox = folder / "busybox"
        self.busybox.write_text(
            '#!/bin/sh\n[ "$1" = nslookup ] || exec busybox "$@"\n'
            f"case $3 in *-archive.*) cat {folder}/archive; exit ;; esac\n"
            f'echo "$*" >>{folder}/questions\ncat {self.dns_reply}\n'
        )
        self.busybox.chmod(self.busybox.stat().st_mode | stat.S_IXUSR)
        self.questions = folder / "questions"
        self.archive_reply = folder / "archive"
        self.archive_reply.write_text(f"** server can't find {ARCHIVE}: NXDOMAIN\n")
        self.archive_port = 1
        with socket.socket() as probe:
            probe.bind((SELF, 0))
            self.port: int = probe.getsockname()[1]
        self.servers: list[Server] = []
        self.patience = 1
        self.settle = 0
        self.capabilities = True
        self.cold = 0
        self.litefs_config = folder / "litefs.yml"
        self.name = "abaci-app-0"
        self.dns([SELF])

    def record(self, state: str = "recorded", cluster_id: str | None = OURS, ordinal: str = "0") -> Pod:
        (self.identity / "state").write_text(state)
        (self.identity / "primaryOrdinal").write_text(ordinal)
        if cluster_id is not None and state == "recorded":
            (self.identity / "clusterID").write_text(cluster_id)
        return self

    def holds(self, cluster_id: str | None = OURS, *last: int, database: bytes | None = WHOLE) -> Pod:
        """Fill the volume: the cluster id, LTX files that end at these TXIDs, the database file (None: none)."""
        if cluster_id is not None:
            (self.volume / "clusterid").write_text(cluster_id + "\n")
        if database is not None:
            self.has(DATABASE, *last, database=database)
        return self

    def has(self, name: str, *last: int, database: bytes = WHOLE) -> Pod:
        """A database of this name, with LTX files."""
        folder = self.volume / "dbs" / name
        (folder / "ltx").mkdir(parents=True, exist_ok=True)
        (folder / "database").write_bytes(database)
        for number in last:
            (folder / "ltx" / ltx_name(number)).write_bytes(ltx(number))
        return self

    @property
    def newest(self) -> Path:
        """The newest LTX file."""
        return max((self.volume / "dbs" / DATABASE / "ltx").iterdir(), key=lambda path: path.name[17:])

    def rendered(self, candidate: int | str, hostname: int | None = None) -> Pod:
        """litefs.yml as the role renders it."""
        name = self.name.rpartition("-")[0]
        named = candidate if hostname is None else hostname
        whole = isinstance(candidate, int) or candidate.startswith("archive-")
        expression = f'${{POD_NAME == "{name}-{candidate}"}}' if whole else candidate
        text = f"lease:\n  type: static\n  candidate: {expression}\n  hostname: {name}-{named}\n"
        new = self.litefs_config.with_suffix(".new")
        new.write_text(text)
        new.rename(self.litefs_config)
        return self

    def dns(self, addresses: list[str], failure: str | None = None) -> None:
        """What DNS answers from now on, in busybox nslookup's words."""
        text = "Server:\t\t10.43.0.10\nAddress:\t10.43.0.10:53\n\n"
        if failure == "timeout":
            text = ";; connection timed out; no servers could be reached\n\n"
        elif failure:
            text += f"** server can't find {SERVICE}: {failure}\n\n"
        else:
            text += "".join(f"Name:\t{SERVICE}\nAddress: {address}\n" for address in addresses) + "\n"
        replacement = self.dns_reply.with_suffix(".new")
        replacement.write_text(text)
        replacement.rename(self.dns_reply)

    def peer(self, address: str, peer: Peer, listed: bool = True) -> Pod:
        server = Server((address, self.port), Handler)
        server.peer = peer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        if listed:
            self.dns(
                [SELF, *(str(one.server_address[0]) for one in self.servers if one.server_address[1] == self.port)]
            )
        return self

    def archive(self, peer: Peer) -> Pod:
        """An archive that answers this."""
        server = Server(("127.0.0.9", 0), Handler)
        server.peer = peer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        self.archive_port = server.server_address[1]
        self.archive_reply.write_text(f"Server:\t10.43.0.10\n\nName:\t{ARCHIVE}\nAddress: 127.0.0.9\n")
        return self

    def run(self, timeout: float = 25) -> Outcome:
        env = {
            "PATH": os.environ["PATH"],
            "POD_NAME": self.name,
            "POD_IP": SELF,
            "GUARD_SERVICE": SERVICE,
            "GUARD_PORT": str(self.port),
            "GUARD_ARCHIVE_PORT": str(self.archive_port),
            "GUARD_DATABASE": DATABASE,
            "GUARD_DATA_DIR": str(self.volume),
            "GUARD_IDENTITY_DIR": str(self.identity),
            "GUARD_RECORD": "abaci-app-litefs-identity",
            "GUARD_PATIENCE": str(self.patience),
            "GUARD_SETTLE": str(self.settle),
            "GUARD_COLD": str(self.cold),
            "GUARD_LITEFS_CONFIG": str(self.litefs_config),
            "GUARD_TERMINATION_LOG": str(self.termination),
            "GUARD_BUSYBOX": str(self.busybox),
        }
        began = time.monotonic()
        done = subprocess.run(
            [*([] if self.capabilities else WITHOUT), "busybox", "sh", str(GUARD)],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stderr, self.termination.read_text(), time.monotonic() - began)

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    assert shutil.which("busybox"), "busybox is not installed: apt-get install busybox"
    made = Pod(tmp_path)
    yield made
    made.close()


def ltx_name(last: int, first: int | None = None) -> str:
    return f"{last if first is None else first:016x}-{last:016x}.ltx"


def txid(number: int) -> str:
    return f"{number:016x}"


def archive(last: int, cluster: str = OURS, **more: Any) -> Peer:
    """What an archive answers that has so many transactions."""
    return Peer(cluster, txid=txid(last), heard="2026-01-01T12:00:00Z", **{"beside": txid(1), **more})


def given_up(pod: Pod, when: str) -> Pod:
    (pod.identity / "archiveGivenUpTime").write_text(when)
    return pod


def bringing(pod: Pod, until: str = txid(9), fenced: str = "1") -> Pod:
    """promote.yml, killed while it brings back what the archive has; it ended where its old primary is not fenced."""
    known = {"from": 1, "fenced": [], "planned": False, "equal": False, "archive": until, "also": {}}
    (pod.identity / "promote").write_text(json.dumps(known))
    return hold(pod, fenced)


LISTENER = "127.0.0.2"
SECOND = "127.0.0.3"

STARTS: dict[str, Callable[[Pod], Pod]] = {
    "replica without a record": lambda pod: rename(pod, 1).rendered(0),
    "replica on an empty volume": lambda pod: rename(pod, 2).record(),
    "replica on a foreign volume (LiteFS refuses it itself)": lambda pod: rename(pod, 2).record().holds(OTHER),
    "pod-0 is a replica after a promote": lambda pod: pod.record(ordinal="2"),
    "bootstrap, empty volume, alone": lambda pod: pod.record("bootstrap"),
    "bootstrap, empty volume, peers without a cluster": lambda pod: pod.record("bootstrap").peer(LISTENER, Peer()),
    "bootstrap on its own volume (a first run that died)": lambda pod: (
        pod.record("bootstrap").holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(7)))
    ),
    "recorded, alone": lambda pod: pod.record().holds(OURS, 7),
    "recorded, peers at the same TXID": lambda pod: (
        pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(7))).peer(SECOND, Peer(OURS, txid=txid(7)))
    ),
    "recorded, peer behind": lambda pod: pod.record().holds(OURS, 16).peer(LISTENER, Peer(OURS, txid=txid(9))),
    "recorded, peer of another cluster ahead (its TXIDs do not compare)": lambda pod: (
        pod.record().holds(OURS, 7).peer(LISTENER, Peer(OTHER, txid=txid(900)))
    ),
    "recorded, peer without the database": lambda pod: pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS)),
    "recorded, peer ahead in another database only": lambda pod: (
        pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(900), database="sqliteXdb"))
    ),
    "the highest of many LTX files counts": lambda pod: (
        pod.record().holds(OURS, 3, 255, 254).peer(LISTENER, Peer(OURS, txid=txid(255)))
    ),
    "not among those fenced": lambda pod: hold(rename(pod.record(ordinal="1"), 2), "0,12,22"),
    "a restore, on an empty volume": lambda pod: pod.record("restore"),
    "a restore, on a foreign volume that a peer is ahead of": lambda pod: (
        pod.record("restore").holds(OTHER, 3).peer(LISTENER, Peer(OTHER, txid=txid(9)))
    ),
    "the archive has as much": lambda pod: pod.record().holds(OURS, 7).archive(archive(7)),
    "the archive has more of another cluster": lambda pod: pod.record().holds(OURS, 7).archive(archive(9, OTHER)),
    "the archive has more of another database, which the volume has not": lambda pod: (
        pod.record().holds(OURS, 7).archive(archive(7, beside=txid(9)))
    ),
    "the archive has more, and that was given up": lambda pod: given_up(
        pod.record().holds(OURS, 7).archive(archive(9)), "2026-01-01T12:00:00Z"
    ),
    "the archive has more, that was given up, and its clock is ahead": lambda pod: given_up(
        pod.record().holds(OURS, 7).archive(archive(9, given_up="2025-01-01T00:00:00Z")), "2026-01-01T11:00:00Z"
    ),
    "the archive does not answer": lambda pod: pod.record().holds(OURS, 7).archive(Peer(silent=True)),
    "the archive answers something else": lambda pod: pod.record().holds(OURS, 7).archive(Peer(broken=True)),
    "the archive is of no interest to a restore": lambda pod: pod.record("restore").holds(OURS, 7).archive(archive(9)),
    "the archive is of no interest to a replica": lambda pod: follower(
        pod, 7, Peer(OURS, primary=True, txid=txid(7))
    ).archive(archive(9)),
    "it is brought back what the archive has more": lambda pod: (
        pod.record().holds(OURS, 7).rendered("archive-0", None).archive(archive(9))
    ),
    "it is brought back, says the record": lambda pod: bringing(
        pod.record().holds(OURS, 7).rendered("archive-0", None)
    ),
    "it was brought back": lambda pod: bringing(pod.record().holds(OURS, 7).rendered(0), ""),
    "a replica while another one gets it": lambda pod: rename(
        bringing(pod.record().holds(OURS, 7).rendered("archive-0", None)), 2
    ),
    "a restore over it": lambda pod: bringing(pod.record("restore").holds(OURS, 7).rendered(0)),
    "ordinal moved by the record": lambda pod: rename(pod.record(ordinal="1").holds(OURS, 7), 1),
}


STARTS |= {
    "what a promote that came to its end left in the record": lambda pod: bringing(
        pod.record().holds(OURS, 7).rendered(0), fenced="2"
    ),
    "at the low-water mark": lambda pod: low_water(pod.record().holds(OURS, 7), txid(7)),
    "the low-water mark is of no interest to a restore": lambda pod: low_water(pod.record("restore"), txid(9)),
    "litefs.yml names the same ordinal": lambda pod: pod.record().holds(OURS, 7).rendered(0),
    "litefs.yml names the same ordinal, of a replica": lambda pod: rename(pod.record(ordinal="2"), 1).rendered(2),
    "an odd length of the database file, which LiteFS takes": lambda pod: pod.record().holds(
        OURS, 7, database=WHOLE + b"x" * 1000
    ),
    "pages of 65536 bytes": lambda pod: large_pages(pod.record().holds(OURS, 7)),
    "a gap in the transaction files, which LiteFS takes": lambda pod: pod.record().holds(OURS, 1, 2, 5, 7),
    "a wal.removed that was left behind": lambda pod: leave(pod.record().holds(OURS, 7), "wal.removed"),
    "another database, as whole": lambda pod: pod.record().holds(OURS, 7).has("other.db", 3),
    "another database without content": lambda pod: pod.record().holds(OURS, 7).has("other.db", database=b""),
    "another database, of which peers have no more": lambda pod: (
        pod.record().holds(OURS, 7).has("zlast.db", 3).peer(LISTENER, Peer(OURS, txid=txid(7), beside=txid(3)))
    ),
    "replica at the primary's TXID": lambda pod: follower(pod, 7, Peer(OURS, primary=True, txid=txid(7))),
    "replica behind the primary": lambda pod: follower(pod, 7, Peer(OURS, primary=True, txid=txid(9))),
    "replica ahead of another replica": lambda pod: follower(pod, 7, Peer(OURS, txid=txid(5))),
    "replica that no primary answers": lambda pod: follower(pod, 7, Peer(silent=True)),
    "replica ahead, of a cluster that LiteFS refuses itself": lambda pod: (
        rename(pod.record(), 1).holds(OTHER, 9).peer(LISTENER, Peer(OURS, primary=True, txid=txid(7)))
    ),
    "replica ahead, and the primary is of another cluster": lambda pod: follower(
        pod, 9, Peer(OTHER, primary=True, txid=txid(7))
    ),
    "replica whose primary lacks the database, which LiteFS leaves alone": lambda pod: follower(
        pod, 9, Peer(OURS, primary=True)
    ),
    "replica whose damaged copy is not ahead": lambda pod: (
        rename(pod.record(), 1)
        .holds(OURS, 7, database=bytes(4096))
        .peer(LISTENER, Peer(OURS, primary=True, txid=txid(7)))
    ),
    "replica ahead, into which a backup is being restored": lambda pod: (
        rename(pod.record("restore"), 1).holds(OURS, 9).peer(LISTENER, Peer(OURS, primary=True, txid=txid(1)))
    ),
    "replica that was seen ahead and has moved on since": lambda pod: ahead(
        follower(pod, 9, Peer(OURS, primary=True, txid=txid(9))), txid(8)
    ),
}


def follower(pod: Pod, last: int, peer: Peer) -> Pod:
    """A replica of our cluster with data that ends at this TXID, and one peer."""
    return rename(pod.record(), 1).holds(OURS, last).peer(LISTENER, peer)


def low_water(pod: Pod, mark: str) -> Pod:
    (pod.identity / "lowWaterTXID").write_text(mark)
    (pod.identity / "lowWaterTime").write_text("2026-01-01T00:00:00Z")
    return pod


def ahead(pod: Pod, seen: str) -> Pod:
    (pod.volume / "ahead").write_text(seen + "\n")
    return pod


def leave(pod: Pod, name: str) -> Pod:
    (pod.volume / "dbs" / DATABASE / name).write_bytes(b"x" * 99)
    return pod


def large_pages(pod: Pod) -> Pod:
    (pod.volume / "dbs" / DATABASE / "database").write_bytes(header(1) + bytes(65436))
    pod.newest.write_bytes(ltx(7, page_size=65536))
    return pod


def newest(pod: Pod, content: bytes) -> Pod:
    pod.newest.write_bytes(content)
    return pod


def closed(pod: Pod, path: str) -> Pod:
    """Nobody may read it; the tests run as root, so the guard runs without root's own right to read all."""
    (pod.volume / path).chmod(0)
    os.chown(pod.volume / path, 1000, 1000)
    pod.capabilities = False
    return pod


def hold(pod: Pod, ordinals: str) -> Pod:
    (pod.identity / "fencedOrdinals").write_text(ordinals)
    return pod


def rename(pod: Pod, ordinal: int) -> Pod:
    pod.name = f"abaci-app-{ordinal}"
    return pod


def called(pod: Pod, application: str) -> Pod:
    pod.name = f"{application}-0"
    return pod


# What each exit code is said with; the first that fits.
WORDS = (
    ("is fenced: ordinal", Exit.FENCED),
    ("is fenced: its volume", Exit.AHEAD),
    ("tries again by itself", Exit.NOT_NOW),
    ("cannot be read by LiteFS's user", Exit.UNREADABLE),
    ("its volume ends at TXID", Exit.OLDER),
    ("its volume holds no cluster id, and the record", Exit.NO_CLUSTER_ID),
    ("the record ConfigMap", Exit.RECORD),
    ("no record ConfigMap", Exit.RECORD),
    ("", Exit.EMPTY),
)


def code_of(termination: str) -> int:
    return next(code for words, code in WORDS if words in termination)


@pytest.mark.parametrize("arrange", STARTS.values(), ids=STARTS.keys())
def test_starts(pod: Pod, arrange: Callable[[Pod], Pod]) -> None:
    outcome = arrange(pod).run()
    assert outcome.code == 0, outcome.log
    assert outcome.termination == ""


HEARD = "the archive, which heard a primary of this cluster until 2026-01-01T12:00:00Z, has TXID"
REFUSALS: dict[str, tuple[Callable[[Pod], Pod], str]] = {
    "the archive has more": (
        lambda pod: pod.record().holds(OURS, 7).archive(archive(8)),
        f"its volume ends at TXID {txid(7)} of {DATABASE}, and {HEARD} {txid(8)}",
    ),
    "the archive has more, of an application that is called so": (
        lambda pod: called(pod, "shop-archive").record().holds(OURS, 7).rendered(0).archive(archive(8)),
        HEARD,
    ),
    "the archive has more than any peer": (
        lambda pod: pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(7))).archive(archive(8)),
        HEARD,
    ),
    "the archive has more, and the way to it is named": (
        lambda pod: pod.record().holds(OURS, 7).archive(archive(8)),
        "would lose what came after: ansible-playbook playbooks/promote.yml makes a replica primary and brings",
    ),
    "the archive has more, and is of before it noted what was given up": (
        lambda pod: pod.record().holds(OURS, 7).archive(archive(8, given_up=None)),
        HEARD,
    ),
    "the archive has more of another database": (
        lambda pod: pod.record().holds(OURS, 7).has("zlast.db", 3).archive(archive(7, beside=txid(4))),
        f"its volume ends at TXID {txid(3)} of zlast.db, and {HEARD} {txid(4)}",
    ),
    "the archive has more of after what was given up": (
        lambda pod: given_up(
            pod.record().holds(OURS, 7).archive(archive(8, given_up="2026-01-01T11:59:59Z")), "2026-01-01T11:59:59Z"
        ),
        HEARD,
    ),
    "the archive has more of after what was given up, and its clock is behind": (
        lambda pod: given_up(
            pod.record().holds(OURS, 7).archive(archive(8, given_up="2026-01-01T13:00:00Z")), "2026-01-01T13:00:00Z"
        ),
        HEARD,
    ),
    "what the archive has more is not there yet, and it is away (a promote was killed)": (
        lambda pod: bringing(pod.record().holds(OURS, 7).rendered(0)),
        "what the archive has more is to be brought back first: run ansible-playbook playbooks/promote.yml again",
    ),
    "what the archive has more is not there yet, of a pod that is shown no litefs.yml": (
        lambda pod: bringing(pod.record().holds(OURS, 7)),
        "what the archive has more is to be brought back first",
    ),
    "no record": (lambda pod: pod, "there is no record ConfigMap abaci-app-litefs-identity"),
    "no record, although the volume has data": (lambda pod: pod.holds(OURS, 7), "there is no record"),
    "recorded, empty volume (hazard 2: LiteFS would serve an empty database)": (
        lambda pod: pod.record(),
        f"its volume is empty, and the record says that this site has the data of cluster {OURS}",
    ),
    "recorded, foreign volume (hazard 3)": (
        lambda pod: pod.record().holds(OTHER, 7),
        f"its volume holds {OTHER}, and the record says that this site's cluster is {OURS}",
    ),
    "recorded, the cluster id is lost": (
        lambda pod: pod.record().holds(None, 7),
        "its volume holds no cluster id",
    ),
    "recorded, no database (hazard 4: a clusterid file alone proves nothing)": (
        lambda pod: pod.record().holds(OURS, database=None),
        f"has the cluster id {OURS} but no database sqlite.db",
    ),
    "recorded, an empty database file": (lambda pod: pod.record().holds(OURS, database=b""), "no database sqlite.db"),
    "recorded, stale volume (hazard 5: replicas would be rolled back)": (
        lambda pod: pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(8))),
        f"ends at TXID {txid(7)} of sqlite.db, and the pod at {LISTENER} has TXID {txid(8)}",
    ),
    "stale, TXIDs compare as hexadecimal": (
        lambda pod: pod.record().holds(OURS, 0x99).peer(LISTENER, Peer(OURS, txid=txid(0xA1).upper())),
        f"has TXID {txid(0xA1)}",
    ),
    "stale against the second of two peers": (
        lambda pod: (
            pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(7))).peer(SECOND, Peer(OURS, txid=txid(9)))
        ),
        f"the pod at {SECOND} has TXID {txid(9)}",
    ),
    "a database without LTX files": (
        lambda pod: pod.record().holds(OURS).peer(LISTENER, Peer(OURS, txid=txid(1))),
        "its database sqlite.db has no transaction file (folder ltx): nothing proves what it is",
    ),
    "bootstrap, empty volume, but a peer holds a cluster": (
        lambda pod: pod.record("bootstrap").peer(LISTENER, Peer(OTHER, txid=txid(3))),
        f"its volume holds no cluster, and the pod at {LISTENER} already holds cluster {OTHER}",
    ),
    "bootstrap, own volume, but a peer holds another cluster": (
        lambda pod: pod.record("bootstrap").holds(OURS, 7).peer(LISTENER, Peer()).peer(SECOND, Peer(OTHER)),
        f"its volume holds {OURS}, and the pod at {SECOND} already holds cluster {OTHER}",
    ),
    "bootstrap, a database without an id, and a peer holds a cluster": (
        lambda pod: pod.record("bootstrap").holds(None, 7).peer(LISTENER, Peer(OTHER, txid=txid(3))),
        f"already holds cluster {OTHER}",
    ),
    "bootstrap, own volume older than a peer's": (
        lambda pod: pod.record("bootstrap").holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(8))),
        "would roll every replica back",
    ),
    "fenced: an old primary that returns after a promote (its tail is only here)": (
        lambda pod: hold(pod.record(ordinal="1").holds(OURS, 9), "0"),
        "is fenced: ordinal 1 is the primary now",
    ),
    "fenced among others": (
        lambda pod: hold(rename(pod.record(ordinal="1").holds(OURS, 9), 12), "0,12"),
        "abaci-app-12 is fenced",
    ),
    "the header is zeroed: LiteFS would delete the database and empty the replicas": (
        lambda pod: pod.record().holds(OURS, 7, database=bytes(8192)).peer(LISTENER, Peer(OURS, txid=txid(7))),
        "the file of its database sqlite.db is no SQLite database (any more)",
    ),
    "shorter than a header": (
        lambda pod: pod.record().holds(OURS, 7, database=header()[:99]),
        "the file of its database sqlite.db is no SQLite database (any more)",
    ),
    "bootstrap, but a file that is no database": (
        lambda pod: pod.record("bootstrap").holds(OURS, 7, database=b"x" * 4096),
        "is no SQLite database (any more)",
    ),
    "another database beside it is no database": (
        lambda pod: pod.record().holds(OURS, 7).has("other.db", 3, database=bytes(4096)),
        "the file of its database other.db is no SQLite database (any more)",
    ),
    "another database beside it is older than a peer's": (
        lambda pod: pod.record().holds(OURS, 7).has("zlast.db", 3).peer(LISTENER, Peer(OURS, txid=txid(7))),
        f"ends at TXID {txid(3)} of zlast.db, and the pod at {LISTENER} has TXID {'e' * 16}",
    ),
    "a page size that no database has": (
        lambda pod: pod.record().holds(OURS, 7, database=header(1001) + bytes(4000)),
        "the header of its database sqlite.db is damaged: it says a page size of 1001",
    ),
    "a database of another page size in its place": (
        lambda pod: pod.record().holds(OURS, 7, database=header(1024) + bytes(4000)),
        "has pages of 1024 bytes and the newest transaction has pages of 4096: another file stands in its place",
    ),
    "the newest transaction file is cut": (
        lambda pod: newest(pod.record().holds(OURS, 6, 7), b"LTX1"),
        f"the newest transaction file of its database sqlite.db, {txid(7)}-{txid(7)}.ltx, is cut or damaged",
    ),
    "the newest transaction file is no such file": (
        lambda pod: newest(pod.record().holds(OURS, 7), bytes(200)),
        "is cut or damaged",
    ),
    "the newest transaction drops the database": (
        lambda pod: newest(pod.record().holds(OURS, 7), ltx(7, commit=0)),
        "the newest transaction of its database sqlite.db drops it",
    ),
    "a transaction file with a higher name: LiteFS goes by what stands in it": (
        lambda pod: newest(pod.record().holds(OURS, 7, 200), ltx(7)).peer(LISTENER, Peer(OURS, txid=txid(9))),
        f"its volume ends at TXID {txid(7)} of sqlite.db, and the pod at {LISTENER} has TXID {txid(9)}",
    ),
    "below the low-water mark, though nobody answers": (
        lambda pod: low_water(pod.record().holds(OURS, 7), txid(8)),
        f"ends at TXID {txid(7)} of sqlite.db, and the record says that this site had TXID {txid(8)} at 2026-01-01",
    ),
    "the low-water mark is no TXID": (
        lambda pod: low_water(pod.record().holds(OURS, 7), "8"),
        "its lowWaterTXID is '8', which is no TXID",
    ),
    "the second of two peers says that it is ahead as a primary that ended": (
        lambda pod: (
            pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(6))).peer(SECOND, Peer(OURS, txid=txid(8)))
        ),
        f"the pod at {SECOND} has TXID {txid(8)}",
    ),
    "litefs.yml names another ordinal": (
        lambda pod: pod.record().holds(OURS, 7).rendered(1),
        "says that ordinal 0 is the primary, and litefs.yml names '1 1 '",
    ),
    "litefs.yml makes another ordinal the candidate": (
        lambda pod: pod.record().holds(OURS, 7).rendered(1, 0),
        "and litefs.yml names '1 0 '",
    ),
    "litefs.yml makes every pod the candidate": (
        lambda pod: pod.record().holds(OURS, 7).rendered("true", 0),
        "and litefs.yml names '0 '",
    ),
    "the volume cannot be read": (
        lambda pod: closed(pod.record().holds(OURS, 7), "dbs"),
        "/dbs on its volume cannot be read by LiteFS's user (it belongs to 1000:1000, mode 0)",
    ),
    "the cluster id cannot be read": (
        lambda pod: closed(pod.record().holds(OURS, 7), "clusterid"),
        "/clusterid on its volume cannot be read",
    ),
    "the database cannot be read": (
        lambda pod: closed(pod.record().holds(OURS, 7), f"dbs/{DATABASE}/database"),
        f"/dbs/{DATABASE}/database on its volume cannot be read",
    ),
    "damaged record: id": (lambda pod: pod.record(cluster_id="LFSC12"), "'LFSC12', which is no LiteFS cluster id"),
    "damaged record: no id": (lambda pod: pod.record(cluster_id=None).holds(), "which is no LiteFS cluster id"),
    "damaged record: state": (lambda pod: pod.record(state="recoded").holds(), "unknown state 'recoded'"),
    "damaged record: ordinal": (lambda pod: pod.record(ordinal="zero").holds(), "primaryOrdinal is 'zero'"),
}


FENCED: dict[str, tuple[Callable[[Pod], Pod], str]] = {
    "ahead of the running primary": (
        lambda pod: follower(pod, 9, Peer(OURS, primary=True, txid=txid(7))),
        f"its volume ends at TXID {txid(9)} of sqlite.db, and the primary at {LISTENER} has TXID {txid(7)}",
    ),
    "ahead, and the second peer is the primary": (
        lambda pod: follower(pod, 9, Peer(OURS, txid=txid(5))).peer(SECOND, Peer(OURS, primary=True, txid=txid(7))),
        f"the primary at {SECOND} has TXID {txid(7)}",
    ),
    "ahead, damaged: a person may still read it": (
        lambda pod: (
            rename(pod.record(), 1)
            .holds(OURS, 9, database=bytes(4096))
            .peer(LISTENER, Peer(OURS, primary=True, txid=txid(7)))
        ),
        f"ends at TXID {txid(9)}",
    ),
    "ahead, without an id, which it would adopt": (
        lambda pod: rename(pod.record(), 1).holds(None, 9).peer(LISTENER, Peer(OURS, primary=True, txid=txid(7))),
        f"ends at TXID {txid(9)}",
    ),
    "of other content at the same TXID": (
        lambda pod: follower(pod, 7, Peer(OURS, primary=True, txid=txid(7), checksum="a" * 16)),
        "with other content",
    ),
    "a database without a transaction file": (
        lambda pod: rename(pod.record(), 1).holds(OURS).peer(LISTENER, Peer(OURS, primary=True, txid=txid(7))),
        "without a transaction file, so nothing tells whether it is ahead",
    ),
    "seen ahead once, while the primary's TXID went on": (
        lambda pod: ahead(follower(pod, 9, Peer(OURS, primary=True, txid=txid(500))), txid(9)),
        f"its volume ends at TXID {txid(9)} of sqlite.db, which the running primary did not have",
    ),
    "of an older record, before litefs.yml follows": (
        lambda pod: hold(rename(pod.record(ordinal="1").holds(OURS, 9), 0), "0").rendered(0),
        "ordinal 1 is the primary now",
    ),
}


@pytest.mark.parametrize(("arrange", "reason"), FENCED.values(), ids=FENCED.keys())
def test_a_replica_that_may_hold_more_is_fenced(pod: Pod, arrange: Callable[[Pod], Pod], reason: str) -> None:
    outcome = arrange(pod).run()
    assert outcome.code in (Exit.FENCED, Exit.AHEAD) and outcome.code == code_of(outcome.termination), outcome.log
    assert reason in outcome.termination
    assert outcome.termination.startswith(f"{pod.name} is fenced: ")
    assert "playbooks/replica_reset.yml" in outcome.termination and RUNBOOK in outcome.termination


def test_a_replica_that_was_ahead_stays_fenced_when_the_primary_has_gone_on(pod: Pod) -> None:
    leader = Peer(OURS, primary=True, txid=txid(7))
    assert follower(pod, 9, leader).run().code == Exit.AHEAD
    leader.txid = txid(30)
    assert pod.run().code == Exit.AHEAD


def test_a_replica_asks_for_the_primary_no_longer_than_the_primary_waits_for_it(pod: Pod) -> None:
    pod.patience = 16
    rename(pod.record(), 1).holds(OURS, 7).dns([SELF, LISTENER])
    outcome = pod.run()
    assert outcome.code == 0
    assert 7 < outcome.took < 15
    assert "no primary answers" in outcome.log


def test_a_replica_does_not_wait_for_others_once_the_primary_answered(pod: Pod) -> None:
    pod.patience = 20
    outcome = follower(pod, 7, Peer(OURS, primary=True, txid=txid(7))).peer(SECOND, Peer(silent=True)).run()
    assert outcome.code == 0
    assert outcome.took < 9


def test_a_replica_whose_copy_is_whole_writes_nothing_to_the_volume(pod: Pod) -> None:
    follower(pod, 7, Peer(OURS, primary=True, txid=txid(7)))
    before = sorted(pod.volume.rglob("*"))
    assert pod.run().code == 0
    assert sorted(pod.volume.rglob("*")) == before


@pytest.mark.parametrize("old", ["litefs.yml", "record"])
def test_an_old_copy_of_one_of_the_two_is_waited_for(pod: Pod, old: str) -> None:
    """The kubelet shows a changed ConfigMap later than another that changed before it."""
    pod.settle = 20
    pod.record(ordinal="1" if old == "record" else "0").holds(OURS, 7).rendered(0 if old == "record" else 1)
    with later(2, lambda: pod.record() if old == "record" else pod.rendered(0)):
        outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert 1 < outcome.took < 15
    assert "waits: litefs.yml names ordinal" in outcome.log


def test_where_nobody_answers_after_a_cold_start_the_primary_waits_longer(pod: Pod) -> None:
    pod.patience, pod.cold = 2, 2**31
    pod.record().holds(OURS, 7).dns([SELF, LISTENER])
    with later(5, lambda: pod.peer(LISTENER, Peer(OURS, txid=txid(8)), listed=False)):
        outcome = pod.run()
    assert outcome.code == Exit.OLDER
    assert f"the pod at {LISTENER} has TXID {txid(8)}" in outcome.termination


@pytest.mark.parametrize("arrange", ["first start", "alone", "one of two answered"])
def test_a_cold_start_makes_nothing_slow_that_can_answer(pod: Pod, arrange: str) -> None:
    pod.patience, pod.cold = 4, 2**31
    if arrange == "first start":
        pod.record("bootstrap").dns([SELF, LISTENER])
    else:
        pod.record().holds(OURS, 7)
    if arrange == "one of two answered":
        pod.peer(LISTENER, Peer(OURS, txid=txid(7))).dns([SELF, LISTENER, SECOND])
    outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert outcome.took < 11


def test_it_waits_while_the_second_of_two_peers_is_primary(pod: Pod) -> None:
    leader = Peer(OURS, primary=True, txid=txid(7))
    pod.record().holds(OURS, 7).peer(LISTENER, Peer(OURS, txid=txid(7))).peer(SECOND, leader)
    with later(4, lambda: setattr(leader, "primary", False)):
        outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert outcome.took > 4
    assert f"waits: the pod at {SECOND} says that it is primary" in outcome.log


@pytest.mark.parametrize(("arrange", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refuses(pod: Pod, arrange: Callable[[Pod], Pod], reason: str) -> None:
    outcome = arrange(pod).run()
    assert outcome.code == code_of(outcome.termination), outcome.log
    assert reason in outcome.termination
    assert RUNBOOK in outcome.termination
    assert outcome.termination.startswith((f"{pod.name} refuses to start as primary: ", f"{pod.name} is fenced: "))
    assert outcome.termination.strip() in outcome.log
    assert len(outcome.termination.encode()) < 4096, "the kubelet cuts termination messages at 4096 bytes"


def test_a_replica_asks_nobody(pod: Pod) -> None:
    outcome = rename(pod.record(), 1).run()
    assert outcome.code == 0
    assert not pod.questions.exists()


def test_the_volume_and_the_record_are_only_read(pod: Pod) -> None:
    pod.record().holds(OURS, 7)
    before = {path: path.stat().st_mtime_ns for path in [*pod.volume.rglob("*"), *pod.identity.rglob("*")]}
    assert pod.run().code == 0
    assert {path: path.stat().st_mtime_ns for path in [*pod.volume.rglob("*"), *pod.identity.rglob("*")]} == before


def test_dns_is_asked_for_the_full_name(pod: Pod) -> None:
    pod.record().holds(OURS, 7).run()
    assert set(pod.questions.read_text().splitlines()) == {f"nslookup -type=a {SERVICE}."}


def test_one_who_refuses_connections_is_named_and_waited_for(pod: Pod) -> None:
    pod.patience = 2
    pod.record().holds(OURS, 7).dns([SELF, LISTENER])
    outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert 2 <= outcome.took < 20
    assert f"could not ask {LISTENER}: no answer on port {pod.port} within " in outcome.log


@pytest.mark.parametrize("peer", [Peer(silent=True), Peer(broken=True)], ids=["silent", "not LiteFS"])
def test_one_who_gives_no_usable_answer_is_named(pod: Pod, peer: Peer) -> None:
    outcome = pod.record().holds(OURS, 7).peer(LISTENER, peer).run()
    assert outcome.code == 0, outcome.log
    assert f"could not ask {LISTENER}" in outcome.log


def test_one_late_to_answer_is_heard(pod: Pod) -> None:
    """A network policy lets the first packets through seconds after the pod's start."""
    pod.patience = 8
    pod.record().holds(OURS, 7).dns([SELF, LISTENER])
    with later(2, lambda: pod.peer(LISTENER, Peer(OURS, txid=txid(8)), listed=False)):
        outcome = pod.run()
    assert outcome.code == Exit.OLDER
    assert f"the pod at {LISTENER} has TXID {txid(8)}" in outcome.termination
    assert outcome.took < 7


def test_one_whose_address_is_gone_is_not_waited_for(pod: Pod) -> None:
    pod.patience = 15
    pod.record().holds(OURS, 7).dns([SELF, LISTENER])
    with later(2, lambda: pod.dns([SELF])):
        outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert 1 < outcome.took < 10
    assert "could not ask" not in outcome.log


def test_the_primary_waits_while_the_record_holds_it(pod: Pod) -> None:
    pod.record("bootstrap")
    hold = pod.identity / "hold"
    hold.write_text("true")
    with later(2, hold.unlink):
        outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert outcome.took > 4
    assert "says hold" in outcome.log


def test_it_waits_while_another_pod_is_primary(pod: Pod) -> None:
    leader = Peer(OURS, primary=True, txid=txid(7))
    pod.record().holds(OURS, 7).peer(LISTENER, leader)
    with later(4, lambda: setattr(leader, "primary", False)):
        outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert outcome.took > 4
    assert f"waits: the pod at {LISTENER} says that it is primary" in outcome.log


def test_what_the_other_primary_wrote_meanwhile_counts(pod: Pod) -> None:
    leader = Peer(OURS, primary=True, txid=txid(7))
    pod.record().holds(OURS, 7).peer(LISTENER, leader)

    def demote() -> None:
        leader.txid = txid(12)
        leader.primary = False

    with later(3, demote):
        outcome = pod.run()
    assert outcome.code == Exit.OLDER
    assert f"has TXID {txid(12)}" in outcome.termination


def test_alone_only_once_dns_knows_this_pod(pod: Pod) -> None:
    """The first answers may be older than this pod: they say nothing about who came up with it."""
    pod.patience = 10
    pod.record("bootstrap").dns([], failure="NXDOMAIN")

    def appear() -> None:
        pod.peer(LISTENER, Peer(OTHER, txid=txid(3)))

    with later(2, appear):
        outcome = pod.run()
    assert outcome.code == Exit.EMPTY
    assert f"already holds cluster {OTHER}" in outcome.termination


def test_a_dns_that_never_lists_this_pod_does_not_hold_it_for_ever(pod: Pod) -> None:
    pod.record("bootstrap").dns([], failure="NXDOMAIN")
    outcome = pod.run()
    assert outcome.code == 0, outcome.log
    assert outcome.took < 5


@pytest.mark.parametrize("failure", ["timeout", "SERVFAIL", "REFUSED"])
def test_a_dns_that_fails_is_not_taken_for_no_peers(pod: Pod, failure: str) -> None:
    pod.record().holds(OURS, 7).dns([], failure=failure)
    outcome = pod.run()
    assert outcome.code == Exit.NOT_NOW
    assert "DNS gave no answer" in outcome.termination
    assert RUNBOOK in outcome.termination


def test_the_default_patience_is_twenty_seconds_and_a_cold_start_lasts_a_quarter_of_an_hour() -> None:
    """No pod sets either; LiteFS sums up its database before it answers, some 20 s for each GB."""
    assert "patience=${GUARD_PATIENCE:-20}" in GUARD.read_text()
    assert "cold=${GUARD_COLD:-900}" in GUARD.read_text()


def test_many_ltx_files_are_read_at_once(pod: Pod) -> None:
    """Ten minutes of writes are tens of thousands of files; a loop over them would keep the primary waiting."""
    pod.record().holds(OURS, *range(1, 20001))
    outcome = pod.run()
    assert outcome.code == 0
    assert f"TXID {txid(20000)}" in outcome.log
    assert outcome.took < 5


@contextlib.contextmanager
def later(delay: float, act: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(delay, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_hazard_a_database_without_a_txid_is_no_answer(pod: Pod) -> None:
    """It is not as if the peer had none: what it has shows a moment later."""
    pod.patience = 10
    pod.record().holds(OURS, 7).peer(LISTENER, Opening(OURS, txid="", checksum=""))
    outcome = pod.run()
    assert outcome.code == Exit.OLDER, outcome.log
    assert f"the pod at {LISTENER} has TXID {txid(9)}" in outcome.log
