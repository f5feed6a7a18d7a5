"""The lock of the operations: one at a time for one application. Pure.

It is a Lease in the application's namespace. A holder is ``<user>@<host>+<machine>/<process>``. Times are the API
server's (kube.Client.server_time()), so a controller whose clock is wrong neither takes a living lock nor keeps a dead
one. The progress of an operation is not here but in the record: see progress.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from .. import clock
from ..objects import Object, Part

OPERATION = "abaci.infra/operation"


def name_of(name: str) -> str:
    """The Lease's name for the application ``name``."""
    return f"{name}-operation"


def holder(user: str, host: str, process: int, machine: Sequence[str]) -> str:
    """Who runs an operation. ``machine``: machine id, boot id and PID namespace, empty where one is not known.

    Without boot and namespace nobody can say of another process whether it lives: then each is a machine of its own.
    """
    _id, boot, pids = machine
    known = (*machine, "" if boot and pids else str(process))
    return f"{user}@{host}+{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]}/{process}"


def render(namespace: str, name: str) -> Object:
    """The Lease that nobody holds."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name_of(name),
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "abaci.infra", "app.kubernetes.io/component": "operation"},
        },
        "spec": {},
    }


def take(
    lease: Part,
    holder: str,
    operation: str,
    seconds: int,
    now: str,
    *,
    alive: bool,
    take_over: str = "",
) -> tuple[Object | None, str | None, str | None]:
    """Take the lock: (the Lease to write, a note, None), or (None, None, why it is refused).

    It is free, or its holder let ``seconds`` pass without a step, or is a process of this very user and machine that is
    not ``alive`` any more, or is the one that ``take_over`` names.
    """
    held = holder_of(lease)
    busy = at_work(lease, holder, now, alive=alive)
    if busy and take_over != held:
        who, left = busy
        return (
            None,
            None,
            f"{who}, so nothing was changed: wait for it. If that run is dead, its lock ends in {left} s, or at once "
            f"with -e operation_take_over={held}.",
        )
    spec = lease.get("spec") or {}
    notes = (lease.get("metadata") or {}).get("annotations") or {}
    note = f"{held} did not give the lock back ({notes.get(OPERATION)})." if held and held != holder else None
    stamp = _stamp(now)
    taken = {
        **lease,
        # Older versions kept more there.
        "metadata": {**lease["metadata"], "annotations": {**_others(notes), OPERATION: operation}},
        "spec": {
            **spec,
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
        },
    }
    return taken, note, None


def at_work(lease: Part, holder: str, now: str, *, alive: bool) -> tuple[str, int] | None:
    """Who else is at work, as the beginning of a sentence, and in how many seconds that lock ends; None for nobody."""
    held = holder_of(lease)
    spec = lease.get("spec") or {}
    notes = (lease.get("metadata") or {}).get("annotations") or {}
    same_machine = held.rpartition("/")[0] == holder.rpartition("/")[0]
    lasts = int(spec.get("leaseDurationSeconds") or 0)
    left = min(lasts - clock.between(str(spec.get("renewTime")), now), lasts)
    if not held or held == holder or (same_machine and not alive) or left <= 0:
        return None
    doing = notes.get(OPERATION) or "something"
    return f"{held} is at work here ({doing} since {spec.get('acquireTime')})", max(int(left), 1)


def renew(lease: Part | None, holder: str, now: str) -> Object | None:
    """The Lease renewed; None where it is not this holder's (any more)."""
    if lease is None or holder_of(lease) != holder:
        return None
    return {**lease, "spec": {**lease["spec"], "renewTime": _stamp(now)}}


def free(lease: Part) -> Object:
    """The Lease that its holder gives back."""
    spec = {key: value for key, value in lease["spec"].items() if key == "leaseTransitions"}
    notes = lease["metadata"].get("annotations") or {}
    return {**lease, "metadata": {**lease["metadata"], "annotations": _others(notes)}, "spec": spec}


def holder_of(lease: Part) -> str:
    """Who holds it, empty for nobody."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _others(annotations: Mapping[str, str]) -> dict[str, str]:
    """Those annotations that are not the lock's own."""
    return {key: value for key, value in annotations.items() if not key.startswith("abaci.infra/")}


def _stamp(now: str) -> str:
    moment = clock.moment(now)
    return clock.micro(moment) if moment else now
