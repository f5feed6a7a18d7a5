# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run host_probe and add what only the controller can tell: whether the host answers, and what its files should be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.abaci.infra.plugins.module_utils import k3s, k3s_observe, node_plan
from ansible_collections.abaci.infra.plugins.module_utils.node_types import Kubeconfig
from ansible_collections.abaci.infra.plugins.plugin_utils import live

PARTS = ("host", "fuse", "k3s")


def kubeconfig(path: str) -> Kubeconfig:
    """Look at the kubeconfig on the controller; an empty path is none."""
    text, mode = "", ""
    if path and (file := Path(path).expanduser()).is_file():
        text, mode = k3s_observe.read(str(file)), f"{file.stat().st_mode & 0o7777:04o}"
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = "broken"
    return k3s.kubeconfig_facts(path, mode, text, document)


class ActionModule(ActionBase):  # type: ignore[misc]
    """With ``keep_going`` a host that cannot be reached is a result with a reason, so that the rules can name it.

    ``ignore_unreachable`` would not do: together with ``any_errors_fatal`` the play ends before the rules are asked.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        keep_going = arguments.pop("keep_going", False)
        # An empty part is that of a role that does not look: its defaults would ask all the same.
        parts = {part: dict(asked) for part in PARTS if (asked := arguments.pop(part, None))}
        desired = {part: given.pop("desired", {}) for part, given in parts.items()}
        files = {part: given.pop("files", []) for part, given in parts.items()}
        for part, given in parts.items():
            # What a file should hold may be a secret, and the host need not know it before it gets it.
            given["files"] = [{"dest": file["dest"]} for file in files[part]]
        here = kubeconfig(parts.get("k3s", {}).pop("kubeconfig_here", ""))
        report = {"name": arguments.get("name", ""), "desired": desired, "kubeconfig": here}
        before = time.time()
        try:
            with live.said(self, task_vars or {}):
                answer = self._execute_module("abaci.infra.host_probe", {**arguments, **parts}, task_vars=task_vars)
        except AnsibleConnectionFailure as exc:
            if not keep_going:
                raise
            none: dict[str, Any] = {"probe": {}, "differing": {}, "folder": {}}
            return {**result, "changed": False, **report, **none, "reason": str(exc)}
        after = time.time()
        result.update(answer)
        if "probe" not in answer:
            return result
        result.pop("invocation", None)
        probe = answer["probe"]
        # The module alone cannot tell a clock that is wrong from a connection that is slow: it began after ``before``
        # and ended before ``after``, which bounds the difference from both sides.
        probe["clock"] = [probe.pop("ended") - after, probe.pop("began") - before]
        # Nor does anybody need the hash of a secret.
        found = probe.pop("files")
        folder = k3s.in_folder(probe["k3s"], desired["k3s"]) if desired.get("k3s") else []
        return {
            **result,
            **report,
            "reason": "",
            "differing": {part: node_plan.differing(wanted, found) for part, wanted in files.items()},
            "folder": {path: k3s_observe.sha256(path) for path in folder},
        }
