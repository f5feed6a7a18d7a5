"""One step of an operation: look, decide again, do what the decision says is next. The I/O around the decisions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import identity, kube, litefs, values
from . import act, backup, holding, progress, promote, replica_reset, restore, scale, sqlitefile, transfer
from . import situation as sit

OPERATIONS = progress.OPERATIONS
NEEDS = ("look", "export", "volume_export")
EXPORTS_OF_A_POD = 3
POLL = 2.0
WAITS = ("wait_pod", "wait_replicated", "wait_gone", "wait_followers", "wait_claim", "wait_guard")


class Refused(Exception):
    """The decision is no; ``plan`` is the whole of it."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        super().__init__(str(plan["refusal"]))
        self.plan = plan


def decide(
    operation: str,
    document: Mapping[str, Any],
    parameters: Mapping[str, Any],
    exports: list[dict[str, Any]],
    volumes: sit.Seen | None,
    file: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """The plan of any operation. ``checkpoint``: see load_checkpoint(); ``now``: the API server's time."""
    if operation == "scale":
        remove = bool(parameters.get("remove_volumes"))
        lost = parameters.get("lost_replicas") or []
        return scale.decide(document, parameters["replicas"], remove, exports, checkpoint, now, volumes, lost)
    if operation == "replica_reset":
        lost, off = parameters.get("lost_volumes") or [], str(parameters.get("node_off") or "")
        return replica_reset.decide(document, parameters["targets"], exports, checkpoint, now, lost, off)
    if operation == "promote":
        return promote.decide(document, parameters, exports, now, volumes)
    return restore.decide(document, file, parameters, exports, volumes, now, checkpoint)


def load_checkpoint(
    operation: str, known: Mapping[str, Any], document: Mapping[str, Any], parameters: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """What an operation has to know of its beginning: what it kept, and what only shows before the next act."""
    kept = {key: value for key, value in (known.get(operation) or {}).items() if key not in ("begun", "holder")}
    if operation == "scale" and (desired := values.whole(parameters["replicas"])):
        # A pod that runs (again) is proven anew; of one that is gone only what was proven then is known.
        seen = scale.new_checkpoint(document, desired, bool(parameters.get("remove_volumes")))
        return {"volumes": {**(kept.get("volumes") or {}), **seen["volumes"]}}
    if operation == "replica_reset":
        lost, off = parameters.get("lost_volumes") or [], str(parameters.get("node_off") or "")
        plan = replica_reset.decide(document, parameters["targets"], [], {}, now, lost, off)
        touched = {step["ordinal"] for step in plan["steps"] if step["do"] in ("delete_claim", "delete_pod")}
        # The claim that is there now may be the new one of a run that died. One that it did not come to counts only
        # where something is still wrong with its pod: it may be well again since.
        untouched = {claim["uid"] for claim in document["claims"] if not claim["deleting"]}
        begun = {number: uid for number, uid in (kept.get("claims") or {}).items() if uid not in untouched}
        return {"claims": {**replica_reset.new_checkpoint(document, touched)["claims"], **begun}}
    if operation == "restore":
        return {**kept, progress.IMPORTED: known.get(progress.IMPORTED) or []}
    return kept


def plan(
    site: act.Site,
    operation: str,
    parameters: Mapping[str, Any],
    exports: list[dict[str, Any]],
    volumes: sit.Seen | None,
    file: Mapping[str, Any],
) -> dict[str, Any]:
    """What would be done now. Raises Refused."""
    document = site.look()
    known = _known(document)
    now = site.api.server_time()
    checkpoint = load_checkpoint(operation, known, document, parameters, now)
    found = decide(operation, document, parameters, exports, volumes, file, checkpoint, now)
    if found["refusal"]:
        raise Refused(found)
    found["notes"] += progress.others(known, operation)
    return found


def call_off(site: act.Site, operation: str, holder: str) -> tuple[bool, str]:
    """Remove the progress of an operation: (whether there was any, a sentence). What it did stays done."""
    document = site.look()
    holding.Holding(site, holder).renew()
    known = _known(document)
    mine = known.get(operation)
    if not mine:
        return False, f"There is no unfinished {operation}: nothing was called off."
    site.write_record({progress.KEY: progress.text(progress.ended(known, operation))})
    rest = ", ".join(f"{key} {value}" for key, value in mine.items() if key not in ("begun", "holder"))
    begun = f"begun {mine.get('begun')} by {mine.get('holder')}"
    said = f"The {operation} {begun} is called off ({rest or 'nothing more'})."
    if (document["record"] or {}).get("state") == "restore":
        said += " The record still says that a restore is under way, and only playbooks/restore.yml ends that."
    return True, said


def step(
    site: act.Site,
    holder: str,
    operation: str,
    parameters: Mapping[str, Any],
    exports: list[dict[str, Any]],
    volumes: sit.Seen | None,
    file: Mapping[str, Any],
    seconds: int,
) -> dict[str, Any]:
    """Do the next act, and wait until it has its effect. The lock is renewed meanwhile.

    Returns {done, changed, did: [sentence], needs: null|export|look|volume_export, plan}. With
    ``needs`` nothing was done yet: the caller has to make exports or look into volumes, and come again.
    Raises Refused, act.NotDone, kube.KubeError.
    """
    with holding.Holding(site, holder) as held:
        return _step(site, held, holder, operation, parameters, exports, volumes, file, seconds)


def _step(
    site: act.Site,
    held: holding.Holding,
    holder: str,
    operation: str,
    parameters: Mapping[str, Any],
    exports: list[dict[str, Any]],
    volumes: sit.Seen | None,
    file: Mapping[str, Any],
    seconds: int,
) -> dict[str, Any]:
    waited: list[Mapping[str, Any]] = []
    patience = time.monotonic() + min(seconds, 120)
    while True:
        document = site.look()
        known = _known(document)
        held.renew()
        now = site.api.server_time()
        checkpoint = load_checkpoint(operation, known, document, parameters, now)
        found = decide(operation, document, parameters, exports, volumes, file, checkpoint, now)
        if found["refusal"]:
            # A rolling update, also one that only now gets to the primary, restarts it within seconds.
            if operation != "promote" and _restarts(document) and time.monotonic() < patience:
                time.sleep(POLL)
                continue
            raise Refused(found)
        waits = list(itertools.takewhile(lambda one: one["do"] in WAITS, found["steps"]))
        first = [one for one in waits if one not in waited]
        if not first or len(waits) == len(found["steps"]) or _need(found):
            break
        # What this was decided on may be minutes old after a wait, and so may the lock: an act needs a new look.
        for one in first:
            _wait(site, one, document, seconds)
        waited += first
    answer: dict[str, Any] = {"done": False, "changed": False, "did": [], "needs": None, "plan": found}
    need = _need(found)
    if need == "export":
        _check_restless(found["export"], exports)
    if need:
        return {**answer, "needs": need}
    if not found["steps"]:
        _prove(site, operation, found, document, min(seconds, 120))
        held.renew()
        site.raise_low_water()
        if operation in known:
            targets = found["targets"] if operation == "replica_reset" else None
            mine = progress.begun(known, operation, {} if operation == "restore" else checkpoint, now, holder)
            site.write_record({progress.KEY: progress.text(progress.ended(mine, operation, targets))})
        return {**answer, "done": True, "did": site.left}
    acted = False
    for one in found["steps"]:
        if one["do"] in WAITS:
            if acted or one not in waited:
                _wait(site, one, document, seconds)
            continue
        if acted:
            break
        if operation != "restore":
            known = progress.begun(known, operation, checkpoint, now, holder)
        if operation == "promote" and found.get("loss"):
            known = progress.rolled_back(known, int(found["loss"]["after_txid"], 16))
        if progress.text(known) != ((document["record"] or {}).get("raw") or {}).get(progress.KEY):
            site.write_record({progress.KEY: progress.text(known)})
        answer["did"].append(one["say"])
        if one["do"] == "import":
            answer["did"].append(_import(site, held, one, known, parameters, file, seconds, holder))
        else:
            _do(site, operation, one, document, file, seconds)
        acted = answer["changed"] = True
    return answer


def _restarts(document: Mapping[str, Any]) -> bool:
    """Whether no primary runs because the StatefulSet is being rolled out."""
    return sit.rolling(document) and not litefs.primaries(document)


def said(found: Mapping[str, Any]) -> list[str]:
    """The plan in sentences: what comes before the first step, the steps, and what is to be known of it."""
    first = {
        "look": "first, look into volumes",
        "export": "first, export from",
        "volume_export": "first, export the volumes of ordinals",
    }
    needs = [f"{words} {', '.join(map(str, found[need]))}" for need, words in first.items() if found.get(need)]
    return [*(needs + [one["say"] for one in found["steps"]] or ["nothing is left to do"]), *found["notes"]]


def _need(found: Mapping[str, Any]) -> str | None:
    """What the caller has to do before the first step."""
    return next((need for need in NEEDS if found.get(need)), None)


def _check_restless(pods: list[str], exports: list[dict[str, Any]]) -> None:
    """Raises act.NotDone where a pod cannot be exported, or was exported again and again and is never at rest."""
    failed = backup.failed(exports)
    for pod in pods:
        if pod in failed:
            raise act.NotDone(f"{pod} could not be exported, and without that it goes no further: {failed[pod]}")
        if sum(made.get("pod") == pod for made in exports) >= EXPORTS_OF_A_POD:
            raise act.NotDone(
                f"{pod} was exported {EXPORTS_OF_A_POD} times and had other transactions each time: stop what writes "
                "to it, and run again."
            )


def _prove(site: act.Site, operation: str, found: Mapping[str, Any], document: Mapping[str, Any], seconds: int) -> None:
    """The proof after: what the operation promised holds now."""
    if found.get("unproven"):
        return
    if operation == "replica_reset":
        for ordinal in found["targets"]:
            site.wait_pod(ordinal, seconds)
        return
    without = found.get("without")
    if without is None:
        without = sit.fenced(document)
    if operation in ("promote", "restore"):
        without = [*without, *_strangers(document)]
    site.wait_replicated(seconds, without)


def _strangers(document: Mapping[str, Any]) -> list[int]:
    """Replicas of another cluster: a restore does not reach them and says so."""
    leaders = litefs.primaries(document)
    mine = leaders[0]["litefs"]["cluster_id"] if len(leaders) == 1 else None
    return [pod["ordinal"] for pod in litefs.reachable(document) if pod["litefs"]["cluster_id"] not in (None, mine)]


def _wait(site: act.Site, one: Mapping[str, Any], document: Mapping[str, Any], seconds: int) -> None:
    if one["do"] == "wait_pod":
        site.wait_pod(one["ordinal"], seconds)
    elif one["do"] == "wait_claim":
        site.wait_claim(one["ordinal"], one["uid"], seconds)
    elif one["do"] == "wait_guard":
        site.wait_guard(one["ordinal"], seconds)
    elif one["do"] == "wait_gone":
        site.wait_gone(one["ordinal"], seconds)
    elif one["do"] == "wait_followers":
        known = one.get("without")
        site.wait_replicated(seconds, [*sit.fenced(site.look()), *_strangers(document)] if known is None else known)
    else:
        site.wait_replicated(seconds, sit.fenced(document))


def _do(
    site: act.Site,
    operation: str,
    one: Mapping[str, Any],
    document: Mapping[str, Any],
    file: Mapping[str, Any],
    seconds: int,
) -> None:
    """Do one step."""
    kind = one["do"]
    if kind == "scale":
        site.scale(one["replicas"], one["was"])
    elif kind == "retain":
        site.reclaim(one["volume"], "Retain")
    elif kind == "delete_claim":
        site.delete_claim(one["claim"], one["uid"])
    elif kind == "remove_volume":
        site.reclaim(one["volume"], "Delete", one["claim_uid"])
    elif kind == "delete_pod":
        site.delete_pod(one["pod"], one["uid"], 0 if one.get("force") else None)
    elif kind == "release":
        left = [ordinal for ordinal in sit.fenced(document) if ordinal != one["ordinal"]]
        site.write_record({act.FENCED_KEY: ",".join(map(str, left)) or None, **({} if left else {promote.KEY: None})})
    elif kind == "record":
        raw, successor = (document["record"] or {}).get("raw") or {}, sit.pod_of(document, one["primary_ordinal"])
        mark = identity.lowered(raw, sit.txid(document, successor), site.api.server_time()) if successor else {}
        changes = {
            "primaryOrdinal": str(one["primary_ordinal"]),
            act.FENCED_KEY: ",".join(map(str, one["fenced"])) or None,
            promote.KEY: one["promote"],
        }
        site.write_record(changes | mark)
    elif kind == "stop":
        site.delete_pod(one["pod"], one["uid"], 0 if one["force"] else None)
        if one["wait"]:
            site.wait_stopped(one["ordinal"], one["uid"], seconds)
    elif kind == "restart":
        site.delete_pod(one["pod"], one["uid"])
        if one["primary"]:
            cluster_id = None if operation == "restore" else (document["record"] or {}).get("cluster_id")
            site.wait_primary(one["ordinal"], cluster_id, seconds)
        else:
            site.wait_follows(one["ordinal"], document["rendered_ordinal"], one["uid"], seconds)
    elif kind == "divert":
        site.divert(one["ordinal"], min(seconds, 15))
    elif kind == "render":
        site.render(one["ordinal"], one["quiet"])
    elif kind == "record_restore":
        site.write_record({"state": "restore"})
    elif kind == "record_id":
        _record_id(site, one["ordinal"], file)
    else:
        raise act.NotDone(f"The step {kind} is not known to this version.")


def _record_id(site: act.Site, ordinal: int, file: Mapping[str, Any]) -> None:
    leaders = litefs.primaries(site.look())
    if [pod["ordinal"] for pod in leaders] != [ordinal] or not leaders[0]["litefs"]["cluster_id"]:
        raise act.NotDone(f"{site.name}-{ordinal} is not the one primary with a cluster id: run again.")
    where = litefs.position(leaders[0], site.database)
    if where is None or where.checksum != file.get("imported_checksum"):
        raise act.NotDone(f"{site.name}-{ordinal} does not hold the restored content: run again.")
    # The file's TXIDs are others, also under an id that was kept: what was seen before says nothing of them.
    mark = dict.fromkeys((identity.LOW_WATER, identity.LOW_WATER_TIME))
    site.write_record({"state": "recorded", "clusterID": leaders[0]["litefs"]["cluster_id"], **mark})


def _import(
    site: act.Site,
    held: holding.Holding,
    one: Mapping[str, Any],
    known: Mapping[str, Any],
    parameters: Mapping[str, Any],
    file: Mapping[str, Any],
    seconds: int,
    holder: str,
) -> str:
    """Import the file once; how that shows. That it is begun is kept before, and that it came right after it."""
    path = Path(str(file["path"]))
    try:
        facts = sqlitefile.verify(path)
    except (OSError, sqlitefile.BadFile) as exc:
        raise act.NotDone(f"{path} {exc}.") from exc
    if facts["sha256"] != file["sha256"]:
        raise act.NotDone(f"{path} changed since it was checked: run again.")
    held.renew()
    leaders = litefs.primaries(site.look())
    if len(leaders) != 1 or leaders[0]["name"] != one["pod"]:
        raise act.NotDone(f"{one['pod']} is not the one primary any more: run again.")
    cluster = leaders[0]["litefs"]["cluster_id"]
    if one["cluster_id"] is not None and cluster != one["cluster_id"]:
        raise act.NotDone(f"{one['pod']} holds another cluster than when this was decided: run again.")
    before = litefs.position(leaders[0], site.database)
    checkpoint: dict[str, Any] = {
        "state": "importing",
        "sha256": facts["sha256"],
        "cluster_id": cluster,
        "time": site.api.server_time(),
        "before": f"{before.txid if before else 0:016x}",
        "followers": one.get("followers"),
        "restart": bool(one.get("restart")),
        "reimport": str(parameters.get("reimport") or ""),
    }
    rest = progress.ended(known, "restore")

    def keep(**more: Any) -> None:
        now = site.api.server_time()
        site.write_record(
            {progress.KEY: progress.text(progress.begun(rest, "restore", checkpoint | more, now, holder))}
        )

    keep()
    expected = str(file["imported_checksum"])
    with transfer.watch(site.api, site.namespace, one["pod"], site.port, 2 * seconds + 60) as seen:
        query = transfer.name_query("/import", site.database)
        problem = ""
        try:
            transfer.upload(site.api, site.namespace, one["pod"], site.port, query, path, seconds)
        except kube.KubeError as exc:
            if exc.status is not None:  # LiteFS took nothing
                site.write_record({progress.KEY: progress.text(rest)})
                raise
            problem = f"{exc} "  # it may have come all the same

        def missing(document: dict[str, Any]) -> list[str]:
            # The application may write at once: the transaction of the import is the one with the file's checksum.
            pod = next((pod for pod in document["pods"] if pod["name"] == one["pod"]), None)
            where = litefs.position(pod, site.database) if pod is not None else None
            if where is not None:
                seen.setdefault(where.checksum, f"{where.txid:016x}")
            return [] if expected in seen else [f"{problem}{one['pod']} does not show the file's checksum {expected}."]

        site.wait(30, missing, "see the imported file's checksum on the primary")
        txid = seen[expected]
    _insist(lambda: keep(state="imported", txid=txid, time=site.api.server_time()))
    rows = ", ".join(f"{count} rows in {table}" for table, count in (file.get("rows") or {}).items())
    proof = f"it is transaction {txid} with the checksum {expected}, as computed from the file: {rows or 'no table'}"
    between = int(txid, 16) - int(one["exported"], 16) - 1 if one["exported"] else 0
    if between <= 0:
        return proof
    return (
        f"{proof}; the {between} transactions after {one['exported']}, written between the export and the import, are "
        "overwritten and in no copy"
    )


def _insist(write: Callable[[], None], seconds: float = 60) -> None:
    """Write what must not be lost, also while the API is away for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return write()
        except kube.KubeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)


def _known(document: Mapping[str, Any]) -> progress.Progress:
    try:
        return progress.read(document)
    except ValueError as exc:
        raise Refused(sit.plan(f"Nothing was done. {exc}")) from exc
