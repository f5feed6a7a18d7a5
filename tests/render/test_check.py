"""The playbook check, as far as it comes on one machine."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from test_status import play


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["check_grups=edge"], "The variable check_grups is not known here: playbooks/check.yml knows check_fails_at"),
        (["replica_reset_targets=[1]"], "The variable replica_reset_targets is not known here"),
        (["check_output=html"], "value of check_output must be one of"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(given: list[str], sentence: str, tmp_path: Path) -> None:
    code, said = play(tmp_path, *given, playbook="check")
    assert code == 2
    assert sentence in " ".join(said.split()), said


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["logs_form=app"], "The variable logs_form is not known here: playbooks/logs.yml knows logs_filter"),
        (["{logs_of: [k4s]}"], "value of logs_of must be one or more of"),
    ],
)
def test_logs_refuse_what_they_do_not_know_by_name(given: list[str], sentence: str, tmp_path: Path) -> None:
    code, said = play(tmp_path, *given, "ansible_become=false", playbook="logs")
    assert code == 2
    assert sentence in " ".join(said.split()), said


def test_before_anything_is_installed_only_the_hosts_are_looked_at(tmp_path: Path) -> None:
    given = ["check_pre=true", "check_output=junit", f"check_file={tmp_path}/check.xml", "ansible_become=false"]
    code, said = play(tmp_path, *given, playbook="check")
    suites = {suite.get("name"): suite for suite in ET.parse(tmp_path / "check.xml").getroot()}
    assert {"inventory", "hosts", "fuse", "network"} == set(suites), said
    cases = {case.get("name"): case for suite in suites.values() for case in suite}
    assert list(cases["hosts-reached"]) == [] and list(cases["ports-between-hosts"]) == []
    assert code == (2 if any(case.find("failure[@type='fail']") is not None for case in cases.values()) else 0), said
