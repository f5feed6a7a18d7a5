"""The role restore before its operation: a file or a moment, never both, and what of it the operation is given."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendering import ROOT

FILE, MOMENT = {"file": {"path": "/b/1.sqlite"}}, {"file": {"txid": "00000000000000a7"}}


def evaluated(**given: Any) -> tuple[bool, str, Any]:
    """Whether the check lets it through, its sentence, and the file of the operation."""
    tasks = yaml.safe_load((ROOT / "roles/restore/tasks/main.yml").read_text())
    (check,) = [task["ansible.builtin.assert"] for task in tasks if "ansible.builtin.assert" in task]
    (block,) = [task["block"] for task in tasks if "block" in task]
    known = yaml.safe_load((ROOT / "roles/restore/vars/main.yml").read_text())
    known = {name: trust_as_template(value) for name, value in known.items()}
    known |= {"restore_from": "", "restore_at": "", "operation_call_off": "", **given}
    known |= {"__restore_file": FILE, "__restore_moment": MOMENT}
    templar = Templar(loader=DataLoader(), variables=known)
    passed = templar.template(trust_as_template("{{ " + check["that"] + " }}"))
    file = block[-1]["vars"]["operation_file"]
    return (
        passed,
        templar.template(trust_as_template(check["fail_msg"])),
        templar.template(trust_as_template(file)),
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "0 of restore_from and restore_at are set: set one of them"),
        ({"restore_from": "/b", "restore_at": "15m ago"}, "2 of restore_from and restore_at are set"),
    ],
)
def test_a_file_or_a_moment_is_given(given: dict[str, str], words: str) -> None:
    passed, sentence, _file = evaluated(**given)
    assert not passed and words in sentence


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ({"restore_from": "/b"}, FILE["file"]),
        ({"restore_at": "15m ago"}, MOMENT["file"]),
        ({"operation_call_off": "restore"}, FILE["file"]),
    ],
)
def test_the_operation_gets_the_one_that_was_given(given: dict[str, str], file: Any) -> None:
    passed, _sentence, found = evaluated(**given)
    assert passed and found == file
