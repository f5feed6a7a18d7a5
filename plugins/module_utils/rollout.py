"""How far is a rollout, and if it cannot end well, why? Pure: plain objects of the API in, one status out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Literal

from . import guard, identity
from .conditions import CONFIG_REASONS, PULL_REASONS, condition, is_ready, youngest_warning
from .objects import Object
from .wording import said

# Seconds for which a trouble may last before it counts as lasting: a registry that hiccups, a node whose network
# comes up and a program that is restarted once all look hopeless for a moment.
_PULL, _CRASH, _REFUSED, _UNSCHEDULABLE, _REJECTED = 20, 15, 15, 60, 20

# The guard stopped the primary, and a replica may have what its volume has not.
_LOST = ((guard.NAME, guard.Exit.EMPTY), (guard.NAME, guard.Exit.OLDER))
_WAY = f" Where that volume is lost for good, {identity.PROMOTE} moves the role to the best replica."


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the kubelet asks of a container to know whether it is ready."""

    pod: str
    port: int
    path: str
    headers: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Status:
    """``failed`` means: if this lasts for ``patience`` seconds, waiting longer is useless.

    ``warning`` is what ``done`` leaves out. ``log``: pod and container whose last log says more; ``probe``: a pod that
    runs and is not ready, whose own answer to the kubelet's question does.
    """

    state: Literal["done", "waiting", "failed"]
    sentence: str
    patience: int = 0
    warning: str = ""
    log: tuple[str, str] | None = None
    probe: Probe | None = None


def judge(
    workload: Object,
    pods: list[Object],
    events: list[Object],
    nodes: list[Object] | None = None,
    without: Collection[int] = (),
    *,
    in_order: bool = True,
) -> Status:
    """Judge a StatefulSet, Deployment or DaemonSet.

    ``pods`` are those its selector matches, ``events`` those of its namespace. Done is what the spec asks for:
    with a StatefulSet's partition the pods below it may stay as they are, with OnDelete all may. A DaemonSet does not
    wait for nodes that are not ready: their pods come with them. A StatefulSet does not wait for such pods either, nor
    for those whose ordinals are ``without``; with ``in_order`` those of lower ordinals, which its controller does not
    update before them, may be old.
    """
    name = f"{workload['kind']} {workload['metadata']['namespace']}/{workload['metadata']['name']}"
    away = _on_dead_nodes(pods, nodes)
    is_daemon = workload["kind"] == "DaemonSet"
    missing = _missing(workload, pods, away if is_daemon else [])
    if workload["kind"] == "StatefulSet":
        without = {*without, *(_ordinal(pod) for pod in away)}
    if missing and without and pods:
        pods = [pod for pod in pods if _ordinal(pod) not in without]
        missing, warning = _missing_without(workload, pods, without, in_order)
        if not missing:
            return Status("done", f"{name} is rolled out.", warning=" ".join([*map(_left, away), warning]).strip())
    if not missing:
        names = ", ".join(sorted({pod["spec"]["nodeName"] for pod in away})) if is_daemon else ""
        warning = f"{name} was not waited for on node {names}, which is not Ready." if names else ""
        return Status("done", f"{name} is rolled out.", warning=warning)
    if workload["spec"].get("paused"):
        return Status("failed", f"{name} is paused: kubectl rollout resume lets it go on.")
    if is_daemon:
        pods = [pod for pod in pods if pod not in away]
    troubles = [trouble for pod in _current(workload, pods) if (trouble := _pod_trouble(pod, events))]
    for trouble in sorted(troubles, key=lambda trouble: trouble.patience):
        return dataclasses.replace(trouble, sentence=f"{name} does not become ready: {trouble.sentence}")
    refused = _last_warning(events, workload["metadata"], "FailedCreate", since=_youngest(pods))
    if refused and len(pods) < _wanted(workload):
        return Status("failed", f"{name} gets no pod: {refused}.", _REJECTED)
    progressing = condition(workload, "Progressing")
    if progressing.get("status") == "False":
        return Status("failed", f"{name} does not progress: {said(progressing.get('message'))}.")
    sentence = f"{name} is not ready: {missing}{_hint(pods, events)}."
    return Status("waiting", sentence, probe=_probe(_current(workload, pods)))


def how_far(workload: Object | None) -> tuple[float | None, float | None, str]:
    """Pods that are ready, of how many, and what is counted; None for what has no pods."""
    if workload is None or workload["kind"] not in ("StatefulSet", "Deployment", "DaemonSet"):
        return None, None, ""
    status, daemon = workload.get("status") or {}, workload["kind"] == "DaemonSet"
    ready = int(status.get("numberReady" if daemon else "readyReplicas") or 0)
    # A pod that is ready and old is not what is waited for.
    updated = int(status.get("updatedNumberScheduled" if daemon else "updatedReplicas") or 0)
    return min(ready, updated), _wanted(workload), "pods ready"


def judge_pod(pod: Object, events: list[Object]) -> Status:
    """What keeps a single pod from being ready."""
    found = _pod_trouble(pod, events)
    if found is not None:
        return dataclasses.replace(found, sentence=found.sentence[0].upper() + found.sentence[1:])
    sentence = f"Pod {pod['metadata']['name']} is not ready{_hint([pod], events)}."
    return Status("waiting", sentence, probe=_probe([pod]))


def on_dead_nodes(pods: list[Object], nodes: list[Object]) -> list[int]:
    """The ordinals of a StatefulSet's pods whose node is not ready."""
    return [_ordinal(pod) for pod in _on_dead_nodes(pods, nodes)]


def _on_dead_nodes(pods: list[Object], nodes: list[Object] | None) -> list[Object]:
    gone = {node["metadata"]["name"] for node in nodes or [] if not is_ready(node)}
    return [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") in gone]


def next_to_replace(workload: Object, pods: list[Object], primary: int, without: Collection[int]) -> Object | None:
    """The pod to be deleted next where we, and not the controller, roll a StatefulSet out (OnDelete); None: wait.

    A primary that is not up goes first, since replicas do not become ready without it; a running one goes last. In
    between they go one at a time, the highest ordinal first. Those of ``without`` are left alone.
    """
    status = workload.get("status") or {}
    wanted = [ordinal for ordinal in range(_wanted(workload)) if ordinal not in without]
    living = {_ordinal(pod): pod for pod in pods if _ordinal(pod) in wanted}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return None
    if len(living) < len(wanted) or any(pod["metadata"].get("deletionTimestamp") for pod in living.values()):
        return None
    current = _current(workload, list(living.values()))
    old = {ordinal: pod for ordinal, pod in living.items() if pod not in current}
    if primary in old and not _runs(old[primary]):
        return old[primary]
    if not all(is_ready(pod) for pod in current):
        return None
    # One that is not ready serves nobody.
    order = sorted(old, key=lambda ordinal: (ordinal == primary, is_ready(old[ordinal]), -ordinal))
    return old[order[0]] if order else None


def _runs(pod: Object) -> bool:
    """Whether the application's container runs, be it ready or not."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    app = next((item for item in statuses if item.get("name") == "app"), statuses[0])
    return "running" in (app.get("state") or {})


def _left(pod: Object) -> str:
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    return f"Pod {name} was not waited for: its node {node} is not Ready."


def judge_nodes(nodes: list[Object], resource: str) -> Status:
    """Whether every node that is ready offers the resource of a device plugin."""
    lacking = [
        node["metadata"]["name"]
        for node in nodes
        if is_ready(node) and not int((node["status"].get("allocatable") or {}).get(resource, 0))
    ]
    if lacking:
        return Status(
            "waiting", f"The device plugin runs, but node {', '.join(lacking)} does not offer {resource} yet."
        )
    return Status("done", f"Every node offers {resource}.")


def selector(workload: Object) -> str:
    """The label selector of the workload's pods, as a list query takes it."""
    labels = workload["spec"]["selector"].get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _missing(workload: Object, pods: list[Object], away: list[Object]) -> str:
    """What keeps the workload from being done, "" when nothing does; ``away`` are a DaemonSet's pods to do without."""
    spec, status, kind = workload["spec"], workload.get("status") or {}, workload["kind"]
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return "its controller has not looked at the change yet"
    if kind == "DaemonSet":
        wanted = _wanted(workload)
        if not wanted:
            return "no node matches its node selector and tolerations"
        # A pod that does not tolerate the taint of such a node is counted there, and not among the wanted ones.
        without = max(0, len(away) - status.get("numberMisscheduled", 0))
        current = _current(workload, pods)
        old = len([pod for pod in away if pod not in current])
        there, updated = status.get("currentNumberScheduled", 0) - without, status.get("updatedNumberScheduled", 0)
        ready, to_update = status.get("numberAvailable", 0), wanted - min(without, old)
        wanted -= without
    elif kind == "StatefulSet":
        wanted = _wanted(workload)
        strategy = spec.get("updateStrategy") or {}
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        start = (spec.get("ordinals") or {}).get("start", 0)
        to_update = 0 if strategy.get("type") == "OnDelete" else min(wanted, max(0, wanted + start - partition))
        there, updated, ready = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas"))
    else:
        wanted = to_update = _wanted(workload)
        there, updated, ready = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    if updated < to_update:
        return f"{updated} of {to_update} pods have the new template"
    if there > wanted:
        return f"{there - wanted} old pods are still there"
    if ready < wanted:
        return f"{ready} of {wanted} pods are ready"
    return ""


def _missing_without(workload: Object, pods: list[Object], without: Collection[int], in_order: bool) -> tuple[str, str]:
    """(what keeps a StatefulSet from being done where nobody waits for these ordinals, what that leaves undone)."""
    spec, status = workload["spec"], workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return "its controller has not looked at the change yet", ""
    start = (spec.get("ordinals") or {}).get("start", 0)
    wanted = [ordinal for ordinal in range(start, start + _wanted(workload)) if ordinal not in without]
    strategy = spec.get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    alive = {_ordinal(pod): pod for pod in pods if not pod["metadata"].get("deletionTimestamp")}
    current = _current(workload, pods)
    old = [
        ordinal
        for ordinal in wanted
        if alive.get(ordinal) not in current and ordinal >= partition and strategy.get("type") != "OnDelete"
    ]
    # The controller goes from the highest ordinal down, and not past a pod that is not ready.
    behind = [ordinal for ordinal in old if ordinal in alive and ordinal < max(without) and in_order]
    ready = [ordinal for ordinal in wanted if ordinal in alive and is_ready(alive[ordinal])]
    if len(ready) < len(wanted):
        return f"{len(ready)} of {len(wanted)} pods are ready", ""
    if left := len(set(old) - set(behind)):
        return f"{len(wanted) - left} of {len(wanted)} pods have the new template", ""
    base = workload["metadata"]["name"]
    names = ", ".join(f"{base}-{ordinal}" for ordinal in behind)
    stand = ", ".join(f"{base}-{ordinal}" for ordinal in sorted(without) if ordinal > min(behind, default=0))
    return "", f"{names} keep the template they have until {stand} is ready." if behind else ""


def _ordinal(pod: Object) -> int:
    """The ordinal of a StatefulSet's pod, -1 where its name has none."""
    digits = str(pod["metadata"]["name"]).rsplit("-", 1)[-1]
    return int(digits) if digits.isdecimal() else -1


def _wanted(workload: Object) -> int:
    """How many pods the workload is to have."""
    if workload["kind"] == "DaemonSet":
        return int((workload.get("status") or {}).get("desiredNumberScheduled", 0))
    return int(workload["spec"].get("replicas", 1))


def _current(workload: Object, pods: list[Object]) -> list[Object]:
    """The pods of the newest template that are to stay; trouble of the old ones is what the rollout ends."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not alive:
        return []
    if workload["kind"] == "StatefulSet":
        label = "controller-revision-hash"
        newest = (workload.get("status") or {}).get("updateRevision")
    else:
        label = "pod-template-hash" if workload["kind"] == "Deployment" else "controller-revision-hash"
        youngest = max(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        newest = _labels(youngest).get(label)
    return [pod for pod in alive if newest is None or _labels(pod).get(label) == newest]


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _pod_trouble(pod: Object, events: list[Object]) -> Status | None:
    status = pod.get("status") or {}
    name = f"pod {pod['metadata']['name']}"
    if status.get("phase") == "Failed":
        why = ": ".join(text for text in (status.get("reason"), status.get("message")) if text) or "no reason given"
        return Status("failed", f"{name} was ended ({said(why)}).", _REJECTED)
    for container in status.get("initContainerStatuses") or []:
        if trouble := _container_trouble(pod, container, True, events):
            return trouble
    for container in status.get("containerStatuses") or []:
        if trouble := _container_trouble(pod, container, False, events):
            return trouble
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Status("failed", f"no node takes {name}: {said(scheduled.get('message'))}.", _UNSCHEDULABLE)
    return None


def _container_trouble(pod: Object, container: Object, init: bool, events: list[Object]) -> Status | None:
    pod_name, name = pod["metadata"]["name"], container["name"]
    where = f"{'init container' if init else 'container'} {name} of pod {pod_name}"
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in PULL_REASONS:
        why = _last_warning(events, pod["metadata"], "Failed", "image") or waiting.get("message") or reason
        return Status("failed", f"the image {container.get('image')} of {where} cannot be pulled: {said(why)}.", _PULL)
    if reason in CONFIG_REASONS:
        return Status("failed", f"{where} cannot be started: {said(waiting.get('message', reason))}.", _CRASH)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if not ended.get("exitCode"):
        return None
    last_words = said(ended.get("message"))
    if init and last_words and not container.get("ready"):
        # It has said why. While it tries again it says nothing new, so a running one still counts.
        way = _WAY if (name, ended["exitCode"]) in _LOST else ""
        return Status("failed", f"{where} refuses: {last_words}.{way}", _REFUSED)
    if reason == "CrashLoopBackOff":
        why = f"exit code {ended['exitCode']}"
        if ended.get("reason") not in (None, "Error"):
            why += f", {ended['reason']}"
        if last_words:
            why += f": {last_words}"
        logs = f"kubectl -n {pod['metadata']['namespace']} logs {pod_name} -c {name} --previous"
        sentence = f"{where} ends again and again ({why}); see {logs}."
        return Status("failed", sentence, _CRASH, log=(pod_name, name))
    return None


def _hint(pods: list[Object], events: list[Object]) -> str:
    """What is last known about a pod that is not ready, as the end of a sentence."""
    for pod in pods:
        status = pod.get("status") or {}
        if is_ready(pod):
            continue
        containers = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        states = [(c["name"], (c.get("state") or {}).get("waiting") or {}) for c in containers]
        waiting = [f"container {name} is at {state['reason']}" for name, state in states if state.get("reason")]
        known = _last_warning(events, pod["metadata"]) or "".join(waiting[:1]) or f"phase {status.get('phase')}"
        return f"; pod {pod['metadata']['name']}: {known}"
    return ""


def _probe(pods: list[Object]) -> Probe | None:
    """The question that the first pod which runs and is not ready does not answer well, where it is one over http."""
    for pod in pods:
        running = {
            one["name"]
            for one in (pod.get("status") or {}).get("containerStatuses") or []
            if "running" in (one.get("state") or {}) and not one.get("ready")
        }
        for container in [] if is_ready(pod) else (pod.get("spec") or {}).get("containers") or []:
            asked = (container.get("readinessProbe") or {}).get("httpGet")
            if not asked or container["name"] not in running or asked.get("scheme") == "HTTPS":
                continue
            named = {one.get("name"): one["containerPort"] for one in container.get("ports") or []}
            port = named.get(asked["port"], asked["port"])
            headers = {one["name"]: one["value"] for one in asked.get("httpHeaders") or []}
            if isinstance(port, int):
                return Probe(pod["metadata"]["name"], port, asked.get("path", "/"), headers)
    return None


def _youngest(pods: list[Object]) -> str:
    """When the last of the pods was made: what was refused before that is refused no more."""
    return max((str(pod["metadata"].get("creationTimestamp", "")) for pod in pods), default="")


def _last_warning(events: list[Object], metadata: Object, reason: str = "", word: str = "", since: str = "") -> str:
    """The message of the youngest warning about an object, see conditions.youngest_warning()."""
    return said((youngest_warning(events, metadata, reason, word, since) or {}).get("message"))
