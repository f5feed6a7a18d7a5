"""What a plan gives as a cause is a section that an operator can read."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.abaci.infra.plugins.module_utils import guard
from ansible_collections.abaci.infra.plugins.module_utils.operations import planning

ROOT = Path(__file__).resolve().parents[3]


def test_each_cause_is_a_section_of_the_guide_and_the_other_way_round() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / planning.GUIDE).read_text(), flags=re.M)
    assert sections == list(planning.CAUSES)


def test_the_guards_exit_codes_are_the_same_in_the_shell_in_python_and_in_the_guide() -> None:
    codes = {code.name: code.value for code in guard.Exit}
    shell = (ROOT / "roles/app/files/guard.sh").read_text()
    assert {name.upper(): int(code) for name, code in re.findall(r"^([a-z_]+)=(\d\d)$", shell, flags=re.M)} == codes
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", (ROOT / planning.GUIDE).read_text(), flags=re.M)
    assert {name: int(code) for code, name in rows} == codes
    used = re.findall(r'^\s*(?:\*\) )?(?:refuse|end) "\$([a-z_]+)" "', shell, flags=re.M)
    assert {name.upper() for name in used} == set(codes), "each is said somewhere"


def test_only_what_the_guard_itself_says_is_known_by_its_code() -> None:
    init = {"name": "guard", "exit_code": 10}
    assert guard.reason({"init": init}) is guard.Exit.FENCED
    for other in ({"name": "migrate"}, {"exit_code": 1}, {"exit_code": None}):
        assert guard.reason({"init": init | other}) is None
