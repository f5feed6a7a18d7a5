"""What each operation decides, asked with its own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    OPERATIONS,
    act,
    holding,
    planning,
    scale,
    steps,
)

State = Mapping[str, Any]


def decide(operation: str, state: State, parameters: Mapping[str, Any] | None = None, **more: Any) -> Any:
    given = {key: value for key, value in more.items() if value is not None}
    return OPERATIONS[operation].decide(planning.Request(parameters or {}, state=state, **given))


def scaled(
    state: State,
    replicas: object,
    remove_volumes: bool = False,
    exports: Sequence[Any] = (),
    checkpoint: Mapping[str, Any] | None = None,
    now: str = "",
    volumes: Any = None,
    lost_replicas: Iterable[object] = (),
) -> Any:
    parameters = {"replicas": replicas, "remove_volumes": remove_volumes, "lost_replicas": list(lost_replicas)}
    return decide("scale", state, parameters, exports=exports, checkpoint=checkpoint, now=now, volumes=volumes)


def proven(state: State, replicas: object, remove_volumes: bool) -> Any:
    """What scale keeps when it begins."""
    parameters = {"replicas": replicas, "remove_volumes": remove_volumes}
    return scale.progress(planning.Request(parameters, state=state))


def reset(
    state: State,
    targets: object,
    exports: Sequence[Any] = (),
    checkpoint: Mapping[str, Any] | None = None,
    now: str = "",
    lost_volumes: Iterable[str] = (),
    node_off: str = "",
) -> Any:
    parameters = {"targets": targets, "lost_volumes": list(lost_volumes), "node_off": node_off}
    return decide("replica_reset", state, parameters, exports=exports, checkpoint=checkpoint, now=now)


def replaced(state: State, ordinals: Iterable[int]) -> dict[str, Any]:
    """What replica_reset keeps of these claims."""
    return {
        "claims": {str(claim["ordinal"]): claim["uid"] for claim in state["claims"] if claim["ordinal"] in ordinals}
    }


def promoted(
    state: State,
    parameters: Mapping[str, Any] | None = None,
    exports: Sequence[Any] = (),
    now: str = "",
    volumes: Any = None,
) -> Any:
    return decide("promote", state, parameters, exports=exports, now=now, volumes=volumes)


def restored(
    state: State,
    file: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    exports: Sequence[Any] = (),
    volumes: Any = None,
    now: str = "",
    checkpoint: Mapping[str, Any] | None = None,
) -> Any:
    known = dict(checkpoint or {})
    imported = known.pop("imported", [])
    more = {"volumes": volumes, "now": now, "checkpoint": known, "imported": imported}
    return decide("restore", state, parameters, file=file, exports=exports, **more)


def do(site: act.Site, step: Any, holder: str = "", seconds: int = 5, **request: Any) -> str:
    """Do one step of a plan; the sentence on it. ``holder``: who has to have the lock; empty: nobody."""
    held = holding.Holding(site, holder)
    return steps.DO[step["do"]](steps.Context(site, held, holder, planning.Request(**request), {}, seconds), step) or ""
