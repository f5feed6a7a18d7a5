"""Makes facts of what was read. Pure functions; observe.py reads."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import clock, conditions, edge_status, guard, litefs, preflight, site, state, values, wording
from ..node_types import Report
from ..objects import Part
from ..operations import backup, drill, lock, progress
from ..operations import situation as sit
from ..operations.retention import Manifest
from ..state_types import Claim, Pod, State
from ..state_types import Node as NodeState
from . import facts as f

KEEL_ANNOTATIONS = ("keel.sh/trigger", "keel.sh/match-tag")
UPDATED = "keel.sh/update-time"
ISSUED_AS = "cert-manager.io/certificate-name"  # the Certificate that a Secret is of
ISSUED_FOR = "cert-manager.io/alt-names"  # the names that cert-manager takes the Secret's certificate to be for
CHANGE_CAUSE = "kubernetes.io/change-cause"
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
AUDIT_LINES, EVENTS = 5, 5
MEBI = 1 << 20
# What Go's net and net/http say where the network is at fault.
NETWORK = re.compile(r"dial tcp|lookup |time(d )?out|connection|EOF|reset by peer|no route|unreachable|deadline")


@dataclass(frozen=True)
class Asked:
    """What the inventory says of the site. ``parts``: (name, namespace, wanted) of what stands beside it."""

    namespace: str
    name: str
    database: str
    kubeconfig: str = ""
    claim_template: str = "litefs-data"
    port: int = 20202
    timeout: float = 5.0
    tls_secret: str = "abaci-tls"
    tls: bool = True
    domains: tuple[str, ...] = ()
    address: str = ""
    https_port: int = 443
    edge_https_port: int = 443
    edge_http_port: int = 80
    health_path: str = "/"
    verify_path: str = "/"
    parts: tuple[tuple[str, str, bool], ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    inventory: str = ""
    backup_hours: int = 36
    backup_directory: str = ""
    cluster_copied: Mapping[str, Any] = field(default_factory=dict)
    cluster_copied_error: str | None = None

    def expected(self) -> dict[str, Any]:
        """What edge_status asks with; empty where no name of the site is known."""
        if not self.domains or not self.domains[0]:
            return {}
        return {
            "domains": list(self.domains),
            "address": self.address,
            "https_port": self.https_port,
            "edge_https_port": self.edge_https_port,
            "edge_http_port": self.edge_http_port,
            "verify": False,  # what is wrong with the certificate is a fact of its own
            "health_path": self.health_path,
            "verify_path": self.verify_path,
            "upstream": not self.tls,
        }


@dataclass
class Seen:
    """What was read, as it came; ``pods`` are those of all namespaces."""

    state: State | None = None
    error: str | None = None
    server: str = ""
    kubeconfig: str = ""
    kubeconfig_mode: str | None = None
    statefulset: Part | None = None
    nodes: Iterable[Part] = ()
    audit: Part | None = None
    leases: Iterable[Part] = ()
    pods: Iterable[Part] = ()
    jobs: Iterable[Part] = ()
    events: Iterable[Part] = ()
    secret: Part | None = None
    kubelets: Mapping[str, Part | str] = field(default_factory=dict)
    answers: list[Mapping[str, Any]] = field(default_factory=list)
    certificates: dict[str, bytes | str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    archive: Part | str | None = None
    logs: Mapping[str, str] = field(default_factory=dict)  # of replicas that see no primary, by pod
    manifests: list[Manifest] = field(default_factory=list)
    drill: drill.Result | None = None


def facts(seen: Seen, asked: Asked) -> f.Facts:
    """What is known of the site."""
    document = seen.state or state.empty(asked.namespace, asked.name, asked.database, asked.claim_template, seen.error)
    now = document["gathered_at"]
    undone, progress_error = _unfinished(document)
    return f.Facts(
        schema=f.SCHEMA,
        gathered_at=now,
        api=f.Api(
            seen.server,
            seen.kubeconfig,
            seen.kubeconfig_mode,
            asked.inventory,
            seen.error,
            _foreign(seen, asked) if seen.state else None,
            tuple(seen.unread),
        ),
        application=_application(document, seen.statefulset, asked),
        identity=_identity(document),
        delivery=_delivery(seen.statefulset),
        write_path=_write_path(seen, asked),
        backup=_with_kept(_backup(document, seen.jobs, now), document, seen.manifests, now),
        cluster_backup=_cluster_backup(asked, now),
        archive=_archive(seen.archive, document),
        drill=_drill(seen.drill),
        lock=_lock(seen.leases, asked, now),
        nodes=tuple(_node(node, item, seen.kubelets) for node, item in _paired(document["nodes"], seen.nodes)),
        pods=tuple(_pods(document, seen.kubelets, seen.logs)),
        claims=tuple(f.Claim(claim["name"], claim["phase"] == "Bound") for claim in document["claims"]),
        other_databases=tuple(
            name for name in _other_databases(document) if name not in _archived(seen.archive, document)
        ),
        kept_volumes=tuple(volume["name"] for volume in document["volumes"] if volume["kept"]),
        certificates=tuple(_certificates(seen, asked, now)),
        parts=tuple(_part(document, seen.pods, *part) for part in asked.parts),
        unfinished=undone,
        progress_error=progress_error,
        audit=_audit(seen.audit),
        events=_events(seen.events, asked.name),
        inventory_hosts=tuple(sorted(asked.hosts)),
        tls=asked.tls,
        backup_hours=asked.backup_hours,
    )


def with_hosts(found: f.Facts, reports: Iterable[Report], connections: Iterable[Mapping[str, Any]]) -> f.Facts:
    """The facts with what was seen of the hosts; ``reports`` are host_probe's."""
    reports = list(reports)
    hosts = []
    for report in reports:
        firewall = preflight.firewall_notes(report)
        errors = preflight.by_topic(report) | ({"firewall": firewall} if firewall else {})
        told = {topic: tuple(texts) for topic, texts in errors.items()}
        address = str(report["desired"].get("host", {}).get("address") or report["name"])
        hosts.append(f.Host(report["name"], re.sub(r":\d+$", "", address), not report["reason"], told))
    return dataclasses.replace(
        found,
        hosts_asked=True,
        hosts=tuple(hosts),
        between_hosts={topic: tuple(texts) for topic, texts in preflight.between(reports).items() if texts},
        connections=tuple(f.Connection(**one) for one in connections),
    )


def silences(leases: Iterable[Part], now: str) -> dict[str, float]:
    """Seconds since each node's Lease was renewed, of the Leases of all namespaces."""
    return {
        lease["metadata"]["name"]: round(seconds, 1)
        for lease in leases
        if lease["metadata"].get("namespace") == "kube-node-lease"
        and (seconds := clock.between((lease.get("spec") or {}).get("renewTime"), now)) > float("-inf")
    }


def _foreign(seen: Seen, asked: Asked) -> str | None:
    if not asked.hosts:
        return None
    living = seen.statefulset
    cluster = site.Seen(nodes=seen.nodes, statefulsets=[living] if living else [])
    desired = site.Desired(
        asked.namespace, asked.name, seen.kubeconfig or asked.kubeconfig, hosts=asked.hosts, aliases=asked.aliases
    )
    return site.foreign_cluster(cluster, desired, living) or None


def _paired(described: Iterable[NodeState], items: Iterable[Part]) -> list[tuple[NodeState, Part]]:
    by_name = {item["metadata"]["name"]: item for item in items}
    return [(node, by_name.get(node["name"], {})) for node in described]


def _node(node: NodeState, item: Part, kubelets: Mapping[str, Part | str]) -> f.Node:
    said = kubelets.get(node["name"], "it was not asked")
    disk = {} if isinstance(said, str) else (said.get("node") or {}).get("fs") or {}
    free = disk.get("availableBytes")
    return f.Node(
        name=node["name"],
        ready=node["ready"],
        schedulable=node["schedulable"],
        silent_seconds=node["silent_seconds"],
        version=node["kubelet"],
        kernel=node["kernel"],
        fuse_devices=node["fuse_devices"],
        pressures=tuple(name for name in PRESSURES if conditions.holds(item, name)),
        disk_percent=_percent(disk),
        disk_free_mb=None if free is None else int(free) // MEBI,
        error=said if isinstance(said, str) else None,
    )


def _percent(disk: Mapping[str, Any]) -> int | None:
    """How full a file system is, as df says it: of what users may fill."""
    capacity, free = disk.get("capacityBytes"), disk.get("availableBytes")
    if not capacity or free is None:
        return None
    used = disk.get("usedBytes")
    used = int(capacity) - int(free) if used is None else int(used)
    return round(100 * used / max(used + int(free), 1))


def _application(document: State, living: Part | None, asked: Asked) -> f.Application:
    described = document["statefulset"]
    spec = ((living or {}).get("spec") or {}).get("template", {}).get("spec", {})
    containers = spec.get("containers") or [{}]
    app = next((one for one in containers if one.get("name") == "app"), containers[0])
    limits = (app.get("resources") or {}).get("limits") or {}
    current = [pod for pod in document["pods"] if pod["revision"] == described["update_revision"]]
    digests = sorted({digest for pod in document["pods"] if (digest := _digest(pod["image_id"]))})
    return f.Application(
        namespace=asked.namespace,
        name=asked.name,
        database=asked.database,
        exists=described["exists"],
        image=described["image"],
        digest=digests[0] if len(digests) == 1 else None,
        since=min((pod["created_at"] for pod in current if pod["created_at"]), default=None),
        revision=described["update_revision"],
        rolling=described["exists"] and sit.rolling(document),
        replicas=described["replicas"] or 0,
        ready=described["ready_replicas"] or 0,
        privileged=bool((app.get("securityContext") or {}).get("privileged")),
        wants_fuse_device=state.FUSE_RESOURCE in limits,
    )


def _digest(image_id: object) -> str | None:
    return str(image_id).rpartition("@")[2] if "@sha256:" in str(image_id) else None


def _identity(document: State) -> f.Identity:
    record = document["record"]
    found = sit.look(document)
    problem = found if isinstance(found, sit.Problem) else _removed(document, found)
    return f.Identity(
        state=record["state"] or None if record else None,
        cluster_id=record["cluster_id"] or None if record else None,
        ordinal=values.whole(record["primary_ordinal"]) if record else None,
        primary=None if isinstance(found, sit.Problem) else found.leader["name"],
        fenced=tuple(litefs.fenced(document)),
        problem=problem.sentence if problem else None,
        cause=problem.cause if problem else None,
    )


def _removed(document: State, found: sit.Situation) -> sit.Problem | None:
    """The site's own database is gone though LiteFS is well: to remove it is a transaction that replicas follow."""
    if found.position.has_content:
        return None
    return sit.Problem(
        f"The primary {found.leader['name']} has no database {document['database']} any more: it was removed with "
        f"transaction {found.position.txid:016x}, on the replicas as well.",
        "no-copy-left",
    )


def _pods(document: State, kubelets: Mapping[str, Part | str], logs: Mapping[str, str]) -> list[f.Pod]:
    found = sit.look(document)
    situation = None if isinstance(found, sit.Problem) else found
    away, fenced = litefs.absent(document), litefs.fenced(document)
    return [_pod(document, pod, situation, away, fenced, kubelets, logs) for pod in document["pods"]]


def cannot_take(log: str) -> str | None:
    """Why LiteFS ended its connection to the primary the last time, by its log; None where the network did."""
    ended = re.findall(r"disconnected from primary with error, retrying: (.*?)\"?$", log, re.MULTILINE)
    return None if not ended or NETWORK.search(ended[-1]) else wording.reason(ended[-1])


def _pod(
    document: State,
    pod: Pod,
    situation: sit.Situation | None,
    away: Mapping[int, str],
    fenced: Iterable[int],
    kubelets: Mapping[str, Part | str],
    logs: Mapping[str, str],
) -> f.Pod:
    node, where = pod["litefs"], litefs.position(pod, document["database"])
    known = where if where is not None and where.known else None
    recorded = _cluster_id(document) or (situation.cluster_id if situation else None)
    order = litefs.compare(known, situation.position, node["cluster_id"], recorded) if situation and known else None
    claim = sit.claim_of(document, pod["ordinal"])
    volume = sit.volume_of(document, claim)
    disk = _volume(pod, claim, document["namespace"], kubelets)
    used = disk.get("usedBytes")
    return f.Pod(
        name=pod["name"],
        ordinal=pod["ordinal"],
        node=pod["node"],
        role="none" if not node["reachable"] else "primary" if node["is_primary"] else "replica",
        ready=pod["ready"],
        deleting=pod["deleting"],
        running=pod["started_at"] is not None,
        reason=pod["waiting"]["reason"],
        stopped=_stopped(pod),
        guarded=pod["init"]["state"] == "failed" and guard.reason(pod) not in (None, guard.Exit.NOT_NOW),
        excused=_excuse(pod["ordinal"], away, fenced),
        error=node["error"],
        restarts=pod["restarts"],
        started_at=pod["started_at"],
        digest=_digest(pod["image_id"]),
        identity="none" if not node["cluster_id"] else "ok" if node["cluster_id"] == recorded else "other",
        txid=f"{known.txid:016x}" if known else None,
        order=order,
        behind=max(situation.position.txid - known.txid, 0) if situation and known and order == "behind" else None,
        lag_ms=node["lag_ms"],
        never_synced=node["never_synced"],
        sees_primary=node["primary_hostname"],
        cannot_take=cannot_take(logs.get(pod["name"], "")),
        volume=volume["name"] if volume else None,
        volume_policy=volume["reclaim_policy"] if volume else None,
        volume_percent=_percent(disk),
        volume_used_mb=None if used is None else int(used) // MEBI,
    )


def _stopped(pod: Pod) -> str | None:
    """Why it does not run; of a guard that only waits for the image the kubelet has nothing to say."""
    init, waiting = pod["init"], pod["waiting"]
    failed = init["message"] if init["state"] == "failed" else None
    return failed or waiting["message"] or pod["unschedulable"] or waiting["reason"] or init["message"]


def _cluster_id(document: State) -> str | None:
    """The recorded LiteFS cluster."""
    record = document["record"]
    return record["cluster_id"] or None if record else None


def _excuse(ordinal: int, away: Mapping[int, str], fenced: Iterable[int]) -> str | None:
    if ordinal in away:
        return f"its node {away[ordinal]} is away"
    return "it is fenced" if ordinal in fenced else None


def _volume(pod: Pod, claim: Claim | None, namespace: str, kubelets: Mapping[str, Part | str]) -> Mapping[str, Any]:
    """How full the volume is, as the kubelet of its pod says; nothing for a kind of volume that has no figures."""
    said = kubelets.get(pod["node"] or "", "")
    if isinstance(said, str) or claim is None:
        return {}
    wanted = {"name": claim["name"], "namespace": namespace}
    for item in said.get("pods") or []:
        for volume in item.get("volume") or []:
            if volume.get("pvcRef") == wanted:
                return dict(volume)
    return {}


def _other_databases(document: State) -> list[str]:
    """Databases in the mount beside the application's, as far as something was written to them."""
    asked = litefs.primaries(document) or litefs.reachable(document)
    names = sorted({name for pod in asked for name in pod["litefs"]["databases"]} - {document["database"]})
    return [name for name in names if any(litefs.has_content(pod, name) for pod in asked)]


def _delivery(living: Part | None) -> f.Delivery:
    notes = ((living or {}).get("metadata") or {}).get("annotations") or {}
    template = ((living or {}).get("spec") or {}).get("template", {}).get("metadata", {}).get("annotations") or {}
    policy = notes.get(state.KEEL_POLICY)
    return f.Delivery(
        policy=policy,
        updated_at=clock.from_go(template.get(UPDATED)),
        cause=notes.get(CHANGE_CAUSE),
        missing=tuple(name for name in (state.KEEL_POLICY, *KEEL_ANNOTATIONS) if name not in notes),
    )


def _write_path(seen: Seen, asked: Asked) -> f.WritePath:
    expected = asked.expected()
    if not expected:
        return f.WritePath("", "app_domain is not set", (), ())
    pages, writes = edge_status.pages(expected), edge_status.writes(expected)
    where = str(writes[0]["connect"])
    if len(seen.answers) != len(pages) + len(writes):
        return f.WritePath(where, "the edge was not asked", (), ())
    rest = seen.answers[len(pages) :]
    reads = [
        text
        for request, answer in zip(pages, seen.answers, strict=False)
        for text in edge_status.page_problems(request, answer)
    ]
    problems = [
        text
        for request, answer in zip(writes, rest, strict=True)
        for text in edge_status.path_problems(request, answer)
    ]
    return f.WritePath(where, None, tuple(reads), tuple(problems))


def _backup(document: State, jobs: Iterable[Part], now: str) -> f.Backup:
    job = document["backup_job"]
    if job is None:
        return f.Backup(False, False, None, None, None, None, None, None)
    name = f"{document['statefulset']['name']}-backup"
    owned = [
        item
        for item in jobs
        if any(
            owner.get("kind") == "CronJob" and owner.get("name") == name
            for owner in item["metadata"].get("ownerReferences") or []
        )
    ]
    last = max(owned, key=lambda item: str(item["metadata"].get("creationTimestamp")), default=None)
    seconds = clock.between(job["last_successful"], now)
    return f.Backup(
        scheduled=True,
        suspended=job["suspended"],
        schedule=job["schedule"],
        last_successful=job["last_successful"],
        age_hours=round(seconds / 3600, 1) if seconds > float("-inf") else None,
        last_job=last["metadata"]["name"] if last else None,
        last_result=_result(last),
        last_message=wording.one_line(conditions.condition(last, "Failed").get("message")) or None,
    )


def _with_kept(job: f.Backup, document: State, manifests: Iterable[Manifest], now: str) -> f.Backup:
    """The job with the newest backup of this very site that the controller keeps."""
    owner = {
        "namespace": document["namespace"],
        "statefulset": document["statefulset"]["name"],
        "database": document["database"],
    }
    found, _passed = backup.newest(manifests, owner, _cluster_id(document), now)
    if found is None:
        return job
    hours = round(clock.between(found["time"], now) / 3600, 1)
    return dataclasses.replace(job, kept=str(found["path"]), kept_at=str(found["time"]), kept_hours=hours)


def _drill(result: drill.Result | None) -> f.Drill | None:
    if result is None:
        return None
    problems = tuple(drill.said(one) for one in result["moments"] if one["problem"])
    return f.Drill(str(result["time"]), bool(result["ok"]), problems)


def _result(job: Part | None) -> str | None:
    if job is None:
        return None
    if conditions.holds(job, "Failed"):
        return "failed"
    return "succeeded" if conditions.holds(job, "Complete") else "running"


def _cluster_backup(asked: Asked, now: str) -> f.ClusterBackup:
    copied = asked.cluster_copied
    try:
        made = datetime.datetime.fromtimestamp(float(copied["time"]), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (KeyError, TypeError, ValueError):
        return f.ClusterBackup(None, None, None, asked.cluster_copied_error)
    return f.ClusterBackup(
        made, round(clock.between(made, now) / 3600, 1), str(copied.get("place") or "") or None, None
    )


def _archive(said: Part | str | None, document: State) -> f.Archive | None:
    if said is None:
        return None
    if isinstance(said, str):
        return f.Archive(False, None, None, None, None, 0, (), said)
    recorded, name = _cluster_id(document), document["database"]
    found = [
        one
        for one in said.get("databases") or []
        if one.get("database") == name and recorded in (None, one.get("cluster"))
    ]
    mine = found[0] if found else {}
    primary = said.get("primary") or {}
    proven = mine.get("verified") or {}
    return f.Archive(
        connected=bool(primary.get("connected")),
        received=(mine.get("received") or {}).get("txid"),
        verified=proven.get("txid"),
        verified_at=proven.get("time"),
        behind_seconds=mine.get("behind_seconds"),
        gaps=len(mine.get("gaps") or []),
        alarms=tuple(str(one.get("sentence")) for one in said.get("alarms") or []),
        error=str(primary.get("error") or "") or None,
        drilled=((said.get("last") or {}).get("drill") or {}).get("time"),
        drill_seconds=max(
            (one["seconds"] for one in said.get("drills") or [] if one["database"] == name), default=None
        ),
    )


def _archived(said: Part | str | None, document: State) -> set[str]:
    """The databases that an archive has proven transactions of, of the recorded cluster."""
    found = said.get("databases") or [] if isinstance(said, dict) else []
    mine = [one for one in found if _cluster_id(document) in (None, one.get("cluster"))]
    return {str(one.get("database")) for one in mine if (one.get("verified") or {}).get("txid")}


def _lock(leases: Iterable[Part], asked: Asked, now: str) -> f.Lock | None:
    key = (asked.namespace, lock.name_of(asked.name))
    lease = next((one for one in leases if (one["metadata"].get("namespace"), one["metadata"]["name"]) == key), None)
    if lease is None or not lock.holder_of(lease):
        return None
    busy = lock.at_work(lease, "", now, alive=True)
    return f.Lock(
        holder=lock.holder_of(lease),
        operation=str((lease["metadata"].get("annotations") or {}).get(lock.OPERATION) or "something"),
        since=(lease.get("spec") or {}).get("acquireTime"),
        seconds_left=busy[1] if busy else 0,
    )


def _unfinished(document: State) -> tuple[tuple[f.Unfinished, ...], str | None]:
    try:
        known = progress.read(document)
    except ValueError as exc:
        return (), str(exc)
    return (
        tuple(
            f.Unfinished(name, one.get("begun"), one.get("holder"), progress.again(name, one))
            for name, one in sorted(known.items())
            if isinstance(one, dict)
        ),
        None,
    )


def _audit(item: Part | None) -> tuple[f.AuditLine, ...]:
    found = []
    for line in str(((item or {}).get("data") or {}).get("log") or "").splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            words = (str(said.get(key) or "") for key in ("time", "holder", "operation", "event", "result"))
            found.append(f.AuditLine(*words))
    return tuple(found[-AUDIT_LINES:])


def _events(events: Iterable[Part], name: str) -> tuple[f.Event, ...]:
    """The youngest warnings about the application's own objects."""
    pattern = re.compile(rf"(?:.*-)?{re.escape(name)}(?:-\d+)?")
    found = [
        f.Event(
            time=conditions.when(event),
            about=str((event.get("involvedObject") or {}).get("name") or ""),
            reason=str(event.get("reason") or ""),
            message=wording.reason(event.get("message")),
            count=int(event.get("count") or 1),
        )
        for event in events
        if event.get("type") == "Warning" and pattern.fullmatch(str((event.get("involvedObject") or {}).get("name")))
    ]
    return tuple(sorted(found, key=lambda event: event.time)[-EVENTS:])


def _part(document: State, pods: Iterable[Part], name: str, namespace: str, wanted: bool) -> f.Part:
    """A Deployment or DaemonSet by its pods, which say best why it does not run; not those of nodes that are away."""
    away = {node["name"] for node in document["nodes"] if not node["ready"]}
    every = [
        pod
        for pod in pods
        if pod["metadata"].get("namespace") == namespace
        and name in owners(pod)
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    lost = [pod for pod in every if (pod.get("spec") or {}).get("nodeName") in away]
    mine = [pod for pod in every if pod not in lost and not pod["metadata"].get("deletionTimestamp")]
    lame = [pod for pod in mine if not conditions.is_ready(pod)]
    return f.Part(
        name=name,
        namespace=namespace,
        wanted=wanted,
        exists=bool(mine),
        replicas=len(mine),
        ready=len(mine) - len(lame),
        message=_lame(lame[0]) if lame else None,
        away=len(lost),
    )


def owners(pod: Part) -> set[str]:
    """The DaemonSets and Deployments that a pod is of; a Deployment's name is that of its ReplicaSet without a hash."""
    owners = pod["metadata"].get("ownerReferences") or []
    return {
        one["name"].rpartition("-")[0] if one.get("kind") == "ReplicaSet" else one["name"]
        for one in owners
        if one.get("kind") in ("ReplicaSet", "DaemonSet")
    }


def _lame(pod: Part) -> str:
    """Why a pod is not ready."""
    said = [conditions.condition(pod, "PodScheduled")]
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        said.append((container.get("state") or {}).get("waiting") or {})
    words = [text for one in said if one.get("status") != "True" and (text := one.get("message") or one.get("reason"))]
    return f"{pod['metadata']['name']} {wording.reason(words[0]) if words else 'is not ready'}"


def _certificates(seen: Seen, asked: Asked, now: str) -> list[f.Certificate]:
    shown: dict[str, bytes | str] = dict(seen.certificates)
    if asked.tls and seen.state is not None:
        data = ((seen.secret or {}).get("data") or {}).get("tls.crt")
        missing = f"there is no Secret {asked.namespace}/{asked.tls_secret} with a certificate"
        shown["secret"] = _decoded(data) if data else missing
    order = [where for where in ("secret", "edge", "api", "kubeconfig") if where in shown]
    domains = asked.domains if asked.tls else ()
    made = [certificate(where, shown[where], now, domains if where in ("secret", "edge") else ()) for where in order]
    metadata = (seen.secret or {}).get("metadata") or {}
    noted = str((metadata.get("annotations") or {}).get(ISSUED_FOR) or "").split(",")
    issued = (metadata.get("annotations") or {}).get(ISSUED_AS) if domains and set(domains) <= set(noted) else None
    return [dataclasses.replace(one, issued_as=issued) if one.where == "secret" else one for one in made]


def _decoded(data: object) -> bytes | str:
    import base64
    import binascii

    try:
        return base64.b64decode(str(data), validate=True)
    except binascii.Error:
        return "it is not in base64"


def certificate(where: str, content: bytes | str, now: str, domains: Iterable[str] = ()) -> f.Certificate:
    """What a certificate (PEM or DER; a chain's first) says of itself, or why there is none."""
    from cryptography import x509

    if isinstance(content, str):
        return f.Certificate(where, None, None, None, (), (), content)
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in content else x509.load_der_x509_certificate
        found = load(content)
    except ValueError as exc:
        return f.Certificate(where, None, None, None, (), (), f"it is no certificate ({wording.reason(exc)})")
    ends = found.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(extension.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    # A wildcard covers one label.
    missing = tuple(name for name in domains if not {name, f"*.{name.partition('.')[2]}"} & set(names))
    der = _der(found)
    days = round(clock.between(now, ends) / 86400, 1)
    return f.Certificate(where, ends, days, hashlib.sha256(der).hexdigest(), names, missing, None)


def _der(found: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    content: bytes = found.public_bytes(serialization.Encoding.DER)
    return content
