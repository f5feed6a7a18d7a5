"""One line for the user about each kind of copy, as the modules that make them return it (``said``). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def backup(manifest: Mapping[str, Any]) -> str:
    """About a backup, by its manifest."""
    size = int(manifest["size"]) / 1e6
    return (
        f"{manifest['path']}: {size:.1f} MB, {manifest['pages']} pages, TXID {manifest['txid']} of cluster "
        f"{manifest['cluster_id']} from {manifest['pod']}, checksum {manifest['checksum']}, {manifest['journal_mode']}"
        f"{', encrypted' if manifest['encrypted'] else ''}"
        f"{'' if manifest['read_back'] else ' and not read back (set backup_decrypt_command)'}."
    )


def volume(copied: Mapping[str, Any]) -> str:
    """About the copy of a volume's database."""
    proven = "" if copied["position_proven"] else ", its position is NOT proven: it was written to meanwhile"
    return (
        f"{copied['volume']}: TXID {copied['txid'] or 'unknown'} of cluster {copied['cluster_id'] or 'unknown'}, "
        f"{copied['size'] / 1e6:.1f} MB{proven}."
    )


def datastore(copied: Mapping[str, Any]) -> str:
    """About a copy of the cluster's datastore, by its manifest."""
    return (
        f"{copied['path']}: {int(copied['stored_size']) / 1e6:.1f} MB, {copied['rows']} rows up to revision "
        f"{copied['revision']} of the cluster with CA {copied['cluster_id'][:12]}, {copied['k3s']} on {copied['host']}"
        f"{', encrypted' if copied['encrypted'] else ', NOT encrypted'}"
        f"{'' if copied['read_back'] else ' and not read back (set cluster_backup_decrypt_command)'}."
    )


def exported(manifests: list[dict[str, Any]]) -> list[str]:
    """What an operation did when it exported before an act."""
    return [f"exported to {one['path']}" for one in manifests]


def removed(paths: list[str]) -> list[str]:
    """About old copies that had to go: a line, or none."""
    return [f"Removed {', '.join(paths)}."] if paths else []


def rows(before: dict[str, int], then: dict[str, int], most: int = 10) -> str:
    """Rows of each table that has another number of them in two databases; "" where none has."""
    names = sorted(before.keys() | then.keys())
    unlike = [name for name in names if before.get(name) != then.get(name)]
    lines = [f"{name} {before.get(name, 'none')} -> {then.get(name, 'none')}" for name in unlike]
    more = f" and {len(lines) - most} more tables" if len(lines) > most else ""
    return ", ".join(lines[:most]) + more
