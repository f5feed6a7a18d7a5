"""What each kind of step does: one call of the site, bound to the very object that the decision saw. I/O only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import clock, identity, kube, litefs
from ..telling import tell
from . import act, from_archive, holding, planning, progress, promote, retemplate, sqlitefile, transfer
from . import situation as sit
from .planning import Step

POLL = 2.0
EDGE_SECONDS = 60


@dataclass(frozen=True)
class Context:
    """What a step is done with. ``known``: the whole progress that the record keeps; ``seconds`` it may take."""

    site: act.Site
    held: holding.Holding
    holder: str
    request: planning.Request
    known: progress.Progress
    seconds: int

    @property
    def state(self) -> sit.Looked:
        """The document that was decided on."""
        return self.request.state


def _scale(on: Context, one: Step) -> None:
    on.site.scale(one["replicas"], one["was"])


def _retain(on: Context, one: Step) -> None:
    on.site.reclaim(one["volume"], "Retain")


def _delete_claim(on: Context, one: Step) -> None:
    on.site.delete_claim(one["claim"], str(one["uid"]))


def _remove_volume(on: Context, one: Step) -> None:
    on.site.reclaim(one["volume"], "Delete", one["claim_uid"])


def _delete_pod(on: Context, one: Step) -> None:
    on.site.delete_pod(one["pod"], one["uid"], 0 if one.get("force") else None)


def _release(on: Context, one: Step) -> None:
    left = [ordinal for ordinal in sit.fenced(on.state) if ordinal != one["ordinal"]]
    over = not left or promote.began_with(on.state) == one["ordinal"]
    on.site.write_record({act.FENCED_KEY: ",".join(map(str, left)) or None, **({promote.KEY: None} if over else {})})


def _record(on: Context, one: Step) -> None:
    raw, successor = identity.raw(on.state), sit.pod_of(on.state, one["primary_ordinal"])
    now = on.site.api.server_time()
    # One that cannot be asked says nothing of what is given up.
    where = litefs.position(successor, on.site.database) if successor else None
    mark = identity.lowered(raw, where.txid, now) if where else {}
    if one.get("given_up"):
        mark[identity.GIVEN_UP] = clock.second(now)
    changes = {
        "primaryOrdinal": str(one["primary_ordinal"]),
        act.FENCED_KEY: ",".join(map(str, one["fenced"])) or None,
        promote.KEY: one["promote"],
    }
    on.site.write_record(changes | mark)


def _stop(on: Context, one: Step) -> None:
    on.site.delete_pod(one["pod"], one["uid"], 0 if one["force"] else None)
    if one["wait"]:
        on.site.wait_stopped(one["ordinal"], one["uid"], on.seconds)


def _restart(on: Context, one: Step) -> None:
    if "promote" in one:
        _record(on, one)
    on.site.delete_pod(one["pod"], one["uid"])
    if one["primary"]:
        on.site.wait_primary(one["ordinal"], one["cluster_id"], on.seconds, one["uid"])
    else:
        on.site.wait_follows(one["ordinal"], on.state["rendered_ordinal"], one["uid"], on.seconds)


def _divert(on: Context, one: Step) -> None:
    on.site.divert(one["ordinal"], min(on.seconds, 15))


def _render(on: Context, one: Step) -> None:
    on.site.render(one["ordinal"], one["quiet"])


def _bring_back(on: Context, one: Step) -> str:
    """Let a pod follow the archive, in place of a primary, until it has all that the archive has."""
    site, ordinal, cluster = on.site, one["ordinal"], str(one["cluster_id"])
    archive = from_archive.archive_of(site, on.seconds)
    databases = sorted({found["database"] for found in archive.everything() if found["cluster"] == cluster})
    site.feed(ordinal)
    pod = sit.pod_of(on.state, ordinal)
    follows = f"{site.name}-archive-{ordinal}"
    # One that only starts has what was rendered before; where that was something else the guard waits for this.
    if pod is not None and pod["litefs"]["reachable"] and pod["litefs"]["primary_hostname"] != follows:
        site.delete_pod(one["pod"], one["uid"])
    refused: dict[str, str] = {}

    def lacking(database: str, at: str) -> planning.More:
        more = from_archive.lacking(archive, cluster, database, at)
        refused.pop(database, None)
        if more.get("refused"):
            refused[database] = more["problem"]
        return more

    site.wait_fed(ordinal, follows, lacking, databases, on.seconds)
    if refused:
        # The plan told it; else the guard would refuse this pod for what nobody can bring back to it.
        site.write_record({identity.GIVEN_UP: clock.second(site.api.server_time())})
    found = sit.pod_of(site.look(), ordinal)
    where = litefs.position(found, site.database) if found is not None else None
    has = f"all that the archive {'can give it' if refused else 'has'}"
    said = f"{one['pod']} has {has}: {site.database} is at TXID {where.txid if where else 0:016x}"
    return " ".join([said, *(f"(of {name} no more: {why})" for name, why in sorted(refused.items()))])


def _record_restore(on: Context, _one: Step) -> None:
    on.site.write_record({"state": "restore"})


def _record_id(on: Context, one: Step) -> None:
    site, ordinal = on.site, one["ordinal"]
    state = site.look()
    leaders = litefs.primaries(state)
    if [pod["ordinal"] for pod in leaders] != [ordinal] or not leaders[0]["litefs"]["cluster_id"]:
        raise act.NotDone(f"{site.name}-{ordinal} is not the one primary with a cluster id: run again.")
    where = litefs.position(leaders[0], site.database)
    if where is None or where.checksum != on.request.file.get("imported_checksum"):
        raise act.NotDone(f"{site.name}-{ordinal} does not hold the restored content: run again.")
    # The file's TXIDs are others, also under an id that was kept: what was seen before says nothing of them.
    mark: dict[str, str | None] = dict.fromkeys((identity.LOW_WATER, identity.LOW_WATER_TIME))
    mark[identity.GIVEN_UP] = clock.second(site.api.server_time())
    mark[promote.KEY] = promote.without_archive(state)
    site.write_record({"state": "recorded", "clusterID": leaders[0]["litefs"]["cluster_id"], **mark})


def _import(on: Context, one: Step) -> str:
    """Import the file once; how that shows. That it is begun is kept before, and that it came right after it."""
    site, expected = on.site, str(on.request.file["imported_checksum"])
    facts = _unchanged_file(on)
    on.held.renew()
    leader = _still_primary(on, one)
    before = litefs.position(leader, site.database)
    checkpoint: planning.Checkpoint = {
        "state": "importing",
        "sha256": facts["sha256"],
        "cluster_id": leader["litefs"]["cluster_id"],
        "time": site.api.server_time(),
        "before": f"{before.txid if before else 0:016x}",
        "followers": one.get("followers"),
        "restart": bool(one.get("restart")),
        "reimport": str(on.request.parameters.get("reimport") or ""),
    }
    rest = progress.ended(on.known, "restore")

    def keep(mine: planning.Checkpoint) -> None:
        now = site.api.server_time()
        known = progress.begun(rest, "restore", mine, now, on.holder, on.request.parameters)
        site.write_record({progress.KEY: progress.text(known)})

    keep(checkpoint)
    watched = 2 * on.seconds + 60
    with transfer.watch(site.api, site.namespace, one["pod"], site.port, site.database, watched) as seen:
        problem = _upload(on, one["pod"], lambda: site.write_record({progress.KEY: progress.text(rest)}))
        _wait_checksum(on, one["pod"], expected, seen, problem)
        txid = seen[expected]
    _insist(lambda: keep({**checkpoint, "state": "imported", "txid": txid, "time": site.api.server_time()}))
    return _import_proof(on.request.file, txid, one["exported"])


def _unchanged_file(on: Context) -> sqlitefile.Facts:
    """The facts of the file, which has to be the one that was decided on."""
    path = Path(str(on.request.file["path"]))
    try:
        facts = sqlitefile.verify(path)
    except (OSError, sqlitefile.BadFile) as exc:
        raise act.NotDone(f"{path} {exc}.") from exc
    if facts["sha256"] != on.request.file["sha256"]:
        raise act.NotDone(f"{path} changed since it was checked: run again.")
    return facts


def _still_primary(on: Context, one: Step) -> sit.Pod:
    """The primary, which has to be the one that was decided on, with its cluster."""
    leaders = litefs.primaries(on.site.look())
    if len(leaders) != 1 or leaders[0]["name"] != one["pod"]:
        raise act.NotDone(f"{one['pod']} is not the one primary any more: run again.")
    if one["cluster_id"] is not None and leaders[0]["litefs"]["cluster_id"] != one["cluster_id"]:
        raise act.NotDone(f"{one['pod']} holds another cluster than when this was decided: run again.")
    return leaders[0]


def _upload(on: Context, pod: str, refused: Callable[[], None]) -> str:
    """Give LiteFS the file; what went wrong where it may have come all the same. ``refused``: LiteFS took nothing."""
    site, query = on.site, transfer.name_query("/import", on.site.database)
    path = Path(str(on.request.file["path"]))
    try:
        transfer.upload(site.api, site.namespace, pod, site.port, query, path, on.seconds)
    except kube.KubeError as exc:
        if exc.status is not None:
            refused()
            raise
        return f"{exc} "
    return ""


def _wait_checksum(on: Context, name: str, expected: str, seen: dict[str, str], problem: str) -> None:
    """Wait until the pod has shown the file's checksum; ``seen`` (checksum -> TXID) is added to."""

    def missing(document: sit.State) -> list[str]:
        # The application may write at once: the transaction of the import is the one with the file's checksum.
        pod = next((pod for pod in document["pods"] if pod["name"] == name), None)
        where = litefs.position(pod, on.site.database) if pod is not None else None
        if where is not None:
            seen.setdefault(where.checksum, f"{where.txid:016x}")
        return [] if expected in seen else [f"{problem}{name} does not show the file's checksum {expected}."]

    on.site.wait(30, missing, "see the imported file's checksum on the primary")


def _import_proof(file: planning.File, txid: str, exported: str | None) -> str:
    rows = ", ".join(f"{count} rows in {table}" for table, count in (file.get("rows") or {}).items())
    checksum = file["imported_checksum"]
    proof = f"it is transaction {txid} with the checksum {checksum}, as computed from the file: {rows or 'no table'}"
    between = int(txid, 16) - int(exported, 16) - 1 if exported else 0
    if between <= 0:
        return proof
    return (
        f"{proof}; the {between} transactions after {exported}, written between the export and the import, are "
        "overwritten and in no copy"
    )


def _insist(write: Callable[[], None], seconds: float = 60) -> None:
    """Write what must not be lost, also while the API is away for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return write()
        except kube.KubeError as exc:
            tell(f"The API takes a write of the record: {exc}", deadline=deadline)
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)


def _template(on: Context, one: Step) -> None:
    site, living = on.site, on.state["statefulset"]
    site.note_revision(living["update_revision"] or "", retemplate.BUILD, one["digest"])
    site.note_revision(one["leaves"], retemplate.LEFT, one["stamp"])
    keys = ("stamp", "image", "restarted", "rolled_out", "policy")
    site.set_template(retemplate.Change(**{key: one[key] for key in keys}), one["revision"])  # type: ignore[literal-required]
    if one["leaves"] and "rollout" in on.known:
        site.write_record({progress.KEY: progress.text(progress.ended(on.known, "rollout"))})


def _settle(on: Context, one: Step) -> None:
    on.site.note_revision(one["revision"], retemplate.BUILD, one["digest"])
    on.site.settle()


def _wait_observed(on: Context, _one: Step) -> None:
    on.site.wait_observed(min(on.seconds, 60))


def _wait_rolled(on: Context, one: Step) -> None:
    try:
        on.site.wait_rolled(one["ordinal"], one["primary"], on.seconds)
    except act.NotDone as exc:
        raise act.NotDone(f"Paused at {one['pod']}: {exc} {one['advice']}") from exc


def _wait_edge(on: Context, one: Step) -> None:
    try:
        on.site.wait_edge(on.request.inventory.get("edge") or {}, min(on.seconds, EDGE_SECONDS))
    except act.NotDone as exc:
        paused = f"Paused: {exc} {one['advice']}" if one["advice"] else str(exc)
        raise act.NotDone(paused) from exc


def _wait_pod(on: Context, one: Step) -> None:
    on.site.wait_pod(one["ordinal"], on.seconds)


def _wait_claim(on: Context, one: Step) -> None:
    on.site.wait_claim(one["ordinal"], str(one["uid"]), on.seconds)


def _wait_guard(on: Context, one: Step) -> None:
    on.site.wait_guard(one["ordinal"], on.seconds)


def _wait_gone(on: Context, one: Step) -> None:
    on.site.wait_gone(one["ordinal"], on.seconds)


def _wait_followers(on: Context, one: Step) -> None:
    without = one.get("without")
    if without is None:
        without = [*sit.fenced(on.site.look()), *sit.strangers(on.state)]
    on.site.wait_replicated(on.seconds, without)


def _wait_replicated(on: Context, one: Step) -> None:
    without = one.get("without")
    on.site.wait_replicated(on.seconds, sit.fenced(on.state) if without is None else without)


# What is returned is one more sentence on what was done.
DO: dict[planning.Act | planning.Wait, Callable[[Context, Step], str | None]] = {
    "scale": _scale,
    "retain": _retain,
    "delete_claim": _delete_claim,
    "remove_volume": _remove_volume,
    "delete_pod": _delete_pod,
    "release": _release,
    "record": _record,
    "stop": _stop,
    "restart": _restart,
    "divert": _divert,
    "bring_back": _bring_back,
    "render": _render,
    "record_restore": _record_restore,
    "record_id": _record_id,
    "import": _import,
    "template": _template,
    "settle": _settle,
    "wait_observed": _wait_observed,
    "wait_rolled": _wait_rolled,
    "wait_edge": _wait_edge,
    "wait_pod": _wait_pod,
    "wait_claim": _wait_claim,
    "wait_guard": _wait_guard,
    "wait_gone": _wait_gone,
    "wait_followers": _wait_followers,
    "wait_replicated": _wait_replicated,
}
