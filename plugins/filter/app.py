# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions of the role app as filters; they live in module_utils (app_plan.py, state.py, values.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.abaci.infra.plugins.module_utils import app_plan as decisions
from ansible_collections.abaci.infra.plugins.module_utils import state as documents
from ansible_collections.abaci.infra.plugins.module_utils import tls, values


def app_plan(state: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    """See module_utils/app_plan.py."""
    if not isinstance(state, Mapping) or state.get("schema") != documents.SCHEMA:
        found = state.get("schema") if isinstance(state, Mapping) else type(state).__name__
        raise AnsibleFilterError(
            f"app_plan takes the state that litefs_info returns (schema {documents.SCHEMA}), not {found!r}."
        )
    try:
        plan: dict[str, Any] = decisions.plan(state, desired)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    return plan


def app_tls(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    """See module_utils/tls.py."""
    decided: dict[str, Any] = dataclasses.asdict(tls.decide(tls.Desired(**desired), **observed))
    return decided


def secret_values(
    desired: Mapping[str, Any],
    existing: Mapping[str, Any] | None = None,
    length: int = 32,
    empty_is_value: bool = False,
) -> dict[str, str]:
    """See module_utils/values.py."""
    try:
        filled: dict[str, str] = values.secret_values(desired, existing, length, empty_is_value)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from None
    return filled


def keyed_hash(text: str, key: str) -> str:
    """See module_utils/values.py."""
    try:
        digest: str = values.keyed_hash(text, key)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from None
    return digest


class FilterModule:
    """Filters of the role app."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_plan": app_plan,
            "app_tls": app_tls,
            "keyed_hash": keyed_hash,
            "secret_values": secret_values,
        }
