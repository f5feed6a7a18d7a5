"""What every operation is asked and what it answers: one request, one plan, one kind of step. Pure.

An operation is a module in the table OPERATIONS (operations/__init__.py) with

    decide(request) -> Plan                       what is left to do
    progress(request) -> dict, or None            optional: what the record keeps of it from its first act on; None: it
                                                  keeps that itself. Left out: nothing of its own
    prove(plan, state) -> [Step]                  optional: waits that show, when no step is left, that it holds what it
                                                  promised. Left out: every replica has what the primary has

It decides again, on a fresh document, before each step: what is done already is not in the steps any more, so a run
that died is continued by running it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args

from ..objects import Object
from ..state_types import Looked
from .retention import Manifest

if TYPE_CHECKING:  # a host's Python may be older, and volumes_copy comes by here
    from typing import Required, Unpack

GUIDE = "docs/failure-modes.md"
# Each is a section of that page.
Cause = Literal[
    "primary-volume-empty",
    "cluster-id-missing",
    "older-volume",
    "no-copy-left",
    "primary-node-gone",
    "two-primaries",
    "replica-of-another-cluster",
    "replica-away",
    "replica-cannot-apply",
    "database-locked",
    "disk-full",
    "file-does-not-fit",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)

Act = Literal[
    "scale",
    "retain",
    "delete_claim",
    "remove_volume",
    "delete_pod",
    "release",
    "record",
    "stop",
    "restart",
    "divert",
    "bring_back",
    "render",
    "record_restore",
    "record_id",
    "import",
    "template",
    "settle",
]
Wait = Literal[
    "wait_pod",
    "wait_replicated",
    "wait_gone",
    "wait_followers",
    "wait_claim",
    "wait_guard",
    "wait_observed",
    "wait_rolled",
    "wait_edge",
]
WAITS: tuple[Wait, ...] = get_args(Wait)


class Arguments(TypedDict, total=False):
    """What a step acts on; which of them, depends on its kind."""

    ordinal: int
    pod: str
    uid: str | None  # of the pod or the claim that was looked at
    claim: str
    claim_uid: str
    volume: str
    replicas: int
    was: int
    force: bool
    wait: bool
    primary: bool
    cluster_id: str | None
    primary_ordinal: int
    fenced: list[int]
    promote: str | None
    given_up: bool  # whether what the archive has more is left there
    quiet: bool
    exported: str | None
    followers: list[int]
    restart: bool
    without: list[int]  # ordinals that are not waited for
    stamp: str  # template, as all that follows up to the next comment: see retemplate.Change
    image: str
    restarted: str
    rolled_out: str | None
    policy: str | None
    revision: str  # whose template it is to be, or which revision is settled
    leaves: str  # the revision that is gone back from
    digest: str  # what ran under the revision that is left, or settled
    advice: str  # what is said where it fails


class Pull(TypedDict):
    """An image that a node has to have."""

    image: str
    node: str


class Pulled(Pull):
    """What came of it."""

    digest: str | None
    error: str | None


class Inventory(TypedDict, total=False):
    """What the inventory says of the application, for operations that have to know it."""

    image: str  # app_image, "" where it is the default
    node_selector: dict[str, str]
    tolerations: list[Object]
    edge: dict[str, Any]  # as edge_status.requests() takes it; empty where it cannot be asked


class Step(Arguments, total=False):
    """One act or wait of a plan; ``say``: a sentence for whoever runs it."""

    do: Required[Act | Wait]
    say: Required[str]


class Content(TypedDict):
    """What a look into a volume found; each None for none."""

    cluster_id: str | None
    txid: str | None  # 16 hex digits
    checksum: str | None
    page_size: int | None
    journal_mode: str | None
    problem: str | None  # a sentence where the volume could not be looked into


class File(TypedDict, total=False):
    """A file to restore, as export.describe() says. What its manifest does not say is None."""

    path: str  # of the plain file
    verified: bool
    problem: str | None  # what is wrong with it; then there is nothing after this
    cluster_id: str | None
    txid: str | None
    time: str | None
    namespace: str | None
    statefulset: str | None
    database: str | None
    rows: dict[str, int]  # of each table
    notes: list[str]  # what is to be said of it in the plan
    page_size: int
    journal_mode: str
    pages: int
    size: int
    checksum: str
    imported_checksum: str
    sha256: str
    tables_sha256: str
    user_version: int


class More(TypedDict, total=False):
    """What the archive has of a database more than a pod, every file of it proven."""

    problem: str  # why that cannot be told; then there is only, beside it:
    refused: bool  # whether the archive itself says so, and did not merely give no answer
    count: int
    first: str  # TXID and time of the first of them, and of the last; "" for none
    first_time: str
    last: str
    time: str


class Archived(TypedDict, total=False):
    """What the archive has of the database; empty where there is none."""

    problem: str  # why it could not be asked; then there is nothing else
    cluster_id: str
    history: str
    txid: str  # the last transaction, and its time
    time: str
    followed: str  # until when nothing came after it
    more: dict[str, dict[str, More]]  # than each pod of that cluster that answered, by its name and the database's


class Proof(TypedDict):
    """A claim whose volume's data was proven to be elsewhere."""

    claim: str
    uid: str
    volume: str


class Checkpoint(TypedDict, total=False):
    """What the record keeps of an operation that is not finished; see progress.py."""

    begun: str
    holder: str
    given: dict[str, Any]  # the parameters of the run
    volumes: dict[str, Proof]  # scale: by ordinal
    claims: dict[str, str | None]  # replica_reset: by ordinal, the uid of what is to be replaced
    state: str  # restore, as all that follows: importing, or imported
    sha256: str
    cluster_id: str | None
    time: str
    before: str  # the primary's TXID
    followers: list[int] | None
    restart: bool
    reimport: str
    txid: str
    stamp: str  # rollout and rollback, as all that follows: which run it is
    asked: str  # what it was given
    image: str
    digest: str
    again: bool
    rolled_out: str | None
    policy: str | None
    revision: str
    leaves: str


class Loss(TypedDict):
    """What is lost by a promote: all after this transaction, which ``pod`` has, ``seconds`` old."""

    after_txid: str
    pod: str
    seconds: float | None


class Needs(TypedDict, total=False):
    """What the caller has to do before the first step: volumes to look into, pods to export, ordinals whose volume has
    to be exported without LiteFS, images to try on nodes."""

    look: list[str]
    export: list[str]
    volume_export: list[int]
    pull: list[Pull]


class Outcome(Needs, total=False):
    """What an operation adds to its plan."""

    targets: list[int] | None  # the ordinals that it is about, where it may end for some of them
    successor: int | None
    loss: Loss | None
    without: list[int] | None  # ordinals that do not get the data, which nobody waits for; None: those that are fenced
    unproven: bool  # nothing is to be proven at its end
    final: bool  # a refusal that the end of a rolling update does not change


class Plan(Outcome, total=False):
    """The answer. A refused one has no steps; ``cause`` names a section of docs/failure-modes.md."""

    refusal: Required[str | None]
    cause: Required[Cause | None]
    steps: Required[list[Step]]
    notes: Required[list[str]]


@dataclass(frozen=True)
class Request:
    """What an operation decides on.

    ``parameters``: what the person gave. ``exports``: manifests of exports made during this run. ``volumes``: what a
    look into volumes found, by name. ``file``: the file to restore. ``archive``: what the archive has. ``pulled``: what
    trying images on nodes showed. ``inventory``: what it says of the application.

    The runner adds the rest at each look: ``state``; ``checkpoint``: what the record keeps of this operation from an
    earlier run, see progress(); ``imported``: restores that ended; ``now``: the API server's time.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    exports: Sequence[Manifest] = ()
    volumes: Mapping[str, Content] = field(default_factory=dict)
    file: File = field(default_factory=lambda: File())
    archive: Archived = field(default_factory=lambda: Archived())
    pulled: Sequence[Pulled] = ()
    inventory: Inventory = field(default_factory=lambda: Inventory())
    state: Looked = field(default_factory=lambda: cast("Looked", {}))
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint())
    imported: Sequence[Checkpoint] = ()
    now: str = ""

    def time(self) -> str:
        """``now``, else when the document was made."""
        return self.now or str(self.state["gathered_at"])


def plan(
    refusal: str | None = None,
    steps: Iterable[Step] = (),
    notes: Iterable[str] = (),
    cause: Cause | None = None,
    **more: Unpack[Outcome],
) -> Plan:
    """A plan as plain data, with all its keys; a refused one has no steps."""
    made: Plan = {
        "refusal": refusal,
        "cause": cause,
        "steps": [] if refusal else list(steps),
        "notes": list(notes),
        "look": [],
        "export": [],
        "volume_export": [],
        "pull": [],
        "targets": None,
        "successor": None,
        "loss": None,
        "without": None,
        "unproven": False,
        "final": False,
    }
    made.update(more)  # type: ignore[typeddict-item]
    return made


def step(do: Act | Wait, say: str, **arguments: Unpack[Arguments]) -> Step:
    """One step of a plan."""
    made: Step = {"do": do, "say": say}
    made.update(arguments)  # type: ignore[typeddict-item]
    return made
