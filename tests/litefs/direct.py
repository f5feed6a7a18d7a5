"""Operations against LiteFS nodes on loopback: the transport is a socket, all that is asked is the real LiteFS."""

from __future__ import annotations

import datetime
import socket
import time
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import kube, litefs
from ansible_collections.abaci.infra.plugins.module_utils.operations import act
from litefs_cluster import DATABASE, Cluster, request


class Stream:
    """What Client.dial() returns, over a plain socket."""

    def __init__(self, port: int, deadline: float) -> None:
        self.error = ""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=deadline - time.monotonic())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def makefile(self, mode: str) -> Any:
        return self._socket.makefile("rb")

    def close(self) -> None:
        self._socket.close()


class Api:
    """The few calls of kube.Client that an operation's transfers make."""

    def __init__(self, cluster: Cluster) -> None:
        self.nodes = {node.name: node for node in cluster.nodes}

    def portforward_get(
        self, namespace: str, pod: str, port: int, path: str, timeout: float = 10.0
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            answer = request(self.nodes[pod].api, "GET", path)
        except OSError as exc:
            raise kube.KubeError(f"{pod} does not answer ({exc}).") from exc
        return answer.status, answer.headers, answer.body

    def dial(self, namespace: str, pod: str, port: int, deadline: float) -> Stream:
        return Stream(self.nodes[pod].api, deadline)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        return {"spec": {"containers": [{"name": "app", "image": "app:1"}]}}

    def server_time(self) -> str:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def raw(self, path: str) -> bytes:
        pod = path.split("/pods/")[1].split("/")[0]
        text: str = self.nodes[pod].log()
        return text.encode()


def site(cluster: Cluster) -> act.Site:
    """The cluster as an operation sees it."""
    return act.Site(Api(cluster), "abaci", "abaci-app", DATABASE, "litefs-data", 20202)


def node(cluster: Cluster, ordinal: int) -> dict[str, Any]:
    """The litefs part of a pod in the state document, from a node on loopback; unreachable where it does not run."""
    from ansible_collections.abaci.infra.plugins.module_utils.gather import RESAMPLE_SECONDS

    one = cluster.nodes[ordinal]
    try:
        info = litefs.parse_info(request(one.api, "GET", "/info").body)
        databases = litefs.parse_vars(request(one.api, "GET", "/debug/vars").body)
        samples = []
        for _sample in range(2):
            samples.append(litefs.parse_metrics(request(one.api, "GET", "/metrics").body))
            time.sleep(RESAMPLE_SECONDS)
    except (OSError, ValueError) as exc:
        silent: dict[str, Any] = litefs.unreachable(str(exc))
        return silent
    found: dict[str, Any] = litefs.node(info, databases, samples)
    return found
