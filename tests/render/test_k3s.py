"""What the role k3s makes of the inventory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from evaluating import evaluate
from rendering import ROOT

OWN = {"write-kubeconfig": "/root/own.yaml"}
# The server's variables, and where it writes its kubeconfig
CLUSTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "/etc/rancher/k3s/k3s.yaml"),
    ({"k3s_server_config": OWN}, "/root/own.yaml"),
    ({"k3s_config": OWN, "k3s_node_config": {"write-kubeconfig": "/root/last.yaml"}}, "/root/last.yaml"),
]


def known(name: str, server: dict[str, Any] | None = None) -> dict[str, Any]:
    """What Ansible knows on one host of a cluster of two; ``server`` holds the server's own variables."""
    given = server or {}
    groups = {"k3s_server": ["server"], "k3s_agent": ["agent"]}
    hostvars = {"server": given, "agent": {}}
    return {"groups": groups, "hostvars": hostvars, "inventory_hostname": name, **hostvars[name]}


@pytest.mark.parametrize(("server", "wanted"), CLUSTERS)
def test_server_and_agent_agree_where_the_servers_kubeconfig_is(server: dict[str, Any], wanted: str) -> None:
    for name in ("server", "agent"):
        assert evaluate("k3s", "__k3s_settings", **known(name, server))["kubeconfig"] == wanted


def test_each_node_gets_its_configuration() -> None:
    layers = {"k3s_config": {"kubelet-arg": ["v=2"], "node-name": "x"}, "k3s_token": "secret"}
    common = ["allowed-unsafe-sysctls=net.ipv4.tcp_syn_retries", "v=2"]
    assert evaluate("k3s", "__k3s_config", **known("server", {"ansible_host": "192.0.2.1"}), **layers) == {
        "kubelet-arg": common,
        "node-name": "x",
        "secrets-encryption": True,
        "write-kubeconfig-mode": "0600",
        "data-dir": "/var/lib/rancher/k3s",
        "tls-san": ["192.0.2.1"],
        "token-file": "/etc/rancher/k3s/token",
    }
    assert evaluate("k3s", "__k3s_config", **known("agent", {"ansible_host": "192.0.2.1"}), **layers) == {
        "kubelet-arg": common,
        "node-name": "x",
        "data-dir": "/var/lib/rancher/k3s",
        "server": "https://192.0.2.1:6443",
        "token-file": "/etc/rancher/k3s/token",
    }


def test_an_ipv6_address_has_brackets_in_a_url_and_none_in_the_certificate() -> None:
    server = {"ansible_host": "2001:db8::11"}
    url = "https://[2001:db8::11]:6443"
    assert evaluate("k3s", "__k3s_config", **known("agent", server))["server"] == url
    assert evaluate("k3s", "__k3s_config", **known("server", server))["tls-san"] == ["2001:db8::11"]
    assert evaluate("k3s", "__k3s_kubeconfig_server", **known("server", server)) == url


# The role, and the variables with which it writes all files that it can
ROLES: dict[str, tuple[str, dict[str, Any]]] = {
    "host": ("host", {"host_time_servers": ["ntp.example.org"]}),
    "fuse": ("fuse", {}),
    "server": (
        "k3s",
        {**known("server"), "k3s_registries": {"x": 1}, "k3s_kubelet_config": {"y": 1}, "k3s_token": "z"},
    ),
    "agent": ("k3s", {**known("agent"), "k3s_images_state": "present"}),
}


@pytest.mark.parametrize("kind", ROLES)
def test_the_probe_compares_the_files_that_the_tasks_write(kind: str) -> None:
    """Topic, path and mode of every file and folder stand twice: where it is compared and where it is written."""
    role, variables = ROLES[kind]
    compared = {(file["topic"], file["dest"]): file["mode"] for file in evaluate(role, f"__{role}_files", **variables)}
    written = {}
    for topic in {topic for topic, _dest in compared}:
        file = ROOT / f"roles/{role}/tasks" / f"{topic}{f'_{kind}' if topic == 'token' else ''}.yml"
        for task in tasks_of(yaml.safe_load(file.read_text())):
            for module in ("template", "copy", "file"):
                arguments = task.get(f"ansible.builtin.{module}")
                if arguments and "mode" in arguments and "delegate_to" not in task:
                    dest, mode = (
                        evaluate(role, "__x", __x=trust_as_template(value), **variables)
                        for value in (arguments.get("dest") or arguments["path"], arguments["mode"])
                    )
                    written[topic, dest] = mode
    written = {key: mode for key, mode in written.items() if key[1] != "/dev/fuse"}  # which is no file
    assert written == compared


def tasks_of(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield from tasks_of(item["block"]) if "block" in item else [item]


def test_what_the_kubelet_was_told_ends_with_the_variable() -> None:
    tasks = yaml.safe_load((ROOT / "roles/k3s/tasks/configure.yml").read_text())
    (written,) = [task for task in tasks if task.get("ansible.builtin.template", {}).get("src") == "kubelet.conf.j2"]
    (gone,) = [task for task in tasks if task.get("ansible.builtin.file", {}).get("state") == "absent"]
    assert gone["ansible.builtin.file"]["path"] == written["ansible.builtin.template"]["dest"]
    assert (written["when"], gone["when"]) == ("k3s_kubelet_config | length > 0", "k3s_kubelet_config | length == 0")
    assert gone["notify"] == written["notify"] == "Restart k3s"
