"""The bed's decisions: names, addresses, what of the machine goes into a node, the inventory."""

from __future__ import annotations

import ipaddress
import itertools
import json
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "testbed"))

import bed

SUBNET = ipaddress.IPv4Network("10.100.7.0/24")


def test_server_comes_first_and_addresses_are_fixed_so_that_a_restart_keeps_them() -> None:
    plan = bed.plan("local", 3, "trixie", bed.Ports(), SUBNET)
    assert [(n.host, n.container, n.address) for n in plan.nodes] == [
        ("server-0", "abaci-local-server-0", "10.100.7.10"),
        ("agent-1", "abaci-local-agent-1", "10.100.7.11"),
        ("agent-2", "abaci-local-agent-2", "10.100.7.12"),
    ]
    assert (plan.acme, plan.registry) == ("10.100.7.8", "10.100.7.9")
    assert [n.is_server for n in plan.nodes] == [True, False, False]


def test_all_that_a_bed_takes_from_the_cache_is_built_before_anything_of_it_exists() -> None:
    source = pathlib.Path(bed.__file__).read_text()
    taken = {*re.findall(r'(?:artifact|image)\("([^"]+)"\)', source), *bed.IMAGES, "node-bookworm"}
    assert taken - set(bed.needed("bookworm", None)) == set()
    assert taken - set(bed.needed("bookworm", "v1.36.4+k3s1")) == {"k3s"}


@pytest.mark.parametrize(
    ("name", "nodes", "suite", "words"),
    [
        ("Local", 3, "trixie", "--name"),
        ("a b", 3, "trixie", "--name"),
        ("-a", 3, "trixie", "--name"),
        ("a", 0, "trixie", "--nodes"),
        ("a", 51, "trixie", "--nodes"),
        ("a", 1, "sid", "--suite"),
    ],
)
def test_unusable_input_is_refused_before_anything_is_made(name: str, nodes: int, suite: str, words: str) -> None:
    with pytest.raises(bed.BedError, match=words):
        bed.plan(name, nodes, suite, bed.Ports(), SUBNET)


def test_ports_come_from_the_environment() -> None:
    assert bed.Ports.from_env({}) == bed.Ports(8443, 8080, 16443)
    assert bed.Ports.from_env({"EDGE_HTTPS_PORT": "1", "BED_API_PORT": ""}) == bed.Ports(1, 8080, 16443)


@pytest.mark.parametrize(
    "env",
    [{"EDGE_HTTPS_PORT": "x"}, {"EDGE_HTTP_PORT": "0"}, {"BED_API_PORT": "70000"}, {"EDGE_HTTP_PORT": "8443"}],
)
def test_impossible_ports_are_refused_by_variable(env: dict[str, str]) -> None:
    with pytest.raises(bed.BedError, match=next(iter(env))):
        bed.Ports.from_env(env)


def test_networks_of_beds_differ_and_keep_clear_of_the_cluster_ranges() -> None:
    first = list(itertools.islice(bed.subnets("local"), 128))
    assert len(set(first)) == 128
    taken = [ipaddress.IPv4Network(n) for n in ("10.42.0.0/16", "10.43.0.0/16", "172.16.0.0/12")]
    assert not any(a.overlaps(b) for a in first for b in taken)
    assert next(bed.subnets("local")) != next(bed.subnets("test"))


@pytest.mark.parametrize(
    ("text", "mirror", "security"),
    [
        (
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n\nURIs: http://mirror.example/debian-security\n",
            "http://mirror.example/debian",
            "http://mirror.example/debian-security",
        ),
        (
            "# deb http://old.example/debian x main\ndeb [signed-by=/k] https://m.example/debian/ bookworm main\n",
            "https://m.example/debian/",
            "http://deb.debian.org/debian-security",
        ),
        (
            "deb http://archive.ubuntu.com/ubuntu noble main\n",
            "http://deb.debian.org/debian",
            "http://deb.debian.org/debian-security",
        ),
    ],
)
def test_node_takes_packages_from_where_the_machine_does_but_of_its_own_release(
    text: str, mirror: str, security: str
) -> None:
    found = bed.apt_sources(text, "trixie")
    assert f"URIs: {mirror}\nSuites: trixie trixie-updates\n" in found
    assert f"URIs: {security}\nSuites: trixie-security\n" in found
    assert "bookworm" not in found


def test_only_the_way_to_the_sources_is_taken_from_apts_settings() -> None:
    dump = (
        'Acquire::http::Proxy "http://p.example:3128";\nAcquire::https "";\nAcquire::Retries "3";\n'
        'DPkg::Post-Invoke:: "rm -f /x";\nAPT::Architecture "amd64";\n'
    )
    assert bed.apt_conf(dump) == 'Acquire::http::Proxy "http://p.example:3128";\nAcquire::Retries "3";\n'


def test_nameservers_that_a_pod_cannot_reach_are_left_out() -> None:
    text = "search x\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # main\nnameserver ::1\nnameserver fe80::1%eth0\n"
    assert bed.resolv_conf(text) == "nameserver 192.0.2.53\n"


def test_inventory_has_the_groups_of_the_roles_and_bed_facts_only() -> None:
    plan = bed.plan("x", 2, "trixie", bed.Ports(), SUBNET)
    found = bed.inventory(plan, pathlib.Path("/f"), {"k3s_source": "folder"})
    everything = found["all"]
    assert isinstance(everything, dict)
    cluster = everything["children"]["k3s_cluster"]
    assert cluster["children"]["k3s_server"]["hosts"] == {"server-0": {"ansible_host": "10.100.7.10"}}
    assert cluster["children"]["k3s_agent"]["hosts"] == {"agent-1": {"ansible_host": "10.100.7.11"}}
    assert "StrictHostKeyChecking=yes" in cluster["vars"]["ansible_ssh_common_args"]
    assert everything["vars"] == {"k3s_source": "folder"}


def test_nodes_never_get_the_machines_own_cgroups_and_never_its_clock() -> None:
    for flags in bed.NODE_FLAGS:
        assert "--cgroupns=private" in flags
        assert not any("/sys/fs/cgroup" in flag for flag in flags)
        assert "--cap-drop=SYS_TIME" in flags or "--privileged" in flags
    assert "--privileged" not in bed.NODE_FLAGS[0]


def test_the_acme_server_asks_at_the_ports_of_the_internet_and_blocks_no_name_longer_than_the_sites() -> None:
    pebble = json.loads(bed.acme_configuration())["pebble"]
    assert (pebble["httpPort"], pebble["tlsPort"]) == (80, 443)
    # Pebble 2.10.1 stops where an entry has more labels than the name that is asked for.
    assert all(len(name.split(".")) <= len(bed.DOMAIN.split(".")) for name in pebble["domainBlocklist"])


def test_images_of_every_registry_that_the_manifests_name_come_from_the_beds() -> None:
    assert set(bed.mirrors("192.0.2.9")["mirrors"]) == {"docker.io", "ghcr.io", "quay.io"}  # type: ignore[call-overload]


def test_status_ends_with_the_site_its_kubeconfig_and_the_readmes_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (bed.ROOT / "README.md").read_text()
    monkeypatch.setattr(bed, "ROOT", tmp_path)
    monkeypatch.setattr(bed, "docker", lambda *words: "abaci-local-server-0\tUp 2 minutes")
    (tmp_path / "inventories/local").mkdir(parents=True)
    settings = {"app_https_port": 8443, "k3s_kubeconfig": str(tmp_path / "inventories/local/kubeconfig")}
    written = "# Written by testbed/bed.py; JSON is YAML.\n" + json.dumps({"all": {"vars": settings}})
    (tmp_path / "inventories/local/hosts.yml").write_text(written)
    bed.status("local")
    row, site, kubeconfig, *commands = capsys.readouterr().out.splitlines()
    assert (row[:11], site) == ("abaci-local", "Site: https://abaci.localhost:8443/")
    assert kubeconfig == "Kubeconfig: inventories/local/kubeconfig"
    curl, kubectl, playbook = (command.strip() for command in commands)
    assert curl in readme and playbook in readme
    assert kubectl == ".venv/bin/kubectl --kubeconfig inventories/local/kubeconfig -n abaci get pods"
    monkeypatch.setattr(bed, "docker", lambda *words: "")
    bed.status("local")
    assert capsys.readouterr().out == "There is no bed 'local'.\n"
