"""The client edge against an API on loopback: paths, paging, errors as sentences, port-forward with a deadline."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import kube

Object = dict[str, Any]


class Api(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, Object | None]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.pod: Callable[[Handler, bytes], None] = lambda handler, request: None
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def missing(name: str) -> Object:
    """How an API says that it serves the kind and has none of that name."""
    return {"kind": "Status", "code": 404, "message": f'"{name}" not found', "details": {"name": name}}


class Handler(http.server.BaseHTTPRequestHandler):
    server: Api

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        if "Upgrade" in self.headers:
            return self.upgrade()
        status, answer = self.server.answers.get(f"{self.command} {self.path}", (404, b"404 page not found\n"))
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def upgrade(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.close_connection = True
        if "/exec?" in self.path:
            self.server.pod(self, self.path.encode())
            return
        port = int(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["ports"][0])
        for channel in (0, 1):
            self.frame(channel, struct.pack("<H", port))
        self.server.pod(self, self.request_frame())

    def request_frame(self) -> bytes:
        head = self.rfile.read(2)
        mask_and_data = self.rfile.read(4 + (head[1] & 0x7F))
        request = bytes(byte ^ mask_and_data[i % 4] for i, byte in enumerate(mask_and_data[4:]))
        assert request[0] == 0
        return request[1:]

    def frame(self, channel: int, data: bytes) -> None:
        size = len(data) + 1
        head = bytes([0x82, size]) if size < 126 else struct.pack("!BBH", 0x82, 126, size)
        self.wfile.write(head + bytes([channel]) + data)
        self.wfile.flush()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    yield server
    server.shutdown()
    server.server_close()


def kubeconfig(folder: Path, server: str) -> str:
    path = folder / "config"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture
def client(api: Api, tmp_path: Path) -> Any:
    return kube.connect(kubeconfig(tmp_path, f"http://127.0.0.1:{api.server_address[1]}"), timeout=5)


def test_the_time_is_that_of_the_servers_last_answer(api: Api, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers["GET /version"] = (200, {})
    for year in (2019, 2031):
        date = f"Tue, 01 Jan {year} 12:00:00 GMT"
        monkeypatch.setattr(Handler, "date_time_string", lambda *_arguments, date=date: date)
        client.raw("/version")
        assert client.server_time().startswith(f"{year}-01-01T12:00:0")
    monkeypatch.setattr(Handler, "date_time_string", lambda *_arguments: "half past two")
    client._told = None
    with pytest.raises(kube.KubeError, match="does not say what time it is"):
        client.server_time()


def test_half_an_answer_is_a_sentence(api: Api, client: Any) -> None:
    api.answers["GET /api/v1/namespaces/abaci/pods/p"] = (200, b'{"kind": "Po')
    with pytest.raises(kube.KubeError, match="half of it") as caught:
        client.get("v1", "Pod", "p", "abaci")
    assert caught.value.status is None


def test_get_returns_the_object_or_none(api: Api, client: Any) -> None:
    api.answers["GET /api/v1/namespaces/abaci/pods/p"] = (200, {"kind": "Pod"})
    assert client.get("v1", "Pod", "p", "abaci") == {"kind": "Pod"}
    api.answers["GET /api/v1/namespaces/abaci/pods/other"] = (404, missing("other"))
    assert client.get("v1", "Pod", "other", "abaci") is None
    api.answers["GET /api/v1/nodes/n"] = (200, {"kind": "Node"})
    assert client.get("v1", "Node", "n", "ignored for a node") == {"kind": "Node"}


def test_list_follows_the_pages_and_fills_in_the_kind(api: Api, client: Any) -> None:
    base = "GET /apis/apps/v1/statefulsets?limit=500&labelSelector=app%3Dx"
    api.answers[base] = (200, {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]})
    api.answers[base + "&continue=more"] = (200, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]})
    found = client.list("apps/v1", "StatefulSet", label_selector="app=x")
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("apps/v1", "StatefulSet")}


def test_a_kind_that_is_not_served_is_told_from_a_missing_object_by_one_request(api: Api, client: Any) -> None:
    path = "/apis/traefik.io/v1alpha1/namespaces/abaci/middlewares"
    for name in ("hsts", None):
        api.asked.clear()
        with pytest.raises(kube.KubeError, match=r"does not know traefik\.io/v1alpha1 Middleware: is") as caught:
            named(client, name) if name else listed(client)
        assert caught.value.unknown_kind and caught.value.status == 404 and len(api.asked) == 1
    # A CRD that comes later is found.
    api.answers[f"GET {path}/hsts"] = (404, missing("hsts"))
    assert client.get("traefik.io/v1alpha1", "Middleware", "hsts", "abaci") is None
    # And a namespace that is missing is no missing kind.
    obj = {"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": "x", "namespace": "abaci"}}
    api.answers[f"POST {path}"] = (404, missing("abaci"))
    with pytest.raises(kube.KubeError) as caught:
        client.create(obj)
    assert not caught.value.unknown_kind


def test_what_has_none_of_the_kinds_of_every_api_is_no_api(client: Any) -> None:
    """A proxy without its API, a wrong path in the address: else all would be absent, with nothing to remove."""
    said = r"^What answers at .* has no .*, so it is no API server of Kubernetes: correct .* kubeconfig /.*\.$"
    for version, kind in (("v1", "Secret"), ("apps/v1", "Deployment"), ("rbac.authorization.k8s.io/v1", "Role")):
        for ask, name in ((client.get, ["x"]), (client.list, [])):
            with pytest.raises(kube.KubeError, match=said) as caught:
                ask(version, kind, *name, "abaci")
            assert not caught.value.unknown_kind and caught.value.status is None
    with pytest.raises(kube.KubeError, match=said):
        client.delete("v1", "Secret", "x", "abaci")
    with pytest.raises(kube.KubeError) as caught:
        client.get("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "x")
    assert caught.value.unknown_kind


def named(client: Any, name: str) -> Any:
    return client.get("traefik.io/v1alpha1", "Middleware", name, "abaci")


def listed(client: Any) -> Any:
    return client.list("traefik.io/v1alpha1", "Middleware", "abaci")


def test_a_kind_that_the_table_lacks_is_a_sentence(client: Any) -> None:
    with pytest.raises(kube.KubeError, match="v1 Gizmo is no kind of which") as caught:
        client.get("v1", "Gizmo", "x")
    assert not caught.value.unknown_kind and caught.value.status is None


def test_create_and_delete_say_what_happened(api: Api, client: Any) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "abaci"}}
    api.answers["POST /api/v1/namespaces/abaci/pods"] = (409, {"message": 'pods "p" already exists'})
    with pytest.raises(kube.KubeError, match=r'answered 409 to POST .*: pods "p" already exists\.$') as caught:
        client.create(pod)
    assert caught.value.status == 409
    api.answers["DELETE /api/v1/namespaces/abaci/pods/p"] = (200, {})
    assert client.delete("v1", "Pod", "p", "abaci", grace_period_seconds=0, uid="u-1")
    options = api.asked[-1][2]
    assert options is not None
    assert (options["gracePeriodSeconds"], options["preconditions"]) == (0, {"uid": "u-1"})
    api.answers["DELETE /api/v1/namespaces/abaci/pods/gone"] = (404, missing("gone"))
    assert not client.delete("v1", "Pod", "gone", "abaci")


def test_what_was_read_is_replaced_as_our_manager_and_a_conflict_has_its_status(api: Api, client: Any) -> None:
    path = "/apis/apps/v1/namespaces/abaci/statefulsets/s/scale"
    scale = {"kind": "Scale", "metadata": {"name": "s", "namespace": "abaci", "resourceVersion": "7"}, "spec": {}}
    api.answers[f"GET {path}"] = (200, scale)
    assert client.get("apps/v1", "StatefulSet", "s", "abaci", "scale") == scale
    api.answers[f"PUT {path}?fieldManager=us"] = (200, {**scale, "stored": True})
    assert client.replace("apps/v1", "StatefulSet", scale, "us", "scale")["stored"]
    assert api.asked[-1][2] == scale
    api.answers["PUT /api/v1/nodes/n?fieldManager=us"] = (409, {"message": "the object has been modified"})
    with pytest.raises(kube.KubeError) as caught:
        client.replace("v1", "Node", {"metadata": {"name": "n"}}, "us")
    assert caught.value.status == 409


def test_raw_returns_the_body_as_it_comes(api: Api, client: Any) -> None:
    api.answers["GET /api/v1/nodes/n/proxy/configz"] = (200, b"\x00raw")
    assert client.raw("/api/v1/nodes/n/proxy/configz") == b"\x00raw"


def test_an_api_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(kube.KubeError) as caught:
        kube.connect(path).get("v1", "Pod", "p", "abaci")
    assert caught.value.status is None
    assert "http://127.0.0.1:1 does not answer" in str(caught.value)
    assert path in str(caught.value) and "\n" not in str(caught.value)
    assert "(k3s_kubeconfig_server, where site.yml writes it)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "There is no kubeconfig"), ("{", "cannot be used"), ("", "cannot be used")]
)
def test_a_missing_or_broken_kubeconfig_is_one_sentence(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(kube.KubeError, match=words) as caught:
        kube.connect(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def forward(client: Any, path: str = "/info", timeout: float = 5) -> tuple[int, dict[str, str], bytes]:
    answer: tuple[int, dict[str, str], bytes] = client.portforward_get("abaci", "p-0", 20202, path, timeout)
    return answer


def test_portforward_reads_up_to_the_length_and_goes_on(api: Api, client: Any) -> None:
    asked: list[bytes] = []

    def pod(handler: Handler, request: bytes) -> None:
        asked.append(request)
        handler.frame(0, b"HTTP/1.1 200 OK\r\nLitefs-Id: A\r\nContent-Le")
        handler.frame(0, b"ngth: 200\r\n\r\n" + b"x" * 150)
        handler.frame(0, b"x" * 50)
        time.sleep(1.5)  # the close comes late

    api.pod = pod
    begin = time.monotonic()
    status, headers, body = forward(client, "/info?a=b")
    assert time.monotonic() - begin < 1
    assert (status, headers["litefs-id"], body) == (200, "A", b"x" * 200)
    assert asked[0].startswith(b"GET /info?a=b HTTP/1.1\r\nhost: p-0:20202\r\n")


def test_a_host_of_ones_own_stands_alone(api: Api, client: Any) -> None:
    """A server in Go answers two of them with 400."""
    asked: list[bytes] = []

    def pod(handler: Handler, request: bytes) -> None:
        asked.append(request)
        handler.frame(0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    api.pod = pod
    client.portforward_get("abaci", "p-0", 8080, "/", 5, {"Host": "abaci.example.com"})
    assert [line for line in asked[0].split(b"\r\n") if line.lower().startswith(b"host:")] == [
        b"host: abaci.example.com"
    ]


def test_several_requests_go_through_one_portforward(api: Api, client: Any) -> None:
    def pod(handler: Handler, request: bytes) -> None:
        for asked in (request, None):
            path = (asked or handler.request_frame()).split()[1]
            handler.frame(0, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    api.pod = pod
    with client.portforward("abaci", "p-0", 20202) as get:
        assert [get(path)[2] for path in ("/first", "/next")] == [b"/first", b"/next"]
    assert len(api.asked) == 1


def test_portforward_takes_chunks(api: Api, client: Any) -> None:
    def pod(handler: Handler, _request: bytes) -> None:
        handler.frame(0, b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    api.pod = pod
    assert forward(client)[::2] == (503, b"abc")


def test_portforward_says_what_the_kubelet_said(api: Api, client: Any) -> None:
    def pod(handler: Handler, _request: bytes) -> None:
        handler.frame(1, b"dial tcp4 127.0.0.1:20202: connect: connection refused")

    api.pod = pod
    with pytest.raises(kube.KubeError, match=r"port 20202 of pod abaci/p-0 failed: dial tcp4 .* connection refused"):
        forward(client)


def test_portforward_ends_at_its_deadline(api: Api, client: Any) -> None:
    def pod(handler: Handler, _request: bytes) -> None:
        for _ in range(20):  # every part comes in time, and the whole does not
            handler.frame(0, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" if _ == 0 else b"")
            time.sleep(0.1)

    api.pod = pod
    begin = time.monotonic()
    with pytest.raises(kube.KubeError, match=r"0\.5 s"):
        forward(client, timeout=0.5)
    assert time.monotonic() - begin < 1


def test_portforward_to_a_pod_that_is_gone_has_the_status(client: Any, api: Api) -> None:
    api.answers = {}
    handler = Handler.upgrade
    try:
        Handler.upgrade = lambda self: self.send_error(404)  # type: ignore[method-assign]
        with pytest.raises(kube.KubeError) as caught:
            forward(client)
    finally:
        Handler.upgrade = handler  # type: ignore[method-assign]
    assert caught.value.status == 404


def test_portforwards_run_side_by_side(api: Api, client: Any) -> None:
    def pod(handler: Handler, request: bytes) -> None:
        time.sleep(0.3)
        path = request.split()[1]
        handler.frame(0, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    api.pod = pod
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda n=n: bodies.append(forward(client, f"/{n}")[2])) for n in range(6)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bodies) == [f"/{n}".encode() for n in range(6)]
    assert time.monotonic() - begin < 1.5


SUCCESS = b'{"metadata":{},"status":"Success"}'


def test_a_command_in_a_container_gives_its_output(api: Api, client: Any) -> None:
    asked: list[bytes] = []

    def pod(handler: Handler, path: bytes) -> None:
        asked.append(path)
        for channel, data in ((1, b""), (1, b"one "), (2, b"a warning"), (1, b"two"), (3, SUCCESS)):
            handler.frame(channel, data)
        time.sleep(1)  # the close comes late

    api.pod = pod
    begin = time.monotonic()
    assert client.run("abaci", "p-0", "app", ["cat", "/proc/self/mounts"]) == "one two"
    assert time.monotonic() - begin < 0.9
    assert asked[0].endswith(
        b"/pods/p-0/exec?container=app&stdout=true&stderr=true&command=cat&command=%2Fproc%2Fself%2Fmounts"
    )


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([(1, b"half"), (3, b'{"status":"Failure","message":"command terminated with exit code 1"}')], "exit code 1"),
        ([(1, b"half"), (2, b"cat: no such file")], "cat: no such file"),
        (
            [(2, b"database is locked\n"), (3, b'{"status":"Failure","message":"exit code 1"}')],
            "failed: database is locked",
        ),
        ([], "the connection broke off"),
    ],
)
def test_a_command_that_fails_says_why(api: Api, client: Any, frames: list[tuple[int, bytes]], words: str) -> None:
    def pod(handler: Handler, _path: bytes) -> None:
        for channel, data in frames:
            handler.frame(channel, data)
        handler.wfile.write(bytes([0x88, 0]))  # the end of the websocket

    api.pod = pod
    with pytest.raises(kube.KubeError, match=words):
        client.run("abaci", "p-0", "app", ["cat", "x"])


def test_a_command_that_takes_too_long_is_left(api: Api, client: Any) -> None:
    api.pod = lambda _handler, _path: time.sleep(1)
    begin = time.monotonic()
    with pytest.raises(kube.KubeError, match="cat x in container app of pod abaci/p-0 failed"):
        client.run("abaci", "p-0", "app", ["cat", "x"], timeout=0.3)
    assert time.monotonic() - begin < 0.9
