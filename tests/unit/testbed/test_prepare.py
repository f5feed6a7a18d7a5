"""What a machine needs for which command, and who does what: root what takes root, the user the rest."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "testbed"))

import bed  # noqa: E402


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """On another system than Linux, by a user, where nothing is missing and no Docker engine answers."""
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "testbed/prepare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NEEDS", {package: lambda: True for package in module.NEEDS})
    monkeypatch.setattr(module, "OS_RELEASE", tmp_path / "none")
    monkeypatch.setattr(module, "engine_answers", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    return module


class Replaced(Exception):
    pass


def test_a_virtual_environment_takes_no_docker_no_compiler_and_no_debian(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not set(prepare.FOR_VENV) & {"docker.io", "mmdebstrap", "gcc", "fuse3"}
    prepare.main(["venv"])
    monkeypatch.setitem(prepare.NEEDS, "gcc", lambda: False)
    prepare.main(["venv"])
    monkeypatch.setitem(prepare.NEEDS, "python3-venv", lambda: False)
    with pytest.raises(SystemExit, match=r"not Debian .* by hand what stands for: python3-venv"):
        prepare.main(["venv"])


def test_the_bed_takes_an_engine_and_a_user_starts_it_by_sudo(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(program: str, words: list[str]) -> None:
        raise Replaced(program, words[:2])

    monkeypatch.setattr(os, "execvp", replace)
    with pytest.raises(Replaced, match=r"sudo.*-E"):
        prepare.main([])
    monkeypatch.setattr(prepare.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no sudo, so run this as root, to start Docker"):
        prepare.main([])


def test_only_the_application_takes_a_compiler_for_cpp(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "engine_answers", lambda: True)
    monkeypatch.setattr(prepare, "FOR_APPLICATION", {"g++": lambda: False})
    prepare.main([])
    with pytest.raises(SystemExit, match=r"by hand what stands for: g\+\+"):
        prepare.main(["application"])


@pytest.mark.parametrize("user", ["0", "1000"])
def test_root_does_what_takes_root_and_the_user_the_rest(tmp_path: Path, user: str) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": "/home/u"}
    command = ["make", "--no-print-directory", "-n", "up", "litefs"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    by_root = [line for line in lines if line.startswith('sudo -EH env XDG_CACHE_HOME="/home/u/.cache" ')]
    whole = "\n".join(by_root)
    words = ("bed.py build", "bed.py up", "bed.py status", "pytest tests/litefs")
    assert [word for word in words if word in whole] == (list(words) if user == "1000" else [])
    assert "ansible-playbook" not in whole and "prepare.py" not in whole and "build.py components" not in whole
    assert sum("prepare.py" in line for line in lines) <= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_root_made_in_a_users_folder_is_the_users_and_nobody_elses_is_touched(tmp_path: Path) -> None:
    key, link, other = tmp_path / "made/local/key", tmp_path / "made/link", tmp_path / "made/other"
    key.parent.mkdir(parents=True)
    key.touch(0o600)
    other.touch()
    link.symlink_to(tmp_path / "outside")
    (tmp_path / "outside").touch()
    os.chown(other, 4321, 4321)
    bed.hand_over(tmp_path, tmp_path / "made")
    assert key.stat().st_uid == 0
    os.chown(tmp_path, 1234, 1234)
    bed.hand_over(tmp_path, tmp_path / "made", tmp_path / "missing")
    uids = [path.lstat().st_uid for path in (key.parent, key, link, other, tmp_path / "outside")]
    assert uids == [1234, 1234, 1234, 4321, 0]
