"""Counts what a run does: module executions and task lines by host (environment COUNT_FILE, where the JSON goes).

An execution is one module that is sent to a host and run there, whichever action plugin asks for it: a template is two
(stat, copy). It counts for the host on which it runs, so a delegated one for the delegate. What the controller does in
itself (debug, assert, set_fact, include) is none.

{"modules": {host: count}, "executed": {host: ["task: module"]}, "lines": task lines, "results": {host: count}}
"""

from __future__ import annotations

import collections
import functools
import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = "name: count\ntype: notification\nshort_description: see the module\ndescription: see the module\n"


def note(path: Path, host: str, what: str) -> None:
    """Append one line. Workers write at the same time, and one small write in append mode stays whole."""
    with path.open("a") as file:
        file.write(json.dumps([host, what]) + "\n")


def watch(path: Path) -> None:
    """Let every module that an action plugin executes from now on be noted; the workers inherit it."""
    execute = ActionBase._execute_module

    @functools.wraps(execute)
    def noted(self: Any, module_name: str | None = None, *arguments: Any, **options: Any) -> Any:
        variables = options.get("task_vars") or {}
        host = self._task.delegate_to or variables.get("inventory_hostname") or self._play_context.remote_addr
        note(path, str(host), f"{self._task.get_name()}: {module_name or self._task.action}")
        return execute(self, module_name, *arguments, **options)

    ActionBase._execute_module = noted


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """See the module."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "count"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.target = Path(os.environ["COUNT_FILE"])
        self.log = self.target.with_suffix(".log")
        self.log.write_text("")
        self.lines = 0
        self.results: collections.Counter[str] = collections.Counter()
        watch(self.log)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        del task, is_conditional
        self.lines += 1

    def _result(self, result: Any, *_: Any, **__: Any) -> None:
        self.results[result.host.get_name()] += 1

    v2_runner_on_ok = v2_runner_on_skipped = v2_runner_on_failed = v2_runner_on_unreachable = _result

    def v2_playbook_on_stats(self, stats: Any) -> None:
        del stats
        executed: dict[str, list[str]] = collections.defaultdict(list)
        for line in self.log.read_text().splitlines():
            host, what = json.loads(line)
            executed[host].append(what)
        counts = {host: len(found) for host, found in executed.items()}
        document = {"modules": counts, "executed": executed, "lines": self.lines, "results": self.results}
        self.target.write_text(json.dumps(document, indent=1) + "\n")
