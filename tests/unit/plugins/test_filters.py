"""The filters as Ansible calls them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.abaci.infra.plugins.filter import app
from factory_objects import desired, document, living

FILTERS = app.FilterModule().filters()


@pytest.mark.parametrize(
    ("state", "words"),
    [({}, "schema 1"), ({**document(), "schema": 2}, "not 2"), (None, "not 'NoneType'"), ("text", "not 'str'")],
)
def test_another_document_is_refused(state: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        FILTERS["app_plan"](state, desired())


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="the setting colour"):
        FILTERS["app_plan"](living(), desired(colour="x"))


def test_a_bad_secret_is_named_without_its_value() -> None:
    with pytest.raises(AnsibleFilterError, match="AUTH_SECRET"):
        FILTERS["secret_values"]({"AUTH_SECRET": None}, {"AUTH_SECRET": "%"})


def test_the_other_filters_pass_through() -> None:
    assert FILTERS["secret_values"]({"A": "b"}, {}) == {"A": "b"}
