"""The rules of the role cluster_backup."""

from __future__ import annotations

from . import Look, Values


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    if not values["cluster_backup_encrypt_command"] and not values["cluster_backup_plain"]:
        found.append(
            "A copy of the datastore holds every secret of the cluster: set cluster_backup_encrypt_command (such as "
            "[age, -r, age1...]), or cluster_backup_plain: true to keep it unencrypted."
        )
    scheduled = values["cluster_backup_schedule_state"] == "present"
    if scheduled and not values["cluster_backup_schedule"]:
        found.append(
            "cluster_backup_schedule_state is present, and cluster_backup_schedule is empty: say when, such as "
            "*-*-* 02:47:00."
        )
    if scheduled and not values["cluster_backup_path"]:
        found.append(
            "cluster_backup_schedule is set, and cluster_backup_path does not say where the timer on the server writes "
            "to: name a mounted folder."
        )
    if values["cluster_backup_keep"] < 0:
        found.append(f"cluster_backup_keep {values['cluster_backup_keep']} is negative: 0 keeps all.")
    return found
