"""What the modules that look at hosts say of them."""

from __future__ import annotations

from typing import Any

# k3s_probe on a host that has no k3s yet
BARE: dict[str, Any] = {
    "arch": "amd64",
    "installed_version": "",
    "binary_sha256": "",
    "images_sha256": "",
    "units": [],
    "ca_hash": "",
    "token_matches": None,
    "storage": "/var/lib/rancher/k3s/storage",
    "volumes": [],
    "datastore": "",
    "revision": None,
    "restored": {},
    "copied": {},
    "now": 0.0,
}
