"""The counter of module executions, held against a playbook whose executions are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
TASKS: list[dict[str, Any]] = [
    {"name": "One", "ansible.builtin.stat": {"path": "/"}},
    {"name": "None: on the controller", "ansible.builtin.debug": {"msg": "x"}},
    {"name": "None: skipped", "ansible.builtin.stat": {"path": "/"}, "when": False},
    {"name": "Two: a loop", "ansible.builtin.stat": {"path": "{{ item }}"}, "loop": ["/", "/tmp"]},
    {"name": "Two: by an action", "ansible.builtin.copy": {"content": "x", "dest": "{{ target }}", "mode": "0600"}},
    {
        "name": "One for b",
        "ansible.builtin.stat": {"path": "/"},
        "delegate_to": "b",
        "when": "inventory_hostname == 'a'",
    },
]


def test_every_module_is_counted_where_it_runs(tmp_path: Path) -> None:
    variables = {"target": f"{tmp_path}/{{{{ inventory_hostname }}}}", "ansible_python_interpreter": sys.executable}
    play = {"hosts": "all", "gather_facts": False, "connection": "local", "tasks": TASKS, "vars": variables}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    environment = os.environ | {
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "count",
        "COUNT_FILE": str(tmp_path / "count.json"),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "a,b", str(tmp_path / "play.yml")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    count = json.loads((tmp_path / "count.json").read_text())
    assert count["modules"] == {"a": 5, "b": 6}, count["executed"]
    assert count["lines"] == len(TASKS)
    assert count["results"] == {"a": 6, "b": 6}
    assert "One for b: ansible.builtin.stat" in count["executed"]["b"]
