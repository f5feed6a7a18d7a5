"""Putting a verified file away: perhaps encrypted and read back, its manifest last. Standard library only.

The scheduled copy of the cluster's datastore runs this file on a host, where nothing else of the collection is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..telling import Reading
from . import retention

# However well a database is compressed before it is encrypted, it is no smaller.
LEAST_ENCRYPTED = 64


class Failed(Exception):
    """No backup was made; the message says why."""


def put(
    path: Path,
    directory: Path,
    stem: str,
    ending: str,
    manifest: retention.Manifest,
    encrypt: Sequence[str] = (),
    decrypt: Sequence[str] = (),
    *,
    beside: Path | None = None,
    variables: str = "backup",
) -> retention.Manifest:
    """Put a verified file under its name, its manifest last: what has no manifest is no backup.

    ``path`` stands in a folder of its own, and is moved. Where that is not on the file system of ``directory``,
    ``beside`` is a folder of its own that is: with ``encrypt`` nothing plain comes there. The manifest's size and
    sha256 are the content's, stored_size and stored_sha256 those of the file as it lies there. read_back: the stored
    file was seen to hold the content; of an encrypted one only ``decrypt`` can show that. ``variables``: how the names
    of the user's variables begin. Nothing that is there is replaced: another of the same name gets a longer one.

    Returns the manifest with ``path`` and ``manifest``. Raises Failed and OSError.
    """
    while (directory / (stem + retention.SUFFIX)).exists():
        stem += "+"
    target = directory / (stem + ending + (".encrypted" if encrypt else ""))
    if target.exists():
        raise Failed(f"There is already a file {target} without a manifest, and it is not replaced.")
    work = beside or path.parent
    temporary = work / "out"
    if encrypt:
        _encrypt(path, temporary, encrypt, variables)
        if decrypt:
            _read_back(temporary, path.with_name("back"), decrypt, str(manifest["sha256"]), variables)
    else:
        shutil.move(path, temporary)
    whole: retention.Manifest = {
        "schema": retention.SCHEMA,
        **manifest,
        "file": target.name,
        "stored_size": temporary.stat().st_size,
        "stored_sha256": sha256(temporary) if encrypt else manifest["sha256"],
        "encrypted": bool(encrypt),
        "read_back": bool(decrypt) or not encrypt,
        "verified": True,
    }
    temporary.chmod(0o600)
    _sync(temporary)
    temporary.rename(target)
    note = work / "manifest"
    note.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
    note.chmod(0o600)
    _sync(note)
    note.rename(directory / (stem + retention.SUFFIX))
    _sync(directory)
    return {**whole, "path": str(target), "manifest": str(directory / (stem + retention.SUFFIX))}


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        reading = Reading(file, f"SHA-256 of {path.name}", path.stat().st_size)
        while block := reading.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def through(command: Sequence[str], source: Path, target: Path) -> str | None:
    """Run a command with one file as its input and another as its output; why it failed, None where it did not."""
    early = False
    with source.open("rb") as given, target.open("wb") as made, tempfile.TemporaryFile() as errors:
        try:
            # Through a pipe: of a file nobody sees whether the command read it to its end.
            with subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=made, stderr=errors) as process:
                if process.stdin:
                    # Of the command its first word only: the others may be secret.
                    what = f"{Path(command[0]).name} reads {source.name}"
                    shutil.copyfileobj(Reading(given, what, source.stat().st_size), process.stdin)
        except BrokenPipeError:
            early = True
        except OSError as exc:
            return str(exc.strerror or exc)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if process.returncode:
        return "".join(said) or f"exit status {process.returncode}"
    return "it ended before it had read everything" if early else None


def _encrypt(path: Path, target: Path, command: Sequence[str], variables: str) -> None:
    problem = through(command, path, target)
    size = target.stat().st_size
    if problem is None and size < LEAST_ENCRYPTED:
        problem = f"it wrote {size} bytes, which hold no database"
    if problem:
        raise Failed(f"{variables}_encrypt_command ({command[0]}) failed ({problem}).")


def _read_back(path: Path, target: Path, command: Sequence[str], digest: str, variables: str) -> None:
    problem = through(command, path, target)
    if problem is None and sha256(target) != digest:
        problem = "it gives back another content"
    if problem:
        raise Failed(
            f"{variables}_decrypt_command ({command[0]}) does not give the database back from what "
            f"{variables}_encrypt_command wrote ({problem}): no backup was made."
        )
    target.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
