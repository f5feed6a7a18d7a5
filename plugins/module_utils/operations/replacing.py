"""Which pod gets its new template next, and when the StatefulSet's controller has rolling updates back. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from .. import litefs
from . import planning
from . import situation as sit
from .planning import Step

Order = Literal["primary_first", "primary_last"]
ORDERS: tuple[Order, ...] = ("primary_first", "primary_last")


def is_set(state: sit.State, checkpoint: planning.Checkpoint) -> bool:
    """Whether the run that the checkpoint tells of has set the template."""
    stamp = checkpoint.get("stamp")
    return bool(stamp) and state["statefulset"]["rollout_stamp"] == stamp


def observed(state: sit.State) -> bool:
    """Whether the controller has looked at the template as it is."""
    living = state["statefulset"]
    return living["observed_generation"] in (None, living["generation"])


def out(state: sit.State) -> list[int]:
    """Ordinals that are left alone: fenced, or on a node that is away."""
    return sorted({*sit.absent(state), *sit.fenced(state)})


def running(pod: sit.Pod) -> str:
    """The digest that the pod runs, "" where it is not known."""
    return (pod["image_id"] or "").partition("@")[2]


def build(state: sit.State, revision: str | None, primary: int) -> str:
    """The digest that ready pods of a revision run, the primary's first."""
    pods = [pod for pod in state["pods"] if pod["ready"] and pod["revision"] == revision and running(pod)]
    return next((running(pod) for pod in sorted(pods, key=lambda pod: pod["ordinal"] != primary)), "")


def to_replace(state: sit.State, primary: int, order: Order, current: Collection[str | None]) -> list[sit.Pod]:
    """The pods without a current revision, in their order: a primary that is down is the first in any, since no
    replica becomes ready without it; then what is not ready serves nobody."""
    wanted = set(range(state["statefulset"]["replicas"] or 0)) - set(out(state))
    old = [pod for pod in state["pods"] if pod["ordinal"] in wanted and pod["revision"] not in current]

    def place(pod: sit.Pod) -> tuple[bool, bool, int]:
        leads = pod["ordinal"] == primary
        first = leads and (order == "primary_first" or not pod["ready"])
        return not first, leads or pod["ready"], -pod["ordinal"]

    ranked = sorted(old, key=place)
    return sorted(ranked, key=lambda pod: pod["ordinal"] == primary and order == "primary_last" and pod["ready"])


def left(
    state: sit.State, primary: int, order: Order, advice: str, current: Collection[str | None] | None = None
) -> list[Step]:
    """What is left once the template is set; ``current``: revisions that a pod need not lose."""
    newest = state["statefulset"]["update_revision"]
    current = {newest} if current is None else current
    old = to_replace(state, primary, order, current)
    ours = [n for n in range(state["statefulset"]["replicas"] or 0) if n not in out(state)]
    pods = {pod["ordinal"]: pod for pod in state["pods"]}
    ill = [n for n in ours if n not in pods or (pods[n] not in old and not _well(pods[n]))]
    down = [pod for pod in old[:1] if pod["ordinal"] == primary and not pod["ready"]]
    steps = [step for pod in down for step in _replace(state, pod, primary, advice)]
    steps += [_wait(state, n, primary, advice) for n in sorted(ill, key=lambda n: (n != primary, n))]
    return steps + [step for pod in old if pod not in down for step in _replace(state, pod, primary, advice)]


def settle(state: sit.State, primary: int) -> list[Step]:
    """The step that gives rolling updates back, where they are not the controller's."""
    living = state["statefulset"]
    if living["update_strategy"] != "OnDelete":
        return []
    digest = build(state, living["update_revision"], primary)
    say = "give rolling updates back to the StatefulSet's controller"
    return [planning.step("settle", say, revision=living["update_revision"] or "", digest=digest)]


def prove(_plan: planning.Plan, state: sit.State) -> list[Step]:
    """Every replica that is not left out has what the primary has, and writes get through the edge."""
    return [planning.step("wait_replicated", "", without=out(state)), planning.step("wait_edge", "", advice="")]


def unwell(state: sit.State, found: sit.Situation) -> str | None:
    """Why a copy is not one that follows, which no template changes."""
    if better := sit.ahead(state, found):
        return f"{litefs.names(better)} has more than the primary {found.leader['name']}: see {sit.RUNBOOK}."
    foreign = [pod for pod in litefs.reachable(state) if pod["litefs"]["cluster_id"] not in (None, found.cluster_id)]
    if foreign:
        return f"{litefs.names(foreign)} holds another cluster: run playbooks/replica_reset.yml first."
    return None


def notes(state: sit.State) -> list[str]:
    """Whom it leaves out."""
    return litefs.left_out(state)


def _well(pod: sit.Pod) -> bool:
    return pod["ready"] and not pod["deleting"]


def _replace(state: sit.State, pod: sit.Pod, primary: int, advice: str) -> list[Step]:
    leads = " (the primary)" if pod["ordinal"] == primary else ""
    say = f"replace {pod['name']}{leads}, and wait until it is ready, at its position, and writes get through"
    uid = None if pod["deleting"] else pod["uid"]
    return [
        planning.step("delete_pod", say, pod=pod["name"], uid=uid, ordinal=pod["ordinal"]),
        _wait(state, pod["ordinal"], primary, advice),
        planning.step("wait_edge", "", advice=advice),
    ]


def _wait(state: sit.State, ordinal: int, primary: int, advice: str) -> Step:
    name = sit.pod_name(state, ordinal)
    say = f"wait until {name} is ready"
    return planning.step("wait_rolled", say, pod=name, ordinal=ordinal, primary=ordinal == primary, advice=advice)
