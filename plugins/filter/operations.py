"""Filters of the roles that operate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import yaml


def options_of(texts: Iterable[str]) -> list[str]:
    """The names of all options in the texts of argument_specs.yml files."""
    names: set[str] = set()
    for text in texts:
        for entry in (yaml.safe_load(text) or {}).get("argument_specs", {}).values():
            names.update(entry.get("options") or {})
    return sorted(names)


class FilterModule:
    """Filters of the roles that operate."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"options_of": options_of}
