"""The state document: all that is decided about the application is decided on this plain data. Types only.

state.document() makes it from Kubernetes objects and the answers of LiteFS; modules return it, playbooks and filters
read it. Within one ``schema`` number fields are only added. Times are RFC 3339 in UTC, None is "not known" or "there is
none", an object's name stands without its namespace. Lists are sorted (by ordinal, then name).
"""

from __future__ import annotations

from typing import TypedDict


class Api(TypedDict):
    version: str  # "v1.36.3+k3s1"
    minor: int | None
    error: str | None  # check mode went on without an API, so everything else is empty


class ClaimTemplate(TypedDict):
    name: str
    storage: str | None  # a quantity
    storage_class: str | None


class StatefulSet(TypedDict):
    """Where it does not exist, all but its name is None or an empty list."""

    name: str
    exists: bool
    uid: str | None
    generation: int | None
    observed_generation: int | None
    deleting: bool
    replicas: int | None
    ready_replicas: int | None
    updated_replicas: int | None
    image: str | None  # of the container "app", else of the first
    pulls_anew: bool  # whether each new pod pulls its image first, by the init container "pull"
    last_applied_replicas: int | None  # annotation abaci.infra/last-applied-replicas: app_replicas of the last apply
    keel_policy: str | None  # annotation keel.sh/policy
    last_applied_keel_policy: str | None  # annotation abaci.infra/last-applied-keel-policy: the inventory's, last apply
    rolled_out: str | None  # annotation abaci.infra/rolled-out: the image that a rollout by hand set, see app_image.py
    rollout_stamp: str | None  # annotation abaci.infra/rollout-stamp: the run that set the template last
    update_strategy: str | None  # RollingUpdate or OnDelete
    current_revision: str | None
    update_revision: str | None
    service_name: str | None
    pod_management_policy: str | None
    claim_templates: list[ClaimTemplate]
    sysctls: list[str]  # names that the pods ask for
    ports: dict[str, int]  # the ports of the container "app" by name


class Recorded(TypedDict):
    """The ConfigMap <name>-litefs-identity; empty strings where a key is missing."""

    state: str  # "bootstrap", "recorded" or "restore"
    cluster_id: str
    primary_ordinal: str
    desired_primary_ordinal: str
    fenced_ordinals: str  # old primaries that are fenced, comma separated; see operations/promote.py
    raw: dict[str, str]  # the ConfigMap's whole data
    uid: str | None


class BackupJob(TypedDict):
    """The CronJob <name>-backup."""

    schedule: str
    suspended: bool
    last_scheduled: str | None
    last_successful: str | None


class Waiting(TypedDict):
    """Why the container "app", or "pull", which is of its image, waits, or how it ended last."""

    reason: str | None
    message: str | None


class Init(TypedDict):
    """The first init container but "pull" that has not ended well."""

    name: str | None
    state: str  # none (there is none), done (all ended well), waiting, running or failed
    message: str | None  # from the termination message, else the waiting message
    exit_code: int | None
    restarts: int


class Held(TypedDict):
    """Where a database of a pod stands."""

    txid: str  # 16 hex digits
    checksum: str  # 16 hex digits
    ltx_bytes: int | None  # of its transaction files; LiteFS does not say how large it is itself


class LiteFS(TypedDict):
    """What a pod's LiteFS answered; where it is not reachable all is None, or empty."""

    reachable: bool
    error: str | None  # why it is not reachable
    cluster_id: str | None  # None also on a reachable node that has none yet
    is_primary: bool | None
    primary_hostname: str | None  # the primary this node sees now; None: none at this moment
    lag_ms: int | None  # None also while never_synced
    never_synced: bool | None  # a replica that was never in sync since its start (LiteFS calls that lag 0)
    databases: dict[str, Held]


class Pod(TypedDict):
    """A pod of this StatefulSet, also one that ends or was left without owner."""

    name: str
    ordinal: int
    uid: str | None
    node: str | None
    phase: str
    ready: bool
    deleting: bool
    revision: str | None
    image: str | None
    image_id: str | None
    restarts: int
    created_at: str | None
    started_at: str | None
    waiting: Waiting
    init: Init
    unschedulable: str | None  # the scheduler's message
    litefs: LiteFS


class Claim(TypedDict):
    name: str
    ordinal: int
    uid: str | None
    phase: str
    volume: str | None
    storage: str | None
    storage_class: str | None
    deleting: bool


class Volume(TypedDict):
    """A PersistentVolume that is, or was, a volume of this application."""

    name: str
    phase: str
    claim: str
    claim_uid: str | None
    ordinal: int
    reclaim_policy: str
    storage: str | None
    storage_class: str | None
    node: str | None
    path: str | None
    created_at: str | None
    deleting: bool
    kept: bool  # no claim that exists now has it: data that only a person may remove


class Taint(TypedDict):
    key: str
    value: str | None
    effect: str


class Node(TypedDict):
    name: str
    ready: bool
    silent_seconds: float | None  # since its kubelet renewed its Lease
    schedulable: bool  # not cordoned
    labels: dict[str, str]
    taints: list[Taint]
    allowed_unsafe_sysctls: list[str] | None  # of a kubelet that was not asked, those that a pod has there
    error: str | None  # why that is None
    kernel: str
    runtime: str
    kubelet: str
    user_namespaces: bool | None  # None: the kubelet does not say
    fuse_devices: int  # that the device plugin offers


class State(TypedDict):
    """The document."""

    schema: int  # 1
    gathered_at: str
    namespace: str
    namespace_exists: bool
    database: str  # the database file's name, for readers; all databases are listed in the pods
    api: Api
    statefulset: StatefulSet
    record: Recorded | None
    backup_job: BackupJob | None
    pods: list[Pod]
    claims: list[Claim]
    volumes: list[Volume]
    nodes: list[Node]


class Revision(TypedDict):
    """A ControllerRevision of the StatefulSet: a template that it had."""

    name: str
    number: int
    image: str  # as the template names it
    build: str | None  # annotation abaci.infra/build: the digest that ran under it
    left: str | None  # annotation abaci.infra/rolled-back: the run that went back from it


class Looked(State):
    """With what only operations ask: what the rendered litefs.yml says."""

    rendered_ordinal: int | None  # whom it names as primary
    fed_ordinal: int | None  # whom it lets follow the archive instead, while nobody is
    routed_ordinal: int | None  # whom the primary's Service selects
    rendered_quiet: bool  # it runs no command
    rendered_at: str | None  # when it last changed
    revisions: list[Revision]  # the newest first
