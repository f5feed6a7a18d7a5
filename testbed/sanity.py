#!/usr/bin/env python3
"""Check the collection as Galaxy would get it: build the tarball, unpack it, and run ansible-test's sanity tests there.

    .venv/bin/python testbed/sanity.py                        all of them: minutes
    .venv/bin/python testbed/sanity.py --skip-test pylint     with arguments for `ansible-test sanity`

ansible-test makes an environment for each of its tests, and keeps them in a home of its own in the cache. pip for them
comes from Python itself, so that nothing but the package index is asked.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import build
from ansible_test._internal.python_requirements import get_venv_packages

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GET_PIP = "import ensurepip\nensurepip.bootstrap()\n"


def get_pip_name(version: str) -> str:
    """Return the name under which ansible-test looks for the script that brings pip of a version."""
    return f"get_pip_{version.replace('.', '_')}.py"


def home() -> Path:
    """Return ansible-test's home in the cache; its pip has this user's settings and cache."""
    made = build.cache_root() / "ansible-test"
    scripts = made / ".ansible/test/cache"
    scripts.mkdir(parents=True, exist_ok=True)
    for name, place in {".config": Path.home() / ".config", ".cache": build.cache_root().parent}.items():
        with contextlib.suppress(FileExistsError):
            (made / name).symlink_to(place)
    python = SimpleNamespace(version=".".join(map(str, sys.version_info[:2])))
    (scripts / get_pip_name(get_venv_packages(python)["pip"])).write_text(GET_PIP)
    return made


def unpacked(scratch: Path) -> Path:
    """Build the collection and return the folder that it was unpacked to."""
    command = [str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(scratch)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    collection = scratch / "ansible_collections/abaci/infra"
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as tarball:
        tarball.extractall(collection, filter="data")
    return collection


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="abaci-infra-sanity-") as scratch:
        environment = os.environ | {"HOME": str(home()), "PATH": f"{BIN}:{os.environ['PATH']}"}
        python = ".".join(map(str, sys.version_info[:2]))
        command = [str(BIN / "ansible-test"), "sanity", "--python", python, *sys.argv[1:]]
        return subprocess.run(command, cwd=unpacked(Path(scratch)), env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
