"""The lock of the operations: one at a time for one application, and what a run that died had begun. Pure.

It is a Lease in the application's namespace. A holder is ``<user>@<host>+<machine>/<process>``; what an operation has
to remember stands in an annotation, so a second run of the same operation goes on where the first one died.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import situation as sit

DOING = "abaci.infra/doing"
OPERATION = "abaci.infra/operation"
WISHES = "abaci.infra/wishes"
MEMO = "abaci.infra/memo"
MEMORY_SECONDS = 6 * 3600


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


def render(namespace: str, name: str) -> dict[str, Any]:
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
    lease: Mapping[str, Any],
    holder: str,
    operation: str,
    wishes: Mapping[str, Any],
    seconds: int,
    now: str,
    *,
    alive: bool,
    take_over: str = "",
    passing: bool = False,
) -> tuple[dict[str, Any] | None, dict[str, Any], str | None, str | None]:
    """Take the lock: (the Lease to write, the memo, a note, None), or (None, {}, None, why it is refused).

    It is free, or its holder let ``seconds`` pass without a step, or is a process of this very user and machine that is
    not ``alive`` any more, or is the one that ``take_over`` names. The memo is kept for the same operation with the
    same wishes only; a ``passing`` operation has none, and leaves what another had begun as it is.
    """
    held = holder_of(lease)
    busy = at_work(lease, holder, now, alive=alive)
    if busy and take_over != held:
        who, left = busy
        return (
            None,
            {},
            None,
            (
                f"{who}: wait for it. If that run is dead, its lock ends in {left} s, or at once with -e "
                f"operation_take_over={held}."
            ),
        )
    spec = lease.get("spec") or {}
    notes = (lease.get("metadata") or {}).get("annotations") or {}
    same = notes.get(OPERATION) == operation and notes.get(WISHES) == _text(wishes)
    memo = memo_of(lease, operation, wishes, now)
    note = None
    if held and held != holder and OPERATION in notes:
        note = (
            f"Goes on with what {held} had begun."
            if same
            else f"{held} left {notes[OPERATION]} unfinished: run that again afterwards."
        )
    stamp = micro(now)
    remembered = {} if passing else {OPERATION: operation, WISHES: _text(wishes), MEMO: _text(memo)}
    taken = {
        **lease,
        "metadata": {
            **lease["metadata"],
            "annotations": {**notes, DOING: operation, **remembered},
        },
        "spec": {
            **spec,
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
        },
    }
    return taken, memo, note, None


def at_work(lease: Mapping[str, Any], holder: str, now: str, *, alive: bool) -> tuple[str, int] | None:
    """Who else is at work, as the beginning of a sentence, and in how many seconds that lock ends; None for nobody."""
    held = holder_of(lease)
    spec = lease.get("spec") or {}
    notes = (lease.get("metadata") or {}).get("annotations") or {}
    same_machine = held.rpartition("/")[0] == holder.rpartition("/")[0]
    lasts = int(spec.get("leaseDurationSeconds") or 0)
    left = min(lasts - sit.seconds_between(str(spec.get("renewTime")), now), lasts)
    if not held or held == holder or (same_machine and not alive) or left <= 0:
        return None
    doing = notes.get(DOING) or notes.get(OPERATION) or "something"
    return f"{held} is at work here ({doing} since {spec.get('acquireTime')})", max(int(left), 1)


def refusal(lease: Mapping[str, Any] | None, holder: str, now: str, *, alive: bool) -> str | None:
    """Why site.yml may not apply what it decided: an operation may be moving the primary at this moment."""
    busy = at_work(lease or {}, holder, now, alive=alive)
    if busy is None:
        return None
    return (
        f"{busy[0]}, so nothing was applied: wait for it. If that run is dead, run the same again to its end, or wait "
        f"{busy[1]} s until its lock ends."
    )


def renew(lease: Mapping[str, Any] | None, holder: str, memo: Mapping[str, Any], now: str) -> dict[str, Any] | None:
    """The Lease renewed with a memo; None where it is not this holder's (any more)."""
    if lease is None or holder_of(lease) != holder:
        return None
    annotations = {**(lease["metadata"].get("annotations") or {}), MEMO: _text(memo)}
    return {
        **lease,
        "metadata": {**lease["metadata"], "annotations": annotations},
        "spec": {**lease["spec"], "renewTime": micro(now)},
    }


def free(lease: Mapping[str, Any], *, ended: bool) -> dict[str, Any]:
    """The Lease that its holder gives back. What it had begun is forgotten only where it came to its end."""
    spec = {key: value for key, value in lease["spec"].items() if key == "leaseTransitions"}
    if not ended:
        return {**lease, "spec": spec}
    kept = {
        key: value
        for key, value in (lease["metadata"].get("annotations") or {}).items()
        if key not in (DOING, OPERATION, WISHES, MEMO)
    }
    return {**lease, "metadata": {**lease["metadata"], "annotations": kept}, "spec": spec}


def holder_of(lease: Mapping[str, Any]) -> str:
    """Who holds it, empty for nobody."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def memo_of(lease: Mapping[str, Any] | None, operation: str, wishes: Mapping[str, Any], now: str) -> dict[str, Any]:
    """What a run of this operation with these wishes remembers; empty for another's, or one that began long ago."""
    notes = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    if notes.get(OPERATION) != operation or notes.get(WISHES) != _text(wishes):
        return {}
    memo = _read(notes.get(MEMO))
    return memo if 0 <= sit.seconds_between(str(memo.get("begun")), now) + 60 <= MEMORY_SECONDS else {}


def micro(now: str) -> str:
    """A time as a Lease wants it."""
    moment = datetime.datetime.fromisoformat(now.replace("Z", "+00:00"))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"))


def _read(text: object) -> dict[str, Any]:
    try:
        value = json.loads(str(text))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
