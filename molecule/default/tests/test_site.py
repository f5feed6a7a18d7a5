"""What an operator would look at on one host after site.yml."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

import pytest

testinfra_hosts = ["ansible://k3s_server"]

Host = Any


def test_k3s_runs_and_comes_back_at_boot(host: Host) -> None:
    service = host.service("k3s")
    assert service.is_running and service.is_enabled


@pytest.mark.parametrize("port", [6443, 10250])
def test_a_port_of_kubernetes_listens(host: Host, port: int) -> None:
    assert host.socket(f"tcp://{port}").is_listening


@pytest.mark.parametrize(
    "path", ["/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/registries.yaml", "/etc/rancher/k3s/k3s.yaml"]
)
def test_only_root_reads_what_holds_secrets(host: Host, path: str) -> None:
    file = host.file(path)
    assert file.exists and file.user == "root" and file.mode == 0o600


def test_fuse_is_there_for_every_container(host: Host) -> None:
    device = host.file("/dev/fuse")
    assert device.exists and device.mode == 0o666
    assert host.package("fuse3").is_installed


def kubectl(host: Host, command: str) -> str:
    return str(host.check_output(f"k3s kubectl {command}"))


def test_the_node_is_ready_in_the_wanted_version(host: Host) -> None:
    row = kubectl(host, "get nodes --no-headers").split()
    assert row[1] == "Ready" and row[4].startswith("v1.")


def test_secrets_are_encrypted_at_rest(host: Host) -> None:
    database = "/var/lib/rancher/k3s/server/db/state.db"
    query = "select value from kine where name = '/registry/secrets/abaci/app-env' order by id desc limit 1"
    stored = host.run(f'sqlite3 -readonly {database} "select hex(value) from ({query})"').stdout.strip()
    assert bytes.fromhex(stored).startswith(b"k8s:enc:")


def test_three_pods_are_ready_and_one_is_primary(host: Host) -> None:
    rows = kubectl(host, "-n abaci get pods -l app=abaci-app --no-headers").splitlines()
    assert len(rows) == 3 and all(row.split()[1] == "1/1" for row in rows)
    info = [kubectl(host, f"-n abaci exec abaci-app-{n} -c app -- cat /litefs/sqlite.db-pos").strip() for n in range(3)]
    assert len(set(info)) == 1


def test_redis_refuses_a_client_without_password(host: Host) -> None:
    answer = kubectl(host, "-n abaci exec deploy/redis -- redis-cli ping")
    assert "NOAUTH" in answer


def test_traefik_answers_from_outside(host: Host) -> None:
    port = int(os.environ["EDGE_HTTPS_PORT"])
    # Who issued the certificate is what tests/e2e looks at.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(raw, server_hostname="abaci.localhost") as tls:
        tls.sendall(b"GET /api/health HTTP/1.1\r\nHost: abaci.localhost\r\nConnection: close\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 200 ")
