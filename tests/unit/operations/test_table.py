"""An operation is one line in the table; whatever else names the operations names the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, planning, steps
from ansible_collections.abaci.infra.plugins.modules import operation

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_module_a_playbook_and_a_role(name: str) -> None:
    module: Any = OPERATIONS[name]
    assert Path(inspect.getfile(module)).stem == name
    assert list(inspect.signature(module.decide).parameters) == ["request"]
    assert (ROOT / f"playbooks/{name}.yml").is_file()
    role = (ROOT / f"roles/{name}/tasks/main.yml").read_text()
    assert f"operation_role: {name}\n" in role and f"operation_name: {name}\n" in role


def test_the_module_and_the_roles_know_the_operations_of_the_table() -> None:
    documented = yaml.safe_load(operation.DOCUMENTATION)["options"]["operation"]["choices"]
    assert documented == list(OPERATIONS)
    others = yaml.safe_load((ROOT / "roles/operation/vars/main.yml").read_text())["__operation_others"]
    assert others.startswith("{{ " + str(list(OPERATIONS)))
    specs = yaml.safe_load((ROOT / "roles/operation/meta/argument_specs.yml").read_text())["argument_specs"]
    assert specs["main"]["options"]["operation_call_off"]["choices"] == ["", *OPERATIONS]


def test_every_kind_of_step_can_be_done() -> None:
    assert set(steps.DO) == {*planning.get_args(planning.Act), *planning.WAITS}


def test_a_plan_always_has_the_same_keys() -> None:
    asked = {"scale": {"replicas": 3}, "replica_reset": {"targets": "mismatched"}}
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
        plan = module.decide(planning.Request(asked.get(name, {}), state=state))
        assert plan["refusal"] and plan.keys() == nothing.keys(), name
