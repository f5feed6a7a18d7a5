"""Run host_probe and add what only the controller can tell: whether the host answers, and how far its clock is off."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """With ``keep_going`` a host that cannot be reached is a result with ``reason``, so that the rules can name it.

    ``ignore_unreachable`` would not do: together with ``any_errors_fatal`` the play ends before the rules are asked.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        keep_going = arguments.pop("keep_going", False)
        before = time.time()
        try:
            result.update(
                self._execute_module(module_name="abaci.infra.host_probe", module_args=arguments, task_vars=task_vars)
            )
        except AnsibleConnectionFailure as exc:
            if not keep_going:
                raise
            return {**result, "changed": False, "probe": {}, "reason": str(exc)}
        after = time.time()
        # The module alone cannot tell a clock that is wrong from a connection that is slow: two ends bound it.
        if "probe" in result:
            there = result["probe"]["time"]
            result["probe"]["clock"] = [there - after, there - before]
        return result
