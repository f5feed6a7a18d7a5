"""Gathers the state document from a cluster: the I/O around state.py. No decision is made here.

``api`` is kube.Client, or anything with its get, list, raw and portforward.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from . import clock, litefs, state
from .kube import KubeError
from .objects import Part
from .state_types import LiteFS, State
from .telling import tell

NODE_LEASES = "kube-node-lease"

# Between two looks at a lag of exactly 0: long enough that a synced replica's lag is no longer 0.
RESAMPLE_SECONDS = 0.05


def gather(
    api: Any,
    namespace: str,
    name: str,
    database: str,
    claim_template: str = "litefs-data",
    port: int = 20202,
    timeout: float = 10.0,
    read: dict[str, Part | None] | None = None,
    sysctls: Sequence[str] = (),
) -> State:
    """Return the state document. Raises KubeError where the API itself does not answer.

    ``read`` gets the StatefulSet and the record as the API has them, for who compares them with what they are to be.
    ``sysctls``: a kubelet that runs a pod of ours with all of these is not asked what it allows.
    All pods and nodes are asked at the same time; one that does not answer within ``timeout`` (s) is described as such
    and holds nobody else up.
    """
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="gather") as pool:
        listed = {
            "version": pool.submit(_version, api),
            "statefulset": pool.submit(api.get, "apps/v1", "StatefulSet", name, namespace),
            "record": pool.submit(api.get, "v1", "ConfigMap", f"{name}-litefs-identity", namespace),
            "pods": pool.submit(api.list, "v1", "Pod", namespace),
            "claims": pool.submit(api.list, "v1", "PersistentVolumeClaim", namespace),
            "volumes": pool.submit(api.list, "v1", "PersistentVolume"),
            "nodes": pool.submit(api.list, "v1", "Node"),
            "backup_job": pool.submit(api.get, "batch/v1", "CronJob", f"{name}-backup", namespace),
            "silences": pool.submit(node_silences, api),
        }

    if read is not None:
        read |= {part: listed[part].result() for part in ("statefulset", "record")}
    ours = [pod for pod, _ordinal in state.our_pods(listed["pods"].result(), name)]
    taken = taken_sysctls(ours, sysctls)
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="ask") as pool:
        kubelets = {
            node["metadata"]["name"]: pool.submit(ask_kubelet, api, node["metadata"]["name"])
            for node in listed["nodes"].result()
            if node["metadata"]["name"] not in taken
        }
        answers = ask_pods(api, namespace, ours, database, port, timeout)
        return state.document(
            namespace,
            name,
            database,
            claim_template,
            namespace_exists=_exists(api, namespace, listed),
            answers=answers,
            kubelets={**taken, **{node: answer.result() for node, answer in kubelets.items()}},
            gathered_at=api.server_time(),
            **{part: answer.result() for part, answer in listed.items()},
        )


def gather_replicas(
    api: Any,
    namespace: str,
    name: str,
    database: str,
    claim_template: str = "litefs-data",
    port: int = 20202,
    timeout: float = 10.0,
) -> State:
    """The state document with nothing but the StatefulSet, the record and the pods, where all that is wanted answers.

    Else it is gathered whole: it takes nodes, claims and volumes to say why a pod does not answer.
    """
    with ThreadPoolExecutor(max_workers=3, thread_name_prefix="gather") as pool:
        statefulset = pool.submit(api.get, "apps/v1", "StatefulSet", name, namespace)
        record = pool.submit(api.get, "v1", "ConfigMap", f"{name}-litefs-identity", namespace)
        pods = pool.submit(api.list, "v1", "Pod", namespace)
    ours = [pod for pod, _ordinal in state.our_pods(pods.result(), name)]
    document = state.document(
        namespace,
        name,
        database,
        claim_template,
        statefulset=statefulset.result(),
        record=record.result(),
        pods=ours,
        answers=ask_pods(api, namespace, ours, database, port, timeout),
        gathered_at=api.server_time(),
    )
    answering = {pod["ordinal"] for pod in litefs.reachable(document)}
    if answering.issuperset(range(document["statefulset"]["replicas"] or 0)):
        return document
    return gather(api, namespace, name, database, claim_template, port, timeout)


def _exists(api: Any, namespace: str, listed: Mapping[str, Future[Any]]) -> bool:
    """Whether the namespace is there: asked only where nothing was found in it."""
    if any(listed[part].result() for part in ("statefulset", "record", "pods", "claims", "backup_job")):
        return True
    return api.get("v1", "Namespace", namespace) is not None


def ask_pods(
    api: Any, namespace: str, pods: Sequence[Part], database: str, port: int, timeout: float
) -> dict[str, LiteFS]:
    """What the LiteFS of each pod answers, all asked at the same time."""
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="ask") as pool:
        asked = {pod["metadata"]["name"]: pool.submit(ask_pod, api, namespace, pod, port, timeout) for pod in pods}
        answers = {pod: answer.result() for pod, answer in asked.items()}
    for pod in pods:
        # Its replicas may have been asked a moment later than the primary, in which somebody wrote.
        if outrun(answers, pod["metadata"]["name"], database):
            answers[pod["metadata"]["name"]] = ask_pod(api, namespace, pod, port, timeout)
    return answers


def outrun(answers: Mapping[str, LiteFS], pod: str, database: str) -> bool:
    """Whether the pod answered as primary, and another of its cluster answered with a later transaction."""
    mine = answers[pod]
    if not mine["is_primary"]:
        return False

    def txid(answer: LiteFS) -> int:
        held = answer["databases"].get(database)
        return int(held["txid"], 16) if held else 0

    return any(txid(one) > txid(mine) for one in answers.values() if one["cluster_id"] == mine["cluster_id"])


def ask_pod(api: Any, namespace: str, pod: Part, port: int, timeout: float) -> LiteFS:
    """Ask the LiteFS of one pod; never raises for a pod that does not answer."""
    started = (pod.get("status", {}).get("containerStatuses") or [{}])[0].get("state", {})
    if "running" not in started:
        # Nothing can listen yet: its init container says why (see state.document), and a dial would only take time.
        return litefs.unreachable("its container is not running")
    name = pod["metadata"]["name"]
    try:
        with api.portforward(namespace, name, port, timeout) as get:

            def read(path: str) -> bytes:
                status, _headers, body = get(path)
                if status != 200:
                    raise KubeError(
                        f"GET {path} on port {port} of pod {namespace}/{name} was answered {status}.", status
                    )
                content: bytes = body
                return content

            info = litefs.parse_info(read("/info"))
            databases = litefs.parse_vars(read("/debug/vars"))
            samples = [litefs.parse_metrics(read("/metrics"))]
            if not info.is_primary and samples[0].lag_seconds == 0:
                time.sleep(RESAMPLE_SECONDS)
                samples.append(litefs.parse_metrics(read("/metrics")))
    except (KubeError, ValueError) as exc:
        return litefs.unreachable(str(exc).rstrip("."))
    return litefs.node(info, databases, samples)


def taken_sysctls(pods: Sequence[Part], wanted: Sequence[str]) -> dict[str, list[str] | str]:
    """By node, the sysctls of a pod that runs there with all that are wanted: its kubelet took them."""
    found: dict[str, list[str] | str] = {}
    for pod in pods:
        given = [str(one["name"]) for one in (pod["spec"].get("securityContext") or {}).get("sysctls") or []]
        if wanted and (pod.get("status") or {}).get("phase") == "Running" and set(wanted) <= set(given):
            found[pod["spec"]["nodeName"]] = given
    return found


def ask_kubelet(api: Any, node: str) -> list[str] | str:
    """Return the node's allowedUnsafeSysctls, or why they are not known."""
    try:
        configuration = json.loads(api.raw(f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
        return [str(name) for name in configuration.get("allowedUnsafeSysctls") or []]
    except KubeError as exc:
        return str(exc).rstrip(".")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its kubelet's configz could not be read"


def node_silences(api: Any) -> dict[str, float]:
    """Seconds since each kubelet renewed its node's Lease, by the API server's clock.

    A kubelet renews it every 10 s; the node is Ready for 40 s after its last word.
    """
    try:
        leases = api.list("coordination.k8s.io/v1", "Lease", NODE_LEASES)
        now = api.server_time()
    except KubeError:
        return {}  # without the right to read them, Ready alone counts
    renewed = {lease["metadata"]["name"]: (lease.get("spec") or {}).get("renewTime") for lease in leases}
    return {
        name: round(seconds, 1)
        for name, time in renewed.items()
        if (seconds := clock.between(time, now)) > float("-inf")
    }


def wait_replicated(
    look: Callable[[], State], database: str, seconds: float, pause: float = 1.0
) -> tuple[State, dict[str, str] | None, list[str]]:
    """Look until every replica has reached the position that the primary had when first asked.

    Returns (the last state document, that position or None, the problems left: none when it is so). The position is
    taken once, so a site that is written to all the time can arrive.
    """
    deadline = time.monotonic() + seconds
    target: dict[str, str] | None = None
    while True:
        document = look()
        if target is None:
            target = litefs.primary_position(document, database)
        if target is None:
            problems = [_no_position(document, database)]
        else:
            problems = litefs.replicated(document, target, database)["problems"]
        if problems:
            tell(f"Every replica at the primary's position: {problems[0]}", deadline=deadline)
        left = deadline - time.monotonic()
        if not problems or left <= 0:
            return document, target, problems
        time.sleep(min(pause, max(left, 0.0)))


def _no_position(document: State, database: str) -> str:
    leaders = litefs.primaries(document)
    if not document["statefulset"]["exists"]:
        return f"StatefulSet {document['namespace']}/{document['statefulset']['name']} does not exist."
    if len(leaders) > 1:
        return f"Pods {litefs.names(leaders)} each say that they are primary."
    if leaders:
        return f"The primary {leaders[0]['name']} has no transaction of the database {database} yet."
    stopped = [
        f"{pod['name']} does not start: {pod['init']['message']}" for pod in document["pods"] if pod["init"]["message"]
    ]
    return "No pod says that it is primary" + (f" ({'; '.join(stopped)})" if stopped else "") + "."


def _version(api: Any) -> dict[str, Any]:
    try:
        version: dict[str, Any] = json.loads(api.raw("/version"))
    except ValueError as exc:
        raise KubeError(f"The API answered /version with something else than JSON, or with half of it: {exc}.") from exc
    return version
