"""The role operation between its modules: what was done and exported is kept from step to step, once."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendering import ROOT

Object = dict[str, Any]
ONE = {"path": "/b/1.sqlite", "pod": "p-0"}
FAILED = {"pod": "p-1", "problem": "Away."}


def after_a_step(needs: str | None, did: list[str], exported: Object) -> Object:
    """The facts after this step, with this result of the last export."""
    steps = yaml.safe_load((ROOT / "roles/operation/tasks/steps.yml").read_text())
    (task,) = [task for task in steps if "ansible.builtin.set_fact" in task]
    known = {"__operation_did": ["before"], "__operation_exports": [{"pod": "p-9"}], "__operation_exported": exported}
    known["__operation_step"] = {"needs": needs, "did": did}
    known |= {name: trust_as_template(value) for name, value in task["vars"].items()}
    templar = Templar(loader=DataLoader(), variables=known)
    return {
        name: templar.template(trust_as_template(value)) for name, value in task["ansible.builtin.set_fact"].items()
    }


@pytest.mark.parametrize("needs", ["export", "volume_export"])
def test_what_a_step_needed_is_kept_for_the_next(needs: str) -> None:
    exported = {"exports": [ONE, FAILED], "did": ["exported to /b/1.sqlite"], "failed": False}
    facts = after_a_step(needs, [], exported)
    assert facts["__operation_did"] == ["before", "exported to /b/1.sqlite"]
    assert facts["__operation_exports"] == [{"pod": "p-9"}, ONE, FAILED]


@pytest.mark.parametrize(("needs", "did"), [(None, ["deleted p-0"]), ("look", [])])
def test_an_earlier_export_counts_once(needs: str | None, did: list[str]) -> None:
    facts = after_a_step(needs, did, {"exports": [ONE], "did": ["exported to /b/1.sqlite"]})
    assert facts == {"__operation_did": ["before", *did], "__operation_exports": [{"pod": "p-9"}]}
