"""The rules of the role storage."""

from __future__ import annotations

from . import Look, Values


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    present, kind, paths = values["storage_state"] == "present", values["storage_kind"], values["storage_paths"]
    removed = values["storage_remove_data"]
    claims = [str(entry["claim"]) for entry in values["storage_volumes"]]
    volumes = [str(entry["volume"]) for entry in values["storage_volumes"]]
    if present and kind == "nfs" and not values["storage_nfs_server"]:
        found.append(
            "storage_nfs_server is not set, and storage_kind is nfs: set it to the name or address of the NFS "
            "server, or choose another storage_kind."
        )
    missing = [claim for claim in claims if claim not in paths]
    if present and kind != "class" and missing:
        what = "the exported path" if kind == "nfs" else "the directory on the hosts"
        found.append(f"storage_paths has no path for {', '.join(missing)}: give {what} of each claim.")
    unknown = [str(name) for name in paths if name not in claims]
    if unknown:
        found.append(
            f"storage_paths names {', '.join(unknown)}, and storage_volumes has no such claim: correct the name."
        )
    relative = [str(path) for path in paths.values() if not (str(path).startswith("/") and len(str(path)) > 1)]
    if relative:
        found.append(f"storage_paths has paths that do not begin with /: {', '.join(relative)}.")
    if len(set(claims)) < len(claims) or len(set(volumes)) < len(volumes):
        found.append("storage_volumes uses a name twice: every claim and every volume needs its own.")
    strange = [str(name) for name in removed if name not in claims]
    if strange:
        found.append(
            f"storage_remove_data names {', '.join(strange)}, and storage_volumes has no such claim: nothing was "
            "removed."
        )
    if removed and present:
        found.append("storage_remove_data is set while storage_state is present: it belongs to storage_state absent.")
    if not values["storage_class"]:
        found.append("storage_class is empty: set it to the name of a class.")
    return found
