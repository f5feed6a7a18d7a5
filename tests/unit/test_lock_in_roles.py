"""Who holds the lock while what: the tasks of the roles, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nativetypes
import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
LOCK = "abaci.infra.operation_lock"


def tasks(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROLES / path).read_text())
    return found


def flat(block: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of a block and of those in it, as they run where nothing fails."""
    return [one for task in block for one in ([task] if "block" not in task else flat(task["block"]))]


@pytest.mark.parametrize(
    ("path", "work"), [("change", {"gather.yml", "plan.yml", "objects.yml", "statefulset.yml"}), ("absent", set())]
)
def test_what_site_yml_changes_it_reads_and_plans_under_the_lock(path: str, work: set[str]) -> None:
    (under,) = tasks(f"app/tasks/{path}.yml")
    assert "when" not in under
    inside = flat(under["block"])
    assert inside[0][LOCK].get("state", "held") == "held" and "when" not in inside[0]
    included = [str(value) for task in inside for key, value in task.items() if key.endswith("_tasks")]
    assert work <= set(included)
    assert not work or included.index("gather.yml") < included.index("plan.yml") < included.index("objects.yml")
    (last,) = under["always"]
    assert last[LOCK]["state"] == "released" and "when" not in last


def test_without_the_lock_site_yml_only_compares() -> None:
    for task in tasks("app/tasks/present.yml"):
        if "abaci.infra.server_side_apply" in task:
            assert task["check_mode"] is True, task["name"]
    (change,) = [task for task in tasks("app/tasks/present.yml") if "change.yml" in task.values()]
    assert change["when"] == "not ansible_check_mode and __app_differs"


def test_the_lock_of_site_yml_outlasts_what_nobody_renews_it_in() -> None:
    """Every image is pulled for each processor of the nodes, one after the other, and the token is tried before."""
    variables = {"app_image_pull_timeout": 100, "app_rollout_timeout": 1000, "app_verify_timeout": 10, "app_tls": "x"}
    settings = yaml.safe_load((ROLES / "app/vars/main.yml").read_text())

    def seconds(**known: Any) -> int:
        pulls = jinja2.nativetypes.NativeTemplate(settings["__app_pulls"]).render(**known)
        return int(jinja2.Template(settings["__app_lock_seconds"]).render(**variables, **known, __app_pulls=pulls))

    assert seconds() == 600 + 300 + 2000 + 10, "absent makes no plan"
    for pulls in (0, 1, 2, 6):
        planned = {"__app_plan": {"image": {"pulls": list(range(pulls))}}}
        assert seconds(**planned) >= 600 + (1 + pulls) * 100 + 2000 + 10


def test_the_statefulset_is_applied_only_while_the_lock_is_still_ours() -> None:
    names = [LOCK if LOCK in task else task["name"] for task in tasks("app/tasks/statefulset.yml")]
    assert names[names.index(LOCK) + 1] == "statefulset | Apply the StatefulSet"
    (renewed,) = [task[LOCK] for task in tasks("app/tasks/statefulset.yml") if LOCK in task]
    assert renewed == {"state": "renewed"}


@pytest.mark.parametrize(("path", "first"), [("operation/tasks/act.yml", 0), ("backup/tasks/main.yml", 0)])
def test_an_operation_takes_the_lock_first_and_gives_it_back_also_where_it_failed(path: str, first: int) -> None:
    every = tasks(path)
    outer = next((task["block"] for task in every if "block" in task and "rescue" not in task), every)
    assert outer[first][LOCK].get("state", "held") == "held"
    (work,) = [task for task in outer if "rescue" in task]
    failed = work["rescue"][0][LOCK]
    assert failed["state"] == "released" and str(failed["result"]).startswith("failed")
    assert "ansible.builtin.fail" in work["rescue"][-1]
    assert outer[-1][LOCK]["state"] == "released" and outer[-1][LOCK]["result"] == "done"


def test_what_is_done_before_the_lock_is_taken_knows_every_variable_that_it_uses() -> None:
    (begin,) = [task for task in tasks("operation/tasks/main.yml") if task["name"] == "Set the facts of the operation"]
    passed = {name for task in tasks("operation/tasks/look.yml") for name in task.get("vars", {})}
    registered = {"__operation_plan", "__operation_seen"}
    used = set(re.findall(r"__operation_\w+", (ROLES / "operation/tasks/need_look.yml").read_text()))
    assert used <= passed | registered | begin["ansible.builtin.set_fact"].keys()


def test_a_check_run_takes_no_step_of_an_operation() -> None:
    for name in ("act.yml", "look.yml"):
        (task,) = [one for one in tasks("operation/tasks/main.yml") if one.get("ansible.builtin.include_tasks") == name]
        assert "not ansible_check_mode" in str(task["when"]).split(" and "), name


def test_whatever_works_under_the_lock_says_whose_it_is() -> None:
    """Without a holder nobody renews it meanwhile, or looks whether it is still ours."""
    knows = {
        f"abaci.infra.{path.stem}"
        for path in (ROLES.parent / "plugins/modules").glob("*.py")
        if '"holder": {"type"' in path.read_text()
    }
    assert len(knows) == 5
    seen = set()
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        every = tasks(str(path.relative_to(ROLES)))
        for task in flat(every):
            for module in knows & task.keys() - {LOCK}:
                given = task[module]
                if module == "abaci.infra.operation" and not (given.get("act") or given.get("call_off")):
                    continue
                seen.add(path.name)
                assert re.search(r"__operation_holder|abaci\.infra\.run_id", str(given.get("holder"))), (path, task)
    assert {
        "steps.yml",
        "call_off.yml",
        "need_export.yml",
        "need_look.yml",
        "need_volume_export.yml",
        "now.yml",
        "write.yml",
    } == seen


def test_hazard_what_is_found_after_the_rollout_to_endanger_the_data_ends_the_run_before_it_is_recorded() -> None:
    inside = flat(tasks("app/tasks/identity.yml"))
    names = [task["name"] for task in inside]
    check = names.index("identity | Check that no data is in danger")
    assert check < names.index("identity | Record which cluster the data belongs to") and "when" not in inside[check]
    holds = jinja2.Environment().compile_expression(inside[check]["ansible.builtin.assert"]["that"])
    assert holds(__app_plan_running={"refusal": None}) is True
    assert holds(__app_plan_running={"refusal": "The primary holds another cluster."}) is False
