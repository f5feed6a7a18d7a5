"""What the archive does to a disk, each act so that a process killed before or after it leaves no half file. I/O."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Union

BLOCK = 1 << 18
UNFINISHED = ".tmp-"
Note = Mapping[str, Union[int, float, str]]


class BadNote(Exception):
    """A description is cut or altered; ends a sentence that begins with its name."""


def step(what: str, path: Path) -> None:
    """Called before each act; the tests stop here as a kill would."""


def unfinished(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(UNFINISHED + path.name)


def make_directory(path: Path) -> None:
    """With those above it, durable."""
    if not path.is_dir():
        make_directory(path.parent)
        step("mkdir", path)
        path.mkdir(exist_ok=True)
        flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Make new, renamed and removed names durable; where the file system cannot, its own promises have to do."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Make the content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def rename(path: Path, to: Path) -> None:
    """Give a flushed file its name, durable."""
    step("rename", to)
    os.replace(path, to)
    flush_directory(to.parent)


def remove(path: Path) -> None:
    """Remove a file that may be gone."""
    step("remove", path)
    path.unlink(missing_ok=True)


def take_in(path: Path, to: Path) -> None:
    """Move a file of wherever to its name here; the content is durable before the name."""
    step("flush", path)
    flush(path)
    try:
        rename(path, to)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        copy(path, to)
        remove(path)


@contextmanager
def dropped_on_error(beside: Path) -> Iterator[None]:
    """A disk that is full must not stay so for the sake of a file that nobody can use."""
    try:
        yield
    except Exception:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def copy(path: Path, to: Path) -> None:
    """Copy a file to its name there, read back before it gets it."""
    beside = unfinished(to)
    step("copy", beside)
    with dropped_on_error(beside):
        with path.open("rb") as source, beside.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK)
            file.flush()
            os.fsync(file.fileno())
        if sha256(beside) != sha256(path):
            raise OSError(errno.EIO, "what was written reads back differently", str(to))
        rename(beside, to)


def sha256(path: Path) -> str:
    """Of the whole file, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a small file, durable."""
    beside = unfinished(path)
    step("write", beside)
    with dropped_on_error(beside):
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        rename(beside, path)


def _sum(note: Note) -> str:
    return hashlib.sha256(json.dumps(dict(note), sort_keys=True).encode()).hexdigest()


def write_note(path: Path, note: Note) -> None:
    """A description, with a checksum of its own."""
    write_text(path, json.dumps({**note, "check": _sum(note)}, indent=1) + "\n")


def read_note(path: Path) -> dict[str, int | float | str]:
    """BadNote where it is not as it was written."""
    try:
        text = path.read_bytes()
        note: dict[str, int | float | str] = json.loads(text)
        check = note.pop("check")
    except FileNotFoundError:
        raise BadNote("is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BadNote("is cut or altered") from None
    # Compared as text, too: spaces, and what JSON reads as the same, were not altered by us.
    if check != _sum(note) or text != (json.dumps({**note, "check": check}, indent=1) + "\n").encode():
        raise BadNote("is cut or altered")
    return note


class Hashed:
    """A file that is read once, with the SHA-256 of what was read so far."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._found = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._found.update(data)
        return data

    def finish(self) -> str:
        """Read the rest; the SHA-256 of the whole."""
        while self.read(BLOCK):
            pass
        return self._found.hexdigest()

    def close(self) -> None:
        self._file.close()


@contextmanager
def zipped(path: Path, level: int) -> Iterator[BinaryIO]:
    """Write a gzip file (without name and time in it, so that its bytes depend on the content only), durable."""
    step("write", path)
    with path.open("wb") as file:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as stream:
            yield stream  # type: ignore[misc]
        file.flush()
        os.fsync(file.fileno())
