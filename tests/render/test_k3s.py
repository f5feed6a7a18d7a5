"""What the role k3s makes of the inventory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT

OWN = {"write-kubeconfig": "/root/own.yaml"}
# The server's variables, and where it writes its kubeconfig
CLUSTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "/etc/rancher/k3s/k3s.yaml"),
    ({"k3s_server_config": OWN}, "/root/own.yaml"),
    ({"k3s_config": OWN, "k3s_node_config": {"write-kubeconfig": "/root/last.yaml"}}, "/root/last.yaml"),
]


@pytest.mark.parametrize(("server", "wanted"), CLUSTERS)
def test_server_and_agent_agree_where_the_servers_kubeconfig_is(
    server: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    groups = {"k3s_server": {"hosts": {"server": server}}, "k3s_agent": {"hosts": {"agent": {}}}}
    role = {"name": "abaci.infra.k3s", "tasks_from": "links.yml", "public": True}
    path = {
        "content": "{{ __k3s_server_kubeconfig }}",
        "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}",
        "mode": "0600",
    }
    tasks = [{"ansible.builtin.include_role": role}, {"ansible.builtin.copy": path}]
    # For the role's smallest part, which then has nothing to do
    report = {"__k3s_report": {"probe": {"links": {}}}, "ansible_python_interpreter": sys.executable}
    play = [{"hosts": "all", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups, "vars": report}}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert {(tmp_path / kind).read_text() for kind in ("server", "agent")} == {wanted}


def test_what_the_kubelet_was_told_ends_with_the_variable() -> None:
    tasks = yaml.safe_load((ROOT / "roles/k3s/tasks/configure.yml").read_text())
    (written,) = [task for task in tasks if task.get("ansible.builtin.template", {}).get("src") == "kubelet.conf.j2"]
    (gone,) = [task for task in tasks if task.get("ansible.builtin.file", {}).get("state") == "absent"]
    assert gone["ansible.builtin.file"]["path"] == written["ansible.builtin.template"]["dest"]
    assert (written["when"], gone["when"]) == ("k3s_kubelet_config | length > 0", "k3s_kubelet_config | length == 0")
    assert gone["notify"] == written["notify"] == "Restart k3s"
