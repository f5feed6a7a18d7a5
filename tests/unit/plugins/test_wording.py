"""What other programs say becomes a part of our sentences."""

from __future__ import annotations

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.wording import listed, reason, said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no route to host.\n", "no route to host"),
        ("one\n two", "one two"),
        ("a:1: not found. not found.", "a:1: not found"),
        ("manifest unknown: manifest unknown", "manifest unknown"),
        ("not found, not now, not found", "not found, not now, not found"),
        ("tcp 10.0.0.1:443: refused", "tcp 10.0.0.1:443: refused"),
        (None, ""),
    ],
)
def test_it_is_one_line_that_says_nothing_twice_in_a_row(text: str | None, words: str) -> None:
    assert said(text) == words


@pytest.mark.parametrize(
    ("names", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_become_a_part_of_a_sentence(names: list[str], words: str) -> None:
    assert listed(names) == words


def test_an_exception_without_words_is_named() -> None:
    assert reason(TimeoutError()) == "TimeoutError"
    assert len(reason(ValueError("x" * 500))) == 400
