#!/usr/bin/python
"""Look at k3s on a node: what is installed, what runs with which input, and which cluster the node belongs to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_probe
short_description: Look at k3s on a node
description:
  - Reads the binary and its version, the units, the files that the running service was started with, and the hash of
    the CA of the cluster that the node belongs to. Changes nothing and returns no secret.
options:
  data_dir:
    description: k3s's data directory.
    type: path
    default: /var/lib/rancher/k3s
  storage_dir:
    description: Where local-path keeps the volumes; empty is C(storage) in O(data_dir).
    type: path
    default: ""
  token:
    description: Token of the inventory, to compare with the living cluster's; empty compares nothing.
    type: str
    default: ""
  links:
    description: Names of further commands that k3s can be.
    type: list
    elements: str
    default: []
author: The abaci.infra authors
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Look at k3s
  abaci.infra.k3s_probe:
  register: __k3s_probe
"""

RETURN = r"""
probe:
  description: What was seen.
  returned: always
  type: dict
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import datastore, k3s
from ansible_collections.abaci.infra.plugins.module_utils.datastore import BINARY

# Where the role cluster_backup and its timer note the last copy of the datastore.
COPIED = "/var/lib/abaci/cluster-backup.json"
UNITS = ("k3s", "k3s-agent")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def sha256(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, or an empty string where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def stale_inputs(unit: str) -> list[str]:
    """Return the files that differ from those the unit was last started with, as its ExecStartPre wrote them down."""
    started = {}
    for line in read(f"/run/{unit}.inputs").splitlines():
        digest, _space, path = line.partition("  ")
        started[path] = digest
    return sorted(path for path, digest in started.items() if sha256(path) != digest)


def active(unit: str) -> bool:
    done = subprocess.run(["systemctl", "is-active", "--quiet", unit], capture_output=True, check=False)
    return done.returncode == 0


def link(name: str) -> str:
    path = f"/usr/local/bin/{name}"
    if os.path.islink(path) and os.path.realpath(path) == BINARY:
        return "ours"
    return "other" if os.path.lexists(path) else "absent"


def copied() -> dict[str, Any]:
    """Return when and where the last copy of the datastore was made: {time, place}; empty where none is known."""
    try:
        found = json.loads(read(COPIED))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def folders(path: str) -> list[str]:
    """Return the names of the folders in a folder, in order; none where there is none."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "storage_dir": {"type": "path", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "links": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    data_dir, token = module.params["data_dir"], module.params["token"]
    storage = module.params["storage_dir"] or f"{data_dir}/storage"
    arch = MACHINES.get(platform.machine(), platform.machine())
    units = [unit for unit in UNITS if os.path.exists(f"/etc/systemd/system/{unit}.service")]
    living = read(f"{data_dir}/server/token")
    # An agent keeps its cluster's CA; before its first start only the token that it was given tells.
    joined = k3s.ca_hash(read("/etc/rancher/k3s/token")) or sha256(f"{data_dir}/agent/server-ca.crt")
    module.exit_json(
        changed=False,
        probe={
            "arch": arch,
            "node_name": platform.node().lower(),
            "installed_version": datastore.installed_version(),
            "binary_sha256": sha256(BINARY),
            "images_sha256": sha256(f"{data_dir}/agent/images/k3s-airgap-images-{arch}.tar"),
            "units": units,
            "active": [unit for unit in units if active(unit)],
            "stale_inputs": sorted({path for unit in units for path in stale_inputs(unit)}),
            "ca_hash": k3s.ca_hash(living) or ("" if "k3s" in units else joined),
            "token_matches": k3s.same_token(token, living) if token and living else None,
            "datastore": datastore.kind(Path(data_dir)),
            "revision": datastore.revision(Path(data_dir)),
            "restored": datastore.restored(Path(data_dir)),
            "copied": copied(),
            "now": time.time(),
            "storage": storage,
            "volumes": folders(storage),
            "links": {name: link(name) for name in module.params["links"]},
        },
    )


if __name__ == "__main__":
    main()
