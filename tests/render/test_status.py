"""The playbook status, as far as it comes without a cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluating import evaluate
from rendering import ROOT

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def play(folder: Path, *given: str, playbook: str = "status", group: str = "k3s_server") -> tuple[int, str]:
    """Run it for a host that is this machine and a kubeconfig that is not there."""
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": {group: {"hosts": {"node-1": HERE}}}}}))
    command = [
        str(PLAYBOOK),
        "-i",
        str(inventory),
        f"playbooks/{playbook}.yml",
        "-e",
        json.dumps({"abaci_kubeconfig": f"{folder}/none"}),
    ]
    for one in given:
        command += ["-e", one]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["status_ouput=json"],
            "The variable status_ouput is not known here: playbooks/status.yml knows status_backup",
        ),
        (["scale_replicas=2"], "The variable scale_replicas is not known here"),
        (["status_output=html"], "set status_file to its path"),
        (["status_output=yaml"], "value of status_output must be one of"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(given: list[str], sentence: str, tmp_path: Path) -> None:
    code, said = play(tmp_path, *given)
    assert code == 2
    assert sentence in " ".join(said.split()), said


def test_a_site_that_is_down_ends_with_2_and_the_summary_is_in_the_file(tmp_path: Path) -> None:
    code, said = play(tmp_path, "status_output=json", f"status_file={tmp_path}/status.json")
    assert code == 2, said
    document = json.loads((tmp_path / "status.json").read_text())
    assert document["summary"]["code"] == 2 and "There is no kubeconfig at" in document["summary"]["sentence"]
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o640


def test_it_never_fails_where_it_is_told_so(tmp_path: Path) -> None:
    code, said = play(tmp_path, "status_fails_at=never")
    assert code == 0, said
    assert "Down or unsafe: There is no kubeconfig at" in said


def test_commands_can_be_pasted_whatever_the_paths_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "Ann's sites"
    folder.mkdir()
    play(folder, "status_output=json", f"status_file={tmp_path}/status.json")
    (found,) = [one for one in json.loads((tmp_path / "status.json").read_text())["checks"] if one["mark"] == "fail"]
    assert shlex.split(found["command"])[:3] == ["ansible-playbook", "-i", f"{folder}/hosts.json"]


def test_an_inventory_of_other_groups_is_refused(tmp_path: Path) -> None:
    code, said = play(tmp_path, group="server")
    assert code == 2 and "The inventory has no host in the group k3s_server" in " ".join(said.split())


SERVER = {"groups": {"k3s_server": ["a"]}, "hostvars": {"a": {"ansible_host": "192.0.2.7"}, "localhost": {}}}


@pytest.mark.parametrize(
    ("given", "address", "domains"),
    [
        ({"app_domain": "www.example.org"}, "www.example.org", ["www.example.org"]),
        ({"app_domain": "www.example.org", "app_tls": "upstream"}, "192.0.2.7", ["www.example.org"]),
        ({"app_domain": "a.org", "app_edge_address": "127.0.0.1"}, "127.0.0.1", ["a.org"]),
        (
            {"app_domain": "a.org", "app_extra_domains": ["b.org", "c.org"], "app_redirect_domains": ["c.org"]},
            "a.org",
            ["a.org", "b.org"],
        ),
        ({}, "", []),
    ],
)
def test_the_edge_is_asked_where_site_yml_asks_it(given: dict[str, Any], address: str, domains: list[str]) -> None:
    assert evaluate("status", "__status_address", **SERVER, **given) == address
    assert evaluate("status", "__status_domains", **SERVER, **given) == domains


def test_the_parts_are_those_that_the_roles_make_where_they_make_them() -> None:
    parts = {one["name"]: one for one in evaluate("status", "__status_parts", redis_state="absent", app_namespace="x")}
    for role in ("redis", "keel"):
        text = (ROOT / f"roles/{role}/templates/deployment.yml.j2").read_text()
        assert f"\n  name: {role}\n" in text and role in parts
    assert (parts["redis"]["namespace"], parts["redis"]["wanted"]) == ("x", False)
    assert parts["keel"]["wanted"] is True and parts["cert-manager"]["wanted"] is False
    assert (
        parts["keel"]["namespace"]
        == yaml.safe_load((ROOT / "roles/keel/defaults/main.yml").read_text())["keel_namespace"]
    )
    assert evaluate("status", "__status_parts", keel_state="unmanaged")[3]["wanted"] is False


@pytest.mark.parametrize(("since", "wanted"), [("10m", "-10min"), (90, "-90s"), ("2 h", "-2h"), ("5min", "-5min")])
def test_a_duration_means_the_same_to_journalctl(since: str | int, wanted: str) -> None:
    assert evaluate("logs", "__logs_journal_since", logs_since=since) == wanted


def test_ports_are_those_of_the_way_that_pods_take() -> None:
    def ports(**given: Any) -> Any:
        return evaluate("check", "check_ports", **given)

    assert ports() == ["10250/tcp", "8472/udp"]
    assert ports(k3s_server_config={"flannel-backend": "wireguard-native"}) == ["10250/tcp", "51820/udp"]
