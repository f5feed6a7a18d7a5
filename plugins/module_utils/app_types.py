"""What the inventory desires of the application, and what app_plan.plan() decides. Types only."""

from __future__ import annotations

from typing import Literal, TypedDict

from .app_image import Pull
from .objects import Object


class Keel(TypedDict):
    """What the role keel is given."""

    state: str  # keel_state
    frozen: bool
    schedule: str  # keel.sh/pollSchedule
    approvals: int  # 0: none is asked for


class Storage(TypedDict):
    """What the role storage is given."""

    state: str  # storage_state
    kind: str  # storage_kind
    volumes: list[Object]  # storage_volumes, each with its claim


class Desired(TypedDict, total=False):
    """The role's variables that the decisions need; what is left out is neither chosen nor compared."""

    replicas: int
    primary_ordinal: int
    image: str
    pull_policy: str  # Always or IfNotPresent
    pulled: list[Object]  # what image_pull_check said of each of the plan's pulls (__app_pull); none before
    guard_image: str
    keel: Keel
    annotations: dict[str, str]  # of the StatefulSet; they win over those that Keel is told by
    litefs_port: int
    proxy_port: int
    sysctls: list[str]  # in the pod's securityContext
    node_selector: dict[str, str]
    tolerations: list[dict[str, str]]
    privileged: bool
    user_namespace: bool | None  # None: nobody said
    volumes: list[Object]  # Volume, of the pods
    storage: Storage
    # What the rendered StatefulSet says
    service_name: str
    storage_size: str
    storage_class: str
    claim_template: str
    pod_management_policy: str


class Record(TypedDict):
    """The ConfigMap of the record: what is to be done with it, and its whole data."""

    action: Literal["none", "create", "update"]
    data: dict[str, str]


class Retain(TypedDict):
    """How volumes outlive their claims."""

    admission_policy: bool  # the API has what makes them Retain at their creation
    objects: list[Object]  # what makes those Retain that are not


class IsolationPlan(TypedDict):
    """See isolation.py."""

    mode: str
    reason: str
    without_device: list[str]  # nodes that may run the pods, where none offers the FUSE device


class Image(TypedDict):
    """See app_image.Choice and app_image.Pull."""

    text: str
    pull: bool
    pin: bool
    running: bool
    note: str
    pulls: list[Pull]


class Plan(TypedDict):
    """What the next apply of the application is."""

    refusal: str | None  # one sentence; where it is set, apply nothing
    refusals: list[str]  # all of them, the most serious one first
    replicas: int  # of the StatefulSet, never left out
    desired_replicas: int  # for its annotation abaci.infra/last-applied-replicas
    primary_ordinal: int  # in force: for lease, candidate, Services and guard
    away: list[int]  # ordinals whose node is away: nobody waits for their pods
    fenced: list[int]  # ordinals that the record fences: nobody waits for their pods either
    by_hand: bool  # we replace the pods: the controller would wait for ever, or begin with the primary
    behind: bool  # a pod that can run has not the newest template
    bootstrap: bool  # the record still waits for the primary's first data
    unfinished: bool  # an earlier run did not come to its end, whatever the objects say
    first_start: bool  # no trace of the application's data exists
    record: Record
    retain: Retain
    isolation: IsolationPlan
    annotations: dict[str, str]  # of the StatefulSet: the inventory's, and which policy of Keel is in force
    image: Image
    notes: list[str]  # sentences for the summary
