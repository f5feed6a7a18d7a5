"""The rules of the role backup."""

from __future__ import annotations

import re

from . import Look, Values

# Of other roles, with what counts where nobody sets them.
OTHERS = {"operation_call_off": ""}

_ZONE = re.compile(r"[A-Za-z]+(/[A-Za-z0-9_+-]+)*")
_SCHEDULE = re.compile(r"@(hourly|daily|weekly)|[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}")


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    schedule = str(values["backup_schedule"]) if values["backup_schedule_state"] == "present" else ""
    remote = values["backup_rclone_remote"]
    if values["backup_schedule_state"] == "present" and not schedule:
        found.append("backup_schedule_state is present, and backup_schedule is empty: say when, such as 17 3 * * *.")
    if schedule and not _SCHEDULE.fullmatch(schedule):
        found.append(f"backup_schedule {schedule} is not a time as cron writes it, such as 17 3 * * *.")
    zone = str(values["backup_time_zone"])
    if zone and not _ZONE.fullmatch(zone):
        found.append(f"backup_time_zone {zone} is no name of a time zone, such as Europe/Berlin.")
    if schedule and not values["backup_image"]:
        found.append(
            "backup_schedule is set, and backup_image is not: name an image with python3 (the version is yours to "
            "choose and pin)."
        )
    if schedule and not values["backup_volume"] and not remote:
        found.append(
            "backup_schedule is set, but neither backup_volume nor backup_rclone_remote says where backups go: set one."
        )
    if remote and not (values["backup_rclone_image"] and values["backup_rclone_secret"]):
        found.append(
            "backup_rclone_remote needs backup_rclone_image and backup_rclone_secret (with the key rclone.conf): set "
            "both."
        )
    if values["operation_call_off"]:
        found.append(
            f"operation_call_off is for playbooks/{values['operation_call_off']}.yml, which then does nothing else: "
            "leave it out here."
        )
    if values["backup_at"] and values["backup_pod"]:
        found.append(
            "backup_at and backup_pod are both set: a moment comes from the archive, so leave out one of them."
        )
    if values["backup_keep"] < 0:
        found.append(f"backup_keep {values['backup_keep']} is negative: 0 keeps all.")
    return found
