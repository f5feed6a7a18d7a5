"""A copy of k3s's datastore with all that makes a server the same cluster again. Standard library only.

The scheduled copy runs this file on the server, where nothing else of the collection is.

What is taken, and why (docs.k3s.io, "Backup and Restore" and "Token"): server/db/state.db and server/token, without
which the copy is unusable; server/tls and server/cred, the CAs and the key of the Secrets, so that nothing depends on
k3s having a second copy of them in the datastore; server/manifests; and the node's password, without which the
datastore refuses a host that comes back under its name.
"""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tarfile
import time
import urllib.parse
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

from .telling import Reading, tell

SCHEMA = 1
REASON = "cluster"  # of a manifest in a folder of backups
ENDING = ".tar.gz"
NOTE = "cluster.json"
DATABASE = "server/db/state.db"
TOKEN = "server/token"
CA = "server/tls/server-ca.crt"
PASSWORD = "node/password"
RESTORED = "restored.json"  # in server/: which copy was put there
NEEDED = (DATABASE, TOKEN, CA)
ALLOWED = re.compile(r"server/(db/state\.db|token|agent-token|(tls|cred|manifests)/.+)|node/password")
BINARY = "/usr/local/bin/k3s"


class Bad(Exception):
    """The datastore or a copy of it cannot be used; the message is a sentence."""


class Facts(TypedDict):
    """Of a copied database."""

    rows: int
    revision: int


class File(TypedDict):
    sha256: str
    mode: int


class Note(Facts):
    """What stands in an archive, before its files."""

    schema: int
    time: str  # RFC 3339, UTC
    host: str
    k3s: str  # its version
    ca_hash: str
    files: dict[str, File]  # by name in the archive


class Copy(Note):
    """A note with where its archive is."""

    path: str
    sha256: str  # of the plain archive


class Seal(TypedDict, total=False):
    """Which copy was put into a data directory last; empty where none was."""

    sha256: str
    revision: int
    time: str


class Last(TypedDict, total=False):
    """The last copy, as it is noted on the server by its own clock; empty where none is known."""

    time: int
    place: str


class PutBack(TypedDict):
    note: Note
    aside: list[str]  # paths of what was there
    revision: int


class Server(TypedDict):
    """What is to be known of a host that runs k3s, or may."""

    name: str
    ca_hash: str
    units: list[str]
    kind: str
    revision: int | None
    restored: Seal


# --- looking ---------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        reading = Reading(file, f"SHA-256 of {path.name}", path.stat().st_size)
        while block := reading.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def facts(path: Path) -> Facts:
    """rows and revision of a copied database that nobody writes to. Raises Bad where it is not sound, or not kine's."""
    uri = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
            if found != ["ok"]:
                raise Bad(f"The copied datastore fails its integrity check: {'; '.join(found)}.")
            rows, revision = db.execute("SELECT count(*), max(id) FROM kine").fetchone()
    except sqlite3.Error as exc:
        raise Bad(f"The copied datastore is none of k3s on SQLite: {exc}.") from exc
    if not rows:
        raise Bad("The copied datastore has no row, so it is of no cluster.")
    return {"rows": int(rows), "revision": int(revision)}


def kind(data_dir: Path) -> str:
    """What the server in this data directory keeps its objects in: sqlite, etcd, or an empty string for none here."""
    if (data_dir / "server/db/etcd").is_dir():
        return "etcd"
    return "sqlite" if (data_dir / DATABASE).is_file() else ""


def revision(data_dir: Path) -> int | None:
    """The newest revision of the datastore, k3s running or not; None where it cannot be read."""
    uri = f"file:{urllib.parse.quote(str(data_dir / DATABASE))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as db:
            found = db.execute("SELECT max(id) FROM kine").fetchone()[0]
    except sqlite3.Error:
        return None
    return None if found is None else int(found)


def restored(data_dir: Path) -> Seal:
    """Which copy was put into this data directory last: sha256 and revision; empty where none was."""
    try:
        found = json.loads((data_dir / "server" / RESTORED).read_text())
    except (OSError, ValueError):
        return {}
    return cast("Seal", found) if isinstance(found, dict) else {}


def installed_version() -> str:
    """What k3s's binary says of itself, such as v1.36.4+k3s1; empty: there is none; unknown: it does not run."""
    if not os.access(BINARY, os.X_OK):
        return ""
    try:
        done = subprocess.run([BINARY, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = done.stdout.split()
    return words[2] if done.returncode == 0 and words[:2] == ["k3s", "version"] else "unknown"


def _files(data_dir: Path, password: Path) -> dict[str, Path]:
    """What belongs to a copy besides the database: name in the archive -> file."""
    server = data_dir / "server"
    found = {TOKEN: server / "token", "server/agent-token": server / "agent-token", PASSWORD: password}
    for tree in ("tls", "cred", "manifests"):
        found |= {f"server/{path.relative_to(server)}": path for path in sorted((server / tree).rglob("*"))}
    # Links k3s makes anew.
    return {name: path for name, path in found.items() if path.is_file() and not path.is_symlink()}


# --- taking ----------------------------------------------------------------------------------------------------------


def make(data_dir: Path, password: Path, target: Path, host: str, stamp: str) -> Note:
    """Write a copy of the living datastore into the archive ``target`` (0600), in whose folder it works.

    SQLite's own backup takes the database in one read transaction, so it is one state however much is written
    meanwhile; the other files have to be the same before and after. Returns the note of the archive. Raises Bad and
    OSError.
    """
    check_kind(data_dir, host)
    files = _files(data_dir, password)
    before: dict[str, str] = {name: digest(path) for name, path in files.items()}
    missing = [name for name in (TOKEN, CA) if name not in files]
    if missing:
        raise Bad(f"{host} lacks {' and '.join(missing)} in {data_dir}, without which a copy could not be restored.")
    copied = target.with_name("state.db")
    copy(data_dir / DATABASE, copied)
    if {name: digest(path) for name, path in _files(data_dir, password).items()} != before:
        raise Bad(f"k3s on {host} changed its keys or manifests while they were copied; run again.")
    files[DATABASE] = copied
    note: Note = {
        "schema": SCHEMA,
        "time": stamp,
        "host": host,
        "k3s": installed_version(),
        "ca_hash": before[CA],
        **facts(copied),
        "files": {
            name: {"sha256": before.get(name) or digest(path), "mode": path.stat().st_mode & 0o777}
            for name, path in sorted(files.items())
        },
    }
    _check_ca(files[TOKEN].read_text(), note["ca_hash"])
    with target.open("xb") as raw:
        target.chmod(0o600)
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as tar:
            text = json.dumps(note, indent=2, sort_keys=True).encode()
            info = tarfile.TarInfo(NOTE)
            info.size, info.mode = len(text), 0o600
            tar.addfile(info, io.BytesIO(text))
            for name, path in sorted(files.items()):
                info = tar.gettarinfo(path, arcname=name)
                info.mode = info.mode & 0o777
                with path.open("rb") as file:
                    tar.addfile(info, Reading(file, f"{name} into the archive", info.size))
    copied.unlink()
    return note


def check_kind(data_dir: Path, host: str) -> None:
    """Raises Bad where there is no datastore that can be copied."""
    found = kind(data_dir)
    if found == "etcd":
        raise Bad(
            f"{host} keeps its datastore in embedded etcd, of which k3s etcd-snapshot save makes copies; only SQLite's "
            "is copied here."
        )
    if not found:
        raise Bad(
            f"{host} has no datastore in {data_dir / DATABASE}: there is no cluster yet, or it is in an external "
            "database (datastore-endpoint), which has its own backups."
        )


def copy(source: Path, target: Path) -> None:
    """Copy a SQLite database that is written to. Raises Bad."""
    uri = f"file:{urllib.parse.quote(str(source))}?mode=ro"
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as living,
            contextlib.closing(sqlite3.connect(target)) as copied,
        ):
            tell(f"SQLite's copy of {source}")
            living.backup(copied)
    except sqlite3.Error as exc:
        raise Bad(f"The datastore {source} could not be copied: {exc}.") from exc


def _check_ca(token: str, ca_hash: str) -> None:
    match = re.match(r"K10([0-9a-f]{64})::", token)
    if match and match[1] != ca_hash:
        raise Bad("The token names another CA than the one that lies beside it, so they are of two clusters.")


def manifest(note: Note, archive: Path) -> dict[str, object]:
    """What is written down beside a kept copy: retention.OWNER's keys, and what can be known without its key."""
    return {
        "reason": REASON,
        "namespace": "kube-system",
        "statefulset": note["host"],
        "database": "state.db",
        "cluster_id": note["ca_hash"],
        "time": note["time"],
        "host": note["host"],
        "k3s": note["k3s"],
        "rows": note["rows"],
        "revision": note["revision"],
        "size": archive.stat().st_size,
        "sha256": digest(archive),
    }


def record(note: Note, host: str, path: str) -> Last:
    """What is noted on the server of its last copy, by its own clock; age() reads it."""
    return {"time": calendar.timegm(time.strptime(str(note["time"]), "%Y-%m-%dT%H:%M:%SZ")), "place": f"{host}:{path}"}


def stem(note: Note) -> str:
    """How a copy's file name begins."""
    return f"cluster.{re.sub('[-:]', '', str(note['time']))}.{note['host']}.{note['revision']}"


# --- opening and putting back ----------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path) -> Note:
    """Unpack a copy into an empty folder and prove it, file by file; its note. Raises Bad for whatever is wrong."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            first = tar.next()
            text = tar.extractfile(first) if first is not None and first.name == NOTE else None
            if text is None:
                raise Bad(f"{archive} is no copy of a cluster's datastore: it does not begin with {NOTE}.")
            note: Note = json.loads(text.read())
            if note.get("schema") != SCHEMA:
                raise Bad(f"{archive} has the schema {note.get('schema')}, and {SCHEMA} is known here.")
            wanted = dict(note["files"])
            for member in tar:
                if member.name == NOTE:
                    continue
                entry = wanted.pop(member.name, None)
                plain = ALLOWED.fullmatch(member.name) and ".." not in member.name.split("/") and member.isreg()
                content = tar.extractfile(member) if entry is not None and plain else None
                if entry is None or content is None:
                    raise Bad(f"{archive} holds {member.name!r}, which belongs to no copy of a datastore.")
                path = folder / member.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                    shutil.copyfileobj(Reading(content, f"{member.name} out of the archive", member.size), file)
                    file.flush()
                    os.fsync(file.fileno())
                if digest(path) != entry["sha256"]:
                    raise Bad(f"{archive} was changed: {member.name} is not the one that its note describes.")
                path.chmod(int(entry["mode"]) & 0o777)
                os.utime(path, (member.mtime, member.mtime))
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, KeyError, TypeError) as exc:
        raise Bad(f"{archive} cannot be opened: {exc}.") from exc
    missing = sorted(wanted) + [name for name in NEEDED if name not in note["files"]]
    if missing:
        raise Bad(f"{archive} lacks {', '.join(missing)}.")
    if digest(folder / CA) != note["ca_hash"]:
        raise Bad(f"{archive} names another CA than the one that it holds.")
    _check_ca((folder / TOKEN).read_text(), note["ca_hash"])
    if facts(folder / DATABASE) != {key: note[key] for key in ("rows", "revision")}:
        raise Bad(f"{archive} has another number of rows than its note says.")
    return note


def advance(path: Path, milliseconds: int) -> int:
    """Take the revision far ahead, and call all that was before compacted; the new revision.

    Kubelets, CoreDNS and Traefik go on watching from the revision that they saw last, which is after the one of the
    copy: the API would give them nothing until that is reached again. So they are told that it is too old, and list
    anew, as with etcdutl's --bump-revision --mark-compacted. The time since the epoch is ahead of every revision of a
    cluster that writes less than a thousand times a second, those of earlier restores too. kine itself writes such rows
    (``gap-``) where a revision is missing.
    """
    with contextlib.closing(sqlite3.connect(path)) as db:
        new = max(int(db.execute("SELECT max(id) FROM kine").fetchone()[0]) + 1, milliseconds)
        row = (new, f"gap-{new}", 0, 1, 0, 0, 0, None, None)
        db.execute("INSERT INTO kine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("UPDATE kine SET prev_revision = ? WHERE name = 'compact_rev_key'", (new,))
        db.commit()
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return new


def put_back(archive: Path, data_dir: Path, password: Path, stamp: str) -> PutBack:
    """Make an archive the server's datastore. k3s is stopped. What was there is put aside, nothing is removed.

    The new folder is whole before it gets the name, so a run that dies leaves the old one, or none and the old one
    beside it, and can be run again. Returns what became of it. Raises Bad and OSError.
    """
    data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    staging, server = data_dir / f"restoring-{stamp}", data_dir / "server"
    staging.mkdir(mode=0o700)
    try:
        note = unpack(archive, staging)
        new = advance(staging / DATABASE, time.time_ns() // 1_000_000)
        seal = {"sha256": digest(archive), "revision": new, "time": note["time"]}
        (staging / "server" / RESTORED).write_text(json.dumps(seal) + "\n")
        aside = []
        given = staging / PASSWORD
        if given.is_file() and not (password.is_file() and digest(password) == digest(given)):
            password.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if password.is_file():
                aside.append(_aside(password, stamp))
            shutil.copyfile(given, password)
            password.chmod(0o600)
        if server.exists():
            aside.append(_aside(server, stamp))
        (staging / "server").rename(server)
        _sync(data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {"note": note, "aside": aside, "revision": new}


def _aside(path: Path, stamp: str) -> str:
    target = path.with_name(f"{path.name}.before-{stamp}")
    path.rename(target)
    return str(target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- decisions -------------------------------------------------------------------------------------------------------


def in_place(copied: Copy, server: Server) -> bool:
    """Whether this copy is the server's datastore already, and nothing was written to it since."""
    seal = server["restored"]
    return bool(seal) and seal.get("sha256") == copied["sha256"] and server["revision"] == seal.get("revision")


def restore_errors(
    copied: Copy,
    server: Server,
    agents: Sequence[Server],
    version_error: str,
    accepted: str,
) -> list[str]:
    """Why a copy may not become the datastore of a server; empty where it may.

    Args:
        copied: the copy.
        server: the host.
        agents: every agent that answered.
        version_error: why the desired version of k3s may not follow the copy's, as upgrade_error says it.
        accepted: the revision after which everything may be lost, as the user gave it.
    """
    found = []
    which = f"{copied['path']} (of {copied['time']}, CA {copied['ca_hash'][:12]})"
    if "k3s-agent" in server["units"]:
        found.append(
            f"{server['name']} is an agent of a cluster; the copy belongs onto the host of the server's group."
        )
    if server["kind"] == "etcd":
        found.append(f"{server['name']} keeps its datastore in embedded etcd; only one on SQLite can be put back here.")
    if server["ca_hash"] and server["ca_hash"] != copied["ca_hash"]:
        found.append(
            f"{server['name']} has a cluster of its own (CA {server['ca_hash'][:12]}), and {which} is of another one; "
            "name a copy of this cluster, or put what lives there aside first: docs/runbooks/server-lost.md."
        )
    others = [agent["name"] for agent in agents if agent["ca_hash"] and agent["ca_hash"] != copied["ca_hash"]]
    if others:
        found.append(
            f"{', '.join(others)} belong{'s' if len(others) == 1 else ''} to another cluster than {which}, and could "
            "not join the restored one; name a copy of their cluster."
        )
    if version_error:
        found.append(f"{which} was made by another k3s: {version_error}")
    same = server["ca_hash"] == copied["ca_hash"]
    present = server["revision"]
    newer = same and present is not None and present > copied["revision"] and not in_place(copied, server)
    if newer and accepted != str(copied["revision"]):
        found.append(
            f"{server['name']} has this cluster's datastore up to revision {present}, and {which} ends at "
            f"{copied['revision']}: what was made in between (objects, generated Secrets, claims of volumes) would no "
            "longer be known; to accept that, give -e cluster_restore_accept_loss_after="
            f"{copied['revision']} (the present one is put aside, not removed)."
        )
    return found


def age(last: Last, now: float, warn_days: int) -> str:
    """How old the last copy is, for the summary of a run. ``last``: see record()."""
    remedy = "make one with playbooks/cluster_backup.yml"
    try:
        days = (now - float(last["time"])) / 86400
    except (KeyError, TypeError, ValueError):
        return (
            f"none of this server is known: {remedy}, or its record, volumes' names and generated Secrets exist once."
        )
    said = f"{days * 24:.0f} hours old" if days < 2 else f"{days:.0f} days old"
    late = f", older than {warn_days} days: {remedy}, or look at its schedule" if days > warn_days else ""
    return f"{said}, in {last.get('place')}{late}."
