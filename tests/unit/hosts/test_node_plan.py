"""What is to be done on a host: nothing where all is as desired, and for each difference its topic alone."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import node_plan
from probed import DESIRED, FUSE, RUNS, STOPPED, report

SUM = DESIRED["k3s"]["checksum"]
VERSION = DESIRED["k3s"]["version"]
ROOT = Path(__file__).parents[3]
PARTS = ("host", "fuse", "k3s")


def node(name: str, ready: str = "True", version: str = VERSION) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-11-24T12:00:10Z"}]
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": {"kubeletVersion": version}, "conditions": conditions},
    }


DAY = 86400
NOW = 1795521610.0  # the nodes' last report

RUNNING = {
    "k3s__installed_version": VERSION,
    "k3s__binary_sha256": SUM,
    "k3s__ca_hash": "a",
    "k3s__token_mark": "m",
    "k3s__node_password": True,
    "k3s__now": NOW,
    "k3s__certificates_end": NOW + 300 * DAY,
    "k3s__links": {"kubectl": "ours", "ctr": "other"},
}


def server(**changes: Any) -> dict[str, Any]:
    """A server that has nothing to do, but for the changes."""
    own = {
        **RUNNING,
        "k3s__node_name": "server-0",
        "k3s__units": ["k3s"],
        "k3s__nodes": [node("server-0"), node("agent-1")],
        "k3s__kubeconfig_sha256": "k",
        "probe__services__k3s": RUNS,
        "kubeconfig__sha256": "k",
        "kubeconfig__mode": "0600",
        "kubeconfig__clusters": 1,
        "kubeconfig__ca_hash": "a",
    }
    return report("server-0", *PARTS, **{**own, **changes})


def agent(**changes: Any) -> dict[str, Any]:
    """An agent that has nothing to do, but for the changes."""
    own = {
        **RUNNING,
        "k3s__node_name": "agent-1",
        "k3s__units": ["k3s-agent"],
        "probe__services__k3s-agent": RUNS,
    }
    return report("agent-1", *PARTS, **{**own, **changes})


def topics(made: Any, role: str) -> list[str]:
    found: list[str] = made[role]
    return found


def test_where_all_is_as_desired_there_is_nothing_to_do() -> None:
    # A filter gets copies, so the server's own report is another object here, too.
    for one in (server(), agent()):
        made = node_plan.plan(one, server())
        assert made == {"host": [], "fuse": [], "k3s": [], "fetch": [], "links": [], "renew": ""}
    assert node_plan.errors([server(), agent(probe__hostname="agent-1", desired__host__address="192.0.2.2")]) == []


@pytest.mark.parametrize(
    ("changes", "role", "expected"),
    [
        ({"probe__packages_missing": ["kmod"]}, "host", ["packages"]),
        ({"probe__packages_missing": ["fuse3"]}, "fuse", ["packages", "mount"]),
        ({"desired__host__hostname": "other"}, "host", ["names"]),
        ({"desired__host__hostname": "node"}, "host", []),
        ({"desired__host__entries": {"nas": "192.0.2.9"}}, "host", ["names"]),
        (
            {"desired__host__entries": {"nas": "192.0.2.9"}, "probe__hosts_block": ["192.0.2.9 nas"]},
            "host",
            [],
        ),
        ({"differing__host": ["sysctl"]}, "host", ["sysctl"]),
        ({"desired__host__sysctl": {"kernel.panic": 10}, "probe__sysctl": {"kernel.panic": "0"}}, "host", ["sysctl"]),
        ({"desired__host__sysctl": {"kernel.panic": 10}, "probe__sysctl": {"kernel.panic": "10"}}, "host", []),
        ({"desired__host__sysctl": {"net.x": "1\t2"}, "probe__sysctl": {"net.x": "1 2"}}, "host", []),
        ({"probe__swaps": ["/swapfile"]}, "host", []),
        ({"probe__swaps": ["/swapfile"], "desired__host__swap": "off"}, "host", ["swap"]),
        ({"probe__fstab_swap": True, "desired__host__swap": "off"}, "host", ["swap"]),
        ({"desired__host__time_sync": "chrony"}, "host", ["chrony"]),
        ({"desired__host__time_sync": "chrony", "probe__services__chrony": RUNS}, "host", []),
        (
            {
                "desired__host__time_sync": "chrony",
                "probe__services__chrony": RUNS,
                "probe__clock_synchronised": False,
            },
            "host",
            ["chrony"],
        ),
        ({"differing__fuse": ["device", "module"]}, "fuse", ["device", "mount"]),
        ({"differing__fuse": ["device"], "probe__fuse": {**FUSE, "udev": False}}, "fuse", []),
        ({"differing__fuse": ["module"], "probe__fuse": {**FUSE, "module": True}}, "fuse", ["module", "mount"]),
        (
            {"probe__fuse": {**FUSE, "module": True, "in_kernel": False, "device": ""}},
            "fuse",
            ["module", "device", "mount"],
        ),
        ({"probe__fuse__device": "0600"}, "fuse", ["device", "mount"]),
        ({"probe__fuse__mounted": False}, "fuse", ["mount"]),
        ({"probe__fuse__mounted": None}, "fuse", []),
    ],
)
def test_what_differs_on_a_host_is_a_topic(changes: dict[str, Any], role: str, expected: list[str]) -> None:
    made = node_plan.plan(server(**changes), None)
    assert topics(made, role) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"k3s__binary_sha256": "old"}, ["binary", "service", "kubeconfig"]),
        (
            {"desired__k3s__images_enabled": True, "desired__k3s__images_checksum": SUM},
            ["images", "service", "kubeconfig"],
        ),
        (
            {
                "desired__k3s__images_enabled": True,
                "desired__k3s__images_checksum": SUM,
                "k3s__images_sha256": SUM,
            },
            [],
        ),
        ({"differing__k3s": ["images"]}, ["images", "service", "kubeconfig"]),
        ({"k3s__links": {"kubectl": "absent"}}, ["links", "service", "kubeconfig"]),
        ({"differing__k3s": ["token"]}, ["token", "service", "kubeconfig"]),
        ({"differing__k3s": ["configure"]}, ["configure", "service", "kubeconfig"]),
        # A run that died between a change and the restart
        ({"k3s__stale_inputs": ["/etc/rancher/k3s/config.yaml"]}, ["service", "kubeconfig"]),
        ({"probe__services__k3s": STOPPED}, ["service", "kubeconfig"]),
        ({"probe__services__k3s": {**RUNS, "enabled": "disabled"}}, ["service", "kubeconfig"]),
        ({"k3s__nodes": []}, ["service", "kubeconfig"]),
        ({"k3s__nodes": [node("server-0", "False")]}, ["service", "kubeconfig"]),
        ({"k3s__nodes": [node("server-0", version="v1.36.3+k3s1")]}, ["service", "kubeconfig"]),
        ({"k3s__started": 1795521700.0}, ["service", "kubeconfig"]),  # the node has not reported since
        ({"desired__k3s__node_name": "web"}, ["service", "kubeconfig"]),  # the node of this name has not registered
        ({"k3s__certificates_end": NOW + 29 * DAY}, ["service", "kubeconfig"]),
        ({"k3s__certificates_end": NOW + 31 * DAY}, []),
        # It started within the time in which k3s renews them, and did not: another start would not either.
        ({"k3s__certificates_end": NOW + 29 * DAY, "k3s__started": NOW - 60 * DAY}, []),
        ({"kubeconfig__sha256": "other"}, ["kubeconfig"]),
        ({"kubeconfig__mode": "0644"}, ["kubeconfig"]),
        ({"k3s__kubeconfig_sha256": ""}, ["kubeconfig"]),
        ({"k3s__kubeconfig_sha256": "", "kubeconfig__sha256": ""}, ["kubeconfig"]),
    ],
)
def test_what_differs_of_k3s_on_a_server_is_a_topic(changes: dict[str, Any], expected: list[str]) -> None:
    assert node_plan.plan(server(**changes), server(**changes))["k3s"] == expected


def test_an_empty_host_gets_all_of_it() -> None:
    empty = server(
        k3s__binary_sha256="",
        k3s__links={"kubectl": "absent"},
        k3s__units=[],
        k3s__nodes=[],
        k3s__kubeconfig_sha256="",
        probe__services__k3s=STOPPED,
        kubeconfig__sha256="",
        differing__k3s=["configure", "token"],
    )
    made = node_plan.plan(empty, empty)
    assert made["k3s"] == ["binary", "links", "token", "configure", "service", "kubeconfig"]
    assert [(file["path"], file["dest"], file["checksum"]) for file in made["fetch"]] == [
        ("https://example.org/v1.36.4%2Bk3s1/k3s", "/usr/local/bin/k3s", SUM)
    ]
    assert made["links"] == ["kubectl"]


@pytest.mark.parametrize(
    ("on_agent", "on_server", "expected"),
    [
        ({"k3s__token_mark": "other"}, {}, ["token", "service"]),
        ({"k3s__token_mark": ""}, {}, ["token", "service"]),
        ({"differing__k3s": ["token"]}, {}, ["token", "service"]),  # its mode
        # The server is made or restarted in this run
        ({}, {"k3s__token_mark": ""}, ["token", "service"]),
        ({}, {"differing__k3s": ["configure"]}, ["service"]),
        ({}, {"kubeconfig__sha256": ""}, []),  # which is the controller's
        ({}, {"k3s__nodes": [node("server-0"), node("agent-1", "Unknown")]}, ["service"]),
        ({"probe__services__k3s-agent": STOPPED}, {}, ["service"]),
        # A server is no agent's business beyond that
        ({}, {"probe__packages_missing": ["kmod"]}, []),
    ],
)
def test_an_agent_follows_its_server(on_agent: dict[str, Any], on_server: dict[str, Any], expected: list[str]) -> None:
    assert node_plan.plan(agent(**on_agent), server(**on_server))["k3s"] == expected


def test_a_server_that_was_asked_for_another_role_last_is_as_none() -> None:
    other = report("server-0", "fuse", "host")
    assert node_plan.plan(agent(), other)["k3s"] == node_plan.plan(agent(), None)["k3s"]


def test_without_its_server_in_the_run_an_agent_asks_it() -> None:
    assert node_plan.plan(agent(), None)["k3s"] == ["token", "service"]


def test_only_the_roles_that_take_part_are_planned() -> None:
    empty = report("a", "fuse", probe__packages_missing=["fuse3", "kmod"])
    assert node_plan.plan(empty, None) == {
        "host": [],
        "fuse": ["packages", "mount"],
        "k3s": [],
        "fetch": [],
        "links": [],
        "renew": "",
    }


def test_certificates_that_a_start_renews_are_named_with_their_end() -> None:
    ends = {"k3s__certificates_end": NOW + 29 * DAY}
    assert node_plan.plan(server(**ends), server(**ends))["renew"] == "2026-12-23"
    made = node_plan.plan(agent(**ends), server())
    assert (made["k3s"], made["renew"]) == (["service"], "2026-12-23")


def test_certificates_that_the_last_start_did_not_renew_are_a_note_and_no_restart() -> None:
    stuck = agent(k3s__certificates_end=NOW + 29 * DAY, k3s__started=NOW - DAY)
    (note,) = node_plan.notes([server(), stuck])
    assert note.startswith("agent-1: k3s's own certificates end on 2026-12-23, and its last start did not renew them")
    assert "systemctl stop k3s-agent; k3s certificate rotate; systemctl start k3s-agent" in note
    assert node_plan.notes([server(), agent(k3s__certificates_end=NOW + 29 * DAY)]) == []


def test_certificates_that_have_ended_are_an_error_with_the_way_back() -> None:
    ended = {"k3s__certificates_end": NOW - DAY, "k3s__active": ["k3s"]}
    (found,) = node_plan.errors([server(**ended), agent(probe__hostname="agent-1", desired__host__address="192.0.2.2")])
    assert found.startswith("server-0: k3s's own certificates ended on 2026-11-23")
    assert "systemctl restart k3s" in found and "--tags k3s" in found


SHA = hashlib.sha256(b"text\n").hexdigest()


@pytest.mark.parametrize(
    ("file", "found", "same"),
    [
        ({"content": "text\n"}, {"sha256": SHA, "mode": "0600"}, True),
        ({"content": "text"}, {"sha256": SHA, "mode": "0600"}, False),
        ({"content": "text\n"}, {"sha256": SHA, "mode": "0644"}, False),
        ({"content": "text\n"}, None, False),
        # Any content is right, as of a folder
        ({}, {"sha256": "x", "mode": "0600"}, True),
        ({}, None, False),
        ({"content": "", "absent": True}, None, True),
        ({"content": "", "absent": True}, {"sha256": SHA, "mode": "0600"}, False),
        ({"content": "text\n", "absent": False}, {"sha256": SHA, "mode": "0600"}, True),
        ({"content": "text\n", "needed": False}, None, True),
    ],
)
def test_a_file_is_compared_by_content_and_mode(file: dict[str, Any], found: Any, same: bool) -> None:
    desired = [{"topic": "t", "dest": "/x", "mode": "0600", **file}]
    assert node_plan.differing(desired, {"/x": found} if found else {}) == ([] if same else ["t"])


@pytest.mark.parametrize("role", PARTS)
def test_every_topic_is_a_file_of_its_role_in_the_order_of_the_plan(role: str) -> None:
    tasks = yaml.safe_load((ROOT / f"roles/{role}/tasks/changes.yml").read_text())
    order = [re.fullmatch(rf"'(\w+)' in __{role}_plan\.{role}", task["when"]) for task in tasks]
    everything = server(
        probe__packages_missing=["kmod", "fuse3"],
        desired__host__hostname="x",
        desired__host__swap="off",
        probe__swaps=["/swapfile"],
        desired__host__time_sync="chrony",
        desired__k3s__images_enabled=True,
        probe__fuse={**FUSE, "in_kernel": False, "module": True, "device": ""},
        k3s__binary_sha256="",
        k3s__links={"ctr": "absent"},
        kubeconfig__sha256="",
        differing__host=["sysctl"],
        differing__k3s=["configure", "token"],
    )
    assert [match[1] for match in order if match] == topics(node_plan.plan(everything, everything), role)
    for task in tasks:
        file = task["ansible.builtin.include_tasks"].replace("{{ __k3s_type }}", "agent")
        assert (ROOT / f"roles/{role}/tasks" / file).is_file()
