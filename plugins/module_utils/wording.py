"""What other programs say, as a part of one of our sentences. Pure."""

from __future__ import annotations

import re


def said(text: object) -> str:
    """The text in one line, without what it says twice in a row (registries do), and without its last full stop."""
    parts = re.split(r"(?<=[.:;,]) ", " ".join(str(text or "").split()))
    kept = [
        part
        for part, after in zip(parts, [*parts[1:], None], strict=True)
        if after is None or part.rstrip(".:;,") != after.rstrip(".:;,")
    ]
    return " ".join(kept).rstrip(".")
