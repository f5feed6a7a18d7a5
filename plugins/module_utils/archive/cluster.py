"""The two things that the archive asks of Kubernetes: what the record says, and to note an event. I/O.

The client of Kubernetes is not in the pod, and the archive's ServiceAccount may do no more than this.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TypedDict

from .alarms import Alarm

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 5.0


class Reference(TypedDict):
    """Which object an event is about."""

    apiVersion: str
    kind: str
    namespace: str
    name: str


class Source(TypedDict):
    component: str


class Metadata(TypedDict):
    generateName: str
    namespace: str


class Event(TypedDict):
    """Kubernetes' Event (v1)."""

    apiVersion: str
    kind: str
    metadata: Metadata
    type: str
    reason: str
    message: str
    involvedObject: Reference
    source: Source
    firstTimestamp: str
    lastTimestamp: str
    count: int


def event(alarm: Alarm, namespace: str, app: str, stamp: str) -> Event:
    """What `kubectl get events` shows of an alarm, at the application's StatefulSet."""
    reason = "Archive" + "".join(word.capitalize() for word in alarm["kind"].split("_"))
    return Event(
        apiVersion="v1",
        kind="Event",
        metadata={"generateName": f"{app}-archive.", "namespace": namespace},
        type="Warning",
        reason=reason,
        message=alarm["sentence"][:1024],
        involvedObject={"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": namespace, "name": app},
        source={"component": "abaci-archive"},
        firstTimestamp=stamp,
        lastTimestamp=stamp,
        count=1,
    )


def recorded(config_map: object) -> str:
    """The cluster id in the record; "" where none is recorded yet."""
    return value(config_map, "clusterID")


def value(config_map: object, key: str) -> str:
    """What a key of the record says; "" where it is not there."""
    data = config_map.get("data") if isinstance(config_map, dict) else None
    return str(data.get(key) or "").strip() if isinstance(data, dict) else ""


class Api:
    """Of the pod's own ServiceAccount."""

    def __init__(self, namespace: str, app: str, record: str) -> None:
        self._namespace, self._app, self._record = namespace, app, record
        self._last = ""

    def cluster_id(self) -> str:
        """The record's; while the API is away what it was last."""
        self._last = recorded(self._found()) or self._last
        return self._last

    def given_up(self) -> str | None:
        """What the record says of when it was gone on without what the archive had more; None while the API is away."""
        found = self._found()
        return None if found is None else value(found, "archiveGivenUpTime")

    def _found(self) -> object:
        """The record, {} where there is none; None while the API is away."""
        if not self._record:
            return {}
        try:
            return self._ask("GET", f"/api/v1/namespaces/{self._namespace}/configmaps/{self._record}")
        except urllib.error.HTTPError as exc:
            return {} if exc.code == 404 else None
        except (OSError, ValueError, KeyError):
            return None

    def tell(self, alarm: Alarm, stamp: str) -> None:
        """OSError where the API is away or refuses."""
        made = event(alarm, self._namespace, self._app, stamp)
        self._ask("POST", f"/api/v1/namespaces/{self._namespace}/events", json.dumps(made).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> object:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        # The token is renewed in its file.
        token = (ACCOUNT / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"https://{host}:{port}{path}", body, headers, method=method)
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        try:
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except http.client.HTTPException as exc:
            raise OSError(f"the API broke off: {exc!r}") from exc
