# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles that operate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import datastore, k3s


def backup_line(manifest: Mapping[str, Any]) -> str:
    """One line about a backup, for the user."""
    size = int(manifest["size"]) / 1e6
    return (
        f"{manifest['path']}: {size:.1f} MB, {manifest['pages']} pages, TXID {manifest['txid']} of cluster "
        f"{manifest['cluster_id']} from {manifest['pod']}, checksum {manifest['checksum']}, {manifest['journal_mode']}"
        f"{', encrypted' if manifest['encrypted'] else ''}"
        f"{'' if manifest['read_back'] else ' and not read back (set backup_decrypt_command)'}."
    )


def volume_line(copied: Mapping[str, Any]) -> str:
    """One line about the copy of a volume's database, for the user."""
    proven = "" if copied["position_proven"] else ", its position is NOT proven: it was written to meanwhile"
    return (
        f"{copied['volume']}: TXID {copied['txid'] or 'unknown'} of cluster {copied['cluster_id'] or 'unknown'}, "
        f"{copied['size'] / 1e6:.1f} MB{proven}."
    )


def cluster_backup_line(kept: Mapping[str, Any]) -> str:
    """One line about a copy of the cluster's datastore, for the user."""
    copied = kept["copied"]
    removed = f" Removed {', '.join(kept['removed'])}." if kept["removed"] else ""
    return (
        f"{copied['path']}: {int(copied['stored_size']) / 1e6:.1f} MB, {copied['rows']} rows up to revision "
        f"{copied['revision']} of the cluster with CA {copied['cluster_id'][:12]}, {copied['k3s']} on {copied['host']}"
        f"{', encrypted' if copied['encrypted'] else ', NOT encrypted'}"
        f"{'' if copied['read_back'] else ' and not read back (set cluster_backup_decrypt_command)'}.{removed}"
    )


def cluster_backup_age(probe: Mapping[str, Any], warn_days: int) -> str:
    """How old the last copy of a server's datastore is, from what host_probe saw; see module_utils/datastore.py."""
    return str(datastore.age(probe["copied"], float(probe["now"]), warn_days))


def cluster_restore_errors(
    copied: Mapping[str, Any], server: Mapping[str, Any], agents: list[Mapping[str, Any]], version: str, accepted: str
) -> list[str]:
    """Why a copy may not become a server's datastore, where k3s of this version follows; see module_utils."""
    error = k3s.upgrade_error(copied["k3s"], version, True)
    return list(datastore.restore_errors(copied, server, agents, error, accepted))


class FilterModule:
    """Filters of the roles that operate."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "backup_line": backup_line,
            "volume_line": volume_line,
            "cluster_backup_line": cluster_backup_line,
            "cluster_backup_age": cluster_backup_age,
            "cluster_restore_errors": cluster_restore_errors,
            "cluster_restore_in_place": datastore.in_place,
        }
