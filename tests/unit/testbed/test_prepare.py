"""What a machine needs for which command, and who does what: root what takes root, the user the rest."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
    monkeypatch.setattr(prepare, "MORE", {"application": {"g++": lambda: False}})
    prepare.main([])
    with pytest.raises(SystemExit, match=r"by hand what stands for: g\+\+"):
        prepare.main(["application"])


LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (unattended-upgr)\nE: Unable to lock"


@pytest.fixture
def apt_answers(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[str]]:
    """Run apt_get where each attempt fails with the next of these words, and an empty one succeeds."""

    def run(answers: list[str]) -> list[str]:
        left = list(answers)

        def answer(words: list[str], **_: object) -> SimpleNamespace:
            stderr = left.pop(0)
            return SimpleNamespace(returncode=100 if stderr else 0, stderr=stderr)

        monkeypatch.setattr(prepare.subprocess, "run", answer)
        prepare.apt_get(["update", "-q"])
        return left

    monkeypatch.setattr(prepare.time, "sleep", lambda _: None)
    return run


def test_apts_lock_is_waited_for_and_its_holder_is_named_once(
    apt_answers: Callable[[list[str]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apt_answers([LOCKED, LOCKED, ""]) == []
    told = capsys.readouterr().err
    assert told.count("held by process 7 (unattended-upgr)") == 1 and "waiting up to 600 s" in told


def test_what_is_no_lock_or_lasts_too_long_is_not_waited_for(
    prepare: ModuleType, apt_answers: Callable[[list[str]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"apt-get update failed; .*: E: no such host"):
        apt_answers(["E: no such host", ""])
    monkeypatch.setattr(prepare, "APT_WAIT_S", -1)
    with pytest.raises(SystemExit, match=r"apt-get update failed; .*Could not get lock"):
        apt_answers([LOCKED, ""])


def test_a_python_that_is_too_old_is_a_sentence_before_pip_runs(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare.sys, "version_info", (3, 10, 12))
    with pytest.raises(SystemExit, match=r"is Python 3\.10, and .* need 3\.11 or newer; .*PYTHON=python3\.11"):
        prepare.main(["venv"])
    assert not prepare.python_error((3, 11)) and not prepare.python_error((3, 13))


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
