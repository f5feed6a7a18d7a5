"""The archive's program: one file that runs by itself."""

from __future__ import annotations

import base64
import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import archive_bundle

ROOT = Path(__file__).resolve().parents[3]


def test_the_same_files_make_the_same_bytes_whatever_their_order() -> None:
    one = archive_bundle.pack({"a.py": b"1", "b/c.py": b"2"})
    assert one == archive_bundle.pack({"b/c.py": b"2", "a.py": b"1"})
    assert one.digest != archive_bundle.pack({"a.py": b"1", "b/c.py": b"3"}).digest
    assert one.digest != archive_bundle.pack({"a.py": b"1b", "/c.py": b"2"}).digest


def test_it_fits_into_a_config_map_and_runs_without_the_controllers_libraries(tmp_path: Path) -> None:
    files = archive_bundle.collect()
    made = archive_bundle.pack(files)
    print(f"\n{len(files)} files, {len(made.data)} bytes in base64")
    (tmp_path / "archive.pyz").write_bytes(base64.b64decode(made.data))
    # -I: neither this environment's packages nor this folder.
    command = [sys._base_executable, "-I", "-S", str(tmp_path / "archive.pyz"), str(tmp_path / "none.json")]  # type: ignore[attr-defined]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2 and "The archive has no settings" in done.stderr, done.stderr


def test_one_that_is_too_large_and_a_missing_library_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(archive_bundle.BundleError, match="at most 1000 fit"):
        archive_bundle.pack({"a.py": random.Random(1).randbytes(1000)}, most=1000)
    found = importlib.util.find_spec

    def without(name: str) -> Any:
        return None if name == "hpack" else found(name)

    monkeypatch.setattr(archive_bundle.importlib.util, "find_spec", without)
    with pytest.raises(archive_bundle.BundleError, match="has no hpack"):
        archive_bundle.collect()


def test_the_package_needs_nothing_else() -> None:
    allowed = {"__future__", *sys.stdlib_module_names, *archive_bundle.LIBRARIES}
    for path in (ROOT / "plugins/module_utils/archive").rglob("*.py"):
        named = re.findall(r"^(?:from|import) ([A-Za-z_]\w*)", path.read_text(), re.MULTILINE)
        assert set(named) <= allowed, path.name


def test_the_libraries_are_pinned() -> None:
    pinned = (ROOT / "requirements.txt").read_text()
    assert all(re.search(rf"^{name}==", pinned, re.MULTILINE) for name in archive_bundle.LIBRARIES)
