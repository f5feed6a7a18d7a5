"""What other programs say, as a part of one of our sentences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest


def one_line(text: object) -> str:
    """The text in one line."""
    return " ".join(str(text or "").split())


def printable(text: str) -> str:
    """The text without control characters, which a terminal obeys and XML cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *before, last = [*names] or [""]
    return f"{', '.join(before)} and {last}" if before else last


def reason(value: object) -> str:
    """The start of what a program or an exception says; its type where it says nothing."""
    return said(value)[:400] or type(value).__name__


def said(text: object) -> str:
    """The text in one line, without what it says twice in a row (registries do), and without its last full stop."""
    parts = re.split(r"(?<=[.:;,]) ", one_line(text))
    kept = [
        part
        for part, after in zip_longest(parts, parts[1:])
        if after is None or part.rstrip(".:;,") != after.rstrip(".:;,")
    ]
    return " ".join(kept).rstrip(".")
