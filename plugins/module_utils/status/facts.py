"""What is known of a site at one moment: the schema of status.yml's JSON, which docs/status.md describes. Types only.

Within one ``schema`` number fields are only added. Times are RFC 3339 in UTC by the API server's clock, None is "not
known" or "there is none".
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA = 1


@dataclass(frozen=True)
class Api:
    """The API that was asked. ``error``: why nothing is known. ``foreign``: why it is not the inventory's cluster."""

    server: str
    kubeconfig: str
    kubeconfig_mode: str | None
    inventory: str
    error: str | None = None
    foreign: str | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node; what its kubelet says of its disk is None where that was not asked, and ``error`` says why."""

    name: str
    ready: bool
    schedulable: bool
    silent_seconds: float | None
    version: str
    kernel: str
    fuse_devices: int
    pressures: tuple[str, ...]
    disk_percent: int | None
    disk_free_mb: int | None
    error: str | None


@dataclass(frozen=True)
class Application:
    """The StatefulSet. ``since``: when the first pod of the present revision was made."""

    namespace: str
    name: str
    database: str
    exists: bool
    image: str | None
    digest: str | None
    since: str | None
    revision: str | None
    rolling: bool
    replicas: int
    ready: int
    privileged: bool
    wants_fuse_device: bool


@dataclass(frozen=True)
class Identity:
    """Whose data it is. ``problem`` and ``cause``: why no running primary holds it; see docs/failure-modes.md.

    ``primary`` is the running one, ``ordinal`` the recorded one's.
    """

    state: str | None
    cluster_id: str | None
    ordinal: int | None
    primary: str | None
    fenced: tuple[int, ...]
    problem: str | None
    cause: str | None


@dataclass(frozen=True)
class Pod:
    """A pod and its LiteFS.

    ``role``: primary, replica or none. ``identity``: ok, other or none. ``stopped``: why it does not run, in its
    guard's or the kubelet's words. ``excused``: why nobody waits for it (its node is away, it is fenced). ``order``:
    where its position is, seen from the primary's. ``behind``: transactions that it lacks. ``cannot_take``: why it ends
    its connection to the primary again and again, in LiteFS's words; None where the network does that.
    """

    name: str
    ordinal: int
    node: str | None
    role: str
    ready: bool
    deleting: bool
    running: bool
    reason: str | None
    stopped: str | None
    guarded: bool
    excused: str | None
    error: str | None
    restarts: int
    started_at: str | None
    digest: str | None
    identity: str
    txid: str | None
    order: str | None
    behind: int | None
    lag_ms: int | None
    never_synced: bool | None
    sees_primary: str | None
    cannot_take: str | None
    volume: str | None
    volume_policy: str | None
    volume_percent: int | None
    volume_used_mb: int | None


@dataclass(frozen=True)
class WritePath:
    """What the edge answered. ``error``: why it was not asked. ``problems`` are of writes, ``reads`` of reads."""

    address: str
    error: str | None
    reads: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """``where`` is secret, edge, api or kubeconfig. ``names`` that it is for, ``missing`` of the site's names.

    ``issued_as``: the name of its Certificate, where cert-manager takes that to be for all of the site's names.
    """

    where: str
    not_after: str | None
    days: float | None
    fingerprint: str | None
    names: tuple[str, ...]
    missing: tuple[str, ...]
    error: str | None
    issued_as: str | None = None


@dataclass(frozen=True)
class Part:
    """A Deployment or DaemonSet beside the application, by its pods on nodes that are there.

    ``wanted``: the inventory asks for it. ``away``: how many pods are on nodes that are away.
    """

    name: str
    namespace: str
    wanted: bool
    exists: bool
    replicas: int
    ready: int
    message: str | None
    away: int = 0


@dataclass(frozen=True)
class Delivery:
    """Keel: its policy for the application (never: frozen), when it updated it last, annotations that it lacks."""

    policy: str | None
    updated_at: str | None
    cause: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Backup:
    """The scheduled job, and how its last Job ended: succeeded, failed, running or None; and what this machine keeps.

    ``kept`` is the newest backup of this site's database in backup_directory on the controller.
    """

    scheduled: bool
    suspended: bool
    schedule: str | None
    last_successful: str | None
    age_hours: float | None
    last_job: str | None
    last_result: str | None
    last_message: str | None
    kept: str | None = None
    kept_at: str | None = None
    kept_hours: float | None = None


@dataclass(frozen=True)
class Drill:
    """The last rehearsal of a restore whose result this machine keeps."""

    time: str
    ok: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ClusterBackup:
    """The last copy of the cluster's datastore, as its server has it written down; ``error``: why that is not known."""

    time: str | None
    age_hours: float | None
    place: str | None
    error: str | None


@dataclass(frozen=True)
class Archive:
    """What the archive says of the application's database; ``error``: why it says nothing. ``gaps``: how many.

    ``drilled``: when it last rebuilt moments only to see that it can, ``drill_seconds``: how long the longest took.
    """

    connected: bool
    received: str | None
    verified: str | None
    verified_at: str | None
    behind_seconds: float | None
    gaps: int
    alarms: tuple[str, ...]
    error: str | None
    drilled: str | None = None
    drill_seconds: float | None = None


@dataclass(frozen=True)
class Lock:
    """Who holds the lock of the operations; ``seconds_left`` is 0 for one that did not give it back."""

    holder: str
    operation: str
    since: str | None
    seconds_left: int


@dataclass(frozen=True)
class Unfinished:
    """An operation that did not come to its end.

    ``again``: what follows ansible-playbook and the inventory to run it as it was run.
    """

    operation: str
    begun: str | None
    holder: str | None
    again: str


@dataclass(frozen=True)
class AuditLine:
    """A line of the audit log."""

    time: str
    holder: str
    operation: str
    event: str
    result: str


@dataclass(frozen=True)
class Event:
    """A warning about one of the application's pods or claims."""

    time: str
    about: str
    reason: str
    message: str
    count: int


@dataclass(frozen=True)
class Claim:
    """A claim of the application."""

    name: str
    bound: bool


@dataclass(frozen=True)
class Host:
    """A host of the inventory as check.yml saw it; ``errors`` by topic, in the words of site.yml's preflight."""

    name: str
    address: str
    reached: bool
    errors: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Connection:
    """A try to connect from one host to a port of another; ``error`` is None where it worked."""

    source: str
    target: str
    port: int
    protocol: str
    error: str | None


@dataclass(frozen=True)
class Facts:
    """All that is known. ``hosts_asked``, ``cluster_asked``: which of the two were looked at."""

    schema: int
    gathered_at: str
    api: Api
    application: Application
    identity: Identity
    delivery: Delivery
    write_path: WritePath
    backup: Backup
    cluster_backup: ClusterBackup
    lock: Lock | None
    archive: Archive | None = None
    drill: Drill | None = None
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    other_databases: tuple[str, ...] = ()
    kept_volumes: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    parts: tuple[Part, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    progress_error: str | None = None
    audit: tuple[AuditLine, ...] = ()
    events: tuple[Event, ...] = ()
    inventory_hosts: tuple[str, ...] = ()
    hosts: tuple[Host, ...] = ()
    between_hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    cluster_asked: bool = True
    hosts_asked: bool = False
    tls: bool = True
    backup_hours: int = 36
