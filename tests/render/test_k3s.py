"""What the role k3s makes of the inventory."""

from __future__ import annotations

from typing import Any

import pytest
from evaluating import evaluate

OWN = {"write-kubeconfig": "/root/own.yaml"}


@pytest.mark.parametrize("host", ["node-0", "node-1"])
@pytest.mark.parametrize(
    ("server", "path"),
    [
        ({}, "/etc/rancher/k3s/k3s.yaml"),
        ({"k3s_server_config": OWN}, "/root/own.yaml"),
        ({"k3s_config": OWN, "k3s_node_config": {"write-kubeconfig": "/root/last.yaml"}}, "/root/last.yaml"),
    ],
)
def test_server_and_agent_agree_where_the_servers_kubeconfig_is(host: str, server: dict[str, Any], path: str) -> None:
    groups = {"k3s_server": ["node-0"], "k3s_agent": ["node-1"]}
    hosts: dict[str, dict[str, Any]] = {"node-0": server, "node-1": {"k3s_server_config": {}}}
    given = {**hosts[host], "groups": groups, "hostvars": hosts, "inventory_hostname": host}
    assert evaluate("k3s", "__k3s_server_kubeconfig", **given) == path
