"""What the archive says of a primary that does not go on where it was."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import judging
from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Received

HELD = Position(100, 1 << 63)


def came(kind: Any, cause: Any, txid: int) -> Received:
    return Received(kind, cause, "", Position(txid, 5), "2", True)


@pytest.mark.parametrize(
    ("held", "received", "away", "kind", "words"),
    [
        (HELD, came("continued", "", 101), 0, None, ""),
        (HELD, came("duplicate", "", 100), 0, None, ""),
        (None, came("new_history", "first", 7), 0, None, ""),
        (HELD, came("new_history", "first", 7), 0, None, ""),
        # The store's end was altered, so that nothing was held.
        (None, came("new_history", "absent", 7), 0, None, ""),
        (HELD, came("new_history", "back", 70), 9999, "primary_behind", "lost 30 transactions"),
        (HELD, came("new_history", "forked", 100), 9999, "fork", "different content"),
        (HELD, came("new_history", "absent", 200), 539, "fork", "539 s after"),
        (HELD, came("new_history", "absent", 200), 540, "gap", "transaction 00000000000000c8 are not in the archive"),
        (HELD, came("new_history", "absent", 200), float("inf"), "gap", "was heard for"),
        (HELD, came("new_history", "absent", 200), 9999, "gap", "kept as another history, 2,"),
    ],
)
def test_a_break_is_named(held: Position | None, received: Received, away: float, kind: str | None, words: str) -> None:
    finding = judging.broke("sqlite.db", held, received, away, 540)
    assert (finding and finding.kind) == kind and words in (finding.sentence if finding else "")


def test_two_primaries_are_named() -> None:
    assert judging.two([], "") is None and judging.two(["10.0.0.5"], "10.0.0.5") is None
    found = judging.two(["10.0.0.5", "10.0.0.6"], "10.0.0.6")
    assert found and found.kind == "two_primaries" and "10.0.0.5 and 10.0.0.6 each say" in found.sentence
    assert "follows 10.0.0.6 alone" in found.sentence


@pytest.mark.parametrize(
    ("expected", "primary", "told"),
    [("LFSC1", "LFSC1", False), ("LFSC1", "LFSC2", True), ("", "LFSC9", False), ("LFSC1", "", True)],
)
def test_a_foreign_primary_is_named(expected: str, primary: str, told: bool) -> None:
    assert (judging.foreign(expected, primary) is not None) is told
