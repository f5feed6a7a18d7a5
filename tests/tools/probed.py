"""What host_probe says of a host, for tests."""

from __future__ import annotations

import copy
from typing import Any

# A host that has no k3s yet
BARE: dict[str, Any] = {
    "arch": "amd64",
    "node_name": "node",
    "node_password": False,
    "registered": "",
    "certificates_end": None,
    "by_hand": [],
    "installed_version": "",
    "binary_sha256": "",
    "images_sha256": "",
    "units": [],
    "active": [],
    "started": 0.0,
    "stale_inputs": [],
    "ca_hash": "",
    "token_matches": None,
    "token_mark": "",
    "storage": "/var/lib/rancher/k3s/storage",
    "volumes": [],
    "datastore": "",
    "revision": None,
    "restored": {},
    "copy_age": "",
    "links": {},
    "kubeconfig_sha256": "",
    "nodes": [],
}
FUSE: dict[str, Any] = {"in_kernel": True, "module": False, "device": "0666", "udev": True, "mounted": True}
STOPPED = {"active": "inactive", "enabled": "disabled"}
RUNS = {"active": "active", "enabled": "enabled"}
# A host without an error
HOST: dict[str, Any] = {
    "hostname": "node",
    "os": {"id": "debian", "version": "13"},
    "kernel": "6.12.0",
    "systemd": True,
    "cgroup": 2,
    "listeners": [],
    "firewalls": [],
    "memory_mb": 4000,
    "disk_free_mb": 50000,
    "disk_path": "/var/lib",
    "default_route": True,
    "clock": [-0.2, 0.1],
    "clock_synchronised": True,
    "k3s_installed": False,
    "swaps": [],
    "fstab_swap": False,
    "hosts_block": None,
    "sysctl": {},
    "packages_missing": [],
    "services": {"k3s": STOPPED, "k3s-agent": STOPPED, "chrony": STOPPED},
    "fuse": FUSE,
}
DESIRED: dict[str, dict[str, Any]] = {
    "host": {
        "address": "192.0.2.1",
        "server": False,
        "hostname": "",
        "entries": {},
        "packages": ["kmod"],
        "sysctl": {},
        "swap": "keep",
        "time_sync": "existing",
        "clock_skew_max": 2.0,
        "supported_systems": {"debian": "12", "ubuntu": "24.04"},
        "k3s_version": "v1.36.4+k3s1",
        "cgroup_v1_allowed": False,
        "ports": [80, 443, 10250],
        "server_ports": [6443],
        "min_memory_mb": 1800,
        "min_disk_mb": 10000,
        "fuse_required": True,
    },
    "fuse": {"packages": ["fuse3"], "device_mode": "0666"},
    "k3s": {
        "servers": ["server-0"],
        "agents": ["agent-1"],
        "version": "v1.36.4+k3s1",
        "source": "release",
        "base": "https://example.org",
        "checksum": "0123456789abcdef" * 4,
        "pins": {},
        "images_enabled": False,
        "images_checksum": "",
        "data_dir": "/var/lib/rancher/k3s",
        "allow_upgrade": False,
        "take_over": False,
        "token_is_long": False,
        "node_name": "",
        "config_errors": [],
    },
}
NO_KUBECONFIG: dict[str, Any] = {
    "path": "/root/.kube/k3s-config",
    "mode": "",
    "sha256": "",
    "clusters": -1,
    "ca_hash": "",
}


def report(name: str, *parts: str, **changes: Any) -> dict[str, Any]:
    """A report about these parts; a change is ``probe__key``, ``k3s__key`` (of the probe), ``desired__part__key``…"""
    made: dict[str, Any] = {
        "name": name,
        "reason": "",
        "desired": {part: DESIRED[part] for part in parts},
        "probe": {**HOST, "k3s": BARE},
        "differing": {part: [] for part in parts},
        "kubeconfig": NO_KUBECONFIG,
        "folder": {},
    }
    made = copy.deepcopy(made)
    for path, value in changes.items():
        *folders, key = path.split("__")
        place = made
        for folder in ["probe", "k3s"] if folders == ["k3s"] else folders:
            place = place[folder]
        place[key] = value
    return made
