"""Keeps what a run applies (environment MANIFESTS_FILE): for each call a line {"role": name, "objects": [...]}.

Calls with no_log are left out, so that no secret is written.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = "name: manifests\ntype: notification\nshort_description: see the module\ndescription: see the module\n"
MODULE = "abaci.infra.server_side_apply"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """See the module."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "manifests"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        target = Path(os.environ["MANIFESTS_FILE"])
        target.write_text("")
        execute = ActionBase._execute_module

        @functools.wraps(execute)
        def kept(self: Any, *arguments: Any, **options: Any) -> Any:
            task = self._task
            if task.action == MODULE and not task.no_log:
                role = task._role.get_name() if task._role else ""
                line = {"role": role, "objects": task.args.get("objects") or []}
                with target.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            return execute(self, *arguments, **options)

        ActionBase._execute_module = kept
