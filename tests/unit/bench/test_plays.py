"""The plays and inventories that the bench makes, the last two held against Ansible and a relay."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import bench
import plays
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOSTS: plays.Data = {
    "all": {
        "children": {
            "k3s_cluster": {
                "vars": {"ansible_user": "root"},
                "children": {
                    "k3s_server": {"hosts": {"server-0": {"ansible_host": "10.1.7.10"}}},
                    "k3s_agent": {"hosts": {"agent-1": {"ansible_host": "10.1.7.11"}}},
                },
            }
        },
        "vars": {"k3s_kubeconfig": "/bed/kubeconfig", "k3s_kubeconfig_server": "https://127.0.0.1:6443", "app_x": 1},
    }
}


def executed(made: list[plays.Data], host: str) -> list[str]:
    return [next(iter(task)) for play in made for task in play["tasks"] if host in play["hosts"].split(",")]


def test_the_floor_has_as_many_modules_for_each_host() -> None:
    counts = {"a": 1, "b": 3, "localhost": 2, "none": 0}
    made = plays.floor(counts)
    assert {host: len(executed(made, host)) for host in counts} == counts
    assert executed(made, "b") == ["ansible.builtin.setup", "ansible.builtin.ping", "ansible.builtin.ping"]
    assert {play["hosts"]: play.get("connection") for play in made} == {"a,b": None, "b": None, "localhost": "local"}
    assert plays.floor({}) == []


def test_an_inventory_behind_relays_keeps_what_roles_put_into_configuration() -> None:
    far = plays.behind_relays(HOSTS, {"server-0": 1001, "agent-1": 1002}, "/far/kubeconfig", 1003)
    groups = far["all"]["children"]["k3s_cluster"]["children"]
    assert groups["k3s_server"]["hosts"]["server-0"] == {
        "ansible_host": "10.1.7.10",
        "ansible_ssh_extra_args": "-o HostName=127.0.0.1 -o Port=1001 -o HostKeyAlias=10.1.7.10",
    }
    assert "Port=1002" in groups["k3s_agent"]["hosts"]["agent-1"]["ansible_ssh_extra_args"]
    assert far["all"]["vars"] == {
        "k3s_kubeconfig": "/far/kubeconfig",
        "k3s_kubeconfig_server": "https://127.0.0.1:1003",
        "app_x": 1,
    }
    assert plays.addresses(far) == plays.addresses(HOSTS) == {"server-0": "10.1.7.10", "agent-1": "10.1.7.11"}
    assert HOSTS["all"]["vars"]["k3s_kubeconfig"] == "/bed/kubeconfig", "the bed's own stays"


def test_the_look_at_light_hosts_is_that_of_the_site() -> None:
    """Task by task, so that the bench does not measure what the site no longer does."""

    def tasks(path: str, name: str) -> object:
        (play,) = [one for one in yaml.safe_load((ROOT / path).read_text()) if one["name"] == name]
        return play["tasks"]

    ours = tasks("tests/bench/probe.yml", "Check all hosts")
    assert ours == tasks("playbooks/site.yml", "Check all hosts before anything is changed")


def test_manifests_are_kept_unless_they_are_secret_and_applied_as_they_are(tmp_path: Path) -> None:
    """Braces in a manifest are no template: as the run had them, they are kept, and given to one call again."""
    objects = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"rule": "{{ .Value }}"}}]
    file, kept = tmp_path / "objects.json", tmp_path / "kept.jsonl"
    file.write_text(json.dumps(objects))
    made = plays.one_call(str(tmp_path / "no-kubeconfig"), str(file))
    made[0]["tasks"].append({**made[0]["tasks"][0], "no_log": True})
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps(made))
    environment = os.environ | {
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/bench/callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "manifests",
        "MANIFESTS_FILE": str(kept),
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "--check", "-i", "localhost,", str(playbook)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [{"role": "", "objects": objects}]


def test_a_relay_takes_a_round_trip_to_connect_and_one_for_each_answer() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            while piece := connection.recv(10):
                connection.sendall(piece)

    threading.Thread(target=answer, daemon=True).start()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", bench.relay(server.getsockname())), timeout=20) as client:
        for number in (2, 3, 4):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert time.monotonic() - began >= number * bench.LATENCY_S
