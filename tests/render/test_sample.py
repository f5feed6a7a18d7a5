"""The sample inventory, with every example in it that reads the vault, and the vault's example copied as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible_collections.abaci.infra.plugins.module_utils.values import secret_values
from evaluating import evaluate
from rendering import ROOT

SAMPLE = ROOT / "inventories/sample/group_vars/all"


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for path in [*SAMPLE.glob("*.yml"), SAMPLE / "vault.yml.example"]:
        copy = tmp_path / path.name
        copy.write_text(re.sub(r"^# (?=(?!vault_)\w+: .*vault_)", "", path.read_text(), flags=re.MULTILINE))
        known |= DataLoader().load_from_file(str(copy), trusted_as_template=True) or {}
    return known


def test_redis_keeps_its_password(sample: dict[str, Any]) -> None:
    assert evaluate("redis", "__redis_desired", **sample) == {"password": None, "checksum-key": None}, "made, kept"
    mine = {**sample, "vault_redis_password": "geheim"}
    assert evaluate("redis", "__redis_desired", **mine) == {"password": "geheim", "checksum-key": None}


def test_the_hosts_of_nfs_keep_the_packages_that_the_role_asks_for() -> None:
    (line,) = re.findall(r"^# (host_packages: .*)$", (SAMPLE / "storage.yml").read_text(), re.MULTILINE)
    assert yaml.safe_load(line)["host_packages"] == [*evaluate("host", "host_packages"), "nfs-common"]


def test_the_applications_secrets_are_made_and_the_image_is_pulled_without_a_token(sample: dict[str, Any]) -> None:
    desired = evaluate("app", "app_secrets", **sample)
    assert desired == {"AUTH_SECRET": ""} and len(secret_values(desired, None)["AUTH_SECRET"]) > 32
    assert evaluate("app", "app_registry_token", **sample) == ""
    assert evaluate("app", "__app_pull_secrets", **sample) == []
