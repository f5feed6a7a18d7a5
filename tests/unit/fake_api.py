"""A recording, faulting Kubernetes API under the modules and the steps: kube.Client with its wire replaced.

Everything above the wire is the product's own: paths, paging, errors, port-forward. Objects are plain dicts with uid
and resourceVersion; a delete or a replace whose precondition does not hold is answered 409. It does not validate, and
an apply only merges (it does not take away what an apply before it had set).

    api = FakeApi(make.record("recorded", make.A), make.pod(0))
    api.fail("GET", "Pod", how="timeout")              # the next one; times=3 for three, name= for one object
    api.away(looks=1)                                  # every request of the next look times out
    run(litefs_info, api, namespace="abaci", ...)      # a module's main(); its answer
    api.changes()                                      # what was changed, in order

``Cluster`` is such an API with a site of pods in it whose LiteFS answers, and with a StatefulSet that makes pods anew.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import email.utils
import io
import json
import queue
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import factory_objects as make
import urllib3
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.abaci.infra.plugins.module_utils import guard, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import sqlitefile

Object = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name

# What it serves unless it is told more: no CRD is installed.
KINDS = {
    version: kinds for version, kinds in kube.KINDS.items() if version.endswith(".k8s.io/v1") or "." not in version
}


@dataclass(frozen=True)
class Request:
    """One request as it came. Of a request to a pod's LiteFS: kind "LiteFS", name the pod, path its path."""

    method: str
    kind: str
    name: str
    path: str
    namespace: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def uid(self) -> str | None:
        """The precondition of a delete."""
        return ((self.body or {}).get("preconditions") or {}).get("uid")


class FakeApi(kube.Client):  # type: ignore[misc]
    """See the module's docstring. ``clock_ahead`` (s): how far the server's clock is ahead of this machine's."""

    def __init__(self, *objects: Object, clock_ahead: float = 0, kinds: dict[str, Any] | None = None) -> None:
        configuration = SimpleNamespace(host="https://api.test:6443", auth_settings=dict)
        super().__init__(
            SimpleNamespace(configuration=configuration, rest_client=SimpleNamespace(pool_manager=None)),
            "kubeconfig",
            5,
        )
        self.clock_ahead = clock_ahead
        self.kinds = KINDS | (kinds or {})
        self.version = {"gitVersion": "v1.36.3+k3s1", "major": "1", "minor": "36"}
        self.objects: dict[Key, Object] = {}
        self.litefs: dict[str, LiteFS] = {}  # by pod
        self.requests: list[Request] = []
        self.after: list[Callable[[Request], None]] = []  # called when a request was answered well
        self._faults: list[SimpleNamespace] = []
        self._ids = 0
        self._guard = threading.RLock()
        for one in objects:
            self.put(one)

    # --- for tests -------------------------------------------------------------------------------------------

    def put(self, obj: Object) -> Object:
        """Have this object, whatever was there."""
        stored = copy.deepcopy(obj)
        kind = stored["kind"] = stored.get("kind") or _kind_of(stored)
        stored.setdefault("apiVersion", next(version for version, kinds in self.kinds.items() if kind in kinds))
        metadata = stored["metadata"]
        if self.kinds[stored["apiVersion"]][kind][1]:
            metadata.setdefault("namespace", make.NAMESPACE)
        else:
            metadata.pop("namespace", None)
        with self._guard:
            self._ids += 1
            metadata.setdefault("uid", f"uid-{self._ids}")
            metadata["resourceVersion"] = str(1000 + self._ids)
            self.objects[kind, metadata.get("namespace", ""), metadata["name"]] = stored
        return stored

    def have(self, kind: str, name: str, namespace: str = make.NAMESPACE) -> Object | None:
        """The object as it is stored (to be looked at, or changed behind the product's back); None for none."""
        return self.objects.get((kind, namespace, name)) or self.objects.get((kind, "", name))

    def drop(self, kind: str, name: str, namespace: str = make.NAMESPACE) -> None:
        self.objects.pop((kind, namespace, name), None) or self.objects.pop((kind, "", name), None)

    def all(self, kind: str) -> list[Object]:
        return [obj for (one, _namespace, _name), obj in sorted(self.objects.items()) if one == kind]

    def fail(
        self,
        method: str = "",
        kind: str = "",
        name: str = "",
        *,
        how: str | int = "timeout",
        times: int = 1,
        skip: int = 0,
        after: bool = False,
    ) -> None:
        """Let the next requests like this fail, ``times`` times, after ``skip`` that do not.

        ``how``: timeout (nothing comes), half (the answer breaks off) or a status such as 409, 410, 503. ``after``: the
        request does what it asks for, and only its answer is lost. Requests to a pod are of the kind LiteFS.
        """
        self._faults.append(
            SimpleNamespace(method=method, kind=kind, name=name, how=how, times=times, skip=skip, after=after)
        )

    def away(self, looks: int = 1) -> None:
        """Let the API be away for so many looks: each begins by asking for the version."""
        self._faults.append(SimpleNamespace(looks=looks + 1, how="timeout", after=False))

    def changes(self) -> list[Request]:
        """What was asked for that changes something."""
        return [one for one in self.requests if one.method != "GET"]

    def of(self, method: str, kind: str) -> list[Request]:
        return [one for one in self.requests if (one.method, one.kind) == (method, kind)]

    def time(self) -> datetime.datetime:
        """The server's clock."""
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.clock_ahead)

    # --- the wire --------------------------------------------------------------------------------------------

    def _send(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str | None, bytes]:
        request = self._parse(method, url, json.loads(data) if data else None)
        fault = self._note(request)
        if fault is not None and not fault.after:
            if isinstance(fault.how, int):
                return self._answer(fault.how, _status(fault.how, "the test says so", request.name or "its namespace"))
            if fault.how == "timeout":
                raise urllib3.exceptions.TimeoutError("the test lets it time out")
        status, body = self._do(request)
        if status < 300:
            for hook in self.after:
                hook(request)
        if fault is not None and fault.after:
            raise urllib3.exceptions.TimeoutError("the test loses the answer")
        status, date, content = self._answer(status, body)
        return status, date, content[: len(content) // 2] if fault is not None else content

    def _answer(self, status: int, body: Any) -> tuple[int, str, bytes]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return status, email.utils.format_datetime(self.time(), usegmt=True), content

    def _note(self, request: Request) -> SimpleNamespace | None:
        """Record the request; the fault that it meets."""
        with self._guard:
            self.requests.append(request)
            for fault in list(self._faults):
                if hasattr(fault, "looks"):
                    fault.looks -= request.path == "/version"
                    if fault.looks > 0:
                        return fault
                    self._faults.remove(fault)
                    continue
                if not all(
                    want in ("", got)
                    for want, got in (
                        (fault.method, request.method),
                        (fault.kind, request.kind),
                        (fault.name, request.name),
                    )
                ):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def _parse(self, method: str, url: str, body: Any) -> Request:
        split = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(split.query))
        parts = [urllib.parse.unquote(part) for part in split.path.strip("/").split("/")]
        rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
        version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        kinds = self.kinds.get(version, {})
        kind = next((kind for kind, (plural, _) in kinds.items() if rest and plural == rest[0]), "")
        name, subresource = [*rest, "", "", ""][1:3]
        return Request(method, kind, name, split.path, namespace, subresource, query, body)

    def _do(self, request: Request) -> tuple[int, Any]:
        if not request.kind or request.subresource in ("proxy", "log"):
            return self._plain(request)
        with self._guard:
            key = (request.kind, request.namespace, request.name)
            found = self.objects.get(key)
            if request.method == "POST":
                name = request.body["metadata"]["name"]
                if (request.kind, request.namespace, name) in self.objects:
                    return 409, _status(409, f"{request.kind} {name} already exists")
                return 201, self.put(request.body)
            if not request.name:
                return self._list(request)
            if request.method == "PATCH" and request.query.get("fieldManager"):
                merged = _merged(found or {}, request.body)
                return 200, merged if request.query.get("dryRun") else self.put(merged)
            if found is None:
                return 404, _status(404, f"{request.kind} {request.name} not found", request.name)
            if request.method == "GET":
                return 200, _scale(found) if request.subresource == "scale" else found
            if request.method == "DELETE":
                wanted = (request.body or {}).get("preconditions") or {}
                if request.uid not in (None, found["metadata"]["uid"]):
                    return 409, _status(409, f"the UID in the precondition ({request.uid}) is not the object's")
                if wanted.get("resourceVersion") not in (None, found["metadata"]["resourceVersion"]):
                    return 409, _status(409, f"{request.kind} {request.name} has been modified")
                forced = request.kind == "Pod" and request.body.get("gracePeriodSeconds") == 0
                if found["metadata"].get("finalizers") and not forced:
                    found["metadata"].setdefault("deletionTimestamp", self.time().strftime("%Y-%m-%dT%H:%M:%SZ"))
                else:
                    del self.objects[key]
                return 200, _status(200, "deleted")
            if (version := request.body["metadata"].get("resourceVersion")) and version != found["metadata"][
                "resourceVersion"
            ]:
                return 409, _status(409, f"{request.kind} {request.name} has been modified")
            if request.kind == "ControllerRevision" and request.method == "PUT":
                return 422, _status(422, "data: Invalid value: field is immutable", request.name)
            if request.subresource == "scale":
                found["spec"]["replicas"] = request.body["spec"]["replicas"]
                return 200, _scale(self.put(found))
            return 200, self.put(_merged(found, request.body) if request.method == "PATCH" else request.body)

    def _list(self, request: Request) -> tuple[int, Any]:
        wanted = dict(pair.split("=") for pair in request.query.get("labelSelector", "").split(",") if "=" in pair)
        items = [
            obj
            for (kind, namespace, _name), obj in sorted(self.objects.items())
            if kind == request.kind
            and request.namespace in ("", namespace)
            and wanted.items() <= (obj["metadata"].get("labels") or {}).items()
        ]
        return 200, {"kind": f"{request.kind}List", "metadata": {}, "items": copy.deepcopy(items)}

    def _plain(self, request: Request) -> tuple[int, Any]:
        if request.path == "/version":
            return 200, self.version
        if request.path.endswith("/proxy/configz"):
            return 200, {"kubeletconfig": {"allowedUnsafeSysctls": [make.SYSCTL]}}
        if request.subresource == "log":
            return 200, self.litefs[request.name].log.encode() if request.name in self.litefs else b""
        return 404, _status(404, f"{request.path} not found")

    def dial(self, namespace: str, pod: str, port: int, deadline: float) -> Any:
        return _Stream(self, namespace, pod)


class LiteFS:
    """One pod's LiteFS, as v0.5.14 answers; what it holds may be changed at any time.

    ``content`` is what /export gives (bytes of a SQLite file); without any an export is answered 404. An import takes
    the file's own checksum, as LiteFS computes it, and is one transaction. ``follows``: its primary.
    """

    def __init__(
        self,
        cluster: str | None = make.A,
        txid: int = 5,
        checksum: str | None = None,
        *,
        primary: bool = False,
        content: bytes = b"",
        database: str = make.DATABASE,
    ) -> None:
        self.cluster, self.primary, self.content, self.database = cluster, primary, content, database
        self.txid = txid
        self.checksum = checksum or (_facts(content)["checksum"] if content else f"c0ffee{txid:010x}")
        self.lag: float = 0 if primary else 0.25
        self.host = f"{make.NAME}-0"
        self.follows: LiteFS | None = None
        self.running = True
        self.log = ""
        self.imported: list[bytes] = []
        self.during_export: Callable[[], None] = lambda: None  # what happens while a file is on its way
        self.spoil: Callable[[bytes], bytes] = lambda content: content  # what becomes of it there
        self.watchers: list[queue.Queue[bytes | None]] = []

    def write(self, content: bytes = b"", *, checksum: str = "") -> None:
        """One more transaction, which the watchers of /events are told of."""
        self.txid += 1
        self.content = content or self.content
        self.checksum = checksum or (_facts(content)["checksum"] if content else f"c0ffee{self.txid:010x}")
        event = {
            "type": "tx",
            "db": self.database,
            "data": {"txID": f"{self.txid:016x}", "postApplyChecksum": self.checksum},
        }
        for watcher in self.watchers:
            watcher.put(json.dumps(event).encode() + b"\n")

    def sync(self) -> None:
        """A replica takes what its primary has, unless it is of another cluster."""
        if self.follows is not None and self.follows.running and self.cluster in (None, self.follows.cluster):
            leader = self.follows
            self.cluster, self.txid, self.checksum = leader.cluster, leader.txid, leader.checksum
            self.content, self.lag = leader.content, 0.25

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.sync()
        where = urllib.parse.urlsplit(path).path
        if (method, where) == ("GET", "/info"):
            return 200, make.info_body(self.cluster, self.primary, self.primary, self.host).encode()
        if (method, where) == ("GET", "/debug/vars"):
            known = self.txid or self.content
            return 200, (
                make.vars_body(self.txid, self.checksum, self.database) if known else '{"store": {"dbs": {}}}'
            ).encode()
        if (method, where) == ("GET", "/metrics"):
            return 200, make.metrics_body(int(self.primary), self.lag).encode()
        if (method, where) == ("GET", "/export") and self.content:
            content = self.content
            self.during_export()
            return 200, self.spoil(content)
        if (method, where) == ("POST", "/import"):
            if not self.primary:
                return 503, b"not primary"
            self.imported.append(body)
            self.write(body, checksum=_facts(body)["imported_checksum"])
            return 200, b""
        return 404, b"404 page not found"


class _Stream:
    """What kube.PortForward is to http.client, ended at a LiteFS of this test."""

    error = ""

    def __init__(self, api: FakeApi, namespace: str, pod: str) -> None:
        self._api, self._namespace, self._pod = api, namespace, pod
        self._sent = b""
        self._queue: queue.Queue[bytes | None] | None = None

    def send(self, data: bytes) -> None:
        self._sent += data

    def makefile(self, _mode: str) -> io.BufferedReader:
        head, _, body = self._sent.partition(b"\r\n\r\n")
        self._sent = b""  # the next request on this stream is one of its own
        method, path, _protocol = head.split(b"\r\n")[0].decode().split()
        request = Request(method, "LiteFS", self._pod, path, self._namespace)
        fault = self._api._note(request)
        node = self._api.litefs.get(self._pod)
        if self._api.have("Pod", self._pod, self._namespace) is None:
            raise kube.KubeError(f"Pod {self._pod} not found.", 404)
        if node is None or not node.running:
            self.error = "dial tcp4 127.0.0.1:20202: connect: connection refused"
            raise ConnectionError(self.error)
        if fault is not None and fault.how == "timeout" and not fault.after:
            raise TimeoutError
        if path == "/events":
            self._queue = queue.Queue()
            node.watchers.append(self._queue)
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
            return io.BufferedReader(_Pipe(self._queue, start))
        status, content = (
            (fault.how, b"the test says so")
            if fault is not None and isinstance(fault.how, int)
            else node.answer(method, path, body)
        )
        if status < 300:
            for hook in self._api.after:
                hook(request)
        if fault is not None and fault.after:
            raise TimeoutError
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        return io.BufferedReader(
            io.BytesIO(answer + content[: len(content) // 2 if fault is not None else None])  # type: ignore[arg-type]
        )

    def close(self) -> None:
        if self._queue is not None:
            self._queue.put(None)


class _Pipe(io.RawIOBase):
    def __init__(self, source: queue.Queue[bytes | None], start: bytes) -> None:
        self._source, self._rest = source, start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._source.get(timeout=60) or b""
        count = min(len(buffer), len(data))
        buffer[:count], self._rest = data[:count], data[count:]
        return count


class Cluster(FakeApi):
    """A site of pods on one node each: pod 0 is the primary of cluster A with ``content``, the others follow.

    A pod that is deleted comes back at once with another uid, on the volume of its claim; where the claim was deleted
    (it goes with its pod) it has a new one, empty, that takes what the primary has. A fenced ordinal comes back fenced.
    """

    def __init__(self, replicas: int = 3, content: bytes = b"", **options: Any) -> None:
        super().__init__(**options)
        self.disks: dict[str, LiteFS] = {}  # by volume: what outlives a pod
        self.put({"kind": "Namespace", "metadata": {"name": make.NAMESPACE}})
        # What a tag, or an image, is at this moment, and what crashes at its start.
        self.builds: dict[str, str] = {make.IMAGE: "sha256:" + "a" * 64}
        self.crashing: set[str] = set()
        statefulset = make.statefulset(replicas, replicas) | {"kind": "StatefulSet"}
        statefulset["spec"] |= {"updateStrategy": {"type": "RollingUpdate"}, "selector": {"matchLabels": {}}}
        self._revise(self.put(statefulset))
        self.put(make.record("recorded", make.A))
        self.put(_litefs_yml(0))
        for ordinal in range(replicas):
            self.put(make.kube_node(f"node-{ordinal}") | {"kind": "Node"})
            self._claim(ordinal, LiteFS(primary=ordinal == 0, content=content))
            self._start(ordinal)
        for pod in self.all("Pod"):  # they run for a while
            pod["metadata"]["creationTimestamp"] = "2026-01-01T06:00:00Z"
        self.after.append(self._control)

    def record(self) -> dict[str, str]:
        """The data of the identity record."""
        data: dict[str, str] = (self.have("ConfigMap", f"{make.NAME}-litefs-identity") or {})["data"]
        return data

    def node(self, ordinal: int) -> LiteFS:
        return self.litefs[f"{make.NAME}-{ordinal}"]

    def stop(self, ordinal: int) -> None:
        """Its node dies: the API does not hear from it, and its pod stays as it was seen last."""
        self.node(ordinal).running = False
        self.put(make.kube_node(f"node-{ordinal}", ready=False) | {"kind": "Node"})
        pod = self.have("Pod", f"{make.NAME}-{ordinal}")
        assert pod is not None
        pod["metadata"]["finalizers"] = ["test/no-kubelet-confirms-it"]
        pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]

    def _revise(self, statefulset: Object) -> None:
        """What the controller does with a template: a revision for each, numbered anew when it comes back."""
        status, template = statefulset["status"], statefulset["spec"]["template"]
        known = self.all("ControllerRevision")
        mine = next((one for one in known if one["data"]["spec"]["template"] == template | {"$patch": "replace"}), None)
        number = max((one["revision"] for one in known), default=0) + 1
        if mine is None:
            name = f"r{number}"
            self.put(
                {
                    "apiVersion": "apps/v1",
                    "kind": "ControllerRevision",
                    "metadata": {"name": name, "ownerReferences": [{"uid": statefulset["metadata"]["uid"]}]},
                    "data": {"spec": {"template": copy.deepcopy(template) | {"$patch": "replace"}}},
                    "revision": number,
                }
            )
        elif mine["metadata"]["name"] != status["updateRevision"]:
            mine["revision"] = number
        status["updateRevision"] = name if mine is None else mine["metadata"]["name"]
        status["observedGeneration"] = statefulset["metadata"]["generation"]
        pods = [pod["metadata"]["labels"]["controller-revision-hash"] for pod in self.all("Pod")]
        if statefulset["spec"]["updateStrategy"]["type"] == "RollingUpdate" and set(pods) <= {status["updateRevision"]}:
            status["currentRevision"] = status["updateRevision"]

    def _of_template(self, pod: Object) -> bool:
        """Give the pod what the template says; whether its image starts."""
        statefulset = self.have("StatefulSet", make.NAME) or {}
        image = statefulset["spec"]["template"]["spec"]["containers"][0]["image"]
        digest = image.partition("@")[2] or self.builds.get(image, "sha256:" + "0" * 64)
        pod["metadata"]["labels"]["controller-revision-hash"] = statefulset["status"]["updateRevision"]
        container = pod["status"]["containerStatuses"][0]
        container |= {"image": image, "imageID": f"{image.rpartition(':')[0].partition('@')[0]}@{digest}"}
        if digest not in self.crashing:
            return True
        container["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
        container["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
        pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        return False

    def _claim(self, ordinal: int, disk: LiteFS) -> None:
        self._ids += 1
        volume, uid = f"pvc-{self._ids}", f"claim-{self._ids}"
        claim = make.claim(ordinal, uid, finalizers=["kubernetes.io/pvc-protection"])
        claim["spec"]["volumeName"] = volume
        self.put(claim | {"kind": "PersistentVolumeClaim"})
        self.put(make.volume(ordinal, uid, name=volume) | {"kind": "PersistentVolume"})
        self.disks[volume] = disk

    def _start(self, ordinal: int) -> None:
        name = f"{make.NAME}-{ordinal}"
        fenced = ordinal in {int(one) for one in self.record().get("fencedOrdinals", "").split(",") if one}
        pod = make.stopped(ordinal, make.Said(f"{name} is fenced.", guard.Exit.FENCED)) if fenced else make.pod(ordinal)
        starts = fenced or self._of_template(pod)
        self._ids += 1
        pod["metadata"] |= {
            "uid": f"pod-{ordinal}-{self._ids}",
            "creationTimestamp": self.time().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.put(pod | {"kind": "Pod"})
        claim = self.have("PersistentVolumeClaim", f"litefs-data-{name}")
        assert claim is not None
        disk = self.disks[claim["spec"]["volumeName"]]
        disk.running = not fenced and starts
        fed = self.archive_feeds()
        disk.primary = ordinal == int(self.record()["primaryOrdinal"]) and not fenced and not fed
        disk.host = f"{make.NAME}-{'archive-' if fed else ''}{self.record()['primaryOrdinal']}"
        self.litefs[name] = disk
        for other in self.litefs.values():
            leader = next((one for one in self.litefs.values() if one.primary and one.running), None)
            other.follows = None if other.primary else leader

    def archive_feeds(self) -> bool:
        """Whether litefs.yml lets whoever starts follow the archive."""
        text = (self.have("ConfigMap", f"{make.NAME}-litefs") or {})["data"]["litefs.yml"]
        return f"hostname: {make.NAME}-archive-" in text

    def _control(self, request: Request) -> None:
        """What the controller and the kubelet do after a request."""
        if request.method == "DELETE" and request.kind == "Pod":
            ordinal = int(request.name.rpartition("-")[2])
            if self.have("Pod", request.name) is not None:
                return
            claim = self.have("PersistentVolumeClaim", f"litefs-data-{request.name}")
            if claim is not None and claim["metadata"].get("deletionTimestamp"):
                self.drop("PersistentVolumeClaim", claim["metadata"]["name"])
                claim = None
            if ordinal < (self.have("StatefulSet", make.NAME) or {})["spec"]["replicas"]:
                if claim is None:
                    self._claim(ordinal, LiteFS(None, 0, checksum="0" * 16))
                self._start(ordinal)
        elif request.method == "DELETE" and request.kind == "PersistentVolumeClaim":
            if self.have("Pod", request.name.removeprefix("litefs-data-")) is None:
                self.drop("PersistentVolumeClaim", request.name)
        elif request.method == "PUT" and request.kind == "PersistentVolume":
            volume = self.have("PersistentVolume", request.name)
            claims = {claim["metadata"]["uid"] for claim in self.all("PersistentVolumeClaim")}
            freed = volume is not None and (volume["spec"].get("claimRef") or {}).get("uid") not in claims
            if volume and freed and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                self.drop("PersistentVolume", request.name)
        elif request.kind == "StatefulSet" and request.method == "PUT" and not request.subresource:
            statefulset = self.have("StatefulSet", make.NAME)
            assert statefulset is not None
            statefulset["metadata"]["generation"] += 1
            self._revise(statefulset)
        elif request.subresource == "scale" and request.method == "PUT":
            replicas = request.body["spec"]["replicas"]
            for pod in self.all("Pod"):
                if int(pod["metadata"]["name"].rpartition("-")[2]) >= replicas:
                    self.drop("Pod", pod["metadata"]["name"])
            for ordinal in range(replicas):
                if self.have("Pod", f"{make.NAME}-{ordinal}") is None:
                    if self.have("PersistentVolumeClaim", f"litefs-data-{make.NAME}-{ordinal}") is None:
                        self._claim(ordinal, LiteFS(None, 0, checksum="0" * 16))
                    self._start(ordinal)


def run(module: Any, api: FakeApi | None, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """A module's main() on this API (None: none is connected to): what it answers, ``failed`` where it failed.

    ``warnings`` is a list, maybe empty: in the process of a controller Ansible would print them instead.
    """
    arguments = {"kubeconfig": "/nowhere"} | arguments if api is not None else arguments
    said = io.StringIO()
    warned: list[str] = []
    with contextlib.ExitStack() as stack:
        warn = mock.patch.object(AnsibleModule, "warn", lambda _self, text, **_options: warned.append(text))
        stack.enter_context(warn)
        if api is not None:
            stack.enter_context(mock.patch.object(kube, "connect", lambda *_arguments, **_options: api))
        stack.enter_context(patch_module_args(arguments | {"_ansible_check_mode": check}))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.suppress(SystemExit))
        module.main()
    answer: dict[str, Any] = json.loads(said.getvalue())
    assert answer.get("failed", False) in (True, False), "Ansible takes a list that is not empty for a failure"
    return {**answer, "warnings": warned}


@contextlib.contextmanager
def connected(api: FakeApi) -> Iterator[FakeApi]:
    """While the body runs, whoever connects is connected to this API."""
    with mock.patch.object(kube, "connect", lambda *_arguments, **_options: api):
        yield api


def database(*bodies: str, user_version: int = 1) -> bytes:
    """A SQLite file with a table of records."""
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database"
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT)")
            db.executemany("INSERT INTO records (body) VALUES (?)", [(body,) for body in bodies])
            db.execute(f"PRAGMA user_version={user_version}")
            db.commit()
        return path.read_bytes()


def _facts(content: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database"
        path.write_bytes(content)
        facts: dict[str, Any] = sqlitefile.verify(path)
        return facts


def as_applied(obj: Object) -> Object:
    """The object as the API has it after an apply of ours, with every list as a whole."""

    def fields(value: Any) -> Object:
        return {f"f:{key}": fields(one) for key, one in value.items()} if isinstance(value, dict) else {}

    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    if metadata := {key: value for key, value in obj["metadata"].items() if key not in ("name", "namespace")}:
        body["metadata"] = metadata
    entry = {"manager": "abaci.infra", "operation": "Apply", "apiVersion": obj["apiVersion"]}
    return {**obj, "metadata": {**obj["metadata"], "managedFields": [{**entry, "fieldsV1": fields(body)}]}}


def _kind_of(obj: Object) -> str:
    """The kind of an object of the factory, which leaves it out."""
    name, spec = obj["metadata"]["name"], obj.get("spec", {})
    if "data" in obj:
        return "ConfigMap"
    if "containers" in spec:
        return "Pod"
    if "volumeClaimTemplates" in spec:
        return "StatefulSet"
    if "persistentVolumeReclaimPolicy" in spec:
        return "PersistentVolume"
    if name.startswith("litefs-data-"):
        return "PersistentVolumeClaim"
    if "nodeInfo" in obj.get("status", {}):
        return "Node"
    raise ValueError(f"say of what kind {name} is")


def _litefs_yml(ordinal: int) -> Object:
    url = f"http://{make.NAME}-{ordinal}.{make.NAME}-headless.{make.NAMESPACE}.svc.cluster.local:20202"
    lease = f"lease:\n  hostname: {make.NAME}-{ordinal}\n  advertise-url: {url}\n"
    text = f"{lease}exec:\n  - cmd: node server.js\n"
    changed = [{"manager": "abaci.infra", "time": "2026-01-01T00:00:00Z"}]
    metadata = {"name": f"{make.NAME}-litefs", "managedFields": changed}
    return {"kind": "ConfigMap", "metadata": metadata, "data": {"litefs.yml": text}}


def _scale(statefulset: Object) -> Object:
    metadata = {key: statefulset["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": statefulset["spec"]["replicas"]},
    }


def _merged(old: Object, new: Object) -> Object:
    merged = copy.deepcopy(old)
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _status(code: int, message: str, name: str = "") -> Object:
    return {"kind": "Status", "code": code, "message": message, "details": {"name": name} if name else {}}
