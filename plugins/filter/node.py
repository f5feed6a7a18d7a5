# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions about hosts as filters; they live in module_utils/node_plan.py and module_utils/k3s.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from ansible_collections.abaci.infra.plugins.module_utils import k3s, node_plan
from ansible_collections.abaci.infra.plugins.module_utils.node_types import Plan, Report


def plan(report: Report, server: Mapping[str, Any] | None = None) -> Plan:
    """Return what is to be done on one host; an empty report of the server is one that takes no part."""
    return node_plan.plan(report, cast(Report, server) if server else None)


def findings(reports: list[Report], server_token: str = "") -> dict[str, list[str]]:
    """Return what ends the run and what does not; with the server's token only whether the hosts may join."""
    if server_token:
        found = (k3s.foreign_error(report, k3s.ca_hash(server_token)) for report in reports)
        return {"errors": [error for error in found if error], "notes": []}
    return {"errors": node_plan.errors(reports), "notes": node_plan.notes(reports)}


def kubeconfig(text: str, server: str = "", path: str = "") -> dict[str, str]:
    """Return a kubeconfig for its reader out of the server's own, and why it must not replace the one at ``path``."""
    existing = Path(path).read_text() if path and Path(path).is_file() else ""
    try:
        document = yaml.safe_load(existing)
    except yaml.YAMLError:
        document = "broken"
    living = k3s.kubeconfig_ca(text)
    refusal = k3s.kubeconfig_refusal(k3s.kubeconfig_facts(path, "", existing, document), living)
    return {"text": k3s.kubeconfig_for(text, server), "ca_hash": living, "refusal": refusal}


class FilterModule:
    """Filters of the roles host, fuse, k3s and site."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "node_findings": findings,
            "node_plan": plan,
            "k3s_settings": k3s.settings,
            "k3s_kubeconfig": kubeconfig,
        }
