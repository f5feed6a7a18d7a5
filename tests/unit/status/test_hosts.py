"""What host_probe saw of the hosts, as facts: by topic, so that each check tells its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import well
from ansible_collections.abaci.infra.plugins.module_utils.status import reading

PROBE: dict[str, Any] = {
    "hostname": "node-1",
    "kernel": "6.12.0",
    "os": {"id": "debian", "version": "13"},
    "systemd": True,
    "cgroup": 2,
    "memory_mb": 8000,
    "disk_path": "/var/lib",
    "disk_free_mb": 90000,
    "default_route": True,
    "clock": [0.0, 0.1],
    "clock_synchronised": True,
    "listeners": [],
    "firewalls": [],
    "k3s_installed": False,
    "fuse": {"in_kernel": True, "module": True, "device": "0666", "udev": True, "mounted": None},
}
DESIRED: dict[str, Any] = {
    "address": "192.0.2.11",
    "server": False,
    "hostname": "",
    "time_sync": "existing",
    "clock_skew_max": 1.0,
    "supported_systems": {"debian": "12"},
    "k3s_version": "v1.36.4+k3s1",
    "cgroup_v1_allowed": False,
    "ports": [80, 443, 10250],
    "server_ports": [6443],
    "min_memory_mb": 1024,
    "min_disk_mb": 10000,
    "fuse_required": True,
}


def report(n: int = 1, **probe: Any) -> dict[str, Any]:
    seen = {**copy.deepcopy(PROBE), "hostname": f"node-{n}", **probe}
    wanted = {"host": {**DESIRED, "address": f"192.0.2.{n}"}}
    return {"name": f"node-{n}", "reason": "", "desired": wanted, "probe": seen, "differing": {}, "kubeconfig": {}}


def test_hosts_that_are_well_have_no_complaint() -> None:
    assert well.bad(reading.with_hosts(well.look(), [report(1), report(2)], [])) == {}


@pytest.mark.parametrize(
    ("slug", "probe"),
    [
        ("hosts-system", {"os": {"id": "debian", "version": "11"}}),
        ("hosts-cgroup", {"cgroup": 1}),
        ("hosts-ports-free", {"listeners": [{"port": 443, "process": "nginx", "unit": "nginx.service"}]}),
        ("hosts-size", {"memory_mb": 512}),
        ("hosts-route", {"default_route": False}),
        ("hosts-time", {"clock_synchronised": False}),
        ("hosts-clocks-agree", {"clock": [30.0, 30.1]}),
        ("hosts-fuse", {"fuse": {**PROBE["fuse"], "in_kernel": False, "module": False}}),
        ("hosts-firewall", {"firewalls": ["ufw"]}),
        ("inventory-names", {"hostname": "node_1"}),
        ("inventory-names", {"hostname": "node-2"}),
    ],
)
def test_a_fault_of_a_host_is_told_by_its_check_and_no_other(slug: str, probe: dict[str, Any]) -> None:
    found = well.bad(reading.with_hosts(well.look(), [report(1, **probe), report(2)], []))
    assert list(found) == [slug], {key: one.cause for key, one in found.items()}


def test_a_host_that_is_away_is_named() -> None:
    away = {**report(1), "reason": "No route to host", "probe": {}}
    found = well.bad(reading.with_hosts(well.look(), [away, report(2)], []))
    assert list(found) == ["hosts-reached"]
    assert found["hosts-reached"].cause.startswith("node-1: the host cannot be reached at 192.0.2.1 (No route to host)")


def test_a_firewall_is_no_warning_once_its_ports_were_tried() -> None:
    tried = {"source": "node-2", "target": "node-1", "port": 6443, "protocol": "tcp", "error": None}
    reports = [report(1, firewalls=["ufw"]), report(2)]
    assert well.bad(reading.with_hosts(well.look(), reports, [tried])) == {}
    closed = well.bad(reading.with_hosts(well.look(), reports, [{**tried, "error": "no answer within 3 s"}]))
    assert list(closed) == ["ports-between-hosts"]
    assert closed["ports-between-hosts"].command.endswith(
        " node-1 -b -m ansible.builtin.command -a 'ufw allow from 192.0.2.2 to any port 6443 proto tcp'"
    )
