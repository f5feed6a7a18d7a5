"""Look at k3s on the host on which this runs: I/O, no decisions. It changes nothing and returns no secret."""

from __future__ import annotations

import base64
import binascii
import calendar
import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from . import datastore, k3s
from .node_types import K3sProbe, Service
from .objects import Object

# Where the role cluster_backup and its timer note the last copy of the datastore.
COPIED = "/var/lib/abaci/cluster-backup.json"
# One of a weekly schedule is not late yet.
WARN_DAYS = 8
UNITS = ("k3s", "k3s-agent")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
TOKEN = "/etc/rancher/k3s/token"
CONFIG = "/etc/rancher/k3s/config.yaml"
# By it the server knows a node of this name again.
PASSWORD = "/etc/rancher/node/password"
# Of the server and of each node. Others lie beside them that no release of today renews, and authorities of ten years.
RENEWED = (
    *(f"server/tls/{name}" for name in ("client-admin", "client-controller", "serving-kube-apiserver")),
    *(f"agent/{name}" for name in ("client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller")),
)
VALIDITY = re.compile(rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)")


@functools.cache  # the binary is an input of the service, too
def sha256(path: str) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, or an empty string where there is none."""
    try:
        return datastore.digest(Path(path))
    except OSError:
        return ""


def read(path: str) -> str:
    """Return the text of a small file, or an empty string where there is none to read."""
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


def started(unit: str) -> float:
    """Return when the unit was last started, by this host's clock: its ExecStartPre writes the file then."""
    try:
        return os.stat(f"/run/{unit}.inputs").st_mtime
    except OSError:
        return 0.0


def link(name: str) -> str:
    path = f"/usr/local/bin/{name}"
    if os.path.islink(path) and os.path.realpath(path) == datastore.BINARY:
        return "ours"
    return "other" if os.path.lexists(path) else "absent"


def first_der(text: str) -> bytes:
    """Return the first certificate of a PEM file; nothing where there is none to read."""
    pem = re.search(r"-----BEGIN CERTIFICATE-----([^-]+)-----END", text)
    try:
        return base64.b64decode(pem.group(1)) if pem else b""
    except binascii.Error:
        return b""


def end(certificate: str) -> float | None:
    """Return when a certificate ends; in DER its two times stand beside each other."""
    match = VALIDITY.search(first_der(certificate))
    if not match:
        return None
    text = (match.group(1) or match.group(2)).decode()
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%S" if match.group(2) else "%y%m%d%H%M%S")))


def certificates_end(data_dir: str) -> float | None:
    """Return when the first of the certificates ends that k3s renews at a start; None where there are none."""
    ends = [end(read(f"{data_dir}/{name}.crt")) for name in RENEWED]
    return min((found for found in ends if found is not None), default=None)


def by_hand(unit: str) -> list[str]:
    """Return the unit's file and the names of what is set, where somebody else installed it; see k3s.by_hand."""
    service = read(f"/etc/systemd/system/{unit}.service")
    # Where k3s's own script, and where packages put it.
    environment = read(f"/etc/systemd/system/{unit}.service.env") + read(f"/etc/default/{unit}")
    return k3s.by_hand(unit, service, environment, read(CONFIG))


def registered(certificate: str) -> str:
    """Return the name of the node that a kubelet's client certificate is for; empty where there is none to read.

    A host has no reader for certificates: in DER the byte before a short text is its length.
    """
    der = first_der(certificate)
    prefix = b"system:node:"
    at = der.find(prefix)
    return der[at + len(prefix) : at + der[at - 1]].decode(errors="replace") if at > 0 else ""


def copied() -> datastore.Last:
    """Return when and where the last copy of the datastore was made."""
    try:
        found = json.loads(read(COPIED))
    except ValueError:
        return {}
    return cast("datastore.Last", found) if isinstance(found, dict) else {}


def folders(path: str) -> list[str]:
    """Return the names of the folders in a folder, in order; none where there is none."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def nodes(kubeconfig: str) -> list[Object]:
    """Return the cluster's nodes, as far as k3s.nodes_not_ready reads them; none where the API does not answer."""
    argv = [datastore.BINARY, "kubectl", f"--kubeconfig={kubeconfig}", "get", "nodes", "--output=json"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=10, check=True)
        items = json.loads(done.stdout)["items"]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return [
        {
            "metadata": {"name": item["metadata"]["name"]},
            "status": {
                "nodeInfo": {"kubeletVersion": item["status"].get("nodeInfo", {}).get("kubeletVersion", "")},
                "conditions": [entry for entry in item["status"].get("conditions") or [] if entry["type"] == "Ready"],
            },
        }
        for item in items
    ]


def observe(asked: Mapping[str, Any], services: Mapping[str, Service]) -> K3sProbe:
    """Return what is to be seen; ``asked`` holds the options of host_probe's k3s, all of them optional."""
    data_dir = asked.get("data_dir") or "/var/lib/rancher/k3s"
    storage, token = asked.get("storage_dir") or f"{data_dir}/storage", asked.get("token") or ""
    kubeconfig = asked.get("kubeconfig") or ""
    arch = MACHINES.get(platform.machine(), platform.machine())
    units = [unit for unit in UNITS if os.path.exists(f"/etc/systemd/system/{unit}.service")]
    active = [unit for unit in units if services[unit]["active"] == "active"]
    living, given = read(f"{data_dir}/server/token"), read(TOKEN)
    # An agent keeps its cluster's CA; before its first start only the token that it was given tells.
    joined = k3s.ca_hash(given) or sha256(f"{data_dir}/agent/server-ca.crt")
    own = read(kubeconfig) if kubeconfig else ""
    made = k3s.kubeconfig_for(own, asked.get("kubeconfig_server") or "")
    return {
        "arch": arch,
        "node_name": platform.node().lower(),
        "registered": registered(read(f"{data_dir}/agent/client-kubelet.crt")),
        "certificates_end": certificates_end(data_dir),
        "by_hand": [name for unit in units for name in by_hand(unit)],
        "node_password": bool(read(PASSWORD)),
        "installed_version": datastore.installed_version(),
        "binary_sha256": sha256(datastore.BINARY),
        "images_sha256": sha256(f"{data_dir}/agent/images/k3s-airgap-images-{arch}.tar"),
        "units": units,
        "active": active,
        "started": max((started(unit) for unit in units), default=0.0),
        "stale_inputs": sorted({path for unit in units for path in stale_inputs(unit)}),
        "ca_hash": k3s.ca_hash(living) or ("" if "k3s" in units else joined),
        "token_matches": k3s.same_token(token, living) if token and living else None,
        # A server is asked for its kubeconfig, an agent is not.
        "token_mark": k3s.mark(read(f"{data_dir}/server/node-token") if kubeconfig else given),
        "datastore": datastore.kind(Path(data_dir)),
        "revision": datastore.revision(Path(data_dir)),
        "restored": datastore.restored(Path(data_dir)),
        "now": time.time(),
        "copy_age": datastore.age(copied(), time.time(), WARN_DAYS),
        "storage": storage,
        "volumes": folders(storage),
        "links": {name: link(name) for name in asked.get("links") or []},
        "kubeconfig_sha256": hashlib.sha256(made.encode()).hexdigest() if own else "",
        "nodes": nodes(kubeconfig) if own and "k3s" in active else [],
    }
