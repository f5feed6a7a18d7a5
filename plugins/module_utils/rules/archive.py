"""The rules of the role archive."""

from __future__ import annotations

from ..archive import settings
from . import Look, Values

_LEAST = {
    "archive_keep": 1,
    "archive_rclone_interval": 1,
    "archive_pack_after": 60,
    "archive_base_every": 1,
    "archive_check_every": 1,
    "archive_drill_every": 1,
    "archive_user": 1,
}


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = [
        f"{name} is {values[name]}, and has to be at least {least}."
        for name, least in _LEAST.items()
        if values[name] < least
    ]
    if values["archive_state"] == "present" and not values["archive_image"]:
        found.append(
            "archive_state is present, and archive_image is not set: name an image with Python 3.11 or newer (the "
            "version is yours to choose and pin)."
        )
    if values["archive_rclone_remote"] and not (values["archive_rclone_image"] and values["archive_rclone_secret"]):
        found.append(
            "archive_rclone_remote needs archive_rclone_image and archive_rclone_secret (with the key rclone.conf): "
            "set both."
        )
    sizes = {}
    for name in ("archive_storage_size", "archive_max_size", "archive_buffer_size"):
        try:
            sizes[name] = settings.size(str(values[name]))
        except ValueError as exc:
            found.append(f"{name}: {exc}")
    # With a place of its own the claim holds no more than the buffer.
    kept = "archive_buffer_size" if values["archive_volume"] else "archive_max_size"
    if sizes.get("archive_storage_size") and sizes.get(kept, 0) >= sizes["archive_storage_size"]:
        found.append(
            f"{kept} ({values[kept]}) has to be less than archive_storage_size ({values['archive_storage_size']}), "
            "which nothing else keeps it below: lower the first or raise the second."
        )
    if not values["archive_storage_size"] and not values["archive_volume"]:
        found.append(
            "archive_storage_size is empty, and archive_volume names no other place, so that the archive would go with "
            "its pod: set one of them."
        )
    if values["archive_remove_data"] and values["archive_state"] != "absent":
        found.append("archive_remove_data is set, and archive_state is not absent: it belongs to archive_state absent.")
    return found
