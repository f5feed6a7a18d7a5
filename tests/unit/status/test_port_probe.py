"""Ports tried by real connections, between addresses of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import port_tries
from ansible_collections.abaci.infra.plugins.modules import port_probe
from fake_api import run


def free(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(autouse=True)
def _own_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(port_tries, "NAME", f"\0abaci.infra.test.{time.monotonic_ns()}")
    yield
    port_tries.close()


def probe(**given: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(port_probe, None, **given)
    return answer


def listening(*ports: str) -> dict[str, Any]:
    """What a host says that listens, in a thread in the place of a process."""
    sockets, taken = port_tries.bind(port_probe.ports(list(ports)))
    threading.Thread(target=port_tries.serve, args=(sockets, port_tries.ending(), 20), daemon=True).start()
    told = [one for one in ports if tuple(port_probe.ports([one])[0]) not in taken]
    return {"name": "node-1", "address": "127.0.0.1", "ports": told}


def test_open_ports_are_found_open_and_closed_ones_closed() -> None:
    tcp, udp, shut = free(), free(socket.SOCK_DGRAM), free()
    peer = listening(f"{tcp}/tcp", f"{udp}/udp")
    peer["ports"].append(f"{shut}/tcp")
    answer = probe(state="tried", name="node-0", peers=[peer], timeout=2)
    assert [(one["port"], one["protocol"], one["error"]) for one in answer["connections"]] == [
        (tcp, "tcp", None),
        (udp, "udp", None),
        (shut, "tcp", "connection refused"),
    ]
    assert {(one["source"], one["target"]) for one in answer["connections"]} == {("node-0", "node-1")}


def test_a_port_that_swallows_everything_is_closed() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        peer = {"name": "node-1", "address": "127.0.0.1", "ports": [f"{silent.getsockname()[1]}/udp"]}
        (tried,) = probe(state="tried", name="node-0", peers=[peer], timeout=1)["connections"]
    assert tried["error"] == "no answer within 1 s"


def test_a_process_of_its_own_listens_until_it_is_told_to_end() -> None:
    port = free()
    peer = probe(state="listening", name="node-1", address="127.0.0.1", ports=[f"{port}/tcp"], seconds=30)["peer"]
    assert peer == {"name": "node-1", "address": "127.0.0.1", "ports": [f"{port}/tcp"]}
    assert port_tries.tried("127.0.0.1", [(port, "tcp")], 2) == {(port, "tcp"): None}
    assert probe(state="closed")["changed"] is False
    assert port_tries.tried("127.0.0.1", [(port, "tcp")], 2) == {(port, "tcp"): "connection refused"}


def test_what_somebody_has_already_is_tried_over_tcp_and_left_out_over_udp() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("0.0.0.0", 0))
        tcp.listen()
        udp.bind(("0.0.0.0", 0))
        mine, other = f"{tcp.getsockname()[1]}/tcp", f"{udp.getsockname()[1]}/udp"
        assert probe(state="listening", name="a", address="127.0.0.1", ports=[mine, other])["peer"]["ports"] == [mine]


def test_in_check_mode_nobody_listens() -> None:
    port = free()
    answer = run(port_probe, None, check=True, state="listening", name="a", address="127.0.0.1", ports=[f"{port}/tcp"])
    assert answer["peer"]["ports"] == []
    assert port_tries.tried("127.0.0.1", [(port, "tcp")], 1) == {(port, "tcp"): "connection refused"}


def test_no_port_is_refused() -> None:
    assert probe(state="listening", ports=["https"])["msg"].startswith("'https' is no port")


def test_a_host_does_not_try_itself() -> None:
    peer = {"name": "node-0", "address": "127.0.0.1", "ports": ["9/tcp"]}
    assert probe(state="tried", name="node-0", peers=[peer])["connections"] == []
