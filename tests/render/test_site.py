"""The playbook site, as far as it comes without a host that answers."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluating import evaluate
from rendering import ROOT

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


@pytest.mark.parametrize(
    ("limit", "tags", "refused"),
    [
        ("all:!node-3", "all", True),
        ("node-1", "app", True),
        (None, "all", False),
        ("all:localhost:!node-3", "all", False),
        ("node-1,localhost", "preflight", False),
    ],
)
def test_a_limit_without_localhost_is_refused_before_anything_is_asked(
    limit: str | None, tags: str, refused: bool
) -> None:
    command = [str(PLAYBOOK), "-i", "inventories/sample", "site.yml", "--tags", tags]
    command += ["--limit", limit] if limit else []
    # What is allowed stops at the next play, which takes no host.
    done = subprocess.run([*command, "-e", "app_domain="], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (f"The limit {limit} leaves out localhost" in done.stdout) is refused, done.stdout
    assert ("app_domain" in done.stdout) is not refused


@pytest.mark.parametrize(
    ("playbook", "given"),
    [
        ("site.yml", "app_domain=www.example.org"),
        ("site.yml --tags k3s", "app_domain=www.example.org"),
        ("site.yml --tags app,redis --check", "app_domain=www.example.org"),
        ("playbooks/backup.yml", "backup_keep=3"),
        ("playbooks/scale.yml", "scale_replicas=2"),
        ("playbooks/replica_reset.yml", "replica_reset_targets=[1]"),
        ("playbooks/promote.yml", "promote_successor=1"),
    ],
)
def test_groups_of_other_names_are_refused_before_any_cluster_is_asked(
    playbook: str, given: str, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all: {children: {server: {hosts: {node-1: {}}}, agent: {hosts: {node-2: {}}}}}\n")
    command = [str(PLAYBOOK), "-i", str(hosts), *playbook.split(), "-e", given]
    done = subprocess.run(
        [*command, "-e", f"abaci_kubeconfig={tmp_path}/none"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stdout
    assert "The inventory has no host in the group k3s_server" in done.stdout
    assert "kubeconfig at" not in done.stdout


def test_the_cluster_is_asked_before_any_host_is_touched_and_again_where_there_was_none() -> None:
    plays = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    names = [play["name"] for play in plays]
    asks = names.index("Ask the cluster before anything is changed")
    assert asks < names.index("Hosts")
    assert names.index("Ask all hosts before anything is changed") < asks
    (early,) = plays[asks]["tasks"]
    assert early["ansible.builtin.import_role"] == {"name": "abaci.infra.site"}
    last = plays[names.index("Platform and application")]["pre_tasks"][0]
    assert last["ansible.builtin.include_role"]["name"] == "abaci.infra.site" and last["when"] == "not __site_asked"
    platform = {"device_plugin", "traefik", "cert_manager", "redis", "storage", "app", "keel"}
    for tags in (plays[asks]["tags"], last["tags"], last["ansible.builtin.include_role"]["apply"]["tags"]):
        assert platform <= set(tags)


def test_what_the_hosts_said_in_this_run_is_compared() -> None:
    kubeconfig = {"clusters": [{"cluster": {"certificate-authority-data": "YQ=="}}]}
    fetched = base64.b64encode(json.dumps(kubeconfig).encode()).decode()
    known: dict[str, Any] = {
        "groups": {"k3s_server": ["a"], "k3s_agent": ["b"]},
        "hostvars": {"a": {}, "b": {"ansible_host": "192.0.2.2"}},
    }
    assert evaluate("site", "__site_hosts", **known) == {"a": "a", "b": "192.0.2.2"}
    assert evaluate("site", "__site_ca_hash", **known) == ""
    known["hostvars"]["a"] = {"__k3s_report": {"probe": {"ca_hash": "c0ffee"}}}
    assert evaluate("site", "__site_ca_hash", **known) == "c0ffee"
    known["hostvars"]["a"]["__k3s_own_content"] = {"content": fetched}
    assert evaluate("site", "__site_ca_hash", **known) == hashlib.sha256(b"a").hexdigest()
    names = {"host_hostname": "web-1", "k3s_node_config": {"node-name": "web"}}
    known["hostvars"]["b"] |= names
    assert evaluate("site", "__site_aliases", **known) == ["web-1", "web"]
