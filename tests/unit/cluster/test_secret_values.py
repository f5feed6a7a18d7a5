"""A secret value: the variable, else what the cluster holds, else made once."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from ansible_collections.abaci.infra.plugins.modules.secret_values import settle


def held(value: str) -> dict[str, str]:
    return {"password": base64.b64encode(value.encode()).decode()}


@pytest.mark.parametrize(
    ("desired", "holds", "value"),
    [
        ("mine", {}, "mine"),
        ("mine", held("old"), "mine"),
        ("", held("old"), ""),
        (None, held("old"), "old"),
        (None, held(""), ""),
        (None, {"password": ""}, ""),
        (None, held("päss"), "päss"),
        (17, {}, "17"),
    ],
)
def test_the_variable_comes_before_what_the_cluster_holds(
    desired: str | None, holds: dict[str, str], value: str
) -> None:
    assert settle({"password": desired}, holds, 32) == ({"password": value}, [])


def test_a_value_is_made_only_where_there_is_none() -> None:
    values, made = settle({"password": None, "other": "x"}, {}, 32)
    assert made == ["password"]
    assert len(values["password"]) == 43 and quote(values["password"], safe="") == values["password"]
    assert settle({"password": None}, {}, 32)[0] != values
