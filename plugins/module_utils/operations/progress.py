"""What an operation did and may not do twice: kept with the record until it is finished or called off. Pure.

It is the key ``progress`` of the record (identity.name_of()), one JSON object, because nothing else outlives what lies
between two runs: hours, a wrong clock, another operation, another machine. It is written before the act that it tells
of. By operation:

    scale          volumes: {ordinal: {claim, uid, volume}}   claims whose data was proven to be elsewhere
    replica_reset  claims: {ordinal: uid}                     claims that are to be replaced
    promote        nothing of its own: the record itself says how far it is
    restore        sha256, cluster_id, time, followers: [ordinal], before: TXID, reimport: str, and
                   state: importing | imported, then txid     see restore.py
    rollout, rollback   stamp, asked, image, ...              what the template is to be, see rollout.py and rollback.py
    imported       [{sha256, cluster_id, txid, time, reimport}]  restores that ended or were called off, the newest last

and of each operation begun (RFC 3339, the API server's time), holder and given: what it was run with.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from .. import identity
from ..state_types import State
from .planning import Checkpoint

KEY = "progress"
IMPORTED = "imported"
KEPT = 20  # imports that are kept after their end
CALL_OFF = "operation_call_off"

Progress = dict[str, Any]


def read(state: State) -> Progress:
    """The progress in the record of a state document; ValueError with a sentence where it cannot be read."""
    text = identity.raw(state).get(KEY)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"{identity.name_of(state)} has a key {KEY} that is no JSON object, so nobody knows what an operation had "
            f"done: correct it, or remove it where no operation is unfinished."
        )
    return value


def text(progress: Progress) -> str | None:
    """The key's value; None where there is no progress to keep."""
    return json.dumps(dict(progress), sort_keys=True, separators=(",", ":")) if progress else None


def begun(
    progress: Progress, operation: str, checkpoint: Checkpoint, now: str, holder: str, given: Mapping[str, Any]
) -> Progress:
    """The progress with this operation's checkpoint, and the ``given`` parameters of its run that say something."""
    said = {name: value for name, value in given.items() if value not in ("", [], None)}
    mine = {"begun": now, "holder": holder, **(progress.get(operation) or {}), **checkpoint, "given": said}
    return {**progress, operation: mine}


def again(operation: str, mine: Mapping[str, Any]) -> str:
    """What follows ansible-playbook and the inventory to run an unfinished operation as it was run."""
    given = {f"{operation}_{name}": value for name, value in (mine.get("given") or {}).items()}
    return f"playbooks/{operation}.yml" + (f" -e {shlex.quote(json.dumps(given, sort_keys=True))}" if given else "")


def call_off(operation: str) -> str:
    """The variable that calls an unfinished operation off. Of promote the record itself says how far it is."""
    return "promote_call_off=true" if operation == "promote" else f"{CALL_OFF}={operation}"


def ended(progress: Progress, operation: str, ordinals: Iterable[int] | None = None) -> Progress:
    """The progress without an operation that came to its end, or was called off.

    ``ordinals``: it ended for these only, and keeps the others. An import stays known afterwards.
    """
    left = {key: value for key, value in progress.items() if key != operation}
    mine = dict(progress.get(operation) or {})
    if operation == "restore" and mine.get("sha256"):
        done = {key: mine.get(key) for key in ("sha256", "cluster_id", "txid", "time", "reimport")}
        left[IMPORTED] = [*(progress.get(IMPORTED) or []), done][-KEPT:]
    claims = {
        ordinal: uid for ordinal, uid in (mine.get("claims") or {}).items() if int(ordinal) not in (ordinals or ())
    }
    if ordinals is not None and claims:
        left[operation] = {**mine, "claims": claims}
    return left


def rolled_back(progress: Progress, after: int) -> Progress:
    """The progress of a site that goes on from transaction ``after``: what was imported later is not there any more."""

    def stays(one: Checkpoint) -> bool:
        return int(str(one.get("txid") or one.get("before") or "0"), 16) <= after

    left = dict(progress)
    if "restore" in left and not stays(left["restore"]):
        del left["restore"]
    if IMPORTED in left:
        left[IMPORTED] = [one for one in left[IMPORTED] if stays(one)]
        if not left[IMPORTED]:
            del left[IMPORTED]
    return left


def others(progress: Progress, operation: str = "") -> list[str]:
    """What other operations than this one left unfinished, one sentence each."""
    return [
        f"{name} is not finished (begun {one.get('begun')} by {one.get('holder')}): run {again(name, one)} afterwards, "
        f"or call it off with -e {call_off(name)}."
        for name, one in progress.items()
        if name != operation and isinstance(one, dict)
    ]
