# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module, and say meanwhile how far it is. For operation, and for all that meta/runtime.yml leads here."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule as Normal
from ansible_collections.abaci.infra.plugins.plugin_utils import live


class ActionModule(Normal):  # type: ignore[misc]
    """As Ansible runs every module; on a host behind SSH it says only for how long (see live.py)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        with live.said(self, task_vars or {}):
            result: dict[str, Any] = super().run(tmp, task_vars)
        return result
