"""What a plan gives as a cause is a section that an operator can read."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.abaci.infra.plugins.module_utils.operations import planning

ROOT = Path(__file__).resolve().parents[3]


def test_each_cause_is_a_section_of_the_guide_and_the_other_way_round() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / planning.GUIDE).read_text(), flags=re.M)
    assert sections == list(planning.CAUSES)
