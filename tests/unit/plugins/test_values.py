"""Secrets keep their values; domains are refused in sentences."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import values


def held(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@pytest.mark.parametrize(
    ("desired", "existing", "expected"),
    [
        ({"A": "given"}, {"A": held("old")}, {"A": "given"}),
        ({"A": ""}, {"A": held("old")}, {"A": "old"}),
        ({"A": None}, {"A": held("old")}, {"A": "old"}),
        ({"A": "given"}, None, {"A": "given"}),
        ({"A": 5}, {}, {"A": "5"}),
        ({"A": ""}, {"A": held("grüße\n"), "B": held("other's")}, {"A": "grüße\n"}),
        ({}, {"A": held("old")}, {}),
    ],
)
def test_the_variable_wins_then_what_the_secret_holds(
    desired: dict[str, Any], existing: dict[str, str] | None, expected: dict[str, str]
) -> None:
    assert values.secret_values(desired, existing) == expected


@pytest.mark.parametrize("existing", [None, {}, {"A": ""}, {"A": None}, {"B": held("x")}])
def test_a_new_value_is_made_only_where_there_is_none(existing: dict[str, Any] | None) -> None:
    first, second = (values.secret_values({"A": ""}, existing)["A"] for _ in range(2))
    assert first != second
    assert len(first) == 43  # 32 bytes
    kept = values.secret_values({"A": ""}, {"A": held(first)})
    assert kept == {"A": first}


def test_the_length_is_in_bytes() -> None:
    assert len(values.secret_values({"A": ""}, None, 48)["A"]) == 64


@pytest.mark.parametrize("bad", ["%%%", base64.b64encode(b"\xff\xfe\xfd").decode()])
def test_a_value_that_is_not_text_is_named_and_not_shown(bad: str) -> None:
    with pytest.raises(ValueError, match="value of AUTH_SECRET is not text") as caught:
        values.secret_values({"AUTH_SECRET": ""}, {"AUTH_SECRET": bad})
    assert bad not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "domain",
    [
        "abaci.localhost",
        "abaci.example.com",
        "example.com",
        "a.b.c.d.example",
        "xn--bcher-kva.example",
        "3com.com",
        "localhost",
        "a" * 63 + ".example",
        ".".join(["a" * 63] * 3 + ["b" * 61]),
    ],
)
def test_good_domains_pass(domain: str) -> None:
    assert values.domain_problems(domain) == []


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("", "it is empty"),
        (None, "it is a NoneType"),
        (42, "it is a int"),
        ("https://abaci.example.com/x", "leave out the scheme, as in abaci.example.com"),
        ("abaci.example.com/path", "leave out the path"),
        ("abaci.example.com:8443", "leave out the port"),
        ("*.example.com", "a wildcard is not supported"),
        ("abaci.example.com.", "leave out the dot at its end"),
        ("abaci..example.com", "an empty part between two dots"),
        (".example.com", "an empty part"),
        (" abaci.example.com", "a space"),
        ("abaci example.com", "a space"),
        ("Abaci.Example.com", "lower case (abaci.example.com)"),
        ("bücher.example", "ASCII form"),
        ("-abaci.example.com", "'-abaci' may hold letters"),
        ("abaci-.example.com", "'abaci-' may hold"),
        ("my_site.example.com", "'my_site' may hold"),
        ("a" * 64 + ".example", "has 64 characters, and 63 is the limit"),
        (".".join(["a" * 63] * 3 + ["b" * 62]), "has 254 characters, and 253 is the limit"),
        ("192.0.2.7", "it is an address"),
        ("2001:db8::1", "it is an address"),
        ("[2001:db8::1]", "it is an address"),
        ("abaci.123", "its last part is a number"),
    ],
)
def test_bad_domains_get_one_sentence_that_names_the_variable(domain: Any, words: str) -> None:
    problems = values.domain_problems([domain], "app_extra_domains")
    assert len(problems) == 1
    assert problems[0].startswith("app_extra_domains ")
    assert words in problems[0]


def test_a_domain_given_twice_is_refused_once() -> None:
    problems = values.domain_problems(["a.example", "b.example", "a.example"])
    assert len(problems) == 1
    assert "twice" in problems[0]


def test_a_keyed_hash_says_whether_something_changed_and_helps_nobody_who_guesses() -> None:
    assert values.keyed_hash("a", "k") == values.keyed_hash("a", "k")
    assert len({values.keyed_hash("a", "k"), values.keyed_hash("b", "k"), values.keyed_hash("a", "other")}) == 3
    assert values.keyed_hash("a", "k") == hmac.new(b"k", b"a", "sha256").hexdigest()
    with pytest.raises(ValueError, match="needs a key"):
        values.keyed_hash("a", "")
