"""Filters of the roles that operate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def backup_line(manifest: Mapping[str, Any]) -> str:
    """One line about a backup, for the operator."""
    size = int(manifest["size"]) / 1e6
    return (
        f"{manifest['path']}: {size:.1f} MB, {manifest['pages']} pages, TXID {manifest['txid']} of cluster "
        f"{manifest['cluster_id']} from {manifest['pod']}, checksum {manifest['checksum']}, {manifest['journal_mode']}"
        f"{', encrypted' if manifest['encrypted'] else ''}"
        f"{'' if manifest['read_back'] else ' and not read back (set backup_decrypt_command)'}."
    )


class FilterModule:
    """Filters of the roles that operate."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"backup_line": backup_line}
