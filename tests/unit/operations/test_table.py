"""An operation is one line in the table; whatever else names the operations names the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.lookup.operations import LookupModule
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, planning, steps
from ansible_collections.abaci.infra.plugins.modules import operation
from fake_api import FakeApi, run
from test_decisions import ASKED

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_module_a_playbook_and_a_role(name: str) -> None:
    module: Any = OPERATIONS[name]
    assert Path(inspect.getfile(module)).stem == name
    assert list(inspect.signature(module.decide).parameters) == ["request"]
    assert (ROOT / f"playbooks/{name}.yml").is_file()
    role = (ROOT / f"roles/{name}/tasks/main.yml").read_text()
    assert f"operation_role: {name}\n" in role and f"operation_name: {name}\n" in role


def test_nothing_else_has_a_list_of_them() -> None:
    internal = [path for path in (ROOT / "roles/operation").rglob("*") if path.is_file()]
    for path in [*internal, ROOT / "plugins/modules/operation.py"]:
        lines = [line for line in path.read_text().splitlines() if sum(name in line for name in OPERATIONS) > 2]
        assert not lines, (path, lines)


def test_an_unknown_one_is_refused_with_the_names() -> None:
    answer = run(operation, FakeApi(), operation="no_such")
    assert answer["msg"] == f"operation is no_such: it has to be one of {', '.join(OPERATIONS)}."
    assert LookupModule().run([]) == list(OPERATIONS)


def test_every_kind_of_step_can_be_done() -> None:
    assert set(steps.DO) == {*planning.get_args(planning.Act), *planning.WAITS}


def test_a_plan_always_has_the_same_keys() -> None:
    nothing = planning.plan()
    for name, module in OPERATIONS.items():
        state: dict[str, Any] = {
            "gathered_at": "2026-01-01T00:00:00Z",
            "namespace": "abaci",
            "database": "sqlite.db",
            "statefulset": {"name": "abaci-app", "exists": False},
            "record": None,
            "pods": [],
        }
        plan = module.decide(planning.Request(ASKED.get(name, {}), state=state))
        assert plan["refusal"] and plan.keys() == nothing.keys(), name
