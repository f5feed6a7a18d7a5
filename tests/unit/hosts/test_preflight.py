"""What a host must be before it becomes a node: each rule, all errors together, and the fstab edit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import probed
import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import preflight
from ansible_collections.abaci.infra.plugins.modules import host_probe

ROOT = Path(__file__).parents[3]


def report(name: str = "node-1", **changes: Any) -> dict[str, Any]:
    """A host without an error; see probed.report."""
    own = {"desired__host__address": f"192.0.2.{name.rsplit('-', 1)[-1]}", "probe__hostname": name}
    return probed.report(name, "host", **{**own, **changes})


def listener(port: int, process: str = "nginx", unit: str = "/system.slice/nginx.service") -> dict[str, Any]:
    return {"port": port, "process": process, "unit": unit}


def test_hosts_without_an_error_pass() -> None:
    assert preflight.host_errors([report("node-1", desired__host__server=True), report("node-2")]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probe__os": {"id": "debian", "version": "11"}}, ["debian 11", "12", "host_supported_systems"]),
        ({"probe__os": {"id": "ubuntu", "version": "22.04"}}, ["ubuntu 22.04", "24.04"]),
        ({"probe__os": {"id": "rocky", "version": "9.4"}}, ["rocky 9.4", "debian 12", "ubuntu 24.04", "if it has apt"]),
        ({"probe__hostname": "web_1"}, ["no node of the name web_1", "host_hostname: web-1 for it"]),
        ({"probe__hostname": "-Bad"}, ["-Bad", "host_hostname: bad for"]),
        ({"probe__hostname": "node..x"}, ["node..x", "host_hostname: node.x for"]),
        ({"probe__hostname": "a" * 64}, [f"host_hostname: {'a' * 63} for"]),
        ({"probe__hostname": "___"}, ["host_hostname: node for"]),
        ({"desired__host__hostname": "web_2"}, ["web_2", "web-2"]),
        ({"desired__k3s": {"node_name": "web_3"}}, ["web_3", "node-name: web-3 in k3s_node_config"]),
        ({"probe__systemd": False}, ["systemd", "PID 1"]),
        ({"probe__cgroup": 1}, ["cgroup v1", "v1.36.4+k3s1", "host_cgroup_v1_allowed"]),
        ({"probe__cgroup": 1, "desired__host__k3s_version": ""}, ["cgroup v1", "newer k3s versions"]),
        ({"probe__memory_mb": 900}, ["900 MB", "1800 MB", "host_min_memory_mb"]),
        ({"probe__disk_free_mb": 900}, ["/var/lib has 900 MB", "host_min_disk_mb"]),
        ({"probe__default_route": False}, ["default route"]),
        ({"probe__clock_synchronised": False}, ["host_time_sync is existing", "chrony"]),
        ({"probe__listeners": [listener(443)]}, ["port 443 is taken by nginx (nginx.service)", "host_ports"]),
        ({"probe__listeners": [listener(80, "", "")]}, ["port 80 is taken by an unknown process"]),
        (
            {"probe__fuse": {**probed.FUSE, "in_kernel": False, "module": False, "device": ""}},
            ["6.12.0 has neither FUSE", "linux-modules-extra"],
        ),
        (
            {"probe__fuse": {**probed.FUSE, "in_kernel": True, "module": False, "device": ""}},
            ["/dev/fuse does not exist", "--device /dev/fuse"],
        ),
        (
            {"reason": "Connection refused\n"},
            ["cannot be reached at 192.0.2.1 (Connection refused)", "ansible_host", "--limit 'all:localhost:!node-1'."],
        ),
    ],
)
def test_each_error_is_one_sentence_with_the_host_and_the_way_out(changes: dict[str, Any], words: list[str]) -> None:
    found = preflight.host_errors([report(**changes)])
    assert len(found) == 1
    assert found[0].startswith("node-1: ")
    assert found[0].endswith(".")
    assert "\n" not in found[0]
    for word in words:
        assert word in found[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"probe__os": {"id": "debian", "version": "13.2"}},
        {"probe__os": {"id": "ubuntu", "version": "26.04"}},
        {"probe__hostname": "Web-1.example.org"},
        {"probe__hostname": "a" * 63},
        {"probe__hostname": "web_1", "desired__host__hostname": "web-1"},
        {"probe__hostname": "web_1", "desired__k3s": {"node_name": "web-1"}},
        {"probe__cgroup": 1, "desired__host__k3s_version": "v1.34.9+k3s1"},
        {"probe__cgroup": 1, "desired__host__cgroup_v1_allowed": True},
        {"probe__fuse": {**probed.FUSE, "in_kernel": False, "module": True, "device": ""}},
        {
            "probe__fuse": {**probed.FUSE, "in_kernel": False, "module": False, "device": ""},
            "desired__host__fuse_required": False,
        },
        {"probe__disk_free_mb": 1, "probe__k3s_installed": True},
        {"probe__clock_synchronised": False, "desired__host__time_sync": "none"},
        {"probe__listeners": [listener(6443)]},  # the API's port matters on servers only
        {"probe__listeners": [listener(10250, "k3s-agent", "/system.slice/k3s-agent.service")]},
        {
            "desired__host__server": True,
            "probe__listeners": [listener(6443, "k3s-server", "/system.slice/k3s.service")],
        },
        {"probe__listeners": [listener(443, "traefik", "/kubepods/burstable/pod1/abc")]},
    ],
)
def test_what_is_no_error(changes: dict[str, Any]) -> None:
    assert preflight.host_errors([report(**changes)]) == []


def test_the_port_of_the_api_matters_on_a_server() -> None:
    found = preflight.host_errors(
        [report(desired__host__server=True, probe__listeners=[listener(6443, "kube", "/x/kube.service")])]
    )
    assert len(found) == 1 and "port 6443 is taken by kube (kube.service)" in found[0]


def test_all_errors_of_all_hosts_come_together() -> None:
    found = preflight.host_errors(
        [
            report("node-1", probe__memory_mb=1, probe__default_route=False),
            report("node-2", reason="timed out"),
            report("node-3", probe__listeners=[listener(80), listener(443)]),
        ]
    )
    assert [text.split(":")[0] for text in found] == ["node-1", "node-1", "node-2", "node-3", "node-3"]


def test_a_firewall_is_a_note_that_names_the_page_and_no_error() -> None:
    reports = [report(f"node-{n}", probe__firewalls=["ufw"]) for n in (1, 2)]
    reports += [report("node-3"), report("node-4", reason="away", probe={})]
    assert not [text for text in preflight.host_errors(reports) if "ufw" in text]
    (note,) = preflight.host_notes(reports)
    assert note.startswith("node-1, node-2: ufw filters here")
    title = re.findall(r'docs/operations.md, "([^"]+)"', note)
    assert f"## {title[0]}\n" in (ROOT / "docs/operations.md").read_text()


def test_the_same_error_of_several_hosts_is_one_sentence() -> None:
    found = preflight.host_errors([report(f"node-{n}", probe__default_route=False) for n in (1, 2)])
    assert len(found) == 1 and found[0].startswith("node-1, node-2: the host has no default route")


def test_two_hosts_of_one_name_are_refused_whatever_the_case() -> None:
    found = preflight.host_errors(
        [report("node-1", desired__host__hostname="web"), report("node-2", probe__hostname="WEB")]
    )
    assert len(found) == 1
    assert "node-1 and node-2" in found[0] and "host name web" in found[0] and "host_hostname" in found[0]


def test_one_machine_listed_twice_is_named_by_its_address_only() -> None:
    found = preflight.host_errors(
        [report("node-1"), report("node-2", desired__host__address="192.0.2.1", probe__hostname="node-1")]
    )
    assert len(found) == 1 and "same address 192.0.2.1" in found[0]


@pytest.mark.parametrize(
    ("clocks", "words"),
    [
        ([[0.0, 0.3], [1.9, 2.4]], None),
        ([[0.0, 0.3], [2.4, 2.9]], "at least 2.1 s ahead"),
        # A slow connection widens the interval and proves nothing.
        ([[0.0, 0.3], [-9.0, 0.1]], None),
        ([[-3600.5, -3600.0], [0.0, 0.3]], "at least 3600.0 s ahead"),
    ],
)
def test_only_a_gap_between_two_clocks_counts(clocks: list[list[float]], words: str | None) -> None:
    reports = [report(f"node-{index}", probe__clock=clock) for index, clock in enumerate(clocks)]
    found = preflight.clock_errors(reports)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1 and words in found[0] and "host_clock_skew_max" in found[0]


def test_clocks_that_chrony_will_set_are_not_compared() -> None:
    reports = [
        report("node-1", desired__host__time_sync="chrony", probe__clock=[99.0, 99.1]),
        report("node-2"),
        report("node-3"),
    ]
    assert preflight.host_errors(reports) == []


FSTAB = """\
# <file system> <mount point> <type> <options> <dump> <pass>
UUID=1-2 / ext4 errors=remount-ro 0 1
UUID=3-4\tnone\tswap\tsw\t0\t0
/swapfile none swap sw 0 0
# /old none swap sw 0 0
/dev/sdb1 /srv/swap ext4 defaults 0 2
"""


SWAP = yaml.safe_load((ROOT / "roles/host/tasks/swap.yml").read_text())[0]["ansible.builtin.replace"]


def without_swap(text: str) -> str:
    """As the module replace does it."""
    return re.sub(SWAP["regexp"], SWAP["replace"], text, flags=re.MULTILINE)


def test_the_fstab_edit_does_not_destroy_the_line_it_comments_out() -> None:
    edited = without_swap(FSTAB)
    assert edited.splitlines() == [
        "# <file system> <mount point> <type> <options> <dump> <pass>",
        "UUID=1-2 / ext4 errors=remount-ro 0 1",
        "# abaci.infra: UUID=3-4\tnone\tswap\tsw\t0\t0",
        "# abaci.infra: /swapfile none swap sw 0 0",
        "# /old none swap sw 0 0",
        "/dev/sdb1 /srv/swap ext4 defaults 0 2",
    ]
    assert without_swap(edited) == edited


def test_swap_is_looked_for_as_it_is_commented_out() -> None:
    assert host_probe.SWAP.pattern == SWAP["regexp"]


@pytest.mark.parametrize(
    "text", ["", "/swapfile none swap sw 0 0", "a b\nswap c\n", "\n\nUUID=1 / ext4 defaults 0 1\n"]
)
def test_the_fstab_edit_keeps_every_character(text: str) -> None:
    assert without_swap(text).replace("# abaci.infra: ", "") == text
