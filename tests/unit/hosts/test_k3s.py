"""Versions, artifacts, configuration, clusters that must not be mixed up, kubeconfigs, and waiting."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import probed
import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import k3s

ROLE = pathlib.Path(__file__).parents[3] / "roles/k3s"
SUM = "0123456789abcdef" * 4
HASH_A, HASH_B = "a" * 64, "b" * 64


# --- versions and artifacts


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1.36.9+k3s1", "v1.36.10+k3s1"),
        ("v1.36.4+k3s9", "v1.36.4+k3s10"),
        ("v1.9.0+k3s1", "v1.10.0+k3s1"),
    ],
)
def test_versions_are_compared_by_their_numbers(older: str, newer: str) -> None:
    assert k3s.parse_version(older) < k3s.parse_version(newer)


@pytest.mark.parametrize("text", ["v1.36.0-rc1+k3s1", "1.36.4+k3s1", "v1.36.4", "stable", "", "v1.36.4+k3s1 "])
def test_what_is_no_release_is_refused_with_the_variable(text: str) -> None:
    with pytest.raises(ValueError, match=r"k3s_version .* write it as v1\.36\.4\+k3s1"):
        k3s.parse_version(text)


def test_the_addresses_of_the_release_that_make_up_can_take() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    base = defaults["k3s_release_url"]
    assert k3s.artifact("v1.36.4+k3s1", "release", base, "amd64") == {
        "binary": "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s",
        "images": "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/k3s-airgap-images-amd64.tar",
        "sums": "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/sha256sum-amd64.txt",
        "images_name": "k3s-airgap-images-amd64.tar",
    }
    arm64 = k3s.artifact("v1.36.4+k3s1", "release", base, "arm64")
    assert arm64["binary"].endswith("/v1.36.4%2Bk3s1/k3s-arm64")
    assert arm64["sums"].endswith("/v1.36.4%2Bk3s1/sha256sum-arm64.txt")
    # The binary says armhf where the list says arm.
    arm = k3s.artifact("v1.36.4+k3s1", "release", base, "arm")
    assert arm["binary"].endswith("/k3s-armhf") and arm["sums"].endswith("/sha256sum-arm.txt")


def test_the_checksums_of_the_release_that_make_up_can_take() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    pins = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__k3s_pins"]
    assert defaults["k3s_version"] == "v1.36.4+k3s1"
    assert pins["v1.36.4+k3s1"] == {
        "amd64": "835873f37245fc615f547a2fe2af9402a347875f13fa64a1f136de644955ea3f",
        "arm64": "c920706346d5ad4e5cd3c7bf1bb09ce71ebe07fec829e513e40f1caf98aed8bb",
    }


@pytest.mark.parametrize(
    ("source", "base", "binary"),
    [
        ("mirror", "https://mirror.example.org/k3s/", "https://mirror.example.org/k3s/v1.36.4%2Bk3s1/k3s"),
        ("folder", "/srv/k3s", "/srv/k3s/k3s"),
        ("folder", "/srv/k3s/", "/srv/k3s/k3s"),
    ],
)
def test_a_mirror_has_the_layout_of_the_releases_and_a_folder_has_none(source: str, base: str, binary: str) -> None:
    assert k3s.artifact("v1.36.4+k3s1", source, base, "amd64")["binary"] == binary


@pytest.mark.parametrize(
    ("installed", "wanted", "allowed", "words"),
    [
        ("", "v1.36.4+k3s1", False, ""),
        ("v1.36.4+k3s1", "v1.36.4+k3s1", False, ""),
        ("v1.36.4+k3s1", "v1.36.5+k3s1", True, ""),
        ("v1.36.4+k3s1", "v1.37.0+k3s1", True, ""),
        ("v1.36.4+k3s1", "v1.36.5+k3s1", False, "k3s_allow_upgrade: true"),
        ("v1.36.10+k3s1", "v1.36.9+k3s1", True, "cannot be downgraded"),
        ("v1.36.4+k3s10", "v1.36.4+k3s9", True, "cannot be downgraded"),
        ("v1.35.4+k3s1", "v1.37.0+k3s1", True, "upgrade to v1.36 first"),
        ("v1.36.4+k3s1", "v2.0.0+k3s1", True, "no minor version may be skipped"),
        ("unknown", "v1.36.4+k3s1", True, "no release of k3s"),
    ],
)
def test_upgrades(installed: str, wanted: str, allowed: bool, words: str) -> None:
    found = k3s.upgrade_error(installed, wanted, allowed)
    assert (words in found) if words else found == ""


# --- configuration


def test_lists_of_several_dictionaries_append_and_other_values_are_replaced() -> None:
    merged = k3s.merge_config(
        [
            {"kubelet-arg": ["allowed-unsafe-sysctls=x"], "write-kubeconfig-mode": "0600", "disable": "traefik"},
            {"kubelet-arg": ["max-pods=50", "allowed-unsafe-sysctls=x"], "write-kubeconfig-mode": "0640"},
            {"kubelet-arg": "v=2", "disable": ["servicelb"], "node-label": ["a=b", "a=b"]},
        ]
    )
    assert merged == {
        "kubelet-arg": ["allowed-unsafe-sysctls=x", "max-pods=50", "v=2"],
        "write-kubeconfig-mode": "0640",
        "disable": ["traefik", "servicelb"],
        "node-label": ["a=b"],
    }


def test_merging_leaves_its_input_alone() -> None:
    first: dict[str, Any] = {"kubelet-arg": ["a=b"]}
    k3s.merge_config([first, {"kubelet-arg": ["c=d"]}])
    assert first == {"kubelet-arg": ["a=b"]}


@pytest.mark.parametrize("key", ["server", "token", "token-file", "cluster-init", "data-dir", "token-file+"])
def test_keys_that_the_role_owns_are_refused_with_the_variable_to_use(key: str) -> None:
    found = k3s.config_errors({"k3s_config": {}, "k3s_server_config": {key: "x"}})
    assert len(found) == 1
    assert found[0].startswith(f"k3s_server_config sets {key}, which the role writes itself; use ")


def test_a_key_with_underscores_is_refused_with_the_right_spelling() -> None:
    assert k3s.config_errors({"k3s_config": {"kubelet_arg": []}}) == [
        "k3s_config sets kubelet_arg; k3s writes its keys with hyphens, so use kubelet-arg."
    ]


def test_the_certificate_names_what_clients_use_and_no_loopback() -> None:
    assert k3s.san("https://127.0.0.1:16443", "192.0.2.11") == ["192.0.2.11"]
    assert k3s.san("https://k3s.example.org:6443", "192.0.2.11") == ["192.0.2.11", "k3s.example.org"]
    assert k3s.san("https://192.0.2.11:6443", "192.0.2.11") == ["192.0.2.11"]
    assert k3s.san("https://[2001:db8::11]:6443", "2001:db8::11") == ["2001:db8::11"]


# --- who belongs to which cluster


def node(name: str, desired: dict[str, Any] | None = None, **probe: Any) -> dict[str, Any]:
    made = probed.report(name, "k3s")
    made["probe"]["k3s"] |= probe
    made["desired"]["k3s"] |= {"checksum": SUM, **(desired or {})}
    return made


def judge(*reports: dict[str, Any], servers: list[str] | None = None, agents: list[str] | None = None) -> list[str]:
    for report in reports:
        report["desired"]["k3s"] |= {"servers": ["server-0"] if servers is None else servers}
        report["desired"]["k3s"] |= {"agents": ["agent-1"] if agents is None else agents}
    found: list[str] = k3s.cluster_errors(reports)
    return found


@pytest.mark.parametrize(
    ("registered", "volumes", "hostname", "named", "refused"),
    [
        ("web-1", ["pvc-1"], "", {}, True),
        ("web-1", [], "", {}, False),
        ("", ["pvc-1"], "", {}, False),
        ("agent-1", ["pvc-1"], "", {}, False),
        ("web-1", ["pvc-1"], "", {"node_name": "Web-1"}, False),
        ("agent-1", ["pvc-1"], "", {"node_name": "web-1"}, True),
        ("agent-1", ["pvc-1"], "web-1", {}, True),
        ("agent-1", ["pvc-1"], "web-1", {"node_name": "agent-1"}, False),
    ],
)
def test_a_renamed_host_that_holds_volumes_is_refused(
    registered: str, volumes: list[str], hostname: str, named: dict[str, str], refused: bool
) -> None:
    agent = node("agent-1", named, registered=registered, volumes=volumes, ca_hash="a", node_password=True)
    agent["probe"]["hostname"] = "agent-1"
    agent["desired"]["host"] = {"hostname": hostname}
    found = judge(node("server-0", ca_hash="a"), agent)
    words = f"agent-1: the host is the node {registered}, to whose name"
    assert [text.startswith(words) and f"{{node-name: {registered}}}" in text for text in found] == [True] * refused


@pytest.mark.parametrize(
    ("known", "password", "named", "refused"),
    [
        (["server-0", "agent-1"], False, {}, True),
        (["server-0", "agent-1"], True, {}, False),
        (["server-0"], False, {}, False),
        ([], False, {}, False),  # the API is away, and nobody knows
        (["server-0", "web"], False, {"node_name": "Web"}, True),
        (["server-0", "agent-1"], False, {"node_name": "web"}, False),
    ],
)
def test_a_host_that_was_installed_anew_under_a_name_that_the_cluster_knows_is_refused_before_it_joins(
    known: list[str], password: bool, named: dict[str, str], refused: bool
) -> None:
    nodes = [{"metadata": {"name": name}} for name in known]
    agent = node("agent-1", named, node_password=password)
    agent["probe"]["hostname"] = "agent-1"
    found = judge(node("server-0", ca_hash="a", nodes=nodes), agent)
    assert [k3s.ANEW in text and text.startswith("agent-1 has no node password") for text in found] == [True] * refused
    page, title = k3s.ANEW.split(", ", 1)
    assert f"## {title[1:-1]}\n" in (pathlib.Path(__file__).parents[3] / page).read_text()


def test_empty_hosts_and_a_living_cluster_pass() -> None:
    assert judge(node("server-0"), node("agent-1")) == []
    assert judge(node("server-0", units=["k3s"], ca_hash=HASH_A), node("agent-1", ca_hash=HASH_A)) == []
    assert judge(node("server-0", ca_hash=HASH_A), node("agent-1")) == []  # an agent that is new


@pytest.mark.parametrize(
    ("servers", "agents", "words"),
    [
        ([], ["agent-1"], "k3s_server is empty"),
        (["server-0", "server-1"], [], "holds 2 hosts (server-0, server-1), and more than one server"),
        (["server-0"], ["server-0"], "server-0 is both server and agent"),
    ],
)
def test_inventories_that_are_no_cluster(servers: list[str], agents: list[str], words: str) -> None:
    found = judge(node("x"), servers=servers, agents=agents)
    assert len(found) == 1 and words in found[0]


BY_HAND = """[Service]
EnvironmentFile=-/etc/default/%N
ExecStart=/usr/local/bin/k3s \\
    server \\
\t'--cluster-cidr=10.52.0.0/16' \\
\t'--datastore-endpoint' \\
\t'postgres://u:secret@db/k3s' \\
"""


def test_what_a_k3s_that_was_installed_by_hand_sets_is_named_without_its_values() -> None:
    found = k3s.by_hand(
        "k3s", BY_HAND, "K3S_TOKEN='secret'\n# X=1\n", "flannel-backend: host-gw\nnode-label:\n  - a=b\n"
    )
    assert found == [
        "/etc/systemd/system/k3s.service",
        *("--cluster-cidr", "--datastore-endpoint", "K3S_TOKEN", "flannel-backend", "node-label"),
    ]
    ours = (pathlib.Path(__file__).parents[3] / "roles/k3s/templates/service.j2").read_text()
    assert k3s.by_hand("k3s", ours, "", "") == [] == k3s.by_hand("k3s", "", "", "")


def test_a_k3s_that_was_installed_by_hand_is_taken_over_by_a_word_only() -> None:
    living: dict[str, Any] = {
        "units": ["k3s"],
        "ca_hash": "a",
        "by_hand": ["/etc/systemd/system/k3s.service", "--cluster-cidr"],
    }
    (found,) = judge(node("server-0", **living))
    assert found.startswith("server-0: k3s was installed here by other means")
    assert "it sets --cluster-cidr" in found and "k3s_take_over: true" in found
    assert judge(node("server-0", {"take_over": True}, **living)) == []
    (bare,) = judge(node("server-0", **{**living, "by_hand": living["by_hand"][:1]}))
    assert "it sets nothing of its own" in bare


def test_whatever_way_a_k3s_by_hand_is_told_something_it_is_named() -> None:
    unit = (
        'Environment=K3S_TOKEN=secret "K3S_DATA_DIR=/srv/a=b"\nExecStart=/usr/local/bin/k3s server -d /srv \\\n'
        "  --tls-san=x\nExecStopPost=/bin/rm -f --verbose x\n"
    )
    found = k3s.by_hand("k3s", unit, "", '"data-dir": /srv\n')
    assert found[1:] == ["-d", "--tls-san", "K3S_TOKEN", "K3S_DATA_DIR", "data-dir"]


@pytest.mark.parametrize(
    ("living", "refused"),
    [
        ({"active": ["k3s"]}, True),
        ({"active": ["k3s"], "ca_hash": HASH_A}, False),
        ({"by_hand": ["/etc/systemd/system/k3s.service", "--data-dir"]}, True),
        # It never ran.
        ({}, False),
    ],
)
def test_a_k3s_whose_data_lie_elsewhere_is_not_taken_over_into_an_empty_cluster(
    living: dict[str, Any], refused: bool
) -> None:
    known: dict[str, Any] = {"units": ["k3s"], "by_hand": ["/etc/systemd/system/k3s.service"], **living}
    found = judge(node("server-0", {"take_over": True}, **known))
    assert bool(found) == refused
    assert all("elsewhere than in /var/lib/rancher/k3s" in said and "set k3s_data_dir" in said for said in found)


def test_a_second_cluster_is_never_founded_while_agents_hold_one() -> None:
    found = judge(node("server-0"), node("agent-1", ca_hash=HASH_A))
    assert len(found) == 1 and "agent-1 belongs to a cluster, but server-0 has none" in found[0]


def test_an_agent_of_another_cluster_is_refused() -> None:
    found = judge(node("server-0", ca_hash=HASH_A), node("agent-1", ca_hash=HASH_B))
    assert len(found) == 1 and "agent-1 belongs to another cluster" in found[0]


VOLUMES = ["pvc-1_abaci_litefs-data-abaci-app-0", "pvc-2_abaci_litefs-data-abaci-app-1", "pvc-3_abaci_redis", "pvc-4"]


@pytest.mark.parametrize(
    "reports",
    [
        [node("server-0"), node("agent-1", ca_hash=HASH_A, volumes=VOLUMES)],
        [node("server-0", ca_hash=HASH_A), node("agent-1", ca_hash=HASH_B, volumes=VOLUMES)],
        [node("server-0", units=["k3s-agent"], volumes=VOLUMES)],
        [node("server-0"), node("agent-1", units=["k3s"], volumes=VOLUMES)],
    ],
)
def test_a_host_that_holds_volumes_is_refused_with_their_names_and_the_way_to_save_them(
    reports: list[dict[str, Any]],
) -> None:
    (found,) = judge(*reports)
    for words in (
        "4 volumes in /var/lib/rancher/k3s/storage",
        VOLUMES[0],
        "and 1 more",
        "docs/runbooks/server-lost.md",
    ):
        assert words in found, found


def test_a_server_that_lost_its_disk_is_refused_with_both_ways_back() -> None:
    (found,) = judge(node("server-0"), node("agent-1", ca_hash=HASH_A))
    assert "playbooks/cluster_restore.yml" in found and "docs/runbooks/server-lost.md" in found


def test_no_sentence_of_ours_names_a_command_that_removes_a_folder() -> None:
    """What a refusal or a page names is pasted, and the folder may hold the last copy of a database."""
    root = pathlib.Path(__file__).parents[3]
    files = [root / "README.md", root / "site.yml"]
    files += [
        path for part in ("docs", "plugins", "roles", "playbooks", "inventories") for path in (root / part).rglob("*")
    ]
    text = {
        path: path.read_text(errors="replace") for path in files if path.suffix in (".py", ".yml", ".md", ".sh", ".j2")
    }
    assert len(text) > 200
    removing = re.compile(r"rm +-[a-zA-Z]*[rR]|k3s-(agent-)?uninstall")
    assert [path.name for path in text if removing.search(text[path])] == []


def test_the_token_of_another_cluster_is_refused_with_the_variable() -> None:
    found = judge(node("server-0", ca_hash=HASH_A, token_matches=False))
    assert len(found) == 1 and found[0].startswith("k3s_token is the token of another cluster")


def test_the_first_server_takes_no_long_token() -> None:
    found = judge(node("server-0", {"token_is_long": True}))
    assert len(found) == 1 and "short form" in found[0]


def test_an_agent_does_not_get_the_unit_of_a_server_nor_the_other_way_round() -> None:
    found = judge(node("server-0", units=["k3s-agent"]), node("agent-1", units=["k3s"]))
    assert [text.split(";")[0] for text in found] == [
        "server-0: the service k3s-agent is installed, but the inventory says server",
        "agent-1: the service k3s is installed, but the inventory says agent",
    ]


def test_an_interrupted_upgrade_goes_on_without_the_flag() -> None:
    server = node("server-0", installed_version="v1.36.4+k3s1", ca_hash=HASH_A)
    assert judge(server, node("agent-1", installed_version="v1.36.3+k3s1", ca_hash=HASH_A)) == []
    server = node("server-0", installed_version="v1.36.3+k3s1", ca_hash=HASH_A)
    found = judge(server, node("agent-1", installed_version="v1.36.3+k3s1", ca_hash=HASH_A))
    assert len(found) == 1 and found[0].startswith("server-0, agent-1: ") and "k3s_allow_upgrade" in found[0]


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        (
            {"checksum": "", "base": "https://example.org/r"},
            [
                "k3s_checksum is not set",
                "curl -sfL https://example.org/r/v1.36.4%2Bk3s1/sha256sum-amd64.txt | grep -w k3s",
            ],
        ),
        ({"checksum": "abc"}, ["k3s_checksum is no SHA-256"]),
        (
            {"images_enabled": True, "source": "folder", "base": "/srv/k3s"},
            ["k3s_images_checksum is not set", "cat /srv/k3s/sha256sum-amd64.txt"],
        ),
        ({"source": "mirror", "base": ""}, ["k3s_mirror_url"]),
        ({"source": "folder", "base": ""}, ["k3s_artifact_dir"]),
        ({"version": "v1.36.0-rc1+k3s1"}, ["k3s_version", "no release"]),
    ],
)
def test_sources_without_address_or_checksum_are_refused(desired: dict[str, Any], words: list[str]) -> None:
    found = judge(node("server-0", desired))
    assert len(found) == 1
    for word in words:
        assert word in found[0]


IN_FOLDER = {"source": "folder", "base": "/srv/k3s", "images_enabled": True, "images_checksum": SUM}


def test_what_a_node_lacks_is_looked_up_in_the_folder() -> None:
    report = node("server-0", IN_FOLDER)
    probe, desired = report["probe"]["k3s"], report["desired"]["k3s"]
    paths = ["/srv/k3s/k3s", "/srv/k3s/k3s-airgap-images-amd64.tar"]
    assert k3s.in_folder(probe, desired) == paths
    assert k3s.in_folder({**probe, "binary_sha256": SUM}, desired) == paths[1:]
    for other in ({"source": "release"}, {"base": ""}):
        assert k3s.in_folder(probe, {**desired, **other}) == []
    assert k3s.in_folder({**probe, "arch": "riscv64"}, desired) == []


def test_another_file_in_the_folder_is_refused_before_anything_is_changed() -> None:
    report = node("server-0", IN_FOLDER)
    other = "0" * 64
    assert judge({**report, "folder": {"/srv/k3s/k3s": SUM, "/srv/k3s/k3s-airgap-images-amd64.tar": SUM}}) == []
    assert judge({**report, "folder": {"/srv/k3s/k3s": other, "/srv/k3s/k3s-airgap-images-amd64.tar": ""}}) == [
        f"server-0: /srv/k3s/k3s has the SHA-256 {other}, but k3s_checksum is {SUM}; get the right file, or correct "
        "the variable.",
        "server-0: /srv/k3s/k3s-airgap-images-amd64.tar does not exist; k3s_artifact_dir has to be the folder with the "
        "files of the release.",
    ]


def test_a_binary_that_is_another_version_than_its_checksum_was_given_for() -> None:
    found = judge(node("server-0", binary_sha256=SUM, installed_version="v1.36.3+k3s1"))
    assert len(found) == 1 and "calls itself v1.36.3+k3s1, but k3s_version is v1.36.4+k3s1" in found[0]


@pytest.mark.parametrize(
    ("given", "living", "same"),
    [
        ("secret", f"K10{HASH_A}::server:secret\n", True),
        (f"K10{HASH_A}::server:secret", f"K10{HASH_A}::server:secret\n", True),
        (f"K10{HASH_B}::server:secret", f"K10{HASH_A}::server:secret\n", False),
        ("other", f"K10{HASH_A}::server:secret\n", False),
    ],
)
def test_tokens_are_compared_in_both_forms(given: str, living: str, same: bool) -> None:
    assert k3s.same_token(given, living) is same


def test_the_long_token_carries_the_hash_of_the_ca() -> None:
    assert k3s.ca_hash(f"K10{HASH_A}::node:x\n") == HASH_A
    assert k3s.ca_hash("short") == ""


# --- kubeconfig


def kubeconfig(ca: bytes = b"ca", server: str = "https://127.0.0.1:6443") -> dict[str, Any]:
    data = base64.b64encode(ca).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": "default", "user": {}}],
    }


LIVING = hashlib.sha256(b"ca").hexdigest()


@pytest.mark.parametrize("write", [json.dumps, lambda document: yaml.safe_dump(document)])
def test_the_kubeconfig_gets_the_readers_address_and_nothing_else(write: Callable[[Any], str]) -> None:
    made = k3s.kubeconfig_for(write(kubeconfig()), "https://k3s.example.org:6443")
    assert yaml.safe_load(made) == kubeconfig(server="https://k3s.example.org:6443")
    assert k3s.kubeconfig_ca(made) == LIVING


@pytest.mark.parametrize(
    ("existing", "living", "words"),
    [
        (None, LIVING, ""),
        ("", "", ""),
        (kubeconfig(server="https://elsewhere:1"), LIVING, ""),
        (kubeconfig(b"other"), LIVING, "another cluster"),
        (kubeconfig(), "", "another cluster"),  # no cluster yet: the file is somebody else's
        ({**kubeconfig(), "clusters": kubeconfig()["clusters"] * 2}, LIVING, "holds 2 clusters"),
        ({"clusters": [{"name": "x", "cluster": {"server": "https://x"}}]}, LIVING, "another cluster"),
        ("some text", LIVING, "no kubeconfig"),
        (["list"], LIVING, "no kubeconfig"),
    ],
)
def test_a_kubeconfig_of_another_cluster_is_not_overwritten(existing: Any, living: str, words: str) -> None:
    facts = k3s.kubeconfig_facts("/home/me/.kube/k3s-config", "0600", yaml.safe_dump(existing), existing)
    found = k3s.kubeconfig_refusal(facts, living)
    if words:
        assert words in found and found.startswith("/home/me/.kube/k3s-config (k3s_kubeconfig)")
    else:
        assert found == ""


def test_a_foreign_kubeconfig_is_refused_with_the_hosts() -> None:
    server = node("server-0", ca_hash=HASH_A, units=["k3s"])
    server["kubeconfig"] = k3s.kubeconfig_facts("/x", "0600", "x", kubeconfig(b"other"))
    (found,) = judge(server)
    assert found.startswith("/x (k3s_kubeconfig) is the kubeconfig of another cluster")
    # Of a server that was lost the agents know the cluster.
    server["probe"]["k3s"]["ca_hash"] = ""
    known = node("agent-1", ca_hash=hashlib.sha256(b"other").hexdigest())
    assert not any("k3s_kubeconfig" in text for text in judge(server, known))


# --- waiting


def kube_node(name: str, ready: str = "True", at: str = "2026-11-24T12:00:10Z", **extra: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": extra,
        "status": {
            "nodeInfo": {"kubeletVersion": "v1.36.4+k3s1"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": at},
                {"type": "Ready", "status": ready, "lastHeartbeatTime": at, "message": "cni is missing"},
            ],
        },
    }


AT = 1795521610.0  # 2026-11-24T12:00:10Z


@pytest.mark.parametrize(
    ("nodes", "since", "words"),
    [
        ([kube_node("a")], AT - 5, ""),
        ([kube_node("a")], AT + 0.9, ""),  # the report has whole seconds
        ([kube_node("a")], AT + 5, "has not reported since its kubelet was started"),
        ([kube_node("a", ready="Unknown")], AT - 5, "not Ready (cni is missing)"),
        ([kube_node("a", ready="False")], AT - 5, "not Ready (cni is missing)"),
        # Ready,SchedulingDisabled is a text of kubectl; the condition is what counts.
        ([kube_node("a", unschedulable=True)], AT - 5, ""),
        ([], AT - 5, "has not registered"),
        ([kube_node("ab")], AT - 5, "has not registered"),
    ],
)
def test_ready_counts_only_when_reported_after_the_start(nodes: list[Any], since: float, words: str) -> None:
    found = k3s.nodes_not_ready(nodes, {"a": since}, "v1.36.4+k3s1")
    if words:
        assert list(found) == ["a"] and words in found["a"]
    else:
        assert found == {}


def test_right_after_the_install_no_node_is_not_everything_ready() -> None:
    assert set(k3s.nodes_not_ready([], {"a": 0.0, "b": 0.0}, "")) == {"a", "b"}


def test_a_node_in_the_old_version_is_not_ready_for_the_new_one() -> None:
    found = k3s.nodes_not_ready([kube_node("a")], {"a": 0.0}, "v1.36.5+k3s1")
    assert found == {"a": "the node runs v1.36.4+k3s1 instead of v1.36.5+k3s1"}


@pytest.mark.parametrize(
    ("journal", "cause"),
    [
        ("", ""),
        ("Starting\nall is well\n", "all is well"),
        (
            'level=info msg="a"\nlevel=fatal msg="unknown option \\"crash\\""\nlevel=info msg="b"',
            'unknown option "crash"',
        ),
        ('level=error msg="first"\nlevel=error msg="last"\nbye', "last"),
        (
            'level=info msg="Waiting to retrieve agent configuration; server is not ready: Node password rejected, '
            "duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, "
            'try enabling a unique node name with the --with-node-id flag"',
            f"{k3s.REJECTED} ({k3s.ANEW})",
        ),
        ("modprobe: FATAL: Module overlay not found\nF1124 12:00:00.0 boom", "F1124 12:00:00.0 boom"),
    ],
)
def test_the_journals_line_that_tells_most(journal: str, cause: str) -> None:
    assert k3s.likely_cause(journal) == cause
