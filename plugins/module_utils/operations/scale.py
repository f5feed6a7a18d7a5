"""How many replicas there are: up one at a time, each proven before the next; down without losing a copy. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .. import litefs, values
from ..state_types import Claim
from . import backup, planning
from . import situation as sit
from .planning import Plan, Request, Step

_STOPS = (
    "scale_replicas is 0: that stops the site, and pod-0 may come back on an empty volume; to stop it on purpose, "
    "scale to 1 and stop the writes at the edge."
)


def decide(request: Request) -> Plan:
    """What is left to do until the StatefulSet has so many replicas.

    Parameters: replicas; remove_volumes; lost_replicas: ordinals that stay and are no copies, so that a copy that runs
    may go all the same. Pods go by their number: scaling down stops the highest. Pods whose node is away are left out
    of every wait.

    With ``remove_volumes`` the volumes of the ordinals that go are removed too, each only if its data was proven to be
    elsewhere while its pod ran: of the primary's cluster, not ahead of it, and in a fresh export. That proof is in
    the checkpoint (made by progress() before the first step), because afterwards nobody can be asked any more. Kept
    volumes that pods would start on are looked into first.
    """
    state, replicas = request.state, request.parameters["replicas"]
    desired = values.whole(replicas)
    if desired is None:
        return _refused(f"scale_replicas is {replicas!r}: set it to a whole number from 1 on.")
    found = sit.look(state) if desired else sit.Problem(_STOPS)
    if isinstance(found, sit.Problem):
        return _refused(found.sentence, found.cause)
    current = state["statefulset"]["replicas"] or 0
    problem = _below_the_primary(found, desired)
    if problem is None and desired != current:
        problem = _older_primary(state, found) or _rolling(state)
    if problem is not None:
        return _refused(problem.sentence, problem.cause)
    made = planning.plan()
    if desired > current:
        made = _up(request, found, current, desired)
    elif desired < current:
        made = _down(request, found, current, desired)
    if made["refusal"]:
        return made
    if request.parameters.get("remove_volumes"):
        steps, notes = _removals(state, desired, request.checkpoint)
        made["steps"] += steps
        made["notes"] += notes
    if made["steps"]:
        made["steps"].append(_wait(state, found, desired))
    return made


def _wait(state: sit.State, found: sit.Situation, replicas: int) -> Step:
    """Nobody waits for a replica that cannot follow: that is healed by itself, before or after."""
    say = "wait until every replica that can has what the primary has"
    without = [ordinal for ordinal in sit.cannot_follow(state, found) if ordinal < replicas]
    return planning.step("wait_replicated", say, without=without)


def _refused(sentence: str, cause: planning.Cause | None = None) -> Plan:
    return planning.plan(f"Nothing was scaled. {sentence}", cause=cause)


def progress(request: Request) -> planning.Checkpoint:
    """What the record keeps: claims and volumes of the pods that go and are proven now, by ordinal.

    A pod that runs (again) is proven anew; of one that is gone only what was proven then is known.
    """
    replicas = values.whole(request.parameters["replicas"])
    proven = _proven(request, replicas) if replicas and request.parameters.get("remove_volumes") else {}
    return {"volumes": {**(request.checkpoint.get("volumes") or {}), **proven}}


def _proven(request: Request, replicas: int) -> dict[str, planning.Proof]:
    state, found = request.state, sit.look(request.state)
    if isinstance(found, sit.Problem):
        return {}
    leaving = [pod for pod in state["pods"] if pod["ordinal"] >= replicas]
    if _unproven(state, found, leaving):
        return {}
    kept: dict[str, planning.Proof] = {}
    for pod in leaving:
        claim = sit.claim_of(state, pod["ordinal"])
        if claim is not None and claim["volume"] and claim["uid"]:
            kept[str(pod["ordinal"])] = {"claim": claim["name"], "uid": claim["uid"], "volume": claim["volume"]}
    return kept


def _below_the_primary(found: sit.Situation, desired: int) -> sit.Problem | None:
    least = max(found.leader["ordinal"], found.record.primary_ordinal) + 1
    if desired >= least:
        return None
    return sit.Problem(
        f"scale_replicas is {desired}, but the primary is {found.leader['name']} and pods are numbered from 0: "
        f"{least} is the least, unless playbooks/promote.yml moves the primary first."
    )


def _older_primary(state: sit.State, found: sit.Situation) -> sit.Problem | None:
    """Why nothing begins while a replica has more than the primary."""
    better = sit.ahead(state, found)
    if not better:
        return None
    return sit.Problem(
        f"{litefs.names(better)} has transactions that the primary {found.leader['name']} "
        f"(TXID {found.position.txid:016x}) does not have: export it (playbooks/backup.yml -e "
        f"backup_pod={better[0]['name']}) and see {sit.RUNBOOK}.",
        "older-volume",
    )


def _rolling(state: sit.State) -> sit.Problem | None:
    """Why a rolling update has to end first."""
    gone = sit.absent(state)
    if not sit.rolling(state) or not _old(state, gone):
        return None
    start = f"StatefulSet {state['statefulset']['name']} is being rolled out"
    for ordinal, node in gone.items():
        return sit.Problem(
            f"{start}, and Kubernetes waits with that for {sit.pod_name(state, ordinal)}, whose node {node} is away: "
            "run site.yml, which updates the others.",
            "replica-away",
        )
    return sit.Problem(
        f"{start} at this moment: wait until it is done (or heal the pod that it waits for) and run again."
    )


def _old(state: sit.State, gone: Mapping[int, str]) -> bool:
    """Whether a pod that can run has not the new template yet."""
    newest = state["statefulset"]["update_revision"]
    return any(pod["revision"] != newest for pod in state["pods"] if pod["ordinal"] not in gone)


def _living(state: sit.State, found: sit.Situation, desired: int, lost_replicas: set[int | None]) -> str | None:
    """Why a copy that runs would be stopped while a pod that is none stays."""
    gone = sit.absent(state)
    going = [pod for pod in state["pods"] if pod["ordinal"] >= desired and _is_copy(state, found, pod)]
    for ordinal in range(desired):
        pod, name = sit.pod_of(state, ordinal), sit.pod_name(state, ordinal)
        if not going or ordinal in lost_replicas or pod is found.leader or (pod and _is_copy(state, found, pod)):
            continue
        why, heal = "is no copy that follows the primary", "playbooks/replica_reset.yml"
        variables: dict[str, object] = {"replica_reset_targets": [ordinal]}
        if ordinal in gone:
            why = f"is on node {gone[ordinal]}, which is away"
            heal = f"switch {gone[ordinal]} off, and {heal}"
            variables["replica_reset_node_off"] = gone[ordinal]
        first = f"{heal} -e '{json.dumps(variables)}'"
        return (
            f"{name} {why}, and pods go by their number: scaling to {desired} would stop {litefs.names(going)}, which "
            f"runs, and leave {name}. Give {name} a new volume first ({first}), or give it up: "
            f"-e '{{\"scale_lost_replicas\": [{ordinal}]}}'."
        )
    return None


def _is_copy(state: sit.State, found: sit.Situation, pod: sit.Pod) -> bool:
    """Whether the pod runs and has the primary's data, or is on its way there."""
    node = pod["litefs"]
    return bool(node["reachable"] and node["cluster_id"] == found.cluster_id and sit.txid(state, pod))


def _left_out(state: sit.State, found: sit.Situation, desired: int) -> list[str]:
    said = sit.cannot_follow(state, found)
    for ordinal, node in sit.absent(state).items():
        why, cure = sit.on_dead_node(ordinal, node)
        said[ordinal] = f"{sit.pod_name(state, ordinal)} {why}: {cure}."
    return [f"{why} It is left out of all that is waited for." for n, why in said.items() if n < desired]


def _up(request: Request, found: sit.Situation, current: int, desired: int) -> Plan:
    """One pod after the other, each at the primary's position before the next."""
    state = request.state
    kept = {
        volume: claim
        for claim in state["claims"]
        if current <= claim["ordinal"] < desired and (volume := claim["volume"])
    }
    newer = _newer(found, kept, request.volumes)
    if newer:
        return _refused(newer, "older-volume")
    stranger = _stranger(state, found, current)
    if stranger:
        return _refused(stranger, "replica-of-another-cluster")
    notes = [
        f"{claim['name']} exists from before: its volume {claim['volume']} is used again and catches up, or shows a "
        "mismatch if it is of an older cluster."
        for ordinal in range(current, desired)
        if (claim := sit.claim_of(state, ordinal)) is not None
    ]
    steps = [_wait(state, found, current)]
    for ordinal in range(current, desired):
        name = sit.pod_name(state, ordinal)
        steps += [
            planning.step("scale", f"scale up from {ordinal} to {ordinal + 1}", replicas=ordinal + 1, was=ordinal),
            planning.step("wait_pod", f"wait until {name} has what the primary has", ordinal=ordinal, pod=name),
        ]
    look = sit.unseen(kept, request.volumes)
    return planning.plan(None, steps, [*_left_out(state, found, desired), *notes], look=look)


def _stranger(state: sit.State, found: sit.Situation, current: int) -> str | None:
    """The pods that run come first: a copy that does not follow is healed, not outnumbered."""
    for ordinal in range(current):
        pod = sit.pod_of(state, ordinal)
        if pod is not None and pod["litefs"]["cluster_id"] not in (None, found.cluster_id):
            return (
                f"{pod['name']} holds the cluster {pod['litefs']['cluster_id']}, not the recorded {found.cluster_id}, "
                f"and will never follow: re-seed it first (playbooks/replica_reset.yml -e replica_reset_targets="
                f"[{ordinal}])."
            )
    return None


def _down(request: Request, found: sit.Situation, current: int, desired: int) -> Plan:
    """All at once: what goes is a copy of what stays, or its volume stays."""
    state, parameters = request.state, request.parameters
    given_up = {values.whole(item) for item in parameters.get("lost_replicas") or []}
    problem = _living(state, found, desired, given_up)
    if problem:
        return _refused(problem, "replica-away")
    leaving = [pod for pod in state["pods"] if pod["ordinal"] >= desired]
    notes, export = _left_out(state, found, desired), list[str]()
    if parameters.get("remove_volumes"):
        problem = _unproven(state, found, leaving)
        if problem:
            return _refused(problem)
        if not sit.fresh_export(request, found.cluster_id, sit.ANY_TXID):
            choice, _problem = backup.choose(state)
            export.append(choice["pod"] if choice else found.leader["name"])
    else:
        notes += [
            f"Volume {claim['volume']} of {claim['name']} is kept; the next scale up uses it again."
            for claim in state["claims"]
            if claim["ordinal"] >= desired
        ]
    say = f"scale down from {current} to {desired}: stopping {litefs.names(leaving) or 'no pod'}"
    steps = [
        planning.step("scale", say, replicas=desired, was=current),
        planning.step("wait_gone", f"wait until no pod from ordinal {desired} on is left", ordinal=desired),
    ]
    return planning.plan(None, steps, notes, export=export)


def _newer(found: sit.Situation, kept: Mapping[str, Claim], seen: sit.Seen) -> str | None:
    """Why a pod must not start on its kept volume: LiteFS would give it the primary's snapshot without a word."""
    for volume, claim in kept.items():
        held = seen.get(volume)
        if held is None or held["cluster_id"] not in (None, found.cluster_id):
            continue
        cure = f"delete claim {claim['name']} (the volume is kept), so that the pod begins with a new one"
        if held["problem"]:
            return (
                f"{held['problem'].rstrip('.')}, and it may hold more than the primary: bring its node back, or {cure}."
            )
        if int(held["txid"] or "0", 16) > found.position.txid:
            return (
                f"Volume {volume} of {claim['name']} holds TXID {held['txid']}, and the primary "
                f"{found.leader['name']} only {found.position.txid:016x}: started, it would be overwritten; see "
                f"{sit.RUNBOOK}, or {cure}."
            )
    return None


def _unproven(state: sit.State, found: sit.Situation, leaving: list[sit.Pod]) -> str | None:
    """Why the data of the leaving pods is not proven to be elsewhere."""
    different = sit.diverged(state, found)
    for pod in leaving:
        node = pod["litefs"]
        end = "so its volume is not removed: leave scale_remove_volumes out to keep it"
        if not node["reachable"]:
            return f"LiteFS on {pod['name']} does not answer ({node['error']}), {end}."
        if node["cluster_id"] != found.cluster_id:
            return (
                f"{pod['name']} holds the cluster {node['cluster_id'] or 'without an id'}, not the recorded "
                f"{found.cluster_id}, {end}."
            )
        if pod in different:
            return f"{pod['name']} has another checksum than the primary at the same TXID, {end}."
    return None


def _removals(state: sit.State, desired: int, checkpoint: planning.Checkpoint) -> tuple[list[Step], list[str]]:
    """Steps that remove what was proven to be elsewhere, and sentences on what stays."""
    steps, notes = list[Step](), list[str]()
    proven = checkpoint.get("volumes") or {}
    for claim in state["claims"]:
        if claim["ordinal"] < desired:
            continue
        proof = proven.get(str(claim["ordinal"]))
        if proof is None or proof["uid"] != claim["uid"] or proof["volume"] != claim["volume"]:
            if claim["ordinal"] >= (state["statefulset"]["replicas"] or 0):
                notes.append(
                    f"{claim['name']} stays: no pod ran on it when this began, so nothing proves that its data is "
                    "elsewhere; remove it by name when it is not needed."
                )
            continue
        if not claim["deleting"]:
            steps.append(
                planning.step(
                    "delete_claim",
                    f"delete claim {claim['name']}",
                    claim=claim["name"],
                    uid=claim["uid"],
                    ordinal=claim["ordinal"],
                )
            )
    for ordinal, proof in sorted(proven.items()):
        has_claim = any(claim["uid"] == proof["uid"] for claim in state["claims"])
        volume = next((volume for volume in state["volumes"] if volume["name"] == proof["volume"]), None)
        if int(ordinal) < desired or volume is None or volume["deleting"] or not (has_claim or volume["kept"]):
            continue
        if volume["claim_uid"] not in (None, proof["uid"]):
            continue  # another claim has it by now
        steps.append(
            planning.step(
                "remove_volume",
                f"remove volume {volume['name']} of ordinal {ordinal}: its data was proven to be elsewhere",
                volume=volume["name"],
                claim_uid=proof["uid"],
            )
        )
    return steps, notes
