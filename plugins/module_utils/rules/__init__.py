"""What the values of a role's variables have to be, beyond their types: one module for each role that has such rules.

Each has ``errors(values, look)``: a sentence for each value that cannot work, none where all are good. ``values`` holds
the role's options with their defaults, converted as the role's argument_specs say, and those of other roles that its
``OTHERS`` names. Pure, but for what ``look`` reads of the controller's files. The action check_settings calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Values = Mapping[str, Any]


class Look(Protocol):
    """What a rule may read of the controller."""

    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""

    def text(self, path: str) -> str:
        """The file's content; "" where it cannot be read."""


def missing_files(values: Values, look: Look, *names: str) -> list[str]:
    """A sentence for each variable that names a file which is not there."""
    return [
        f"{name} names a file that is not on the controller: {values[name]}"
        for name in names
        if values[name] and not look.is_file(str(values[name]))
    ]
