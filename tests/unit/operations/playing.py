"""What roles/operation does, in Python: the modules one after the other, through their main(), on an API of a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import factory_objects as make
from ansible_collections.abaci.infra.plugins.module_utils.operations import lock
from ansible_collections.abaci.infra.plugins.modules import backup_file, litefs_backup, operation, operation_lock
from fake_api import Cluster, run

ME = "ann@ops+c0ffee00/100"
WHERE = {"namespace": make.NAMESPACE, "name": make.NAME}
DATABASE = {**WHERE, "database": make.DATABASE, "claim_template": "litefs-data", "port": 20202}


@dataclass
class Ended:
    """How a run ended."""

    rc: int = 0
    msg: str = ""
    did: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # the plan


def operate(
    api: Cluster,
    name: str,
    parameters: dict[str, Any],
    folder: Path,
    *,
    file: dict[str, Any] | None = None,
    me: str = ME,
    call_off: bool = False,
    timeout: int = 3,
    inventory: dict[str, Any] | None = None,
    pull: Callable[[dict[str, Any]], dict[str, Any]] = lambda one: {**one, "digest": None, "error": "none"},
    killed: Callable[[dict[str, Any]], bool] = lambda _answer: False,
) -> Ended:
    """A run of playbooks/<name>.yml; ``killed``: whether it dies after this answer of the module operation."""
    ended = Ended()
    about = {**DATABASE, "operation": name, "parameters": parameters, "file": file or {}}
    about["inventory"] = inventory or {}
    mine = {**WHERE, "holder": me, "operation": name}
    if not call_off:
        plan = run(operation, api, **about)
        if plan.get("failed"):
            return Ended(2, plan["msg"])
        ended.said = plan["said"]
    taken = run(operation_lock, api, **mine)
    if taken.get("failed"):
        return Ended(2, taken["msg"])
    exports: list[dict[str, Any]] = []
    pulled: list[dict[str, Any]] = []
    for _step in range(40):
        if call_off:
            answer = run(operation, api, **about, call_off=True, holder=me)
        else:
            answer = run(operation, api, **about, act=True, holder=me, exports=exports, pulled=pulled, timeout=timeout)
        ended.did += answer.get("did") or []
        if killed(answer):
            return ended
        if answer.get("failed"):
            ended.rc, ended.msg = 2, answer["msg"]
        if answer.get("failed") or answer["done"]:
            run(operation_lock, api, **mine, state="released", result=ended.msg or "done")
            return ended
        if answer["needs"] == "pull":
            pulled += [pull(one) for one in answer["plan"]["pull"]]
        elif answer["needs"] == "export":
            made = run(
                litefs_backup,
                api,
                **DATABASE,
                directory=str(folder),
                pods=answer["plan"]["export"],
                reason=f"before {name}",
                partial=True,
                holder=me,
            )
            exports += made["exports"]
        else:
            assert answer["needs"] is None, answer["needs"]
    raise AssertionError(f"{name} does not end: {ended.did}")


def described(path: Path) -> dict[str, Any]:
    """A file to restore, as the module backup_file describes it."""
    answer = run(backup_file, None, path=str(path))
    assert answer["file"]["problem"] is None, answer
    file: dict[str, Any] = answer["file"]
    return file


def lease(api: Cluster) -> dict[str, Any]:
    """The lock."""
    return api.have("Lease", lock.name_of(make.NAME)) or lock.render(make.NAMESPACE, make.NAME)
