"""What this file carries inside itself: unpacked once per version to <data-dir>/data/<hash>, with a link `current`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import sys
import zipfile

MULTICALL = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "netpol",
)
CNI = ("bridge", "host-local", "loopback", "portmap")


def archive() -> pathlib.Path:
    """The file that is running."""
    return pathlib.Path(sys.argv[0] if zipfile.is_zipfile(sys.argv[0]) else __file__.split(".zip/")[0]).resolve()


def version() -> str:
    """k3s's version, as v1.36.3+k3s1."""
    with zipfile.ZipFile(archive()) as content:
        return content.read("payload/VERSION").decode().strip()


def bundled(name: str) -> str:
    """A text file of this package."""
    with zipfile.ZipFile(archive()) as content:
        return content.read(f"{__package__}/{name}").decode()


def digest(content: zipfile.ZipFile) -> str:
    """A hash over names, sizes and check sums of the payload, without reading it."""
    rows = sorted((i.filename, i.file_size, i.CRC) for i in content.infolist() if i.filename.startswith("payload/"))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def unpack(data_dir: pathlib.Path) -> pathlib.Path:
    """Unpack where that has not been done, point `current` at it, and give the folder with bin/ and traefik/."""
    root = data_dir / "data"
    with zipfile.ZipFile(archive()) as content:
        target = root / digest(content)
        if not target.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            with (root / ".lock").open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not target.is_dir():
                    _unpack(content, target)
    current = root / "current"
    if not current.is_symlink() or os.readlink(current) != target.name:
        temporary = root / f".current.{os.getpid()}"
        temporary.symlink_to(target.name)
        temporary.replace(current)
    return target


def _unpack(content: zipfile.ZipFile, target: pathlib.Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for info in content.infolist():
        if info.filename.startswith("payload/") and not info.is_dir():
            path = partial / info.filename.removeprefix("payload/")
            path.parent.mkdir(parents=True, exist_ok=True)
            with content.open(info) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            path.chmod(info.external_attr >> 16 & 0o777 or 0o644)
    for name in MULTICALL:
        (partial / "bin" / name).symlink_to("kubernetes")
    partial.rename(target)
