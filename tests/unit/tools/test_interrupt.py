"""The callback that kills a run, and the listener that it asks: real runs of a playbook of three tasks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import asking
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callbacks"),
    "ANSIBLE_CALLBACKS_ENABLED": "interrupt",
}


def asked(folder: Path, first: int, die: Callable[[], bool], **environment: str) -> asking.Asked:
    """The run of three tasks, each of which writes a file with its number."""
    tasks = [
        {"name": f"Write {one}", "ansible.builtin.copy": {"content": one, "dest": f"{folder}/{one}", "mode": "0600"}}
        for one in ("1", "2", "3")
    ]
    variables = {"ansible_python_interpreter": sys.executable}
    play = {"hosts": "all", "gather_facts": False, "connection": "local", "tasks": tasks, "vars": variables}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "a,", "play.yml"]
    return asking.run(command, ENVIRONMENT | environment, folder, first, die, 120)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "play.yml")


def test_it_pauses_before_each_task_and_goes_on_where_nothing_differs(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look() -> bool:
        seen.append(written(tmp_path))
        return False

    run = asked(tmp_path, 2, look)
    assert (run.rc, run.died, run.last) == (0, 0, 3), run.output
    assert seen == [["1"], ["1", "2"]], "it asks from the second task on, and while it pauses nothing goes on"
    assert written(tmp_path) == ["1", "2", "3"]


def test_it_dies_before_the_task_where_something_differs(tmp_path: Path) -> None:
    run = asked(tmp_path, 1, lambda: "1" in written(tmp_path))
    assert (run.rc, run.died, run.last) == (-9, 2, 2), run.output
    assert "INTERRUPTED before Write 2" in run.output
    assert written(tmp_path) == ["1"]


def test_a_run_that_has_fewer_tasks_asks_nothing_and_comes_to_its_end(tmp_path: Path) -> None:
    run = asked(tmp_path, 4, lambda: True)
    assert (run.rc, run.died, run.last) == (0, 0, 0), run.output
    assert written(tmp_path) == ["1", "2", "3"]


def test_it_dies_loudly_where_nobody_answers(tmp_path: Path) -> None:
    def slow() -> bool:
        time.sleep(3)
        return False

    with pytest.raises(AssertionError, match=r"INTERRUPTED before Write 1, where neither go nor die .* timed out"):
        asked(tmp_path, 1, slow, INTERRUPT_AFTER="1")
    assert written(tmp_path) == []
