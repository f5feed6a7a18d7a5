"""The playbook site, as far as it comes without a host that answers."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import probed
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from evaluating import evaluate
from rendering import ROOT

NEW = "Check the new cluster before its agents"
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
        # Of hosts alone: with none of them a run would end well and have copied nothing.
        ("playbooks/cluster_backup.yml", "cluster_backup_plain=true"),
        ("playbooks/cluster_restore.yml", "cluster_restore_from=/nowhere"),
        ("playbooks/volumes_save.yml", "volumes_save_directory=/nowhere"),
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
    asks = names.index("Check the cluster before anything is changed")
    assert asks < names.index("Hosts")
    assert names.index("Check all hosts before anything is changed") < asks
    (early,) = plays[asks]["tasks"]
    assert early["ansible.builtin.import_role"] == {"name": "abaci.infra.site"}
    # Only what would be applied can be a second site, and there may be no cluster yet.
    assert early["vars"] == {
        "site_apply": "{{ app_state | default('present') == 'present' }}",
        "site_required": False,
    }
    # A new one is asked as soon as there is an API, since much is done until the platform comes.
    assert names.index("Server of the cluster") < names.index(NEW) < names.index("Agents of the cluster")
    (last,) = plays[names.index(NEW)]["tasks"]
    assert (
        last["ansible.builtin.include_role"]["name"] == "abaci.infra.site"
        and last["when"] == "not __site_checked.asked"
    )
    assert last["vars"] == {"site_apply": early["vars"]["site_apply"]}
    platform = {"device_plugin", "traefik", "cert_manager", "redis", "storage", "app", "keel"}
    for tags in (
        plays[asks]["tags"],
        plays[names.index(NEW)]["tags"],
        last["ansible.builtin.include_role"]["apply"]["tags"],
    ):
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
    known["hostvars"]["a"] = {"__site_observed": {"probe": {"k3s": {"ca_hash": "c0ffee"}}}}
    assert evaluate("site", "__site_ca_hash", **known) == "c0ffee"
    known["hostvars"]["a"]["__k3s_own_content"] = {"content": fetched}
    assert evaluate("site", "__site_ca_hash", **known) == hashlib.sha256(b"a").hexdigest()
    names = {"host_hostname": "web-1", "k3s_node_config": {"node-name": "web"}}
    known["hostvars"]["b"] |= names
    assert evaluate("site", "__site_aliases", **known) == ["web-1", "web"]


def test_a_cluster_that_answers_on_its_server_has_to_answer_here_before_any_host_is_touched() -> None:
    status = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    node = {"metadata": {"name": "node"}, "status": {"nodeInfo": {"kubeletVersion": ""}, "conditions": [status]}}
    own = {
        "k3s__binary_sha256": probed.DESIRED["k3s"]["checksum"],
        "k3s__nodes": [node],
        "k3s__kubeconfig_sha256": "c0ffee",
        "probe__services__k3s": probed.RUNS,
        "kubeconfig__sha256": "c0ffee",
        "kubeconfig__mode": "0600",
    }

    def served(*parts: str, **changes: Any) -> bool:
        seen = probed.report("server-0", *(parts or ("k3s",)), **{**own, **changes})
        hostvars = {"server-0": {"__site_observed": seen}}
        return evaluate("site", "__site_served", groups={"k3s_server": ["server-0"]}, hostvars=hostvars)

    assert served() is True
    # What this run would change may be what is wrong: an address, an API that is away, a kubeconfig that is not there.
    assert served(kubeconfig__sha256="") is False
    assert served(k3s__nodes=[]) is False
    assert served(differing__k3s=["configure"]) is False
    assert served("host") is False
    away = probed.report("server-0", "k3s") | {"reason": "away", "probe": {}}
    hostvars = {"server-0": {"__site_observed": away}}
    assert evaluate("site", "__site_served", groups={"k3s_server": ["server-0"]}, hostvars=hostvars) is False
    assert evaluate("site", "__site_served", groups={"k3s_server": ["a"]}, hostvars={"a": {}}) is False
    assert evaluate("site", "__site_served", groups={}, hostvars={}) is False
    (check,) = [task for task in yaml.safe_load((ROOT / "roles/site/tasks/main.yml").read_text()) if "register" in task]
    assert check["abaci.infra.site_check"]["required"] == "{{ site_required | bool or __site_served }}"


def including_the_check(tasks: list[dict[str, Any]], part: str = "main") -> dict[str, Any]:
    """The task that includes the role site, or a part of it."""
    return next(
        task
        for task in tasks
        if task.get("ansible.builtin.include_role", {}).get("name") == "abaci.infra.site"
        and task["ansible.builtin.include_role"].get("tasks_from", "main") == part
    )


def test_every_operation_asks_whose_cluster_it_is_before_it_plans() -> None:
    roles = ROOT / "roles"
    tasks = yaml.safe_load((roles / "operation/tasks/validate.yml").read_text())
    groups, check = including_the_check(tasks, "inventory"), including_the_check(tasks)
    assert tasks.index(groups) < tasks.index(check) and "when" not in groups and "when" not in check
    assert check["vars"] == {
        "site_kubeconfig": "{{ operation_kubeconfig }}",
        "site_namespace": "{{ operation_namespace }}",
        "site_app": "{{ operation_app }}",
    }
    names = [task["name"] for task in yaml.safe_load((roles / "operation/tasks/main.yml").read_text())]
    assert names.index("Check the values") < names.index("Plan")
    settle = yaml.safe_load((roles / "operation/tasks/settle.yml").read_text())
    assert settle[0]["ansible.builtin.import_tasks"] == "validate.yml"


def test_hosts_that_nobody_looked_at_are_left_out(tmp_path: Path) -> None:
    """With serial, or after a host dropped out, not all of the play's hosts have a report."""
    _look, check = yaml.safe_load((ROOT / "roles/site/tasks/hosts.yml").read_text())
    known = {"ansible_play_hosts_all": ["a", "b"], "hostvars": {"a": {"__site_observed": {"name": "a"}}, "b": {}}}
    loader = DataLoader()
    variables = {name: trust_as_template(value) for name, value in check["vars"].items()}
    templar = Templar(loader=loader, variables={**known, **variables})
    assert templar.template(trust_as_template("{{ __site_reports }}")) == [{"name": "a"}]


def test_the_application_alone_asks_before_anything_is_looked_at() -> None:
    tasks = yaml.safe_load((ROOT / "roles/app/tasks/main.yml").read_text())
    check = including_the_check(tasks)
    assert check["vars"] == {"site_apply": True}
    assert check["when"] == "app_state == 'present' and not __site_checked.asked | default(false)"
    assert tasks.index(check) < [task["name"] for task in tasks].index("Set which cluster and which application")
    said = yaml.safe_load((ROOT / "roles/site/tasks/main.yml").read_text())
    assert said[0]["register"] == "__site_checked"
    given = said[0]["abaci.infra.site_check"]
    assert {key: value for key, value in given.items() if key in ("ca_hash", "hosts", "aliases", "server")} == {
        "ca_hash": "{{ __site_ca_hash }}",
        "hosts": "{{ __site_hosts }}",
        "aliases": "{{ __site_aliases }}",
        "server": "{{ __site_server }}",
    }


def test_the_end_of_a_run_says_how_old_the_copy_of_the_cluster_is_where_the_server_was_asked() -> None:
    play = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())[-1]
    (task,) = play["post_tasks"]
    _, line = task["ansible.builtin.debug"]["msg"]
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()}

    def said(groups: Any, observed: Any) -> Any:
        hostvars = {"a": {"__site_observed": observed}}
        known = {**variables, "groups": groups, "hostvars": hostvars}
        return Templar(loader=DataLoader(), variables=known).template(trust_as_template(line))

    one = {"k3s_server": ["a"]}
    assert said(one, {"probe": {"k3s": {"copy_age": "3 hours old, in x."}}}) == "Cluster backup: 3 hours old, in x."
    unknown: list[tuple[Any, Any]] = [(one, {"probe": {}}), ({"k3s_server": ["b"]}, {}), ({}, {})]
    for groups, observed in unknown:
        assert said(groups, observed).endswith("not known to a run without the server.")
