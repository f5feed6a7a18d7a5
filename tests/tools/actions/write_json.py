"""Write ``value`` as JSON to the file ``to`` on the controller: ansible.builtin.copy would start processes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        Path(self._task.args["to"]).write_text(json.dumps(self._task.args["value"], default=str))
        return {**result, "changed": True}
