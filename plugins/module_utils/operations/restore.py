"""Bringing a backup back, into a running cluster or into one that has no copy left. Pure.

Into a running cluster it is one transaction of the primary, which the replicas follow. Where no copy is left the record
says ``restore`` once: the guard lets the primary start on whatever its volume holds, LiteFS runs no command (so nothing
is migrated into an empty database), the file is imported, and the id that LiteFS then holds is recorded.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from .. import identity, litefs, values, wording
from ..state_types import Recorded
from . import planning, pulling, saying
from . import situation as sit
from .planning import Plan, Request, Step
from .progress import CALL_OFF
from .retention import Manifest

_SHAPE = {"page_size": "page size", "journal_mode": "journal mode"}


def decide(request: Request) -> Plan:
    """What is left to do until the site serves the file.

    The file: {path, verified: bool, problem: str|null, page_size, journal_mode, pages, imported_checksum, cluster_id:
    str|null (from its manifest), txid: str|null, sha256}; its ``notes`` are the plan's. Parameters:
    overwrite_cluster_id (the cluster id whose data is overwritten, as shown), lost_volumes (names of volumes that are
    given up), reimport. The checkpoint is what progress.py keeps of a restore that is not finished, because the
    application may write at once, and nothing else shows that a file was imported: one file is not imported twice
    into one cluster unless ``reimport`` is another than it was then.
    """
    plan = _decide(request)
    if not plan["refusal"]:
        plan["notes"] = [*request.file.get("notes", []), *plan["notes"]]
    return plan


def _decide(request: Request) -> Plan:
    state, file = request.state, request.file
    if file.get("problem") or file.get("verified") is not True:
        return refuse(
            f"{file.get('path')} is not a database that may be restored: {file.get('problem') or 'not verified'}."
        )
    record = state["record"]
    if record and record["state"] == "restore":
        return _lost(request, record)
    found = sit.look(state)
    if isinstance(found, sit.Situation):
        return _running(request, found)
    if litefs.primaries(state):
        return refuse(found.sentence, found.cause)
    return _without_primary(request, found)


def progress(_request: Request) -> None:
    """Nothing is kept but what the import keeps itself, right before it and after it."""


def prove(plan: Plan, state: sit.Looked) -> list[Step]:
    """Every replica that was not left out follows; one of another cluster is left as it was."""
    without = sit.fenced(state) if plan["without"] is None else plan["without"]
    return [planning.step("wait_replicated", "", without=[*without, *sit.strangers(state)])]


def refuse(sentence: str, cause: planning.Cause | None = None) -> Plan:
    """A plan that says why not."""
    return planning.plan(f"Nothing was restored. {sentence}", cause=cause)


def _without_primary(request: Request, found: sit.Problem) -> Plan:
    """No primary runs: only where no copy is left either is the file imported into an empty site."""
    state = request.state
    try:
        record = identity.parse(state)
    except ValueError as exc:
        return refuse(str(exc))
    if record is None or record.cluster_id is None:
        return refuse(f"{found.sentence} A new, empty site is restored into once it runs.")
    name = sit.pod_name(state, record.primary_ordinal)
    who = sit.holders(state, record.cluster_id)
    if who:
        return refuse(
            f"{litefs.names(who)} still {'hold' if len(who) > 1 else 'holds'} the recorded cluster "
            f"{record.cluster_id}, up to TXID {sit.txid(state, sit.best(state, who)[0]):016x}: bring the primary back "
            f"({sit.RUNBOOK}) or move its role with {identity.PROMOTE}, and restore into the site that runs then.",
            found.cause,
        )
    pod = sit.pod_of(state, record.primary_ordinal)
    if not _stopped(state, pod, record.primary_ordinal):
        gone = (
            f" Where node {pod['node']} is gone for good: make sure that it is off, take it out of the cluster "
            f"(kubectl delete node {pod['node']}), and run this again, which then looks into every volume."
            if pod is not None and pod["node"] and sit.away(state, pod["node"])
            else ""
        )
        return refuse(
            f"No primary runs, and {name} is not stopped by the guard either, so nothing proves that its volume is "
            f"lost: {found.sentence}{gone}",
            found.cause,
        )
    return _no_copy(request, record.cluster_id, record.primary_ordinal)


def _no_copy(request: Request, cluster_id: str, ordinal: int) -> Plan:
    """No pod that answers holds the recorded cluster; whether a volume does, and else what is done."""
    state, file, parameters, seen = request.state, request.file, request.parameters, request.volumes
    name, pod = sit.pod_name(state, ordinal), sit.pod_of(state, ordinal)
    silent = [one for one in state["pods"] if not one["litefs"]["reachable"] and one is not pod]
    # A pod that does not answer is known by its volume.
    given_up = [str(item) for item in parameters.get("lost_volumes") or []]
    look = sit.unseen((item["name"] for item in state["volumes"] if item["name"] not in given_up), seen)
    if look:
        note = "What is done then depends on what they hold."
        return planning.plan(None, [], [note], look=look)
    problem = _unreadable(state, cluster_id, {key: held for key, held in seen.items() if key not in given_up})
    if problem:
        return refuse(problem, "no-copy-left")
    mine = {key: held for key, held in seen.items() if held["cluster_id"] == cluster_id}
    # To remove the database is a transaction, too: a volume that ends with it has nothing to bring back.
    full = {key: held["txid"] or "" for key, held in mine.items() if held["checksum"] != litefs.NO_PAGE}
    behind = {key for key, txid in full.items() if _is_behind(txid, file, cluster_id)}
    holding = {key: txid for key, txid in full.items() if key not in behind}
    if holding:
        # Not the first that comes: an older one, of a replica that was scaled away, would roll the site back.
        newest = max(holding, key=lambda key: holding[key])
        among = f", the newest of {len(holding)}" if len(holding) > 1 else ""
        return refuse(
            f"Volume {newest} holds the recorded cluster {cluster_id} up to TXID {holding[newest] or 'unknown'}"
            f"{among}; {file.get('path')} was taken at TXID {file.get('txid') or 'unknown'}. Bring the primary back on "
            f"that volume ({sit.RUNBOOK}) and restore into the site that runs then.",
            "no-copy-left",
        )
    problem = _unconfirmed(request, cluster_id)
    if problem:
        return refuse(problem)
    place = seen.get(sit.volume_name(state, ordinal))
    if place is not None and (unlike := _unlike(file, place)):
        return refuse(_other_shape(state, file, place, unlike, ordinal), "file-does-not-fit")
    export = [
        one["name"]
        for one in litefs.reachable(state)
        if litefs.has_content(one, state["database"])
        and not sit.fresh_export(request, one["litefs"]["cluster_id"], sit.txid(state, one))
    ]
    notes = [f"{one['name']} does not answer; its volume was looked into, or given up." for one in silent]
    notes += [f"Volume {name} is behind the backup, and stays as it is." for name in sorted(behind)]
    steps = _new_volume(state, ordinal, pod) + _lost_steps(
        state,
        file,
        ordinal,
        None,
        _permission(name, cluster_id),
    )
    # What other clusters left behind is overwritten where the volume in question is of the same one.
    return planning.plan(None, steps, notes, "no-copy-left", export=export)


def _is_behind(txid: str, file: planning.File, cluster_id: str) -> bool:
    """Whether a volume that ends at this transaction of the cluster has nothing that the backup does not have."""
    return bool(txid and file.get("cluster_id") == cluster_id and txid < str(file.get("txid") or ""))


def _running(request: Request, found: sit.Situation) -> Plan:
    done = _imported_before(request, found)
    if done is not None:
        return done
    state, file, begun = request.state, request.file, request.checkpoint
    leader = found.leader
    better = sit.ahead(state, found)
    if better:
        return refuse(
            f"{litefs.names(better)} has transactions that the primary {leader['name']} (TXID "
            f"{found.position.txid:016x}) does not have: export it (playbooks/backup.yml -e "
            f"backup_pod={better[0]['name']}) and see {sit.RUNBOOK}.",
            "older-volume",
        )
    problem = _unconfirmed(request, found.cluster_id)
    if problem:
        return refuse(problem)
    present = sit.fresh_export(request, found.cluster_id, sit.ANY_TXID)
    if present is not None and (unlike := _unlike(file, present)):
        cure = (
            "it cannot be changed on a living cluster: make a copy of the backup with that page size (VACUUM INTO "
            "after PRAGMA page_size)"
            if unlike == "page_size"
            else f"convert a copy of the backup with: sqlite3 COPY 'PRAGMA journal_mode={present.get(unlike)}'"
        )
        return refuse(
            f"{file.get('path')} has {_SHAPE[unlike]} {file.get(unlike)} and the living database "
            f"{present.get(unlike)}; LiteFS does not survive the difference: {cure}, and restore that.",
            "file-does-not-fit",
        )
    followers = [pod["ordinal"] for pod in state["pods"] if pod is not leader and sit.in_sync(state, found, pod)]
    left = _left_out(state, found, followers)
    notes = [f"{said} It will not get the restored data from this run." for said in left.values()]
    if begun.get("sha256") not in (None, file.get("sha256")):
        notes.append(
            f"The restore of another file (sha256 {begun['sha256']}), begun {begun.get('time')}, is not finished; this "
            "one takes its place."
        )
    if not found.position.has_content:
        return _removed(request, found, notes)
    schema = present is not None and _other_schema(file, present)
    if schema and (unpulled := pulling.problem(request)):
        return refuse(unpulled)
    rows = saying.rows(present.get("table_rows") or {}, file.get("rows") or {}) if present else ""
    steps = [
        planning.step(
            "import",
            f"import {file.get('path')} into {leader['name']}{f' (rows: {rows})' if rows else ''}",
            pod=leader["name"],
            cluster_id=found.cluster_id,
            exported=present["txid"] if present else None,
            followers=followers,
            restart=schema,
        ),
        _wait(state, leader, left),
    ]
    export = [] if present else [leader["name"]]
    if export:
        notes.append(
            "Page size, journal mode and schema of the file are compared with that export before anything is changed."
        )
    pull = pulling.untried(request, state["pods"]) if schema and not export else []
    return planning.plan(None, steps, notes, export=export, pull=pull, without=list(left))


def _removed(request: Request, found: sit.Situation, notes: list[str]) -> Plan:
    """The primary runs, and its database was removed: nothing of it can be exported.

    The application has the file that is gone still open, and in WAL mode an import waits for that without an end. So it
    comes in where no application runs, as into a site that has no copy left.
    """
    if unpulled := pulling.problem(request):
        return refuse(unpulled)
    state, leader = request.state, found.leader
    steps = _lost_steps(state, request.file, leader["ordinal"], None, _permission(leader["name"], found.cluster_id))
    pull = pulling.untried(request, state["pods"])
    return planning.plan(None, steps, notes, "no-copy-left", pull=pull)


def _permission(name: str, cluster_id: str) -> Step:
    say = f"record that {name} may start once on whatever its volume holds"
    return planning.step("record_restore", say, cluster_id=cluster_id)


def _imported_before(request: Request, found: sit.Situation) -> Plan | None:
    """The plan where this file was imported already, or may have been; None where it is to be imported."""
    state, file, parameters = request.state, request.file, request.parameters
    leader = found.leader
    there = found.position.checksum == file.get("imported_checksum")
    mine, over = _earlier(found, request)
    reimport = str(parameters.get("reimport") or "")
    if mine is not None and not there and reimport in ("", str(mine.get("reimport") or "")):
        if over:
            # Of a database that was removed nothing can be exported.
            first = " (it is exported first)" if found.position.has_content else ""
            return refuse(
                f"{_imported(file, mine)} and {leader['name']} is at {found.position.txid:016x} since: to import it "
                f"once more, over everything that was written since then{first}, give -e "
                f"restore_reimport={mine.get('txid') or 'yes'}."
            )
        if mine.get("state") == "imported":
            note = (
                f"{_imported(file, mine)} and {leader['name']} is at {found.position.txid:016x} since: it is not "
                f"imported again, unless you give -e restore_reimport={mine.get('txid')}."
            )
            return _follow_up(state, found, mine, note)
        if str(mine.get("before")) != f"{found.position.txid:016x}":
            return refuse(
                f"A run that began at {mine.get('time')} ended in the middle of the import of {file.get('path')}, and "
                f"{leader['name']}, then at TXID {mine.get('before')}, is at {found.position.txid:016x} since, so "
                "nobody knows whether the file came: look at the site, and if it shows the file's data give -e "
                f"{CALL_OFF}=restore, else -e restore_reimport={mine.get('before')}."
            )
    elif there:
        return _follow_up(state, found, mine or {}, f"The primary {leader['name']} has this file's content.")
    return None


def _earlier(found: sit.Situation, request: Request) -> tuple[planning.Checkpoint | None, bool]:
    """The checkpoint of an import of this file that the primary still has, and whether that restore is over."""
    file = request.file
    for one, over in [(request.checkpoint, False), *((one, True) for one in reversed(request.imported))]:
        if not one.get("sha256") or one["sha256"] != file.get("sha256") or one.get("cluster_id") != found.cluster_id:
            continue
        if int(str(one.get("txid") or "0"), 16) <= found.position.txid:
            return one, over
    return None, False


def _imported(file: planning.File, mine: planning.Checkpoint) -> str:
    return f"{file.get('path')} was imported at {mine.get('time')} as transaction {mine.get('txid') or 'unknown'},"


def _follow_up(state: sit.Looked, found: sit.Situation, mine: planning.Checkpoint, note: str) -> Plan:
    """What is left after an import into a running cluster."""
    left = _left_out(state, found, mine.get("followers"))
    steps = _restarts(state, found, left, str(mine.get("time"))) if mine.get("restart") else []
    steps += _loud(state, found.leader, left)
    behind = [
        pod
        for pod in state["pods"]
        if pod is not found.leader and pod["ordinal"] not in left and not _follows(state, found, pod)
    ]
    if steps or behind:
        steps.append(_wait(state, found.leader, left))
    notes = [note, *(f"{said} It was left out." for said in left.values())]
    return planning.plan(None, steps, notes, without=list(left))


def _left_out(state: sit.Looked, found: sit.Situation, followers: object) -> dict[int, str]:
    """Replicas that nobody waits for, each with the reason; ``followers``: who followed before the import, if known."""
    left = sit.cannot_follow(state, found)
    for ordinal in range(int(state["statefulset"]["replicas"] or 0)):
        pod, name = sit.pod_of(state, ordinal), sit.pod_name(state, ordinal)
        if pod is None:
            left[ordinal] = f"There is no pod {name}."
        elif pod is found.leader or _follows(state, found, pod):
            left.pop(ordinal, None)
        elif ordinal not in left and isinstance(followers, list) and ordinal not in followers:
            why = pod["init"]["message"] or pod["litefs"]["error"] or "it is behind, or has a history of its own"
            left[ordinal] = f"{name} did not follow the primary ({str(why).rstrip('.')})."
    return left


def _wait(state: sit.Looked, leader: sit.Pod, left: Mapping[int, str]) -> Step:
    but = f" but {wording.listed(sit.pod_name(state, ordinal) for ordinal in left)}" if left else ""
    return planning.step(
        "wait_followers", f"wait until every replica{but} has what {leader['name']} has", without=list(left)
    )


def _restarts(state: sit.Looked, found: sit.Situation, left: Mapping[int, str], since: str) -> list[Step]:
    """The primary, whose migrations run at its start, then its replicas; of those that run since before ``since``."""
    steps = []
    for pod in [found.leader, *(pod for pod in state["pods"] if pod is not found.leader)]:
        # A pod's time has no parts of a second, and none came to run in the second of the import.
        if pod["ordinal"] not in left and str(pod["created_at"]) < since[:19] + "Z":
            role = ", whose migrations run then" if pod is found.leader else ""
            say = f"restart {pod['name']}{role}: the file's schema is another than the one it was started on"
            steps.append(sit.restart(state, pod["ordinal"], say, primary=pod is found.leader))
    return steps


def _other_schema(file: planning.File, present: Manifest) -> bool:
    """Whether the application has to start anew on the file; an export of an older version does not say."""
    return any(
        present.get(key) is not None and present.get(key) != file.get(key) for key in ("tables_sha256", "user_version")
    )


def _follows(state: sit.Looked, found: sit.Situation, pod: sit.Pod) -> bool:
    return sit.in_sync(state, found, pod) and sit.txid(state, pod) >= found.position.txid


def _lost(request: Request, record: Recorded) -> Plan:
    """The record says restore: what is left."""
    state, file = request.state, request.file
    ordinal = values.whole(record["primary_ordinal"])
    if ordinal is None:
        return refuse(
            f"{identity.name_of(state)} has primaryOrdinal {record['primary_ordinal']!r}, which is not the number of "
            f"a pod: see {sit.RUNBOOK}."
        )
    leaders = litefs.primaries(state)
    leader = leaders[0] if len(leaders) == 1 and leaders[0]["ordinal"] == ordinal else None
    export: list[str] = []
    # While it runs its commands it is written to; the first of what is left restarts it without them.
    quiet = bool(state.get("rendered_quiet")) and leader is not None and not _older(state, leader)
    if quiet and leader and litefs.has_content(leader, state["database"]) and not _restored(state, leader, file):
        held = leader["litefs"]["cluster_id"]
        made = sit.fresh_export(request, held, sit.txid(state, leader))
        if made is None:
            export.append(leader["name"])
        elif unlike := _unlike(file, made):
            return refuse(_other_shape(state, file, made, unlike, ordinal), "file-does-not-fit")
    return planning.plan(None, _lost_steps(state, file, ordinal, leader), cause="no-copy-left", export=export)


def _lost_steps(
    state: sit.Looked,
    file: planning.File,
    ordinal: int,
    leader: sit.Pod | None,
    permission: Step | None = None,
) -> list[Step]:
    name = sit.pod_name(state, ordinal)
    steps: list[Step] = []
    if not state.get("rendered_quiet"):
        # Before the record gives way: the guard tries again by itself, and must not let a migration run on nothing.
        steps.append(planning.step("render", "render the configuration without commands", ordinal=ordinal, quiet=True))
    if permission is not None:
        steps.append(permission)
    if leader is None or not state.get("rendered_quiet") or _older(state, leader):
        steps.append(sit.restart(state, ordinal, f"restart {name}, which starts without a command", primary=True))
    if not _restored(state, leader, file):
        steps.append(
            planning.step("import", f"import {file.get('path')} into {name}", pod=name, cluster_id=None, exported=None)
        )
    steps.append(planning.step("record_id", f"record the cluster that {name} holds now", ordinal=ordinal))
    # Then the record says recorded, and _loud() has the rest.
    steps.append(planning.step("render", "render the configuration with its commands", ordinal=ordinal, quiet=False))
    steps.append(planning.step("wait_followers", f"wait until every replica that runs has what {name} has"))
    return steps


def _loud(state: sit.Looked, leader: sit.Pod, left: Container[int]) -> list[Step]:
    """What is left after a restore without commands: the commands come back, the primary first.

    Nobody waits for a pod that is ``left`` out; where nothing of it runs it reads the configuration when it starts.
    """
    steps: list[Step] = []
    quiet = bool(state.get("rendered_quiet"))
    if quiet:
        steps.append(
            planning.step(
                "render", "render the configuration with its commands", ordinal=leader["ordinal"], quiet=False
            )
        )
    others = [pod for pod in state["pods"] if pod is not leader]
    for pod in [leader, *others]:
        # A replica of another cluster gets no commands either way: it never gets as far.
        ours = pod["litefs"]["cluster_id"] in (None, leader["litefs"]["cluster_id"])
        if not ours or not (quiet or _older(state, pod)):
            continue
        say = f"restart {pod['name']} with its commands"
        if pod["ordinal"] not in left:
            steps.append(sit.restart(state, pod["ordinal"], say, primary=pod is leader))
        elif pod["litefs"]["reachable"]:
            steps.append(planning.step("delete_pod", say, pod=pod["name"], uid=pod["uid"], ordinal=pod["ordinal"]))
    return steps


def _older(state: sit.Looked, pod: sit.Pod) -> bool:
    """Whether a pod may run on a configuration that was replaced since.

    Its revision does not tell: a pod that is deleted during a rolling update comes back with the revision before it
    and mounts what the ConfigMap says then.
    """
    rendered, created = state.get("rendered_at"), pod["created_at"]
    return bool(rendered and created and created <= rendered)


def _restored(state: sit.Looked, pod: sit.Pod | None, file: planning.File) -> bool:
    where = litefs.position(pod, state["database"]) if pod is not None else None
    return where is not None and where.checksum == file.get("imported_checksum")


def _stopped(state: sit.Looked, pod: sit.Pod | None, ordinal: int) -> bool:
    """Whether LiteFS does not run in the primary's pod, so that its volume is all that is left to ask."""
    if pod is None:
        return ordinal < (state["statefulset"]["replicas"] or 0)
    if pod["unschedulable"]:
        return True
    guarded = pod["init"]["state"] in ("failed", "waiting", "running")
    return guarded and not pod["deleting"] and not (pod["node"] and sit.away(state, pod["node"]))


def _new_volume(state: sit.Looked, ordinal: int, pod: sit.Pod | None) -> list[Step]:
    """What brings the primary's pod to its guard: a new claim, where the volume of the present one was given up."""
    name, claim = sit.pod_name(state, ordinal), sit.claim_of(state, ordinal)
    volume = sit.volume_of(state, claim)
    steps: list[Step] = []
    if claim is not None and volume is not None and volume["node"] and sit.away(state, volume["node"]):
        steps += sit.put_aside(state, ordinal)
        if pod is not None:
            say = f"delete pod {name}, which comes back with a new volume"
            steps.append(planning.step("delete_pod", say, pod=name, uid=pod["uid"], ordinal=ordinal))
        steps.append(
            planning.step(
                "wait_claim", f"wait for the new claim of {name}", ordinal=ordinal, uid=claim["uid"], pod=name
            )
        )
    if steps or pod is None or pod["init"]["state"] != "failed":
        say = f"wait until the guard holds {name} on its new volume"
        steps.append(planning.step("wait_guard", say, ordinal=ordinal, pod=name))
    return steps


def _unreadable(state: sit.Looked, cluster_id: str, seen: sit.Seen) -> str | None:
    """Why some volume may hold the recorded cluster though nothing says so."""
    nodes = {volume["name"]: volume["node"] for volume in state["volumes"]}
    for name, held in seen.items():
        end = f'or give it up with -e \'{{"restore_lost_volumes": ["{name}"]}}\''
        if held["problem"]:
            node = nodes.get(name)
            off = "make sure that its node is off and " if node and sit.away(state, node) else ""
            return (
                f"{held['problem'].rstrip('.')}, and it may hold the recorded cluster {cluster_id}: bring its node "
                f"back, {end.replace('or give', f'or {off}give')}."
            )
        if held["txid"] and not held["cluster_id"]:
            return (
                f"Volume {name} holds a database up to TXID {held['txid']} without a cluster id, which may be the "
                f"recorded cluster {cluster_id} itself: write that id back into its file clusterid ({sit.RUNBOOK}), "
                f"{end}."
            )
    return None


def _unlike(file: planning.File, other: Manifest | planning.Content) -> str | None:
    """What is different between the file and a database that is there, page_size or journal_mode."""
    return next((key for key in _SHAPE if other.get(key) is not None and file.get(key) != other.get(key)), None)


def _other_shape(
    state: sit.Looked, file: planning.File, other: Manifest | planning.Content, unlike: str, ordinal: int
) -> str:
    claim, pod = sit.claim_of(state, ordinal), sit.pod_name(state, ordinal)
    claim_name = claim["name"] if claim else None
    return (
        f"{file.get('path')} has {_SHAPE[unlike]} {file.get(unlike)} and the database on the volume of {pod} "
        f"{other.get(unlike)}; LiteFS does not survive the difference: give {pod} an empty volume (kubectl delete pvc "
        f"{claim_name} --wait=false, then pod {pod}; the old volume is kept), and run again."
    )


def _unconfirmed(request: Request, cluster_id: str) -> str | None:
    """Why the overwriting of this cluster's data is not confirmed; a backup of this very cluster needs no word."""
    state, file, parameters = request.state, request.file, request.parameters
    if file.get("cluster_id") == cluster_id:
        return None
    if str(parameters.get("overwrite_cluster_id") or "") == cluster_id:
        return None
    ours = {
        "namespace": state["namespace"],
        "statefulset": state["statefulset"]["name"],
        "database": state["database"],
    }
    theirs = [f"{key} {file.get(key)}" for key, own in ours.items() if file.get(key) not in (None, own)]
    if theirs:
        # Whoever is told the word by which it is done all the same may take it for the way out.
        return (
            f"{file.get('path')} is a backup of another application ({', '.join(theirs)}), not of StatefulSet "
            f"{state['namespace']}/{state['statefulset']['name']}: name a backup of this one, or the folder with its "
            "backups."
        )
    source = (
        f"is a backup of the cluster {file['cluster_id']}"
        if file.get("cluster_id")
        else "has no manifest that says whose it is"
    )
    given = (
        f" (restore_overwrite_cluster_id is {parameters['overwrite_cluster_id']})"
        if parameters.get("overwrite_cluster_id")
        else ""
    )
    return (
        f"{file.get('path')} {source}, and would overwrite the data of the cluster {cluster_id}: to confirm that, give "
        f"-e restore_overwrite_cluster_id={cluster_id}{given}."
    )
