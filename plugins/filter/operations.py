# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles that operate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import datastore, k3s


def cluster_restore_plan(
    copied: Mapping[str, Any], reports: list[Mapping[str, Any]], server: str, version: str, accepted: str
) -> dict[str, Any]:
    """Why a copy may not become the server's datastore, where this k3s follows; and whether it is it already."""
    # A host that is away has none.
    seen = {report["name"]: _seen(report) for report in reports if "probe" in report}
    own = seen.pop(server)
    error = k3s.upgrade_error(copied["k3s"], version, True)
    return {
        "errors": list(datastore.restore_errors(copied, own, list(seen.values()), error, accepted)),
        "in_place": datastore.in_place(copied, own),
    }


def _seen(report: Mapping[str, Any]) -> dict[str, Any]:
    probe = report["probe"]["k3s"]
    return {**probe, "name": report["name"], "kind": probe["datastore"]}


class FilterModule:
    """Filters of the roles that operate."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_restore_plan": cluster_restore_plan}
