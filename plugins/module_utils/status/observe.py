"""Asks the cluster and the edge how the site is: the I/O around reading.py. No decision is made here.

Eleven requests to the API, whatever the site's size, one to each pod's LiteFS and one to each kubelet; all at once, and
then one for the log of each replica that sees no primary. The edge is asked as a visitor asks, and the certificates are
those that are shown when a connection is made. ``api`` is kube.Client, or anything with its get, list, raw and
portforward.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import conditions, edge, edge_status, gather, state, wording
from ..archive.settings import Settings
from ..kube import KubeError
from ..objects import Part
from ..operations import drill, retention
from ..state_types import LiteFS
from . import logs, reading
from .reading import Asked, Seen


@dataclass
class _Optional:
    """Parts without which the rest is still worth knowing: what could not be read is told by name."""

    unread: list[str] = field(default_factory=list)

    def take(self, what: str, future: Future[Any], default: Any) -> Any:
        """The answer, or the default where the API refused it. KubeError where it gave no answer at all."""
        try:
            return future.result()
        except KubeError as exc:
            if exc.status is None:
                raise
            self.unread.append(f"{what} could not be read: {exc}")
            return default


def observe(api: Any, asked: Asked) -> Seen:
    """Everything that facts are made of.

    An API that does not answer is described, too.
    """
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="status") as pool:
        pages = [pool.submit(_send, request) for request in _requests(asked)]
        shown = pool.submit(_certificates, api, asked)
        try:
            seen = _cluster(api, asked, pool)
        except KubeError as exc:
            seen = Seen(error=str(exc))
        seen.answers = [page.result() for page in pages]
        seen.certificates |= shown.result()
    seen.manifests = _manifests(asked.backup_directory)
    if asked.backup_directory:
        folder = Path(asked.backup_directory).expanduser()
        seen.drill = drill.read(folder, asked.namespace, asked.name, asked.database)
    seen.server, seen.kubeconfig = str(api.server), str(api.kubeconfig)
    seen.kubeconfig_mode = _mode(str(api.kubeconfig))
    return seen


def _cluster(api: Any, asked: Asked, pool: ThreadPoolExecutor) -> Seen:
    namespace, name = asked.namespace, asked.name
    get, of_all = api.get, api.list
    listed: dict[str, Future[Any]] = {
        "statefulset": pool.submit(get, "apps/v1", "StatefulSet", name, namespace),
        "maps": pool.submit(of_all, "v1", "ConfigMap", namespace),
        "pods": pool.submit(of_all, "v1", "Pod"),  # of all namespaces: what stands beside the application, too
        "claims": pool.submit(of_all, "v1", "PersistentVolumeClaim", namespace),
        "volumes": pool.submit(of_all, "v1", "PersistentVolume"),
        "nodes": pool.submit(of_all, "v1", "Node"),
    }
    extra: dict[str, Future[Any]] = {
        "Leases": pool.submit(of_all, "coordination.k8s.io/v1", "Lease"),
        "the CronJob of the backup": pool.submit(get, "batch/v1", "CronJob", f"{name}-backup", namespace),
        "Jobs": pool.submit(of_all, "batch/v1", "Job", namespace),
        "Events": pool.submit(of_all, "v1", "Event", namespace),
        "the Secret of TLS": pool.submit(get, "v1", "Secret", asked.tls_secret, namespace),
    }
    core = {part: future.result() for part, future in listed.items()}
    optional = _Optional()
    found = {what: optional.take(what, future, None) for what, future in extra.items()}
    now = api.server_time()
    everybody = core["pods"]
    core["pods"] = [pod for pod in everybody if pod["metadata"].get("namespace") == namespace]
    maps = {item["metadata"]["name"]: item for item in core.pop("maps")}
    archive = pool.submit(_archive, api, asked, everybody)
    answers, kubelets = _ask(api, asked, core, pool)
    blind = _logs(api, asked, answers)
    document = state.document(
        namespace,
        name,
        asked.database,
        asked.claim_template,
        namespace_exists=bool(maps),  # each namespace has kube-root-ca.crt
        record=maps.get(f"{name}-litefs-identity"),
        backup_job=found["the CronJob of the backup"],
        answers=answers,
        # Why a kubelet does not answer; what it allows is not asked.
        kubelets={node: said if isinstance(said, str) else [] for node, said in kubelets.items()},
        silences=reading.silences(found["Leases"] or (), now),
        gathered_at=now,
        **core,
    )
    return Seen(
        state=document,
        statefulset=core["statefulset"],
        nodes=core["nodes"],
        audit=maps.get(f"{name}-audit"),
        leases=found["Leases"] or (),
        pods=everybody,
        jobs=found["Jobs"] or (),
        events=found["Events"] or (),
        secret=found["the Secret of TLS"],
        kubelets=kubelets,
        unread=optional.unread,
        archive=archive.result(),
        logs=blind,
    )


def _ask(
    api: Any, asked: Asked, core: Mapping[str, Any], pool: ThreadPoolExecutor
) -> tuple[dict[str, LiteFS], dict[str, Part | str]]:
    """What each pod's LiteFS and each node's kubelet say; a node that is away is not asked: that only takes time."""
    stats = {node["metadata"]["name"]: pool.submit(_stats, api, node) for node in core["nodes"]}
    pods = [pod for pod, _ordinal in state.our_pods(core["pods"], asked.name)]
    answers = gather.ask_pods(api, asked.namespace, pods, asked.database, asked.port, asked.timeout)
    return answers, {name: future.result() for name, future in stats.items()}


def _logs(api: Any, asked: Asked, answers: Mapping[str, LiteFS]) -> dict[str, str]:
    """The last lines of the replicas that see no primary: LiteFS says why only there."""
    blind = [
        pod
        for pod, said in answers.items()
        if said["reachable"] and not said["is_primary"] and said["primary_hostname"] is None
    ]
    found, _unread = logs.read(api, [logs.Source(asked.namespace, pod, "app") for pod in blind], 600, 20, False)
    return {source.pod: text for source, text in found.items()}


def _archive(api: Any, asked: Asked, pods: Iterable[Part]) -> Part | str | None:
    """What the archive's pod says, or why it says nothing; None where there is none that runs."""
    mine = [pod for pod in pods if f"{asked.name}-archive" in reading.owners(pod) and conditions.is_ready(pod)]
    if not mine:
        return None
    metadata = mine[0]["metadata"]
    try:
        status, _headers, body = api.portforward_get(
            metadata["namespace"], metadata["name"], Settings.local_port, "/status", asked.timeout
        )
        said = json.loads(body) if status == 200 else None
    except (KubeError, ValueError) as exc:
        return wording.reason(exc)
    return said if isinstance(said, dict) else f"it answers {status}"


def _stats(api: Any, node: Part) -> Part | str:
    """What the kubelet says of disks, or why it says nothing."""
    if not conditions.is_ready(node):
        return "the node is not ready"
    try:
        summary = json.loads(api.raw(f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"))
    except KubeError as exc:
        return str(exc).rstrip(".")
    except ValueError:
        return "its kubelet's summary could not be read"
    return summary if isinstance(summary, dict) else "its kubelet's summary could not be read"


def _requests(asked: Asked) -> list[dict[str, Any]]:
    expected = asked.expected()
    return [*edge_status.pages(expected), *edge_status.writes(expected)] if expected else []


def _send(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return edge.send(edge.parse({**request, "timeout": 5}))
    except edge.BadRequest as exc:
        return {"status": None, "headers": [], "length": 0, "error": str(exc)}


def _certificates(api: Any, asked: Asked) -> dict[str, bytes | str]:
    """By where they are shown: the certificate (DER or PEM), or the sentence why there is none."""
    found: dict[str, bytes | str] = {}
    server = urllib.parse.urlsplit(str(api.server))
    if server.scheme == "https":
        found["api"] = _told(lambda: _shown(server.hostname or "", server.port or 443, "", 5))
    if asked.expected() and asked.tls:
        found["edge"] = _told(lambda: _shown(asked.address, asked.edge_https_port, asked.domains[0], 5))
    path = getattr(getattr(api, "_configuration", None), "cert_file", None)
    if path:
        found["kubeconfig"] = _told(Path(path).read_bytes)
    return found


def _told(read: Callable[[], bytes]) -> bytes | str:
    try:
        return read()
    except (OSError, ValueError) as exc:
        return wording.reason(exc)


def _shown(host: str, port: int, name: str, timeout: float) -> bytes:
    """The certificate (DER) that is shown there, trusted or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=timeout) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def _manifests(directory: str) -> list[retention.Manifest]:
    """The manifests of the backups that this machine keeps."""
    try:
        return retention.read(Path(directory).expanduser()) if directory else []
    except OSError:
        return []


def _mode(path: str) -> str | None:
    try:
        return f"{os.stat(os.path.expanduser(path)).st_mode & 0o777:04o}"
    except OSError:
        return None
