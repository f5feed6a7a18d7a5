"""The archive's program as one file: its package, and the libraries that it needs. I/O: reads those of the controller.

The same files make the same bytes, so that a run without a change changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Pure Python, so that the controller's files run in the pod, whatever its processor.
LIBRARIES = ("h2", "hpack", "hyperframe")
# A ConfigMap may have 1 MiB in all.
MOST = 900 * 1024
_START = "import sys\n\nfrom archive.main import main\n\nsys.exit(main(sys.argv[1:]))\n"


class BundleError(Exception):
    """One sentence."""


@dataclass(frozen=True)
class Bundle:
    """``data``: base64, as binaryData of a ConfigMap has it. ``digest``: of the files in it."""

    data: str
    digest: str


def pack(files: Mapping[str, bytes], most: int = MOST) -> Bundle:
    """The zipapp of these files by their names. BundleError where a ConfigMap could not hold it."""
    out = io.BytesIO()
    digest = hashlib.sha256()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(files):
            # No time, owner or order of the controller's disk.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, 9)
            digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    data = base64.b64encode(out.getvalue()).decode()
    if len(data) > most:
        raise BundleError(
            f"The archive's program has {len(data)} bytes as a ConfigMap holds it, and at most {most} fit: install the "
            f"versions of {', '.join(LIBRARIES)} that requirements.txt names on the controller."
        )
    return Bundle(data, digest.hexdigest())


def collect() -> dict[str, bytes]:
    """The package archive beside this file, and the libraries of the Python that runs this."""
    files = {"__main__.py": _START.encode()}
    folders = {"archive": Path(__file__).parent / "archive"}
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise BundleError(
                f"The Python of the controller has no {name}, which the archive's pod needs: install it by pip "
                "install -r requirements.txt, or set archive_state to unmanaged."
            )
        folders[name] = Path(spec.origin).parent
    for name, folder in folders.items():
        for path in folder.rglob("*.py"):
            files[f"{name}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return files
