"""How the guard of a pod (roles/app/files/guard.sh) ended: its exit code, for its words are for people. Pure.

docs/failure-modes.md has the same table.
"""

from __future__ import annotations

import enum

from .state_types import Pod

NAME = "guard"  # of the init container


class Exit(enum.IntEnum):
    """Why the guard did not let LiteFS start."""

    FENCED = 10  # the record fences this ordinal: an old primary, or a copy that was given up
    AHEAD = 11  # a replica whose volume has what the running primary lacks
    EMPTY = 12  # the primary's volume is new, empty, damaged or of another cluster
    NO_CLUSTER_ID = 13  # only the cluster id of the primary's volume is missing
    OLDER = 14  # the primary's volume ends before what the record or another pod says
    RECORD = 15  # the record is missing or damaged
    UNREADABLE = 16  # LiteFS's user may not read the volume
    NOT_NOW = 17  # nothing can be said yet, and it tries again by itself


def reason(pod: Pod) -> Exit | None:
    """How the guard of a pod of the state document ended last; None where that says nothing of its volume."""
    init = pod["init"]
    code = init["exit_code"]
    return Exit(code) if init["name"] == NAME and code is not None and code in set(Exit) else None
