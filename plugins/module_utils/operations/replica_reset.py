"""Re-seeding replicas: which claims may be replaced by new ones, and in which order. Pure.

Only a replica's, only while the running primary holds the recorded cluster at a position that no replica is ahead of,
and only with a fresh export of that cluster. The old volume is kept (Retain) each time.
"""

from __future__ import annotations

from dataclasses import replace

from .. import clock, values
from . import backup, planning, pulling
from . import situation as sit
from .planning import Plan, Request, Step
from .retention import Manifest

MISMATCHED = "mismatched"


def decide(request: Request) -> Plan:
    """What is left to do to re-seed the targets (``mismatched``, or a list of ordinals).

    Parameters: targets; lost_volumes: names of volumes whose data is given up, of fenced old primaries that cannot be
    read any more and of copies of another cluster that cannot be exported; they are kept; node_off: a node of which a
    person says that it is off; one that is no part of the cluster any more counts as that. The checkpoint keeps a
    replica from being re-seeded twice. Exported are the primary's cluster first, then each copy of another cluster that
    is about to be put aside.
    """
    state, checkpoint = request.state, request.checkpoint
    found = sit.look(state)
    if isinstance(found, sit.Problem):
        return _refused(found)
    ordinals, wrong = _targets(state, found, request.parameters["targets"], checkpoint)
    problem = sit.Problem(wrong) if wrong else _may_not_begin(request, found, ordinals)
    if problem is not None:
        return _refused(problem)
    steps: list[Step] = []
    for ordinal in ordinals:
        more = _steps(state, found, ordinal, checkpoint)
        problem = _may_not_go(request, found, ordinal, _put_aside(more))
        if problem is not None:
            return _refused(problem)
        steps += more
    touched = _put_aside(steps)
    if steps:
        without = [*sit.fenced(state), *(pod["ordinal"] for pod in _left(state, ordinals))]
        steps.append(
            planning.step(
                "wait_replicated", "wait until every replica that can has what the primary has", without=without
            )
        )
    pods = [pod for pod in state["pods"] if pod["ordinal"] in touched]
    # One that answers is not taken away for one that could not start.
    answering = [pod for pod in pods if pod["litefs"]["reachable"]]
    if answering and (unpulled := pulling.problem(request)):
        return _refused(sit.Problem(unpulled))
    foreign = [pod for pod in pods if _mismatched(found, pod)]
    wanted = [pod for pod in foreign if _volume(state, pod["ordinal"]) not in _given_up(request)]
    return planning.plan(
        None,
        steps,
        [*_left_out(state, ordinals), *_exported_first(state, wanted)],
        "replica-of-another-cluster" if foreign else next(filter(None, map(sit.sign, pods)), None),
        targets=ordinals,
        pull=pulling.untried(request, answering),
        export=_exports(request, found, wanted) if touched else [],
        volume_export=_volume_exports(request, touched),
    )


def _refused(problem: sit.Problem) -> Plan:
    return planning.plan(f"Nothing was reset. {problem.sentence}", cause=problem.cause)


def _put_aside(steps: list[Step]) -> set[int]:
    """The ordinals whose volume is replaced."""
    return {one["ordinal"] for one in steps if one["do"] in ("delete_claim", "delete_pod")}


def _given_up(request: Request) -> set[str]:
    return set(request.parameters.get("lost_volumes") or [])


def _node_off(request: Request) -> str:
    return str(request.parameters.get("node_off") or "")


def _may_not_begin(request: Request, found: sit.Situation, ordinals: list[int]) -> sit.Problem | None:
    """Why no replica is replaced, whatever each of them is like."""
    state, leader = request.state, found.leader
    for ordinal in ordinals:
        if ordinal in (leader["ordinal"], found.record.primary_ordinal):
            return sit.Problem(
                f"replica_reset_targets has {ordinal}, and {leader['name']} is the primary: its volume is never reset "
                "(playbooks/promote.yml moves the role, the runbook brings a lost volume back)."
            )
    better = sit.ahead(state, found)
    if better:
        top = sit.best(state, better)[0]
        return sit.Problem(
            f"The primary {leader['name']} is at TXID {found.position.txid:016x}, behind {top['name']} at "
            f"{sit.txid(state, top):016x}: the replica has transactions that the primary lost, so export it "
            f"(playbooks/backup.yml -e backup_pod={top['name']}) and see {sit.RUNBOOK} before anything is replaced.",
            "older-volume",
        )
    node_off = _node_off(request)
    if node_off and not sit.away(state, node_off):
        return sit.Problem(f"replica_reset_node_off is {node_off}, but that node is ready: leave the variable out.")
    return None


def _may_not_go(request: Request, found: sit.Situation, ordinal: int, put_aside: set[int]) -> sit.Problem | None:
    """Why this ordinal's volume is not replaced."""
    state = request.state
    unsafe = _unsafe(state, found, ordinal)
    if unsafe:
        return sit.Problem(unsafe)
    if ordinal not in put_aside:
        return None
    sentence = _not_off(state, ordinal, _node_off(request)) or _unread(request, ordinal, _given_up(request))
    if sentence is None:
        return None
    return sit.Problem(sentence, "replica-away" if ordinal in sit.absent(state) else None)


def _left(state: sit.State, ordinals: list[int]) -> list[sit.Pod]:
    """Other replicas that nothing of this brings to the primary's position."""
    strangers = sit.strangers(state)
    return [
        pod
        for pod in state["pods"]
        if pod["ordinal"] not in ordinals and (not pod["litefs"]["reachable"] or pod["ordinal"] in strangers)
    ]


def _left_out(state: sit.State, ordinals: list[int]) -> list[str]:
    return [
        f"{pod['name']} holds the cluster {pod['litefs']['cluster_id']} and is none of the targets: it stays as it is."
        if pod["litefs"]["reachable"]
        else f"{pod['name']} does not answer ({pod['litefs']['error']}), so its position is not known: nobody waits "
        "for it, and its volume stays."
        for pod in _left(state, ordinals)
    ]


def _exported_first(state: sit.State, wanted: list[sit.Pod]) -> list[str]:
    return [
        f"The copy of {pod['name']} is exported first. If that fails, give it up; its volume is kept all the same: "
        f'-e \'{{"replica_reset_lost_volumes": ["{_volume(state, pod["ordinal"])}"]}}\'.'
        for pod in wanted
    ]


def _volume_exports(request: Request, touched: set[int]) -> list[int]:
    """Old primaries that are fenced: what only their volumes have is exported without LiteFS."""
    state = request.state
    return [
        ordinal
        for ordinal in sorted(touched)
        if _is_fenced(state, ordinal)
        and not _exported(request, ordinal)
        and _volume(state, ordinal) not in (None, *_given_up(request))
    ]


def progress(request: Request) -> planning.Checkpoint:
    """What the record keeps: the claims that are to be replaced, by uid, so that a second run knows the new ones."""
    state = request.state
    plan = decide(replace(request, exports=(), checkpoint={}))
    replaced = {
        str(ordinal): claim["uid"] for ordinal in _put_aside(plan["steps"]) if (claim := sit.claim_of(state, ordinal))
    }
    # The claim that is there now may be the new one of a run that died. One that it did not come to counts only where
    # something is still wrong with its pod: it may be well again since.
    untouched = {claim["uid"] for claim in state["claims"] if not claim["deleting"]}
    kept = request.checkpoint.get("claims") or {}
    return {"claims": {**replaced, **{ordinal: uid for ordinal, uid in kept.items() if uid not in untouched}}}


def prove(plan: Plan, state: sit.State) -> list[Step]:
    """Each target has what the primary has."""
    return [
        planning.step("wait_pod", "", ordinal=ordinal, pod=sit.pod_name(state, ordinal))
        for ordinal in plan["targets"] or []
    ]


def _targets(
    state: sit.State, found: sit.Situation, targets: object, checkpoint: planning.Checkpoint
) -> tuple[list[int], str | None]:
    if targets == MISMATCHED:
        wrong = [pod["ordinal"] for pod in state["pods"] if _mismatched(found, pod) and pod is not found.leader]
        # A replica that a run which died had begun with is no longer mismatched, but its pod may not be gone yet.
        begun = [int(ordinal) for ordinal in (checkpoint.get("claims") or {})]
        return sorted({*wrong, *begun}), None
    listed = _listed(targets)
    numbers = [values.whole(item) for item in listed]
    if not listed or None in numbers:
        return [], (
            f"replica_reset_targets is {targets!r}: set it to {MISMATCHED}, or to a list of ordinals such as [1, 2]."
        )
    ordinals = sorted({number for number in numbers if number is not None})
    for ordinal in ordinals:
        if ordinal >= (state["statefulset"]["replicas"] or 0):
            return [], (
                f"replica_reset_targets has {ordinal}, but the StatefulSet has {state['statefulset']['replicas']} "
                "replicas: there is no such pod to re-seed."
            )
    return ordinals, None


def _listed(targets: object) -> list[object]:
    """The items of a list, which is text such as ``[1, 2]`` where it stood on the command line; else none."""
    if isinstance(targets, str) and targets.startswith("[") and targets.endswith("]"):
        return [item.strip() for item in targets[1:-1].split(",")]
    return list(targets) if isinstance(targets, list) else []


def _mismatched(found: sit.Situation, pod: sit.Pod | None) -> bool:
    return (
        pod is not None and pod["litefs"]["reachable"] and pod["litefs"]["cluster_id"] not in (None, found.cluster_id)
    )


def _volume(state: sit.State, ordinal: int) -> str | None:
    """The name of the volume that the ordinal's claim has."""
    return sit.volume_name(state, ordinal) or None


def _not_off(state: sit.State, ordinal: int, node_off: str) -> str | None:
    """Why the pod may still run, so that no other may take its place."""
    node = sit.absent(state).get(ordinal)
    known = any(item["name"] == node for item in state["nodes"])
    if node is None or not known or node == node_off:
        return None
    return (
        f"{sit.pod_name(state, ordinal)} is on node {node}, which is away: it catches up by itself when the node is "
        "back. If it does not come back, switch it off, make sure that it is off, and say so with -e "
        f"replica_reset_node_off={node}: the replica then gets a new volume on another node, and the old one is kept."
    )


def _unread(request: Request, ordinal: int, given_up: set[str]) -> str | None:
    """Why an old primary that is fenced must stay fenced: what only its volume has may be in no export."""
    state = request.state
    name, volume = _volume(state, ordinal), sit.volume_of(state, sit.claim_of(state, ordinal))
    if not _is_fenced(state, ordinal) or name is None or name in given_up:
        return None
    word = f'give it up with -e \'{{"replica_reset_lost_volumes": ["{name}"]}}\' (it is kept all the same)'
    if volume is not None and volume["node"] and sit.away(state, volume["node"]):
        return (
            f"{sit.pod_name(state, ordinal)} is fenced, and what only it has is on volume {name}, whose node "
            f"{volume['node']} is away: bring that node back, or {word}."
        )
    made = [manifest for manifest in request.exports if manifest.get("volume_of") == ordinal]
    if made and _exported(request, ordinal) and not any(_proven(manifest) for manifest in made):
        return (
            f"The export {made[-1].get('path')} of volume {name} is sound, but nothing proves that it has the newest "
            f"transactions of {sit.pod_name(state, ordinal)}, which is fenced: look into it, and then {word}."
        )
    return None


def _proven(manifest: Manifest) -> bool:
    return manifest.get("position_proven") is True or manifest.get("empty") is True


def _is_fenced(state: sit.State, ordinal: int) -> bool:
    """Whether the pod is fenced for what only its volume may have: by the record, or by what its guard saw."""
    pod = sit.pod_of(state, ordinal)
    return ordinal in sit.fenced(state) or (pod is not None and sit.is_fenced(pod))


def _exported(request: Request, ordinal: int) -> bool:
    return any(
        manifest.get("verified") is True
        and manifest.get("volume_of") == ordinal
        and clock.between(str(manifest.get("time")), request.time()) + 5 >= 0
        for manifest in request.exports
    )


def _exports(request: Request, found: sit.Situation, foreign: list[sit.Pod]) -> list[str]:
    state, missing = request.state, list[str]()
    if not sit.fresh_export(request, found.cluster_id, sit.ANY_TXID):
        choice, _problem = backup.choose(state)
        missing.append(choice["pod"] if choice else found.leader["name"])
    for pod in foreign:
        held = sit.txid(state, pod)
        if held and not sit.fresh_export(request, pod["litefs"]["cluster_id"], held):
            missing.append(pod["name"])
    return missing


def _unsafe(state: sit.State, found: sit.Situation, ordinal: int) -> str | None:
    """Why the claim of this ordinal must not go although its ordinal is not the primary's."""
    claim = sit.claim_of(state, ordinal)
    if claim is None or not claim["volume"]:
        return None
    primary = sit.claim_of(state, found.leader["ordinal"])
    if primary is not None and claim["volume"] == primary["volume"]:
        return f"Claim {claim['name']} has the primary's own volume {claim['volume']}: look at it before anything else."
    if sit.volume_of(state, claim) is None:
        return (
            f"The volume {claim['volume']} of claim {claim['name']} is not to be seen in the API, so nothing proves "
            "that it would be kept: run again when it is."
        )
    return None


def _steps(state: sit.State, found: sit.Situation, ordinal: int, checkpoint: planning.Checkpoint) -> list[Step]:
    claim, pod = sit.claim_of(state, ordinal), sit.pod_of(state, ordinal)
    name = sit.pod_name(state, ordinal)
    begun = checkpoint.get("claims") or {}
    old = begun.get(str(ordinal))
    arrive = planning.step("wait_pod", f"wait until {name} has what the primary has", ordinal=ordinal, pod=name)
    # Last of all: a guard that no longer sees the fence would let LiteFS start on the old volume.
    release = (
        [planning.step("release", f"lift the fence of {name}", ordinal=ordinal)] if ordinal in sit.fenced(state) else []
    )
    if old is not None and (claim is None or claim["uid"] != old):
        # It has its new volume, or is about to: what is left is the wait.
        return [] if pod is not None and sit.in_sync(state, found, pod) and not release else [*release, arrive]
    if old is None and pod is not None and sit.in_sync(state, found, pod) and ordinal not in sit.fenced(state):
        return []  # nothing is wrong with it
    steps = sit.put_aside(state, ordinal)
    if pod is not None:
        # Nobody on a node that is off confirms that a pod has ended.
        force = pod["node"] is not None and sit.away(state, pod["node"])
        steps.append(
            planning.step(
                "delete_pod",
                f"delete pod {name}, which comes back with a new volume"
                + (f", by force: its node {pod['node']} is off" if force else ""),
                pod=pod["name"],
                uid=pod["uid"],
                ordinal=ordinal,
                force=force,
            )
        )
    if release and claim is not None:
        steps.append(
            planning.step(
                "wait_claim", f"wait for the new claim of {name}", ordinal=ordinal, uid=claim["uid"], pod=name
            )
        )
    return [*steps, *release, arrive]
