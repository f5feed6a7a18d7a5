"""Waits until an object is as it should be: one loop, and a table of what that means for each kind. I/O."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

from . import certificates, identity, kube, release_manifest, rollout
from .objects import Object
from .telling import tell
from .wording import one_line, said

Status = rollout.Status

POLL = 1.0
LOG_LINES, LOG_LENGTH = 10, 1000
ANSWER_LENGTH, ANSWER_SECONDS = 300, 10.0

ISSUE = "cert-manager.io/v1"
ACME = "acme.cert-manager.io/v1"


@dataclasses.dataclass
class Target:
    """What is waited for; the fields after ``namespace`` are those of the modules' option ``wait``.

    ``primary``: replace the StatefulSet's old pods here, this ordinal last. ``replaced``: names of pods so replaced.
    """

    kind: str
    name: str
    namespace: str | None = None
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    node_resource: str = ""
    without: tuple[int, ...] = ()
    primary: int | None = None
    replaced: list[str] = dataclasses.field(default_factory=list)

    @property
    def api_version(self) -> str:
        return CONDITIONS[self.kind][0]

    @property
    def label(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


def wait(client: kube.Client, target: Target, timeout: float, found: Object | None = None) -> Status:
    """Return ``done``, or the last status, whose sentence says why it is not.

    ``found``: the object, where it was read a moment ago.
    """
    deadline = time.monotonic() + timeout
    failing_since: float | None = None
    while True:
        try:
            found = found or client.get(target.api_version, target.kind, target.name, target.namespace)
            status = judge(client, target, found)
            tell(target.label, *rollout.how_far(found), deadline=deadline)
        except kube.KubeError as exc:
            # An API server that restarts is part of life; a kind that is not there does not come by waiting.
            tell(f"{target.label}: {exc}", deadline=deadline)
            hint = " Run the role cert_manager first." if "cert-manager" in target.api_version else ""
            status = Status("failed", f"{exc}{hint}") if exc.unknown_kind else Status("waiting", str(exc))
        found = None
        if status.state == "done":
            return status
        now = time.monotonic()
        if status.state == "failed":
            failing_since = now if failing_since is None else failing_since
            if now - failing_since >= status.patience:
                return _with_log(client, target, status)
        else:
            failing_since = None
        if now >= deadline:
            status = _with_answer(client, target, _with_log(client, target, status))
            return dataclasses.replace(status, sentence=f"After {timeout:g} s: {status.sentence}")
        time.sleep(POLL)


def judge(client: kube.Client, target: Target, found: Object | None) -> Status:
    """How the object is now; asks the API for more only where it is not done."""
    if found is None:
        return Status("waiting", f"There is no {target.label}.")
    return CONDITIONS[target.kind][1](client, target, found)


def _workload(client: kube.Client, target: Target, found: Object) -> Status:
    carried = found["spec"]["template"]["metadata"].get("annotations") or {}
    for key, value in target.annotations.items():
        if carried.get(key) != value:
            return Status(
                "waiting", f"{target.label} does not have the new settings yet (annotation {key} is not {value})."
            )
    if target.primary is not None:
        # Ours to roll out: done is when all have the new template, whatever the strategy says.
        found["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    status = rollout.judge(found, [], [])
    if status.state != "done":
        status = _rolling(client, target, found)
    if status.state == "done" and target.node_resource:
        offered = rollout.judge_nodes(client.list("v1", "Node"), target.node_resource)
        return dataclasses.replace(offered, warning=status.warning)
    return status


def _rolling(client: kube.Client, target: Target, found: Object) -> Status:
    """Of a workload that is not rolled out: why, and the next pod is replaced where that is ours to do."""
    pods = client.list("v1", "Pod", target.namespace, rollout.selector(found))
    nodes = client.list("v1", "Node")
    if target.primary is not None:
        out = {*target.without, *rollout.on_dead_nodes(pods, nodes)}
        if target.primary in out:
            return Status(
                "failed",
                f"{target.name}-{target.primary} is the primary, and its node is not Ready or it is fenced: no pod "
                f"is restarted without it. Bring the node back, or move the role with {identity.PROMOTE}.",
            )
        old = rollout.next_to_replace(found, pods, target.primary, out)
        if old is not None:
            meta = old["metadata"]
            # A pod that changed since was perhaps started meanwhile: it is looked at again.
            version = meta["resourceVersion"]
            if client.delete("v1", "Pod", meta["name"], target.namespace, uid=meta["uid"], version=version):
                target.replaced.append(meta["name"])
            return Status("waiting", f"{target.label}: pod {meta['name']} is being replaced.")
    events = client.list("v1", "Event", target.namespace)
    return rollout.judge(found, pods, events, nodes, target.without, in_order=target.primary is None)


def _issuer(_client: kube.Client, target: Target, found: Object) -> Status:
    return _of_certificates(certificates.issuer_status(target.kind, target.name, found))


def _certificate(client: kube.Client, target: Target, found: Object) -> Status:
    where, namespace = f"{target.namespace}/{target.name}", target.namespace
    nothing = certificates.Status("ready")
    first = certificates.certificate_status(where, found, [], [], [], nothing, [])
    if first.state == "ready":
        return _of_certificates(first)
    asked = found["spec"]["issuerRef"]
    kind = asked.get("kind", "Issuer")
    issuer = nothing
    if asked.get("group", "cert-manager.io") == "cert-manager.io" and kind in ("ClusterIssuer", "Issuer"):
        place = namespace if kind == "Issuer" else None
        issuer = certificates.issuer_status(kind, asked["name"], client.get(ISSUE, kind, asked["name"], place))
    return _of_certificates(
        certificates.certificate_status(
            where,
            found,
            client.list(ISSUE, "CertificateRequest", namespace),
            client.list(ACME, "Order", namespace),
            client.list(ACME, "Challenge", namespace),
            issuer,
            client.list("v1", "Event", namespace),
        )
    )


def _of_certificates(status: certificates.Status) -> Status:
    if status.state == "ready":
        return Status("done", status.sentence)
    return Status("failed" if status.state == "failed" else "waiting", status.sentence)


def _claim(client: kube.Client, target: Target, found: Object) -> Status:
    if (found.get("status") or {}).get("phase") == "Bound":
        return Status("done", "")
    events = [
        event
        for event in client.list("v1", "Event", target.namespace)
        if (event.get("involvedObject") or {}).get("uid") == found["metadata"].get("uid")
    ]
    last = max(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default={})
    why = said(last.get("message")) or "the cluster says nothing about it"
    return Status("waiting", f"{target.label} has no volume: {why} (kubectl describe pv shows who holds its own).")


def _definition(_client: kube.Client, target: Target, found: Object) -> Status:
    if release_manifest.established(found):
        return Status("done", "")
    return Status(
        "waiting",
        f"The API does not serve {target.name}: see the conditions of `kubectl describe crd {target.name}`.",
    )


# For each kind its apiVersion, and whether one is as it should be.
CONDITIONS: dict[str, tuple[str, Callable[[kube.Client, Target, Object], Status]]] = {
    "StatefulSet": ("apps/v1", _workload),
    "Deployment": ("apps/v1", _workload),
    "DaemonSet": ("apps/v1", _workload),
    "PersistentVolumeClaim": ("v1", _claim),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", _definition),
    "ClusterIssuer": (ISSUE, _issuer),
    "Certificate": (ISSUE, _certificate),
}


def explained(client: kube.Client, namespace: str, status: Status) -> Status:
    """The status of a StatefulSet, with the last lines of the log, or the answer, of the pod that it names."""
    target = Target("StatefulSet", "", namespace)
    return _with_answer(client, target, _with_log(client, target, status))


def _with_log(client: kube.Client, target: Target, status: Status) -> Status:
    """The status, with the last lines of the log that it names."""
    if status.log is None:
        return status
    pod, container = status.log
    query = f"container={container}&previous=true&tailLines={LOG_LINES}"
    try:
        log = client.raw(f"/api/v1/namespaces/{target.namespace}/pods/{pod}/log?{query}").decode(errors="replace")
    except kube.KubeError:
        return status  # the kubelet has removed it, or does not answer
    lines = " | ".join(line.strip() for line in log.splitlines()[-LOG_LINES:] if line.strip())[-LOG_LENGTH:]
    return dataclasses.replace(status, sentence=f"{status.sentence} Its last lines: {lines}") if lines else status


def _with_answer(client: kube.Client, target: Target, status: Status) -> Status:
    """The status, with what the pod that it names answers to the question whether it is ready."""
    probe = status.probe
    if probe is None or target.namespace is None:
        return status
    try:
        code, _headers, body = client.portforward_get(
            target.namespace, probe.pod, probe.port, probe.path, ANSWER_SECONDS, probe.headers
        )
    except kube.KubeError as exc:
        return dataclasses.replace(status, sentence=f"{status.sentence} {exc}")
    text = one_line(body.decode(errors="replace"))[:ANSWER_LENGTH]
    where = f"GET {probe.path} on port {probe.port} of pod {probe.pod}"
    return dataclasses.replace(status, sentence=f"{status.sentence} {where} is answered {code}: {text or 'nothing'}.")
