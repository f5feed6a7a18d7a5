"""The operations on the application's data, one module each, and what the acts need."""

from __future__ import annotations

from typing import Protocol

from . import planning, promote, replica_reset, restore, rollback, rollout, scale


class Operation(Protocol):
    """What such a module has; see planning.py, also for what it may have beside this."""

    def decide(self, request: planning.Request) -> planning.Plan:
        """What is left to do."""


# The name is that of its playbook, its role and the value of the module's option.
OPERATIONS: dict[str, Operation] = {
    "scale": scale,
    "replica_reset": replica_reset,
    "promote": promote,
    "restore": restore,
    "rollout": rollout,
    "rollback": rollback,
}
