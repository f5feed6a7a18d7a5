"""The preflight rules as filters; the decisions live in module_utils/preflight.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import preflight


class FilterModule:
    """Filters of the roles host and fuse."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "host_errors": preflight.host_errors,
            "clock_errors": preflight.clock_errors,
            "fuse_error": preflight.fuse_error,
            "fstab_without_swap": preflight.fstab_without_swap,
        }
