"""A thin edge to the Kubernetes API: plain dicts in, plain dicts out, one exception with one sentence.

It takes credentials and TLS from the Python client ``kubernetes`` and speaks HTTP itself: typed models would
only be turned back into dictionaries, and the client's own port-forward has no deadline.
Safe to use from several threads at once.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import io
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from . import clock, wording
from .objects import Object

# All kinds that the collection touches: the name in paths, and whether it lives in a namespace. So the API is not asked
# for them; that it does not serve one (no CRD yet) shows by a 404 that names no object.
KINDS: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "PersistentVolume": ("persistentvolumes", False),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
        "Event": ("events", True),
    },
    "apps/v1": {
        "StatefulSet": ("statefulsets", True),
        "Deployment": ("deployments", True),
        "DaemonSet": ("daemonsets", True),
        "ControllerRevision": ("controllerrevisions", True),
    },
    "batch/v1": {"Job": ("jobs", True), "CronJob": ("cronjobs", True)},
    "networking.k8s.io/v1": {"Ingress": ("ingresses", True), "NetworkPolicy": ("networkpolicies", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "coordination.k8s.io/v1": {"Lease": ("leases", True)},
    "rbac.authorization.k8s.io/v1": {
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
    },
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
    "admissionregistration.k8s.io/v1": {
        "MutatingWebhookConfiguration": ("mutatingwebhookconfigurations", False),
        "ValidatingWebhookConfiguration": ("validatingwebhookconfigurations", False),
        "MutatingAdmissionPolicy": ("mutatingadmissionpolicies", False),
        "MutatingAdmissionPolicyBinding": ("mutatingadmissionpolicybindings", False),
    },
    "helm.cattle.io/v1": {"HelmChart": ("helmcharts", True), "HelmChartConfig": ("helmchartconfigs", True)},
    "traefik.io/v1alpha1": {
        "IngressRoute": ("ingressroutes", True),
        "Middleware": ("middlewares", True),
        "ServersTransport": ("serverstransports", True),
        "TLSOption": ("tlsoptions", True),
        "TraefikService": ("traefikservices", True),
    },
    "cert-manager.io/v1": {
        "Certificate": ("certificates", True),
        "CertificateRequest": ("certificaterequests", True),
        "ClusterIssuer": ("clusterissuers", False),
        "Issuer": ("issuers", True),
    },
    "acme.cert-manager.io/v1": {"Challenge": ("challenges", True), "Order": ("orders", True)},
}


class KubeError(Exception):
    """What went wrong, as one sentence.

    ``status`` is the HTTP status the API answered with (None: no answer, or one of somebody else). ``unknown_kind`` is
    True where the API does not serve the kind that was asked for, for example because its CRD is not installed yet.
    """

    def __init__(self, message: str, status: int | None = None, unknown_kind: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.unknown_kind = unknown_kind


def connect(kubeconfig: str, timeout: float = 30.0) -> Client:
    """Return a client for the current context of the kubeconfig file; ``timeout`` (s) holds for each request.

    Nothing is sent yet: an API that is away shows at the first request. Raises KubeError when the file or
    the Python client is missing.
    """
    path = os.path.expanduser(kubeconfig)
    try:
        import kubernetes
    except ImportError as exc:
        raise KubeError(
            f"The Python package kubernetes is missing for the interpreter that runs this task ({exc}): "
            "install the project's requirements and set ansible_python_interpreter to that Python."
        ) from exc
    if not os.path.isfile(path):
        raise KubeError(f"There is no kubeconfig at {path}: run site.yml first, or set abaci_kubeconfig to yours.")
    configuration = kubernetes.client.Configuration()
    try:
        loader: Any = kubernetes.config
        loader.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    except Exception as exc:  # the loader raises ConfigException, YAMLError, KeyError, ... for a broken file
        raise KubeError(f"The kubeconfig {path} cannot be used: {wording.reason(exc)}.") from exc
    return Client(kubernetes.client.ApiClient(configuration), path, timeout)


class Client:
    """The API of one cluster. Make it with connect()."""

    def __init__(self, api_client: Any, kubeconfig: str, timeout: float) -> None:
        self.kubeconfig = kubeconfig
        self.timeout = timeout
        self._configuration = api_client.configuration
        self._pool = api_client.rest_client.pool_manager
        self.server: str = self._configuration.host.rstrip("/")
        self._told: tuple[datetime.datetime, float] | None = None  # the server's time, and when it said so
        self._known: list[Object] = []
        self.forgot = False  # whether what was known may not be so any more

    # --- what was read before ---------------------------------------------------------------------------------

    def know(self, known: Mapping[str, Any]) -> None:
        """Answer get() and list() from what objects_info read of this API before, as far as it has that.

        Until forget(), or until a request that changes something. ``known`` (its RV(known)): ``server`` and ``reads``,
        each with apiVersion, kind, namespace (None: of all), names (None: all that there are) and items.
        """
        self._known = list(known["reads"]) if known.get("server") == self.server else []

    @property
    def knows(self) -> bool:
        """Whether anything is known that need not be asked for."""
        return bool(self._known)

    def forget(self) -> None:
        """Ask the API itself from now on."""
        self.forgot = self.forgot or self.knows
        self._known = []

    def _recalled(self, api_version: str, kind: str, namespace: str | None, name: str | None) -> list[Object] | None:
        """The objects of this name (None: all) as they were read; None where that was not read."""
        for read in self._known:
            place = (read["apiVersion"], read["kind"]) == (api_version, kind) and read["namespace"] in (None, namespace)
            if place and (read["names"] is None or name in read["names"]):
                return [
                    obj
                    for obj in read["items"]
                    if namespace in (None, obj["metadata"].get("namespace")) and name in (None, obj["metadata"]["name"])
                ]
        return None

    # --- objects ---------------------------------------------------------------------------------------------

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None, subresource: str = ""
    ) -> Object | None:
        """Return the object (or its subresource), or None where there is none of that name (or no such namespace)."""
        recalled = None if subresource else self._recalled(api_version, kind, namespace, name)
        if recalled is not None:
            return recalled[0] if recalled else None
        try:
            found: Object = self._object("GET", (api_version, kind, namespace, name), subresource=subresource)
        except KubeError as exc:
            if exc.status == 404 and not exc.unknown_kind:
                return None
            raise
        return found

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, label_selector: str | None = None
    ) -> list[Object]:
        """Return all objects of a kind, of one namespace or of all (None); apiVersion and kind are filled in."""
        recalled = None if label_selector else self._recalled(api_version, kind, namespace, None)
        if recalled is not None:
            return recalled
        items: list[Object] = []
        query = {"limit": "500"}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = self._object("GET", (api_version, kind, namespace, None), query)
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in page.get("items") or []]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def create(self, obj: Object) -> Object:
        """Create the object and return it as the API stored it; KubeError with status 409 where it exists."""
        metadata = obj["metadata"]
        place = (obj["apiVersion"], obj["kind"], metadata.get("namespace"), None)
        created: Object = self._object("POST", place, body=obj)
        return created

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str = "Background",
        uid: str | None = None,
        version: str | None = None,
    ) -> bool:
        """Ask for the object's deletion; False where there was none. ``uid``: only that very object.

        ``version``: only while it is at this resourceVersion. KubeError with status 409 where it is another.

        It does not wait: finalizers and graceful termination go on after the return.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation_policy}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        wanted = {"uid": uid, "resourceVersion": version}
        if conditions := {key: value for key, value in wanted.items() if value is not None}:
            options["preconditions"] = conditions
        try:
            self._object("DELETE", (api_version, kind, namespace, name), body=options)
        except KubeError as exc:
            if exc.status == 404 and not exc.unknown_kind:
                return False
            raise
        return True

    def apply(self, obj: Object, field_manager: str, *, force: bool = False, dry_run: bool = False) -> Object:
        """Apply the object server-side and return it as the API has it then.

        ``force`` takes fields over from other managers (else KubeError with status 409). With ``dry_run`` nothing is
        stored. Unknown and repeated fields are an error.
        """
        metadata = obj["metadata"]
        place = (obj["apiVersion"], obj["kind"], metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": field_manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        # JSON is YAML, too.
        applied: Object = self._object("PATCH", place, query, obj, "application/apply-patch+yaml")
        return applied

    def replace(self, api_version: str, kind: str, obj: Object, field_manager: str, subresource: str = "") -> Object:
        """Store an object (or subresource) of this kind as it was read and changed, and return it as stored.

        KubeError with status 409 where somebody else changed it since it was read.
        """
        metadata = obj["metadata"]
        place = (api_version, kind, metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": field_manager}
        replaced: Object = self._object("PUT", place, query, obj, subresource=subresource)
        return replaced

    def patch_status(self, obj: Object, status: Object) -> Object:
        """Merge ``status`` into that of an object as it was read; KubeError with status 409 where it changed since."""
        metadata = obj["metadata"]
        place = (obj["apiVersion"], obj["kind"], metadata.get("namespace"), metadata["name"])
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        merge = "application/merge-patch+json"
        patched: Object = self._object("PATCH", place, body=body, content_type=merge, subresource="status")
        return patched

    def annotate(self, api_version: str, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Merge annotations into an object's and touch nothing else: some kinds, as ControllerRevision, take no PUT."""
        body = {"metadata": {"annotations": dict(annotations)}}
        place = (api_version, kind, namespace, name)
        self._object("PATCH", place, body=body, content_type="application/merge-patch+json")

    def raw(self, path: str) -> bytes:
        """Return the body of GET ``path`` as it comes, e.g. /version or /api/v1/nodes/<name>/proxy/configz."""
        return self._request("GET", path)

    def server_time(self) -> str:
        """The API server's time now (RFC 3339, UTC): what its last answer said, and what passed since.

        The one clock by which leases, exports and backups of several controllers are compared. Asks where nothing was
        answered yet; KubeError where the API does not answer, or does not say its time.
        """
        if self._told is None:
            self.raw("/version")
        if self._told is None:
            raise KubeError(
                f"The API server {self.server} does not say what time it is: its answers have no header Date."
            )
        said, at = self._told
        moment = said + datetime.timedelta(seconds=time.monotonic() - at)
        return clock.micro(moment)

    # --- pods ------------------------------------------------------------------------------------------------

    def portforward_get(
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        timeout: float = 10.0,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """GET http://<pod>:<port><path> through the API's port-forward.

        Returns status, headers (names in lower case) and body; ``timeout`` (s) bounds the whole. Raises
        KubeError where the pod, its node or the port does not answer in time.
        """
        where = f"GET {path} on port {port} of pod {namespace}/{pod}"
        with forward(self, namespace, pod, port, timeout, where) as stream:
            return _get(stream, f"{pod}:{port}", path, {"Connection": "close", **(headers or {})})

    @contextlib.contextmanager
    def portforward(
        self, namespace: str, pod: str, port: int, timeout: float = 10.0
    ) -> Iterator[Callable[..., tuple[int, dict[str, str], bytes]]]:
        """One port-forward for several requests: yields what portforward_get does for a path, and for headers.

        ``timeout`` (s) bounds all of them together; raises as portforward_get does.
        """
        where = f"GET on port {port} of pod {namespace}/{pod}"
        with forward(self, namespace, pod, port, timeout, where) as stream:
            yield lambda path, headers=None: _get(stream, f"{pod}:{port}", path, headers or {})

    def dial(self, namespace: str, pod: str, port: int, deadline: float) -> PortForward:
        """A stream to a port of a pod until ``deadline`` (time.monotonic()); see forward()."""
        return PortForward(self._configuration, self._auth_headers(), namespace, pod, port, deadline)

    def run(
        self, namespace: str, pod: str, container: str, command: Sequence[str], timeout: float = 10.0, called: str = ""
    ) -> str:
        """What a command in a container writes to its stdout. ``called``: what a sentence says for a long command.

        Raises KubeError where it cannot be run, ends with another code than 0, or takes more than ``timeout`` (s).
        """
        import websocket

        where = f"{called or ' '.join(command)} in container {container} of pod {namespace}/{pod}"
        words = [
            ("container", container),
            ("stdout", "true"),
            ("stderr", "true"),
            *(("command", word) for word in command),
        ]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urllib.parse.urlencode(words)}"
        deadline = time.monotonic() + timeout
        channels = {1: b"", 2: b"", 3: b""}
        stream = None
        try:
            stream = _websocket(self._configuration, self._auth_headers(), path, timeout)
            while not channels[3]:  # its one frame is the command's end
                stream.settimeout(max(deadline - time.monotonic(), 0.001))
                frame = stream.recv()
                if not frame:
                    break
                data = frame if isinstance(frame, bytes) else frame.encode()
                channels[data[0]] = channels.get(data[0], b"") + data[1:]
        except (websocket.WebSocketException, OSError) as exc:
            raise KubeError(f"{where} failed: {wording.reason(exc)}.", getattr(exc, "status_code", None)) from exc
        finally:
            if stream is not None:
                stream.shutdown()
        end = json.loads(channels[3]) if channels[3] else {}
        if end.get("status") != "Success":
            why = channels[2].decode(errors="replace").strip() or end.get("message") or "the connection broke off"
            raise KubeError(f"{where} failed: {wording.reason(why)}.")
        return channels[1].decode(errors="replace")

    # --- HTTP ------------------------------------------------------------------------------------------------

    def _object(
        self,
        method: str,
        place: tuple[str, str, str | None, str | None],
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        subresource: str = "",
    ) -> Any:
        """What the API answers to a request for (apiVersion, kind, namespace, name); name None: for all of them."""
        api_version, kind, namespace, name = place
        try:
            return self._json(method, _path(api_version, kind, namespace, name, subresource), query, body, content_type)
        except KubeError as exc:
            if not exc.unknown_kind:
                raise
            if _is_everywhere(api_version, kind):
                raise KubeError(
                    f"What answers at {self.server} has no {api_version} {kind}, so it is no API server of Kubernetes: "
                    f"correct the address in the kubeconfig {self.kubeconfig}."
                ) from exc
            raise KubeError(
                f"The API at {self.server} does not know {api_version} {kind}: is its CRD installed?",
                404,
                unknown_kind=True,
            ) from exc

    def _json(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Any:
        content = self._request(method, path, query, body, content_type)
        try:
            return json.loads(content)
        except ValueError as exc:
            raise KubeError(
                f"The API server {self.server} answered {method} {path} with something else than JSON, or with half of "
                f"it ({wording.reason(exc)}): run again."
            ) from exc

    def _auth_headers(self) -> dict[str, str]:
        settings = self._configuration.auth_settings().values()
        return {auth["key"]: auth["value"] for auth in settings if auth["in"] == "header" and auth["value"]}

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        import urllib3

        if method != "GET" and "dryRun" not in (query or {}):
            self.forget()
        url = self.server + path + ("?" + urllib.parse.urlencode(query) if query else "")
        headers = {"Accept": "application/json, */*", "User-Agent": "abaci.infra", **self._auth_headers()}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        try:
            status, date, content = self._send(method, url, data, headers)
        except urllib3.exceptions.HTTPError as exc:
            raise KubeError(
                f"The API server {self.server} does not answer ({wording.reason(exc)}): check that the cluster runs "
                f"and that the kubeconfig {self.kubeconfig} names an address that this machine reaches "
                "(k3s_kubeconfig_server, where site.yml writes it) and no firewall cuts off."
            ) from exc
        with contextlib.suppress(ValueError):
            self._told = email.utils.parsedate_to_datetime(date or ""), time.monotonic()
        if status >= 400:
            raise KubeError(
                f"The API server {self.server} answered {status} to {method} {path}: {_reason(content)}.",
                status,
                unknown_kind=status == 404 and not _names_an_object(content),
            )
        return content

    def _send(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str | None, bytes]:
        """One request on the wire: status, header Date and body. Raises urllib3's HTTPError where nothing came."""
        import urllib3

        answer = self._pool.request(
            method, url, body=data, headers=headers, timeout=urllib3.Timeout(total=self.timeout), retries=False
        )
        return answer.status, answer.headers.get("Date"), answer.data


@contextlib.contextmanager
def forward(api: Any, namespace: str, pod: str, port: int, timeout: float, where: str) -> Iterator[Any]:
    """A stream to a port of a pod while the body runs: send(), and makefile() for http.client.

    ``api`` is a Client, or anything with its dial. What goes wrong in the body is raised as a KubeError that begins
    with ``where``; ``timeout`` (s) bounds the whole.
    """
    stream = None
    try:
        stream = api.dial(namespace, pod, port, time.monotonic() + timeout)
        yield stream
    except KubeError:
        raise
    except TimeoutError as exc:
        raise KubeError(f"{where} was not answered within {timeout:g} s.") from exc
    except Exception as exc:  # websocket-client and http.client each have a family of their own
        reason = (stream.error if stream is not None else "") or wording.reason(exc)
        if type(exc).__name__ == "WebSocketTimeoutException":
            reason = f"no answer within {timeout:g} s"
        raise KubeError(f"{where} failed: {reason}.", status=getattr(exc, "status_code", None)) from exc
    finally:
        if stream is not None:
            stream.close()


def _get(stream: Any, host: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of a GET on the stream, which stays open."""
    given = {name.lower(): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {"host": host, "accept": "*/*", **given}.items()]
    stream.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = http.client.HTTPResponse(stream)
    answer.begin()
    # Up to Content-Length or the last chunk; the close of the stream takes another second to arrive.
    body = answer.read()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def _websocket(configuration: Any, headers: dict[str, str], path: str, timeout: float) -> Any:
    """A websocket to a path of the API that speaks v4.channel.k8s.io."""
    import ssl

    import websocket

    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE}
    if not configuration.verify_ssl:
        options["check_hostname"] = False
    for option, attribute in (("ca_certs", "ssl_ca_cert"), ("certfile", "cert_file"), ("keyfile", "key_file")):
        if getattr(configuration, attribute, None):
            options[option] = getattr(configuration, attribute)
    if getattr(configuration, "tls_server_name", None):
        options["server_hostname"] = configuration.tls_server_name
    proxy: dict[str, Any] = {"http_no_proxy": ["*"]}
    if configuration.proxy:
        parsed = urllib.parse.urlparse(configuration.proxy)
        proxy = {"http_proxy_host": parsed.hostname, "http_proxy_port": parsed.port, "proxy_type": "http"}
    return websocket.create_connection(
        configuration.host.rstrip("/").replace("http", "ws", 1) + path,
        timeout=timeout,
        sslopt=options,
        header=[f"{name}: {value}" for name, value in headers.items()],
        subprotocols=["v4.channel.k8s.io"],
        suppress_origin=True,
        **proxy,
    )


class PortForward:
    """One port of one pod over the API's websocket: channel 0 carries the bytes, channel 1 the kubelet's errors."""

    def __init__(
        self, configuration: Any, headers: dict[str, str], namespace: str, pod: str, port: int, deadline: float
    ) -> None:
        self.error = ""
        self._deadline = deadline
        self._seen: set[int] = set()
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._socket = _websocket(configuration, headers, path, self._left())

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.send_binary(b"\x00" + data)

    def receive(self) -> bytes:
        """Return the next bytes from the pod; b"" at the end."""
        while True:
            self._socket.settimeout(self._left())
            frame = self._socket.recv()
            if not frame:
                return b""
            data = frame if isinstance(frame, bytes) else frame.encode()
            channel = data[0]
            if channel not in self._seen:  # the first frame of each channel repeats the port number
                self._seen.add(channel)
                continue
            if channel == 1:
                self.error += data[1:].decode(errors="replace").strip()
                raise ConnectionError(self.error)
            if len(data) > 1:
                return data[1:]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What http.client asks of a socket."""
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        # Not WebSocket.close(): that waits for the other side.
        self._socket.shutdown()


class _Reader(io.RawIOBase):
    def __init__(self, stream: PortForward) -> None:
        self._stream = stream
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._stream.receive()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        self._rest = data[count:]
        return count


def _path(api_version: str, kind: str, namespace: str | None, name: str | None, subresource: str) -> str:
    try:
        plural, namespaced = KINDS[api_version][kind]
    except KeyError:
        raise KubeError(f"{api_version} {kind} is no kind of which kube.KINDS says where the API has it.") from None
    parts = ["apis" if "/" in api_version else "api", api_version]
    if namespaced and namespace:
        parts += ["namespaces", urllib.parse.quote(namespace, safe="")]
    parts.append(plural)
    if name:
        parts.append(urllib.parse.quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/" + "/".join(parts)


def _is_everywhere(api_version: str, kind: str) -> bool:
    """Whether every API serves this kind: it needs no CRD, and is not younger than the oldest that is supported."""
    group = api_version.partition("/")[0]
    return ("." not in group or group.endswith(".k8s.io")) and not kind.startswith("MutatingAdmissionPolicy")


def _names_an_object(content: bytes) -> bool:
    """Whether a 404 is of an object (or of its namespace); of a path that is not served it names none."""
    try:
        return bool(json.loads(content)["details"]["name"])
    except (ValueError, KeyError, TypeError):
        return False


def _reason(content: bytes) -> str:
    """The message of a Status object, or the start of whatever else was answered."""
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace")
    return wording.reason(message)
