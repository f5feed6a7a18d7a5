"""The look from outside as filters; the decisions live in module_utils/edge_status.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import edge_status


def edge_requests(expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See module_utils/edge_status.py."""
    listed: list[dict[str, Any]] = edge_status.requests(expected)
    return listed


def edge_write(expected: Mapping[str, Any], probe: Mapping[str, Any]) -> dict[str, Any]:
    """See module_utils/edge_status.py."""
    request: dict[str, Any] = edge_status.write(expected, probe)
    return request


def edge_problems(answers: Sequence[Mapping[str, Any]] | None, expected: Mapping[str, Any]) -> list[str]:
    """See module_utils/edge_status.py."""
    found: list[str] = edge_status.problems(answers, expected)
    return found


class FilterModule:
    """Filters of the look from outside."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"edge_requests": edge_requests, "edge_write": edge_write, "edge_problems": edge_problems}
