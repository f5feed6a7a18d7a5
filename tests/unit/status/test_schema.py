"""The JSON is what docs/status.md says."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils.status import facts

TEXT = (Path(__file__).parents[3] / "docs/status.md").read_text()
WORDS = {
    "str": "string",
    "bool": "true or false",
    "int": "integer",
    "float": "number",
    "tuple[str, ...]": "list of strings",
    "tuple[int, ...]": "list of integers",
    "dict[str, tuple[str, ...]]": "object of lists of strings",
}


def fields(part: Any, prefix: str) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        hint = hints[field.name]
        inner = [one for one in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(one)]
        path = f"{prefix}{field.name}{'[]' if inner and typing.get_origin(hint) is tuple else ''}"
        if inner:
            yield from fields(inner[0], f"{path}.")
        else:
            kind = str(field.type)
            yield path, WORDS[kind.removesuffix(" | None")] + (" or null" if kind.endswith(" | None") else "")


def test_every_field_stands_in_the_documentation_with_its_type_and_no_other() -> None:
    documented = re.findall(r"^\| `(facts\.[^`]+)` \| ([^|]+) \|", TEXT, re.MULTILINE)
    assert dict(documented) == dict(fields(facts.Facts, "facts."))
    assert len(documented) == len(dict(documented))
    assert facts.SCHEMA == 1 and "| `facts.schema` | integer | 1 |" in TEXT
