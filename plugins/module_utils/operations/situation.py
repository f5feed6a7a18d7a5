"""Where the data stands: what every operation asks before it decides. Pure functions over the state document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .. import clock, conditions, guard, identity, litefs, state_types
from ..state_types import Claim, Volume
from . import planning
from .planning import Cause, Request, Step
from .retention import Manifest

State = state_types.State
Looked = state_types.Looked
Pod = state_types.Pod
Seen = Mapping[str, planning.Content]

RUNBOOK = identity.RUNBOOK
away, absent, fenced, last_node, unheard = litefs.away, litefs.absent, litefs.fenced, litefs.last_node, litefs.unheard
IN_SYNC_LAG_MS = 3000  # a heartbeat comes every second
FRESH_SECONDS = 900  # how old an export may be that stands for the data before a destructive step
# Of a cluster whose primary runs, any fresh export counts: while clients write, none ever has the last transaction.
ANY_TXID = 1

_CAUSES: dict[guard.Exit | None, Cause] = {
    guard.Exit.EMPTY: "primary-volume-empty",
    guard.Exit.NO_CLUSTER_ID: "cluster-id-missing",
    guard.Exit.OLDER: "older-volume",
}
_SIGNS: tuple[tuple[str, Cause], ...] = (
    (r"no space left|disk (is )?full", "disk-full"),
    (r"post-apply checksum|applying ltx", "replica-cannot-apply"),
    (r"panic in handler|index out of range", "database-locked"),
)

_STUCK = (*conditions.PULL_REASONS, *conditions.CONFIG_REASONS, "CrashLoopBackOff")


@dataclass(frozen=True)
class Situation:
    """A cluster with a recorded identity and the one running primary that holds it."""

    cluster_id: str
    leader: Pod
    position: litefs.Position
    record: identity.Record


@dataclass(frozen=True)
class Problem:
    """Why there is no such situation."""

    sentence: str
    cause: Cause | None = None


def pod_name(state: State, ordinal: int) -> str:
    """The name of an ordinal's pod."""
    return f"{state['statefulset']['name']}-{ordinal}"


def restart(state: State, ordinal: int, say: str, *, primary: bool, cluster_id: str | None = None) -> Step:
    """The step that replaces an ordinal's pod as it is now, and waits until it is primary, or follows."""
    pod = pod_of(state, ordinal)
    return planning.step(
        "restart",
        say,
        pod=pod_name(state, ordinal),
        uid=pod["uid"] if pod else None,
        ordinal=ordinal,
        primary=primary,
        cluster_id=cluster_id,
    )


def put_aside(state: State, ordinal: int) -> list[Step]:
    """The steps that take an ordinal's claim away and keep its volume: the pod that comes then gets a new one."""
    claim = claim_of(state, ordinal)
    volume = volume_of(state, claim)
    steps: list[Step] = []
    if volume is not None and volume["reclaim_policy"] != "Retain":
        say = f"keep volume {volume['name']} of {pod_name(state, ordinal)} when its claim goes"
        steps.append(planning.step("retain", say, volume=volume["name"]))
    if claim is not None and not claim["deleting"]:
        say = f"delete claim {claim['name']}; volume {claim['volume']} is kept"
        steps.append(planning.step("delete_claim", say, claim=claim["name"], uid=claim["uid"], ordinal=ordinal))
    return steps


def look(state: State) -> Situation | Problem:
    """The situation, or the sentence that says which proof is missing, why, and what to do."""
    if not state["statefulset"]["exists"]:
        return Problem(
            f"There is no StatefulSet {state['statefulset']['name']} in namespace {state['namespace']}: run site.yml."
        )
    try:
        record = identity.parse(state)
    except ValueError as exc:
        return Problem(str(exc))
    if record is None:
        return Problem(
            f"There is no {identity.name_of(state)} that says whose data this is: run site.yml, which writes it."
        )
    if record.state != "recorded" or record.cluster_id is None:
        return Problem(
            f"{identity.name_of(state)} says {record.state}, so nobody knows yet whose data this is: run site.yml (or "
            "playbooks/restore.yml, if it was at work) to its end first."
        )
    leaders = litefs.primaries(state)
    if len(leaders) > 1:
        return Problem(
            f"Pods {litefs.names(leaders)} each say that they are primary (split brain): stop all writes, export both "
            f"(playbooks/backup.yml -e backup_pod=NAME) and see {RUNBOOK}; one of them will lose what only it has.",
            "two-primaries",
        )
    if not leaders:
        return _no_primary(state, record)
    leader = leaders[0]
    held = leader["litefs"]["cluster_id"]
    if held != record.cluster_id:
        return _other_primary(state, record, leader)
    if leader["ordinal"] != record.primary_ordinal:
        return Problem(
            f"{leader['name']} is primary, but {identity.name_of(state)} says that ordinal {record.primary_ordinal} "
            "is: let playbooks/promote.yml finish, or correct the record.",
            "two-primaries",
        )
    where = litefs.position(leader, state["database"])
    if where is None or not where.known:
        return Problem(
            f"The primary {leader['name']} does not have the database {state['database']}: check app_database, and "
            f"restore it with playbooks/restore.yml if it was removed.",
            "primary-volume-empty" if holders(state, record.cluster_id, leader) else None,
        )
    return Situation(record.cluster_id, leader, where, record)


def holders(state: State, cluster_id: str, other_than: Pod | None = None) -> list[Pod]:
    """The reachable pods that hold the cluster with the database: one that was removed there is no copy."""
    return [
        pod
        for pod in litefs.reachable(state)
        if pod is not other_than
        and pod["litefs"]["cluster_id"] == cluster_id
        and litefs.has_content(pod, state["database"])
    ]


def best(state: State, pods: Iterable[Pod]) -> list[Pod]:
    """Those of the pods (of one cluster) with the highest position."""
    placed = [(litefs.position(pod, state["database"]), pod) for pod in pods]
    top = max((where.txid for where, _pod in placed if where), default=0)
    return [pod for where, pod in placed if where and where.txid == top]


def ahead(state: State, situation: Situation) -> list[Pod]:
    """The pods of the primary's cluster that have a transaction which the primary does not have."""
    return [
        pod
        for pod in holders(state, situation.cluster_id, situation.leader)
        if txid(state, pod) > situation.position.txid
    ]


def diverged(state: State, situation: Situation) -> list[Pod]:
    """The pods of the primary's cluster with another checksum at the primary's TXID."""
    return [
        pod
        for pod in holders(state, situation.cluster_id, situation.leader)
        if litefs.compare(
            litefs.position(pod, state["database"]) or situation.position,
            situation.position,
            situation.cluster_id,
            situation.cluster_id,
        )
        == "diverged"
    ]


def in_sync(state: State, situation: Situation, pod: Pod) -> bool:
    """Whether the pod follows the primary: connected, of its cluster, and not at a history of its own."""
    node = pod["litefs"]
    if not node["reachable"] or node["cluster_id"] != situation.cluster_id or node["never_synced"] is not False:
        return False
    if not node["primary_hostname"] or node["lag_ms"] is None or node["lag_ms"] > IN_SYNC_LAG_MS:
        return False
    where = litefs.position(pod, state["database"])
    return where is not None and where.known and pod not in diverged(state, situation)


def txid(state: State, pod: Pod) -> int:
    """The pod's TXID in the database, 0 where it has none."""
    where = litefs.position(pod, state["database"])
    return where.txid if where else 0


def fresh_export(request: Request, cluster_id: str | None, least: int) -> Manifest | None:
    """A verified export of this cluster's database, not older than FRESH_SECONDS, that has transaction ``least``."""
    for manifest in request.exports:
        if (
            manifest.get("verified") is True
            and manifest.get("database") == request.state["database"]
            and manifest.get("cluster_id") == cluster_id
            and re.fullmatch(r"[0-9a-f]{16}", str(manifest.get("txid")))
            and int(str(manifest["txid"]), 16) >= least
            and 0 <= clock.between(str(manifest.get("time")), request.time()) + 5 <= FRESH_SECONDS
        ):
            return manifest
    return None


def strangers(state: State) -> list[int]:
    """Replicas of another cluster: nothing reaches them but a new volume."""
    leaders = litefs.primaries(state)
    mine = leaders[0]["litefs"]["cluster_id"] if len(leaders) == 1 else None
    return [pod["ordinal"] for pod in litefs.reachable(state) if pod["litefs"]["cluster_id"] not in (None, mine)]


def cannot_follow(state: State, situation: Situation) -> dict[int, str]:
    """Replicas that no wait brings to the primary's position, each with the reason and the command that heals it.

    One that only starts, or stops, is not among them, and none that has more than the primary: that ends a wait.
    """
    reasons: dict[int, str] = {}
    for pod in state["pods"]:
        if pod is situation.leader or pod["ordinal"] >= (state["statefulset"]["replicas"] or 0):
            continue
        found = _hindrance(state, situation, pod)
        if found is not None:
            reasons[pod["ordinal"]] = f"{pod['name']} {found[0].rstrip('.')}: {found[1]}."
    return reasons


def _hindrance(state: State, situation: Situation, pod: Pod) -> tuple[str, str] | None:
    """(why a replica cannot follow, what heals it)."""
    node, ordinal = pod["litefs"], pod["ordinal"]
    if node["cluster_id"] not in (None, situation.cluster_id):
        return f"holds the cluster {node['cluster_id']} and cannot follow the primary", _re_seed(ordinal)
    if ordinal in fenced(state):
        return "is fenced as an old primary", f"{_re_seed(ordinal)}, which exports it first"
    if pod["node"] and away(state, pod["node"]):
        return on_dead_node(ordinal, pod["node"])
    if pod["unschedulable"]:
        return f"cannot be placed ({pod['unschedulable'].rstrip('.')})", _place(state, pod)
    if pod["deleting"] or node["reachable"]:
        return None
    if pod["init"]["state"] == "failed" and guard.reason(pod) not in (guard.Exit.AHEAD, guard.Exit.NOT_NOW):
        why = f"does not start ({(pod['init']['message'] or 'no message').rstrip('.')})"
        if pod["init"]["name"] == guard.NAME:
            return why, _re_seed(ordinal)
        logs = _kubectl(state, f"logs {pod['name']} -c {pod['init']['name']}")
        return why, f"heal what {logs} shows"
    if pod["waiting"]["reason"] in _STUCK:
        why = pod["waiting"]["message"] or pod["waiting"]["reason"] or ""
        return f"does not start ({why.rstrip('.')})", _start(state, pod)
    return None


def on_dead_node(ordinal: int, node: str) -> tuple[str, str]:
    """(why a replica cannot follow, what heals it) where its node, or that of its volume, is away."""
    given = json.dumps({"replica_reset_targets": [ordinal], "replica_reset_node_off": node})
    return (
        f"is on node {node}, which is away",
        f"bring the node back, or switch it off and run playbooks/replica_reset.yml -e '{given}'",
    )


def _place(state: State, pod: Pod) -> str:
    """What lets the scheduler place a pod: its volume says on which node it has to run."""
    name = last_node(state, pod["ordinal"])
    node = next((item for item in state["nodes"] if item["name"] == name), None)
    if name and (node is None or not node["ready"]):
        return on_dead_node(pod["ordinal"], name)[1]
    if node is not None and not node["schedulable"]:
        return f"its volume is on node {name}, which takes no pods: kubectl uncordon {name}"
    describe = _kubectl(state, f"describe pod {pod['name']}")
    return f"make what it lacks available, which {describe} says"


def _start(state: State, pod: Pod) -> str:
    """What lets a container of a replica start."""
    if pod["waiting"]["reason"] in conditions.PULL_REASONS:
        return "correct app_image and app_guard_image and run site.yml --tags app"
    if pod["waiting"]["reason"] in conditions.CONFIG_REASONS:
        return "run site.yml --tags app, which makes what its containers are given"
    seen = sign(pod)
    if seen == "replica-cannot-apply":
        return _re_seed(pod["ordinal"])
    if seen == "disk-full":
        return f"make room on node {pod['node']}, with k3s crictl rmi --prune there"
    logs = _kubectl(state, f"logs {pod['name']} -c app --previous")
    return f"heal what its last words name, which {logs} shows"


def _re_seed(ordinal: int) -> str:
    return f"re-seed it with playbooks/replica_reset.yml -e 'replica_reset_targets=[{ordinal}]'"


def _kubectl(state: State, command: str) -> str:
    return f"kubectl -n {state['namespace']} {command}"


def claim_of(state: State, ordinal: int) -> Claim | None:
    """The claim of an ordinal."""
    return next((claim for claim in state["claims"] if claim["ordinal"] == ordinal), None)


def volume_name(state: State, ordinal: int) -> str:
    """The name of the volume that the ordinal's claim has, "" for none."""
    claim = claim_of(state, ordinal)
    return (claim["volume"] or "") if claim else ""


def pod_of(state: State, ordinal: int) -> Pod | None:
    """The pod of an ordinal."""
    return next((pod for pod in state["pods"] if pod["ordinal"] == ordinal), None)


def volume_of(state: State, claim: Claim | None) -> Volume | None:
    """The volume that a claim is bound to."""
    if claim is None or not claim["volume"]:
        return None
    return next((volume for volume in state["volumes"] if volume["name"] == claim["volume"]), None)


def unseen(volumes: Iterable[str], seen: Seen | None) -> list[str]:
    """Those that nobody tried to look into yet."""
    return [name for name in volumes if name not in (seen or {})]


def is_fenced(pod: Pod) -> bool:
    """Whether the guard fences it, an old primary or one with more than the primary has: LiteFS does not run."""
    return (
        not pod["litefs"]["reachable"]
        and not pod["deleting"]
        and pod["init"]["state"] == "failed"
        and guard.reason(pod) in (guard.Exit.FENCED, guard.Exit.AHEAD)
    )


def is_stuck(pod: Pod) -> bool:
    """Whether a pod that does not run will not do so by itself either, as far as its guard or the kubelet says."""
    refused = pod["init"]["state"] == "failed" and guard.reason(pod) is not guard.Exit.NOT_NOW
    return refused or bool(pod["unschedulable"]) or pod["waiting"]["reason"] in _STUCK


def fenced_ahead(pod: Pod) -> bool:
    """Whether the guard fences a replica for what only its volume has: no wait ends that, and nobody lets it go."""
    return is_fenced(pod) and guard.reason(pod) is guard.Exit.AHEAD


def rolling(state: State) -> bool:
    """Whether the StatefulSet is being rolled out (by site.yml, Keel or a person)."""
    living = state["statefulset"]
    return bool(
        living["update_revision"]
        and (
            living["current_revision"] != living["update_revision"]
            or living["observed_generation"] not in (None, living["generation"])
        )
    )


def sign(pod: Pod) -> Cause | None:
    """The cause that the pod's own words name."""
    text = f"{pod['waiting']['message'] or ''} {pod['init']['message'] or ''}"
    return next((cause for pattern, cause in _SIGNS if re.search(pattern, text, re.IGNORECASE)), None)


def _who_holds(state: State, cluster_id: str, other_than: Pod | None = None) -> str:
    pods = holders(state, cluster_id, other_than)
    if not pods:
        return "no pod that answers holds it"
    top = best(state, pods)
    return f"{litefs.names(top)} {'hold' if len(top) > 1 else 'holds'} it up to TXID {txid(state, top[0]):016x}"


def _no_primary(state: State, record: identity.Record) -> Problem:
    name = pod_name(state, record.primary_ordinal)
    pod = pod_of(state, record.primary_ordinal)
    cluster_id = record.cluster_id or ""
    who = _who_holds(state, cluster_id)
    start = f"No running primary holds the recorded cluster {cluster_id} ({who})"
    if pod is None:
        return Problem(
            f"{start}; there is no pod {name}: delete nothing, bring it back first (see {RUNBOOK}).",
            "primary-node-gone",
        )
    if pod["node"] and away(state, pod["node"]):
        return Problem(
            f"{start}; {name} is on node {pod['node']}, which is not ready: delete nothing; bring the node back, or "
            f"move the role with {identity.PROMOTE}.",
            "primary-node-gone",
        )
    # Without the guard's own advice: here there is more to say.
    said = (pod["init"]["message"] or "").partition(" Nothing was changed.")[0]
    if pod["init"]["state"] in ("failed", "waiting", "running") and said:
        cause = _CAUSES.get(guard.reason(pod))
        if cause is None:
            return Problem(f"{start}; {name} is held by the guard: {said.rstrip('.')}.", None)
        hint = {
            "cluster-id-missing": "its database is there and only its cluster id is missing, so write "
            f"{cluster_id} back into the file clusterid of its volume as {RUNBOOK} shows",
            "older-volume": f"its volume is an older copy: use the kept volume, or {identity.PROMOTE}",
            "primary-volume-empty": "its volume is new, empty, foreign or damaged, and the replicas are what is left: "
            f"delete nothing, and use its kept volume ({RUNBOOK}) or {identity.PROMOTE}",
        }[cause]
        return Problem(f"{start}; {name} is stopped by the guard ({said.rstrip('.')}): {hint}.", cause)
    cause_seen = sign(pod)
    why = pod["waiting"]["message"] or pod["waiting"]["reason"] or pod["unschedulable"] or pod["litefs"]["error"]
    return Problem(
        f"{start}; {name} does not run as primary ({str(why or 'no reason is known').rstrip('.')}): delete nothing, "
        f"bring it back (see {RUNBOOK}), or move the role with {identity.PROMOTE}.",
        cause_seen,
    )


def _other_primary(state: State, record: identity.Record, leader: Pod) -> Problem:
    """The primary that runs is not the recorded cluster: always cause A or B."""
    cluster_id, mine = record.cluster_id or "", leader["litefs"]["cluster_id"]
    where = litefs.position(leader, state["database"])
    twins = [
        pod
        for pod in holders(state, cluster_id, leader)
        if where is not None and where.known and litefs.position(pod, state["database"]) == where
    ]
    start = (
        f"The running primary {leader['name']} holds the cluster {mine or 'without an id'}, not the recorded "
        f"{cluster_id} ({_who_holds(state, cluster_id, leader)}): reset no replica and delete nothing"
    )
    if twins:
        return Problem(
            f"{start}; it has the very position and checksum of {litefs.names(twins)}, so it lost only its cluster id: "
            f"stop it, write {cluster_id} into its volume's file clusterid and start it ({RUNBOOK}).",
            "cluster-id-missing",
        )
    return Problem(
        f"{start}; its volume is new, empty or foreign and the replicas hold the last good copies: export it "
        f"(playbooks/backup.yml -e backup_pod={leader['name']}), delete only its pod so that the guard holds it, and "
        f"see {RUNBOOK} or {identity.PROMOTE}.",
        "primary-volume-empty",
    )
