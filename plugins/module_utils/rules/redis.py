"""The rules of the role redis."""

from __future__ import annotations

import re

from . import Look, Values

_FACTORS = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "Mi": 1 << 20, "Gi": 1 << 30}


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    limits = values["redis_resources"].get("limits")
    limit = str(limits.get("memory", "unset")) if isinstance(limits, dict) else "unset"
    most, there = _size(str(values["redis_maxmemory"]), "kb|mb|gb"), _size(limit, "Mi|Gi")
    # The rest is for the copy that Redis makes of changing pages while it rewrites its file.
    if most is None or there is None or most * 4 > there * 3:
        found.append(
            f"redis_maxmemory ({values['redis_maxmemory']}, as 160mb) has to be at most three quarters of "
            f"redis_resources.limits.memory ({limit}, as 256Mi), or the kernel kills Redis before it evicts: lower the "
            "first or raise the second."
        )
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?([EPTGMK]i|[EPTGMk])", str(values["redis_storage_size"])):
        found.append(f"redis_storage_size {values['redis_storage_size']} is no size: write it as 1Gi.")
    if re.search(r"\s", str(values.get("redis_password") or "")):
        found.append(
            "redis_password holds white space, which neither a URL nor a file carries well: choose one without."
        )
    return found


def _size(text: str, units: str) -> int | None:
    match = re.fullmatch(rf"([1-9][0-9]*)({units})", text)
    return int(match[1]) * _FACTORS[match[2]] if match else None
