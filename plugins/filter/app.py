"""The decisions of the role app as filters; they live in module_utils (app_plan.py, state.py, values.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.abaci.infra.plugins.module_utils import app_plan as decisions
from ansible_collections.abaci.infra.plugins.module_utils import state as documents
from ansible_collections.abaci.infra.plugins.module_utils import values


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


def secret_values(desired: Mapping[str, Any], existing: Mapping[str, Any] | None, length: int = 32) -> dict[str, str]:
    """See module_utils/values.py."""
    try:
        filled: dict[str, str] = values.secret_values(desired, existing, length)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from None
    return filled


def kept_secrets(
    existing: Mapping[str, Any] | None, named: Mapping[str, Any] | Sequence[str], removed: Sequence[str]
) -> dict[str, str]:
    """See module_utils/values.py."""
    kept: dict[str, str] = values.kept_secrets(existing, named, removed)
    return kept


def keyed_hash(text: str, key: str) -> str:
    """See module_utils/values.py."""
    try:
        digest: str = values.keyed_hash(text, key)
    except ValueError as exc:
        raise AnsibleFilterError(str(exc)) from None
    return digest


def domain_problems(domains: str | Sequence[Any], variable: str = "app_domain") -> list[str]:
    """See module_utils/values.py."""
    problems: list[str] = values.domain_problems(domains, variable)
    return problems


def template_hash(statefulset: Mapping[str, Any]) -> str:
    """See module_utils/state.py."""
    digest: str = documents.template_hash(statefulset)
    return digest


class FilterModule:
    """Filters of the role app."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_plan": app_plan,
            "domain_problems": domain_problems,
            "kept_secrets": kept_secrets,
            "keyed_hash": keyed_hash,
            "secret_values": secret_values,
            "template_hash": template_hash,
        }
