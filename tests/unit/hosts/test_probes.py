"""What the probes read on a host: units from cgroups, k3s's stamp of its inputs, and the FUSE protocol of the proof."""

from __future__ import annotations

import hashlib
import pathlib
import ssl
import struct
import subprocess
from types import SimpleNamespace

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import fuse_mount, k3s_observe
from ansible_collections.abaci.infra.plugins.modules import host_probe, k3s_wait


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/k3s.service\n", "/system.slice/k3s.service"),
        ("12:memory:/x\n1:name=systemd:/system.slice/nginx.service\n0::/\n", "/system.slice/nginx.service"),
        ("0::/kubepods/burstable/pod1/abc\n", "/kubepods/burstable/pod1/abc"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_on_both_cgroup_versions(cgroups: str, unit: str) -> None:
    assert host_probe.unit_of(cgroups) == unit


def test_a_system_without_dpkg_lacks_all_packages_so_that_the_rules_come_to_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert host_probe.packages_missing(["chrony", "kmod"]) == ["chrony", "kmod"]
    monkeypatch.undo()
    assert host_probe.packages_missing([]) == []


def test_each_unit_has_its_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ActiveState=active\nUnitFileState=enabled\n\nActiveState=inactive\nUnitFileState=\n"
    monkeypatch.setattr(host_probe.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=text))
    found = host_probe.services(["k3s", "k3s-agent", "chrony"])
    assert [(name, state["active"], state["enabled"]) for name, state in found.items()] == [
        ("k3s", "active", "enabled"),
        ("k3s-agent", "inactive", ""),
        ("chrony", "", ""),
    ]


@pytest.mark.parametrize(
    ("ufw", "firewalld", "found"),
    [
        ("", "", []),
        ("# comment\nENABLED=no\nLOGLEVEL=low\n", "inactive", []),
        ("ENABLED=yes\n", "", ["ufw"]),
        ('ENABLED="YES"\n', "active", ["ufw", "firewalld"]),
    ],
)
def test_a_firewall_that_is_installed_and_off_is_none(
    ufw: str, firewalld: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_probe, "read", lambda path: ufw if path == "/etc/ufw/ufw.conf" else "")
    assert host_probe.firewalls({"active": firewalld, "enabled": ""}) == found


def test_the_name_of_a_node_is_in_its_certificate(tmp_path: pathlib.Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"]
    command += [
        f"{tmp_path}/key",
        "-out",
        f"{tmp_path}/crt",
        "-subj",
        "/O=system:nodes/CN=system:node:web-1.example.org",
    ]
    subprocess.run(command, check=True, capture_output=True)
    text = (tmp_path / "crt").read_text()
    assert k3s_observe.registered(text + text.replace("MII", "MIX")) == "web-1.example.org"
    broken = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
    assert [k3s_observe.registered(other) for other in ("", "text", broken)] == ["", "", ""]


@pytest.mark.parametrize("days", [20, 20000], ids=["until 2049", "later"])
def test_the_first_end_of_the_certificates_that_k3s_renews_counts(tmp_path: pathlib.Path, days: int) -> None:
    def certificate(name: str, days: int) -> float:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", f"{tmp_path}/key", "-out", str(path), "-subj", "/CN=x", "-days", str(days)]
        subprocess.run(command, check=True, capture_output=True)
        shown = ["openssl", "x509", "-in", str(path), "-noout", "-enddate"]
        text = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
        return float(ssl.cert_time_to_seconds(text.strip().removeprefix("notAfter=")))

    assert k3s_observe.certificates_end(str(tmp_path)) is None
    certificate("server/tls/server-ca.crt", 5)  # an authority, which no start renews
    certificate("server/tls/client-old.crt", 5)  # what a release before left there
    first = certificate("agent/client-kubelet.crt", days)
    certificate("server/tls/client-admin.crt", days + 10)
    (tmp_path / "agent/serving-kubelet.crt").write_text("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n")
    assert k3s_observe.certificates_end(str(tmp_path)) == first


def test_a_listening_port_is_found_with_its_process() -> None:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        found = [entry for entry in host_probe.listeners() if entry["port"] == port]
    assert len(found) == 1 and found[0]["process"]


def test_the_room_of_a_path_that_does_not_exist_yet_is_that_of_its_parent(tmp_path: pathlib.Path) -> None:
    assert host_probe.disk_free_mb(str(tmp_path / "not/yet")) > 0


def test_a_changed_a_new_and_a_removed_input_are_stale(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same, changed, new, removed = (tmp_path / name for name in ("same", "changed", "new", "removed"))
    for file in (same, changed, new):
        file.write_text("now")
    now = hashlib.sha256(b"now").hexdigest()
    stamp = f"{now}  {same}\n{'0' * 64}  {changed}\n  {new}\n{now}  {removed}\n  {tmp_path}/absent\n"
    monkeypatch.setattr(k3s_observe, "read", lambda path: stamp if path == "/run/k3s.inputs" else "")
    assert k3s_observe.stale_inputs("k3s") == sorted(map(str, (changed, new, removed)))
    # A k3s that was not started by our unit left no stamp: nothing is known to be stale.
    assert k3s_observe.stale_inputs("k3s-agent") == []


def test_the_server_is_asked_with_the_kubeconfig_that_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*argv: str) -> tuple[int, str, str]:
        asked.append(argv)
        return 0, "ActiveState=active" if argv[0] == "systemctl" else '{"items": []}', ""

    monkeypatch.setattr(k3s_wait, "run", run)
    assert k3s_wait.missing("k3s", {"node": 0}, "", "/root/own.yaml") == "node: the node has not registered"
    assert [argv[2] for argv in asked[1:]] == ["--kubeconfig=/root/own.yaml"] * 2


def request(opcode: int, body: bytes = b"") -> bytes:
    header: bytes = fuse_mount.IN_HEADER.pack(fuse_mount.IN_HEADER.size + len(body), opcode, 77, 1, 0, 0, 0, 0)
    return header + body


def test_the_handshake_is_answered_with_a_version_not_above_the_kernels() -> None:
    reply, version = fuse_mount.answer(request(fuse_mount.FUSE_INIT, struct.pack("=IIII", 7, 23, 0, 0)))
    length, error, unique, major, minor = struct.unpack_from("=IiQII", reply)
    assert (length, error, unique, major, minor) == (len(reply), 0, 77, 7, 23)
    assert len(reply) == 80  # header and fuse_init_out, which the kernel measures
    assert version == (7, 23)


def test_the_root_is_a_directory_with_the_mark() -> None:
    reply, version = fuse_mount.answer(request(fuse_mount.FUSE_GETATTR))
    length, error, unique = struct.unpack_from("=IiQ", reply)
    assert (length, error, unique) == (len(reply), 0, 77)
    assert len(reply) == 16 + 16 + 88  # header, validity, fuse_attr
    assert struct.unpack_from("=Q", reply, 16 + 16 + 32)[0] == fuse_mount.MARK
    assert version is None


def test_everything_else_is_refused_as_not_implemented() -> None:
    reply, _version = fuse_mount.answer(request(99))
    assert struct.unpack("=IiQ", reply) == (16, fuse_mount.ENOSYS, 77)


def test_the_probe_of_k3s_names_the_volumes_of_a_host(tmp_path: pathlib.Path) -> None:
    for name in ("pvc-2", "pvc-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert k3s_observe.folders(str(tmp_path)) == ["pvc-1", "pvc-2"]
    assert k3s_observe.folders(str(tmp_path / "absent")) == []
