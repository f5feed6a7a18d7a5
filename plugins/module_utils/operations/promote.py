"""Moving the primary's role when the primary's node or volume is gone. Pure.

The order of the steps is the safety: the record names the successor and holds the old primary back, then the old
primary is stopped, then the configuration is rendered from the record, then the successor restarts as primary, and only
then the others. A run that died anywhere is continued: what is done shows in the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import identity, litefs
from . import situation as sit


def decide(
    state: sit.State,
    wishes: Mapping[str, Any] | None = None,
    exports: Iterable[Mapping[str, Any]] = (),
    now: str | None = None,
) -> dict[str, Any]:
    """What is left to do to make the replica with the highest position primary.

    ``state`` has, beside the document, ``rendered_ordinal``: whose name the rendered litefs.yml has as primary.
    ``wishes``: successor (ordinal; else the lowest of the best), accept (the TXID after which everything may be lost,
    as shown), node_off (name of the old primary's node, which a person has made sure is off), without (ordinals of
    pods that cannot be asked and are given up until they are exported).
    The plan also says ``successor``, ``export`` (pods to export first) and ``loss`` ({after_txid, pod, seconds}).
    """
    wishes = wishes or {}
    now = now or str(state["gathered_at"])

    def refuse(sentence: str, cause: sit.Cause | None = None, **more: Any) -> dict[str, Any]:
        return sit.plan(
            f"Nothing was promoted. {sentence}",
            cause=cause,
            **({"successor": None, "export": [], "loss": None} | more),
        )

    if not state["statefulset"]["exists"]:
        return refuse(f"There is no StatefulSet {state['statefulset']['name']} in namespace {state['namespace']}.")
    try:
        record = identity.parse(state)
    except ValueError as exc:
        return refuse(str(exc))
    if record is None or record.cluster_id is None:
        return refuse(
            f"{identity.name_of(state)} records no cluster, so nothing says which copies are the right ones: see "
            f"{sit.RUNBOOK}."
        )
    held = sit.held(state)
    if _begun(state, record):
        return _continue(state, record, wishes)
    leaders = litefs.primaries(state)
    if len(leaders) > 1:
        return refuse(
            f"Pods {litefs.names(leaders)} each say that they are primary: stop the wrong one first (see "
            f"{sit.RUNBOOK}).",
            "two-primaries",
        )
    old = sit.pod_of(state, record.primary_ordinal)
    if leaders and leaders[0]["litefs"]["cluster_id"] == record.cluster_id:
        return refuse(
            f"The primary {leaders[0]['name']} runs and holds the recorded cluster {record.cluster_id}: there is "
            "nothing to promote; a planned restart loses nothing and needs no other primary."
        )
    if leaders and leaders[0]["ordinal"] != record.primary_ordinal:
        return refuse(
            f"{leaders[0]['name']} says that it is primary, of the cluster {leaders[0]['litefs']['cluster_id']}, and "
            f"is neither the recorded primary nor of the recorded cluster {record.cluster_id}: see {sit.RUNBOOK}.",
            "two-primaries",
        )
    candidates = [pod for pod in sit.holders(state, record.cluster_id) if pod["ordinal"] != record.primary_ordinal]
    if not candidates:
        return refuse(
            f"No replica that answers holds the recorded cluster {record.cluster_id} with the database "
            f"{state['database']}: bring back the primary's kept volume ({sit.RUNBOOK}), or restore a backup with "
            "playbooks/restore.yml.",
            "no-copy-left",
        )
    top = sit.best(state, candidates)
    checksums = {state_position.checksum for pod in top if (state_position := litefs.position(pod, state["database"]))}
    if len(checksums) > 1:
        return refuse(
            f"{litefs.names(top)} are at the same TXID {sit.txid(state, top[0]):016x} with different checksums, so "
            "they are two histories: export each (playbooks/backup.yml -e backup_pod=NAME), stop the one that is "
            "wrong, and run again.",
            "two-primaries",
        )
    if old in sit.holders(state, record.cluster_id) and sit.txid(state, old) > sit.txid(state, top[0]):
        return refuse(
            f"{old['name']} answers, though not as primary, and holds TXID {sit.txid(state, old):016x}, more than "
            f"{litefs.names(top)} at {sit.txid(state, top[0]):016x}: restart it (kubectl delete pod {old['name']}), or "
            f"see {sit.RUNBOOK}.",
            "older-volume",
        )
    silent = _silent(state, record, wishes)
    if silent:
        return refuse(silent, "replica-away")
    successor, problem = _successor(state, top, wishes.get("successor"))
    if problem or successor is None:
        return refuse(problem or "")
    figure = f"{sit.txid(state, successor):016x}"
    loss = {"after_txid": figure, "pod": successor["name"], "seconds": _lag(successor)}
    problem = _not_off(state, record, wishes.get("node_off"))
    if problem:
        return refuse(problem, "primary-node-gone", successor=successor["ordinal"], loss=loss)
    if str(wishes.get("accept") or "").lower() != figure:
        given = f" (promote_accept_loss_after is {wishes['accept']})" if wishes.get("accept") else ""
        since = f", which heard from the old primary {loss['seconds']} s ago" if loss["seconds"] is not None else ""
        return refuse(
            f"The best copy is {successor['name']} at TXID {figure}{since}. What the old primary acknowledged after "
            "that transaction is lost, unless its volume comes back. To accept that, give the figure back: -e "
            f"promote_accept_loss_after={figure}{given}.",
            _cause(state, old),
            successor=successor["ordinal"],
            loss=loss,
        )
    export = [
        pod["name"]
        for pod in litefs.reachable(state)
        if sit.txid(state, pod)
        and sit.fresh_export(exports, state["database"], pod["litefs"]["cluster_id"], _least(state, pod), now) is None
    ]
    given_up = sorted({record.primary_ordinal, *held, *_numbers(wishes.get("without"))} - {successor["ordinal"]})
    steps = [
        sit.step(
            "record",
            f"record ordinal {successor['ordinal']} as primary and hold back "
            f"{litefs.names([{'name': sit.pod_name(state, ordinal)} for ordinal in given_up])}",
            primary_ordinal=successor["ordinal"],
            held=given_up,
        )
    ]
    rest = _rest(state, record, successor["ordinal"], given_up, wishes, fresh=True)
    problem = next((one["refusal"] for one in rest if "refusal" in one), None)
    if problem:
        return refuse(problem, "primary-node-gone", successor=successor["ordinal"], loss=loss)
    steps += rest
    return sit.plan(None, steps, cause=_cause(state, old), successor=successor["ordinal"], export=export, loss=loss)


def _begun(state: sit.State, record: identity.Record) -> bool:
    """Whether a promote has begun: an old primary is held back, and the recorded one is there with its data."""
    held = sit.held(state)
    pod = sit.pod_of(state, record.primary_ordinal)
    return bool(held) and record.primary_ordinal not in held and pod in sit.holders(state, record.cluster_id or "")


def _continue(state: sit.State, record: identity.Record, wishes: Mapping[str, Any]) -> dict[str, Any]:
    """The record names the successor already: what is left."""
    held = sit.held(state)
    successor = record.primary_ordinal
    steps: list[dict[str, Any]] = []
    present = sit.pod_of(state, successor)
    if present is not None and not present["litefs"]["is_primary"]:
        # Until the old primary stopped, another replica may have received more.
        others = [pod for pod in sit.holders(state, record.cluster_id or "") if pod["ordinal"] not in held]
        top = sit.best(state, others)
        if sit.txid(state, top[0]) > sit.txid(state, present):
            successor = int(top[0]["ordinal"])
            steps.append(
                sit.step(
                    "record",
                    f"record ordinal {successor} as primary, which received more meanwhile",
                    primary_ordinal=successor,
                    held=held,
                )
            )
    steps += _rest(state, record, successor, held, wishes, fresh=bool(steps))
    refusal = next((step["refusal"] for step in steps if "refusal" in step), None)
    return sit.plan(refusal, steps, successor=successor, export=[], loss=None)


def _rest(
    state: sit.State,
    record: identity.Record,
    successor: int,
    held: list[int],
    wishes: Mapping[str, Any],
    *,
    fresh: bool,
) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    name = sit.pod_name(state, successor)
    leaders = litefs.primaries(state)
    done = [pod for pod in leaders if pod["ordinal"] == successor and pod["litefs"]["cluster_id"] == record.cluster_id]
    for ordinal in held:
        pod = sit.pod_of(state, ordinal)
        if pod is None or sit.held_back(pod) or pod["unschedulable"]:
            continue
        off = bool(pod["node"]) and sit.away(state, pod["node"])
        if off and wishes.get("node_off") != pod["node"] and ordinal not in _numbers(wishes.get("without")):
            steps.append({"refusal": _switch_off(pod["name"], pod["node"])})
            continue
        steps.append(
            sit.step(
                "stop",
                f"stop {pod['name']}" + (f", whose node {pod['node']} is off" if off else "; the guard holds it back"),
                pod=pod["name"],
                uid=pod["uid"],
                ordinal=ordinal,
                force=off,
            )
        )
    if steps and any("refusal" in step for step in steps):
        return [step for step in steps if "refusal" in step]
    if fresh or state.get("rendered_ordinal") != successor:
        steps.append(
            sit.step(
                "render",
                f"render configuration, Services and routes for primary {name}",
                ordinal=successor,
                quiet=False,
            )
        )
    if not done:
        steps.append(sit.restart(state, successor, f"restart {name} as primary", primary=True))
    living = state["statefulset"]
    for pod in state["pods"]:
        if pod["ordinal"] in (successor, *held):
            continue
        foreign = pod["litefs"]["cluster_id"] not in (None, record.cluster_id)
        if foreign and done:
            continue  # it can only be re-seeded, which is another operation
        follows = bool(done) and pod["litefs"]["primary_hostname"] == name and pod["litefs"]["never_synced"] is False
        if follows and pod["revision"] == living["update_revision"]:
            continue
        say = f"restart {pod['name']} as a replica of {name}"
        steps.append(sit.restart(state, pod["ordinal"], say, primary=False))
    if steps:
        steps.append(sit.step("wait_followers", f"wait until every replica that runs has what {name} has"))
    return steps


def _least(state: sit.State, pod: sit.Pod) -> int:
    """What an export of the pod has to hold. A wrong primary is written to meanwhile; it is held back afterwards."""
    return sit.ANY_TXID if pod["litefs"]["is_primary"] else sit.txid(state, pod)


def _silent(state: sit.State, record: identity.Record, wishes: Mapping[str, Any]) -> str | None:
    given_up = _numbers(wishes.get("without"))
    for ordinal in range(int(state["statefulset"]["replicas"] or 0)):
        pod = sit.pod_of(state, ordinal)
        if ordinal in (record.primary_ordinal, *given_up, *sit.held(state)) or (pod and pod["litefs"]["reachable"]):
            continue
        if pod is None and sit.claim_of(state, ordinal) is None:
            continue  # it never had data
        why = f"does not answer ({pod['litefs']['error']})" if pod else "is not there while its claim is"
        return (
            f"{sit.pod_name(state, ordinal)} {why}, and it may have more than the others: bring it back, or give it up "
            f"with -e '{{\"promote_without\": [{ordinal}]}}' (it is then held back until its database is exported)."
        )
    return None


def _successor(state: sit.State, top: list[sit.Pod], wish: object) -> tuple[sit.Pod | None, str | None]:
    if wish in (None, ""):
        return top[0], None
    number = sit.whole(wish)
    chosen = next((pod for pod in top if pod["ordinal"] == number), None)
    if chosen is not None:
        return chosen, None
    return None, (
        f"promote_successor is {wish}, but the highest position, TXID {sit.txid(state, top[0]):016x}, is that of "
        f"{litefs.names(top)}: promoting another copy would throw transactions away, so leave the variable out."
    )


def _not_off(state: sit.State, record: identity.Record, node_off: object) -> str | None:
    """Why the old primary cannot be taken for stopped."""
    name, node = sit.pod_name(state, record.primary_ordinal), sit.last_node(state, record.primary_ordinal)
    if not node or not sit.away(state, node):
        if node_off and node_off != node:
            return f"promote_node_off is {node_off}, but the old primary is not on that node: leave the variable out."
        return None
    return None if node_off == node else _switch_off(name, node)


def _switch_off(name: str, node: object) -> str:
    return (
        f"{name} is on node {node}, which does not answer but may still run and write: switch that node off, make sure "
        f"that it is off, and say so with -e promote_node_off={node}."
    )


def _cause(state: sit.State, old: sit.Pod | None) -> sit.Cause:
    if old is None or (old["node"] and sit.away(state, old["node"])):
        return "primary-node-gone"
    return sit.sign(old) or "primary-volume-empty"


def _lag(pod: sit.Pod) -> float | None:
    lag = pod["litefs"]["lag_ms"]
    return None if lag is None else round(lag / 1000, 1)


def _numbers(value: object) -> list[int]:
    items = value if isinstance(value, list) else [] if value in (None, "") else [value]
    return [number for item in items if (number := sit.whole(item)) is not None]
