"""What the bed's inventory says, compared with the roles' own decisions."""

from __future__ import annotations

import sys
from typing import Any

import yaml
from ansible_collections.abaci.infra.plugins.module_utils import k3s
from evaluating import evaluate
from probed import report
from rendering import ROOT

sys.path.insert(0, str(ROOT / "testbed"))

import bed


def test_the_real_release_of_k3s_passes_the_preflight_of_the_beds_inventory() -> None:
    folder = ROOT / "inventories/local/group_vars/all"
    variables: dict[str, Any] = {}
    for file in sorted(folder.glob("*.yml")):
        variables |= yaml.safe_load(file.read_text())
    variables |= bed.k3s_settings("v1.36.4+k3s1")
    known = {"groups": {"k3s_server": ["server-0"]}, "hostvars": {"server-0": {}}, "inventory_hostname": "server-0"}
    desired = evaluate("k3s", "__k3s_desired", **known, **variables)
    assert (desired["version"], desired["source"]) == ("v1.36.4+k3s1", "release")
    assert k3s.cluster_errors([{**report("server-0", "k3s"), "desired": {"k3s": desired}}]) == []
