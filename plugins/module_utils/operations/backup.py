"""Which pod a backup is taken from, what its position and its name are, and what is in none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from .. import clock, litefs, wording
from . import situation as sit
from .retention import Manifest


class Choice(TypedDict):
    pod: str
    cluster_id: str | None
    at_primary: bool  # whether it is known to be at the primary's position
    why: str


def choose(state: sit.State, desired: str | None = None) -> tuple[Choice | None, str | None]:
    """The pod to export from, or why there is none.

    A connected replica at the primary's position, since an export holds locks on its node; else whichever reachable
    pod of the recorded cluster has the most. ``desired`` names a pod, of whatever cluster: to keep what only it has.
    """
    database = str(state["database"])
    if desired:
        pod = next((pod for pod in state["pods"] if pod["name"] == desired or str(pod["ordinal"]) == desired), None)
        if pod is None:
            known = ", ".join(pod["name"] for pod in state["pods"]) or "none"
            return None, f"backup_pod is {desired}, but there is no such pod (there are: {known})."
        if not pod["litefs"]["reachable"]:
            return (
                None,
                f"LiteFS on pod {pod['name']} does not answer ({pod['litefs']['error']}): nothing can be exported.",
            )
        where = litefs.position(pod, database)
        if where is None or not where.known:
            return None, f"Pod {pod['name']} does not have the database {database}: check app_database."
        return _choice(pod, "it was asked for", False), None
    recorded = (state["record"]["cluster_id"] if state["record"] else "") or None
    leaders = litefs.primaries(state)
    if recorded is None and len(leaders) == 1:
        recorded = leaders[0]["litefs"]["cluster_id"]
    if recorded is None:
        return None, (
            "There is neither a recorded cluster nor one running primary to say which data to back up: run site.yml, "
            "or name a pod with backup_pod."
        )
    pods = sit.holders(state, recorded)
    if not pods:
        return None, (
            f"No pod that answers holds the recorded cluster {recorded} with the database {database}: delete nothing "
            f"and see {sit.RUNBOOK}."
        )
    found = sit.look(state)
    if isinstance(found, sit.Situation):
        replicas = [
            pod
            for pod in pods
            if pod is not found.leader
            and sit.in_sync(state, found, pod)
            and sit.txid(state, pod) == found.position.txid
        ]
        if replicas:
            return _choice(replicas[-1], f"it follows {found.leader['name']} and is at its position", True), None
    top = sit.best(state, pods)
    replicas = [pod for pod in top if not pod["litefs"]["is_primary"]]
    pod = (replicas or top)[-1]
    at_primary = isinstance(found, sit.Situation) and pod is found.leader
    return _choice(
        pod, f"of the pods that answer it has the highest position, {sit.txid(state, pod):016x}", at_primary
    ), None


def job_note(state: sit.State) -> str | None:
    """What is to be said of the scheduled job: that its last run failed, or that none is begun; None: all is well."""
    job = state.get("backup_job")
    if job is None:
        return None
    name = f"CronJob {state['namespace']}/{state['statefulset']['name']}-backup"
    look = f"see kubectl describe job -n {state['namespace']} -l app.kubernetes.io/component=backup"
    if job["suspended"]:
        return f"The scheduled backup ({name}) is suspended, so none is made."
    if job["last_scheduled"] is None:
        return None  # its first time has not come
    last, now = job["last_successful"], state["gathered_at"]
    # Of a run that is at work, or did not succeed, the job's last time is later than that of its last success.
    if last is not None and clock.between(job["last_scheduled"], last) >= 0:
        return None
    if clock.between(job["last_scheduled"], now) < RUN_SECONDS:
        return None
    since = f"{clock.between(last, now) / 3600:.0f} h ago" if last else "never"
    return (
        f"The scheduled backup ({name}) of {job['last_scheduled']} did not succeed; the last one that did was {since}: "
        f"{look}."
    )


def other_databases_note(state: sit.State) -> str | None:
    """What is to be said where /litefs holds databases beside the application's; None: it does not."""
    own = str(state["database"])
    asked = litefs.primaries(state) or litefs.reachable(state)
    names = {name for pod in asked for name in pod["litefs"]["databases"]} - {own}
    written = [name for name in sorted(names) if any(litefs.has_content(pod, name) for pod in asked)]
    if not written:
        return None
    are = "is" if len(written) == 1 else "are"
    return (
        f"{wording.listed(written)} {are} in /litefs, too, and in no backup: what is to be kept belongs in {own} "
        "(app_database), what is not belongs elsewhere."
    )


def _choice(pod: sit.Pod, why: str, at_primary: bool) -> Choice:
    return {"pod": pod["name"], "cluster_id": pod["litefs"]["cluster_id"], "at_primary": at_primary, "why": why}


RUN_SECONDS = 3600  # a run that began so long ago is over
# How far the clock of whoever stamped a backup may have been ahead.
AHEAD_SECONDS = 300


def newest(
    manifests: Iterable[Manifest], owner: Mapping[str, str], cluster_id: str | None, now: str
) -> tuple[Manifest | None, list[str]]:
    """Of a folder's manifests (retention.read()) the newest that may be restored, and why newer ones were passed over.

    Only a plain, verified, whole backup of this ``owner`` {namespace, statefulset, database}, of the recorded cluster
    (None: none is recorded), and not stamped later than the server's ``now``: such a stamp is the newest for ever.
    """
    passed: list[str] = []
    for one in sorted(manifests, key=lambda one: str(one.get("time")), reverse=True):
        if one.get("reason") != "backup":
            continue  # what an operation exported before it acted has to be named
        why = _unfit(one, owner, cluster_id, now)
        if why is None:
            return one, passed
        passed.append(f"{one.get('file')}: {why}")
    return None, passed


def _unfit(one: Manifest, owner: Mapping[str, str], cluster_id: str | None, now: str) -> str | None:
    for key, value in owner.items():
        if one.get(key) != value:
            return f"it is of the {key} {one.get(key)}, not {value}"
    if cluster_id and one.get("cluster_id") != cluster_id:
        return f"it is of the cluster {one.get('cluster_id')}, not the recorded {cluster_id}"
    if one.get("verified") is not True:
        return "its manifest does not say that it was verified"
    if not one.get("whole"):
        return "its file is missing, or not as long as its manifest says"
    age = clock.between(str(one.get("time")), now)
    if age < -AHEAD_SECONDS:
        return f"it is stamped {one.get('time')}, which is later than now ({clock.second(now)}) or no time at all"
    return None


def failed(exports: Iterable[Manifest]) -> dict[str, str]:
    """Why pods could not be exported in this run, by name; those that were exported later are not among them."""
    found: dict[str, str] = {}
    for made in exports:
        if made.get("problem"):
            found[str(made["pod"])] = str(made["problem"])
        elif made.get("verified") is True:
            found.pop(str(made.get("pod")), None)
    return found


def position(
    checksum: str, before: tuple[str, str] | None, after: tuple[str, str] | None, shown: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The TXID of an exported file with this checksum, and the problem where it cannot be known.

    ``before`` and ``after`` are (txid, checksum) of the node around the export, ``shown`` what it reported in between,
    checksum -> TXID (transfer.watch()).
    """
    for known in (before, after):
        if known is not None and known[1] == checksum:
            return known[0], None
    if checksum in shown:
        return shown[checksum], None
    if before is not None and before == after:
        return None, (
            f"its checksum is {checksum}, but the node was at {before[0]}/{before[1]} before and after the export"
        )
    return None, f"its checksum {checksum} is neither the node's before or after the export nor of any time in between"


def stem(database: str, time: str, pod: str, txid: str) -> str:
    """The file name of a backup without its ending: database, time, pod and TXID make it unique and readable."""
    return f"{database}.{clock.compact(time)}.{pod}.{txid}"
