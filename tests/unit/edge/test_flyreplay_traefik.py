"""The plugin in the real Traefik, which interprets it: what unit tests in compiled Go cannot show.

The pods are servers on loopback that answer as LiteFS's proxy does; <pod>.<service> leads to them through a hosts file
that only this Traefik sees (a mount namespace of its own).
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "testbed"))

import build  # noqa: E402

PLUGIN = ROOT / "roles" / "traefik" / "files" / "flyreplay"
MODULE = "github.com/abaci-infra/flyreplay"
SERVICE = "abaci-app-headless.abaci.svc.cluster.local"
PRIMARY = "abaci-app-primary.abaci.svc.cluster.local"
# With what a list, a variable and a reference to a Secret would look like
PAGE = '<h1 style="color:red">Back, in "a" minute: $1 urn:k8s</h1>\n<p>\u00e4</p>\n'
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Pod

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        self.server.answer(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.flush()

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        part = self.rfile.read(size)
        self.rfile.readline()
        return part

    def log_message(self, *_args: object) -> None:
        pass


class Pod(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, *_args: object) -> None:
        """A client that goes away is part of these tests."""


def replica(handler: Handler) -> None:
    """As LiteFS's proxy on a replica: the body is read, and the answer is an empty 200. The path names the target."""
    if handler.headers.get("Content-Length"):
        handler.rfile.read(int(handler.headers["Content-Length"]))
    if handler.path.startswith("/read"):
        handler.reply(200, b"read here", X_Replica="yes")
    elif handler.path.startswith("/stream"):
        stream(handler)
    elif handler.path.startswith("/half"):
        half(handler)
    elif "/fails/" in handler.path:
        handler.reply(int(handler.path.rpartition("/")[2]), b"not me", X_Replica="yes")
    elif handler.path.endswith("/slow"):
        handler.server.entered.set()  # type: ignore[attr-defined]
        handler.server.go_on.wait(10)  # type: ignore[attr-defined]
    elif "/well" in handler.path:
        handler.reply(200, b"read here", X_Replica="yes")
    else:
        target = handler.path.partition("to=")[2] or "abaci-app-0"
        handler.reply(200, Fly_Replay=f"instance={target}", X_Replica="yes")


def newer(handler: Handler) -> None:
    handler.reply(200, b"of the new build")


def primary(handler: Handler) -> None:
    if handler.headers.get("Transfer-Encoding") == "chunked":
        handler.server.first_chunk.set()  # type: ignore[attr-defined]
        while handler.read_chunk():
            handler.server.chunk_seen.set()  # type: ignore[attr-defined]
    elif handler.headers.get("Content-Length"):
        handler.rfile.read(int(handler.headers["Content-Length"]))
    if handler.path.startswith("/again/stream"):
        stream(handler)
    elif handler.path.startswith("/again/half"):
        half(handler)
    else:
        body = json.dumps({"method": handler.command, "path": handler.path}).encode()
        handler.reply(201, body, Set_Cookie="__txid=0000000000000005; Path=/")


def stream(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.chunk(b"data: 1\n\n")
    handler.server.go_on.wait(10)  # type: ignore[attr-defined]
    handler.chunk(b"data: 2\n\n")
    handler.chunk(b"")


def half(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def echo(handler: Handler) -> None:
    """An upgrade, and then whatever comes goes back."""
    handler.send_response(101)
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Upgrade", "websocket")
    handler.end_headers()
    handler.connection.sendall(handler.connection.recv(100))
    handler.close_connection = True


def busy(handler: Handler) -> None:
    """An application that is down for maintenance: with a page of its own, or with a text that is packed."""
    if handler.path.endswith("/own"):
        handler.reply(503, b"<p>its own", Content_Type="text/html", Retry_After="3600")
    else:
        handler.reply(503, b"packed", Content_Encoding="gzip", ETag='"1"', Retry_After="3600")


class Edge:
    def __init__(self, port: int, pods: dict[str, Pod], log: Path) -> None:
        self.port = port
        self.pods = pods
        self.log = log

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dynamic(pods: dict[str, Pod]) -> dict[str, Any]:
    """The routes as the application's role makes them, and some that are wrong on purpose."""

    main = pods["primary"].server_address[1]

    def plugin(replay: bool, **more: Any) -> dict[str, Any]:
        settings = {"statefulSet": "abaci-app", "service": SERVICE, "port": main, "replay": replay, **more}
        return {"plugin": {"flyreplay": settings}}

    def router(path: str, service: str, middleware: str | None) -> dict[str, Any]:
        used = {"middlewares": [middleware]} if middleware else {}
        return {"entryPoints": ["web"], "rule": f"PathPrefix(`{path}`)", "priority": 20, "service": service, **used}

    def method_router(rule: str, service: str, middleware: str) -> dict[str, Any]:
        # Nothing takes what a broken route below /closed leaves.
        rule = f"!PathPrefix(`/closed`) && {rule}"
        return {"entryPoints": ["web"], "rule": rule, "priority": 10, "service": service, "middlewares": [middleware]}

    forward = ["*/callback*", "/one-away/exact"]
    named = {"primaryService": PRIMARY, "primaryPod": "abaci-app-0"}

    def service(*used: Pod | int) -> dict[str, Any]:
        places: list[Any] = [("127.0.0.1", pod) if isinstance(pod, int) else pod.server_address for pod in used]
        return {"loadBalancer": {"servers": [{"url": f"http://{host!s}:{port}"} for host, port in places]}}

    return {
        "http": {
            "routers": {
                "reads": method_router("(Method(`GET`) || Method(`HEAD`))", "replica", "follow"),
                "writes": method_router("!Method(`GET`) && !Method(`HEAD`)", "primary", "refuse"),
                "misrouted": router("/misrouted", "replica", "follow"),
                "misrouted-strict": router("/strict/misrouted", "replica", "refuse"),
                "redirect": {**router("/redirect", "replica", None), "middlewares": ["head", "https"]},
                "socket": router("/api/socket", "echo", None),
                "one-away": router("/one-away", "one-away", "follow"),
                "all-away": router("/all-away", "all-away", "follow"),
                "page-away": router("/page-away", "all-away", "page"),
                "page-busy": router("/page-busy", "busy", "page"),
                "pod": router("/pod", "replica", "follow"),
                "no-primary": router("/no-primary", "one-away", "no-primary"),
                "dying": router("/dying", "dying", "follow"),
                "elsewhere": router("/elsewhere", "elsewhere", "follow"),
                "files": router("/files", "elsewhere", "follow"),
                "new-files": router("/new-files", "two-builds", "lacks"),
                "no-middleware": router("/closed/no-middleware", "replica", "nobody"),
                "no-plugin": router("/closed/no-plugin", "replica", "unloaded"),
                "bad-plugin": router("/closed/bad-plugin", "replica", "invalid"),
            },
            "services": {
                **{name: service(pods[name]) for name in ("replica", "primary", "echo", "dying", "elsewhere", "busy")},
                "two-builds": service(pods["elsewhere"], pods["newer"]),
                "one-away": service(free_port(), pods["replica"]),
                "all-away": service(free_port(), free_port()),
            },
            "middlewares": {
                "no-primary": plugin(True, **named, primaryPort=free_port()),
                "follow": plugin(True, **named, primaryPort=main, forwardPaths=forward, staticPaths=["/files/"]),
                "lacks": plugin(
                    True, **named, primaryPort=pods["replica"].server_address[1], staticPaths=["/new-files/"]
                ),
                "page": plugin(True, **named, primaryPort=free_port(), unavailablePage=PAGE),
                "refuse": plugin(False),
                "head": plugin(False, headRedirect=True),
                "https": {"redirectScheme": {"scheme": "https", "permanent": True, "port": "8443"}},
                "unloaded": {"plugin": {"notloaded": {"a": "b"}}},
                "invalid": {"plugin": {"flyreplay": {"statefulSet": ".*", "service": SERVICE}}},
            },
        }
    }


@pytest.fixture(scope="module")
def pods() -> Iterator[dict[str, Pod]]:
    main = Pod(primary)
    main.first_chunk, main.chunk_seen, main.go_on = (threading.Event() for _ in range(3))  # type: ignore[attr-defined]
    other = Pod(replica)
    other.go_on = main.go_on  # type: ignore[attr-defined]
    # abaci-app-1 is a replica, too: the primary is moving.
    made = {
        "primary": main,
        "replica": other,
        "moving": Pod(replica, "127.0.1.1", main.server_address[1]),
        "echo": Pod(echo),
        "dying": Pod(replica),
        "elsewhere": Pod(replica, "127.0.2.1"),
        "newer": Pod(newer),
        "busy": Pod(busy),
    }
    made["dying"].entered, made["dying"].go_on = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    yield made
    made["dying"].go_on.set()  # type: ignore[attr-defined]
    for pod in made.values():
        pod.shutdown()
        pod.server_close()


@pytest.fixture(scope="module")
def edge(pods: dict[str, Pod], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    home = tmp_path_factory.mktemp("traefik")
    shutil.copytree(PLUGIN, home / "plugins-local" / "src" / MODULE, ignore=shutil.ignore_patterns("*_test.go"))
    hosts = {f"abaci-app-{ordinal}.{SERVICE}": f"127.0.{ordinal}.1" for ordinal in (0, 1, 2)}
    hosts[PRIMARY] = "127.0.0.1"
    (home / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in hosts.items()))
    (home / "dynamic.yml").write_text(json.dumps(dynamic(pods)))  # YAML contains JSON
    port = free_port()
    arguments = [
        str(build.artifact("traefik") / "traefik"),
        f"--entryPoints.web.address=127.0.0.1:{port}",
        f"--providers.file.filename={home / 'dynamic.yml'}",
        f"--experimental.localPlugins.flyreplay.moduleName={MODULE}",
        "--global.checkNewVersion=false",
    ]
    own_mounts = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    shell = f'mount --bind {home / "hosts"} /etc/hosts && exec "$@"'
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*own_mounts, "sh", "-c", shell, "sh", *arguments], cwd=home, stdout=log, stderr=log)
    made = Edge(port, pods, home / "log")
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                if made.ask("GET", "/read")[0] == 200:
                    break
            time.sleep(0.1)
        else:
            pytest.fail(f"Traefik does not serve: {(home / 'log').read_text()[-3000:]}")
        yield made
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(autouse=True)
def fresh(pods: dict[str, Pod]) -> None:
    for pod in pods.values():
        pod.asked.clear()
    for event in ("first_chunk", "chunk_seen", "go_on"):
        getattr(pods["primary"], event).clear()


def is_unavailable(status: int, headers: dict[str, str], body: bytes, method: str) -> None:
    assert (status, "retry-after" in headers, "fly-replay" in headers) == (503, True, False)
    assert "x-replica" not in headers
    assert body or method == "HEAD"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", ["/misrouted", "/strict/misrouted"])
def test_no_empty_200_leaves_whatever_is_misrouted(edge: Edge, route: str, method: str) -> None:
    status, headers, body = edge.ask(method, route, b"{}" if method not in ("GET", "HEAD") else None)
    if method in ("GET", "HEAD") and route == "/misrouted":
        assert (status, "fly-replay" in headers) == (201, False)
        assert body or method == "HEAD"
        assert [asked[:2] for asked in edge.pods["primary"].asked] == [(method, route)]
    else:
        is_unavailable(status, headers, body, method)
        assert edge.pods["primary"].asked == []
    assert [asked[:2] for asked in edge.pods["replica"].asked] == [(method, route)]


def test_a_redirect_is_301_for_get_and_head_and_308_for_the_rest(edge: Edge) -> None:
    """Traefik's redirectScheme alone answers HEAD with 308, as `curl -I` would then show."""
    got = {method: edge.ask(method, "/redirect/x?y=1", headers={"Host": "abaci.localhost"}) for method in METHODS}
    assert {method: answer[0] for method, answer in got.items()} == {
        method: 301 if method in ("GET", "HEAD") else 308 for method in METHODS
    }
    assert {answer[1]["location"] for answer in got.values()} == {"https://abaci.localhost:8443/redirect/x?y=1"}


def test_a_get_with_a_body_is_not_sent_again(edge: Edge) -> None:
    is_unavailable(*edge.ask("GET", "/again", b"gone"), "GET")
    assert edge.pods["primary"].asked == []


# What releases of Traefik have answered with an empty 400, now and then.
ENCODED = ["%2F", "%5C", "%3B", "%25", "%3F", "%23"]


@pytest.mark.parametrize("encoded", ENCODED)
def test_a_path_with_an_encoded_character_reaches_the_pod_as_it_is(edge: Edge, encoded: str) -> None:
    assert edge.ask("GET", f"/pod/a{encoded}b/well")[::2] == (200, b"read here")
    assert [asked[:2] for asked in edge.pods["replica"].asked] == [("GET", f"/pod/a{encoded}b/well")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("encoded", ENCODED)
def test_a_get_that_writes_is_answered_by_the_primary(edge: Edge, method: str, encoded: str) -> None:
    headers = {"Host": "abaci.localhost", "Cookie": "s=1", "X-Forwarded-For": "198.51.100.9"}
    asked_for = f"/again/a{encoded}b?user=x%20y&n=1"
    status, answered, body = edge.ask(method, asked_for, headers=headers)
    assert (status, answered["set-cookie"]) == (201, "__txid=0000000000000005; Path=/")
    assert "x-replica" not in answered and "fly-replay" not in answered
    if method == "GET":
        assert json.loads(body) == {"method": "GET", "path": asked_for}
    ((_, path, seen),) = edge.pods["primary"].asked
    assert path == asked_for
    assert (seen["Host"], seen["Cookie"]) == ("abaci.localhost", "s=1")
    # A forged address does not come through, and the pod sees the same as on the direct way.
    (_, _, direct) = edge.pods["replica"].asked[0]
    assert seen["X-Forwarded-For"] == direct["X-Forwarded-For"] == "127.0.0.1"
    assert {name: seen[name] for name in seen if name.startswith("X-")} == {
        name: direct[name] for name in direct if name.startswith("X-")
    }


@pytest.mark.parametrize(
    "target",
    ["abaci-app-1", "abaci-app-2", "abaci-app-99", "redis", "abaci-app-0.example.com", "abaci-app-0:1", "abaci-app-"],
    ids=["moving", "refused", "no such name", "other", "other domain", "port", "no ordinal"],
)
def test_what_leads_nowhere_is_503_with_retry_after(edge: Edge, target: str) -> None:
    begin = time.monotonic()
    is_unavailable(*edge.ask("GET", f"/again?to={target}"), "GET")
    assert time.monotonic() - begin < 5
    assert len(edge.pods["moving"].asked) == (1 if target == "abaci-app-1" else 0)
    assert edge.pods["primary"].asked == []


def test_a_write_reaches_the_primary_and_its_cookie_comes_back(edge: Edge) -> None:
    status, headers, body = edge.ask("POST", "/api/records", b'{"body": "x"}')
    assert (status, headers["set-cookie"]) == (201, "__txid=0000000000000005; Path=/")
    assert json.loads(body)["method"] == "POST"
    assert edge.pods["replica"].asked == []


def test_a_request_body_is_not_buffered(edge: Edge) -> None:
    main: Any = edge.pods["primary"]
    seen: list[bool] = []

    def parts() -> Iterator[bytes]:
        yield b"first"
        seen.append(main.chunk_seen.wait(5))
        yield b"second"

    assert edge.ask("POST", "/upload", parts())[0] == 201
    assert seen == [True]


@pytest.mark.parametrize("path", ["/stream", "/again/stream"], ids=["passed", "sent again"])
def test_a_streaming_answer_is_not_buffered(edge: Edge, path: str) -> None:
    main: Any = edge.pods["primary"]
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.read1(100) == b"data: 1\n\n"
        main.go_on.set()
        assert answer.read() == b"data: 2\n\n"
    finally:
        main.go_on.set()
        connection.close()


@pytest.mark.parametrize("path", ["/half", "/again/half"], ids=["passed", "sent again"])
def test_half_an_answer_does_not_look_like_a_whole_one(edge: Edge, path: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        edge.ask("GET", path)


def test_a_websocket_passes_on_its_own_route_without_the_plugin(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=5) as client:
        client.sendall(b"GET /api/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head = client.recv(1000)
        assert head.startswith(b"HTTP/1.1 101 ")
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_read_that_a_pod_cannot_answer_is_answered_by_the_primary(edge: Edge, method: str, status: int) -> None:
    path = f"/pod/fails/{status}"
    got, headers, body = edge.ask(method, path, headers={"Host": "abaci.localhost", "X-Forwarded-For": "198.51.100.9"})
    assert (got, "x-replica" in headers) == (201, False)
    assert method == "HEAD" or json.loads(body) == {"method": method, "path": path}
    ((_, _, first),) = edge.pods["replica"].asked
    ((_, _, again),) = edge.pods["primary"].asked
    assert (again["Host"], again["X-Forwarded-For"]) == ("abaci.localhost", "127.0.0.1")
    assert {name: again[name] for name in again if name.startswith("X-")} == {
        name: first[name] for name in first if name.startswith("X-")
    }


@pytest.mark.parametrize("status", [500, 501, 502])
def test_a_read_that_fails_on_a_replica_is_answered_by_the_primary(edge: Edge, status: int) -> None:
    path = f"/elsewhere/fails/{status}"
    assert edge.ask("GET", path)[0] == 201
    assert [asked[:2] for asked in edge.pods["elsewhere"].asked] == [("GET", path)]
    assert [asked[:2] for asked in edge.pods["primary"].asked] == [("GET", path)]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/pod/fails/500", 500),  # the pod has the primary's address: that is its own word
        ("GET", "/pod/fails/404", 404),
        ("POST", "/pod/fails/502", 502),
        ("GET", "/pod/callback/fails/502", 502),
        ("GET", "/read/fails/../pod/fails/503", 200),
    ],
)
def test_what_is_an_answer_or_may_not_run_twice_is_not_asked_again(
    edge: Edge, method: str, path: str, status: int
) -> None:
    assert edge.ask(method, path)[0] == status
    assert len(edge.pods["replica"].asked) == 1
    assert edge.pods["primary"].asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_a_pod_lacks_is_answered_by_the_primary(edge: Edge, method: str) -> None:
    path = "/files/fails/404"
    status, headers, body = edge.ask(method, path)
    assert (status, "x-replica" in headers) == (201, False)
    assert method == "HEAD" or json.loads(body) == {"method": method, "path": path}
    assert [asked[:2] for asked in edge.pods["elsewhere"].asked] == [(method, path)]
    # And no cookie is got for it, since caches keep files.
    assert [asked[:2] for asked in edge.pods["primary"].asked] == [(method, path)]


def test_a_file_that_the_primary_lacks_too_is_answered_by_another_pod(edge: Edge) -> None:
    """Traefik takes the pods in turn."""
    answers = [edge.ask("GET", "/new-files/fails/404") for _ in range(4)]
    assert [answer[::2] for answer in answers] == [(200, b"of the new build")] * 4
    lacked, primary, had = (len(edge.pods[name].asked) for name in ("elsewhere", "replica", "newer"))
    assert lacked == primary >= 2 and had == 4


def test_no_read_fails_while_one_pod_of_two_is_away(edge: Edge) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: edge.ask("GET", f"/one-away/well/{number}"), range(100)))
    assert {answer[0] for answer in answers} <= {200, 201}
    # Passed over after the first look, it costs the primary next to nothing.
    assert len(edge.pods["primary"].asked) < 20
    assert len(edge.pods["replica"].asked) + len(edge.pods["primary"].asked) == 100


def test_no_read_fails_while_a_pod_and_the_primary_are_away(edge: Edge) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: edge.ask("GET", f"/no-primary/well/{number}"), range(100)))
    assert {answer[0] for answer in answers} == {200}
    assert len(edge.pods["replica"].asked) == 100


def test_a_get_that_writes_is_not_asked_again_where_a_pod_is_away(edge: Edge) -> None:
    """It is not known whether it ran. Half of them find the pod that is away."""
    answers = sorted(edge.ask("GET", "/one-away/exact")[0] for _ in range(8))
    assert answers == [201] * 4 + [502] * 4
    assert len(edge.pods["primary"].asked) == 4


def test_where_everything_is_away_the_visitor_is_told(edge: Edge) -> None:
    assert edge.ask("GET", "/all-away/x")[0] == 201
    assert [asked[:2] for asked in edge.pods["primary"].asked] == [("GET", "/all-away/x")]


def test_a_read_on_a_connection_to_a_pod_that_died_is_answered_by_the_primary(edge: Edge) -> None:
    dying: Any = edge.pods["dying"]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(edge.ask, "GET", "/dying/slow")
        assert dying.entered.wait(5)
        dying.shutdown()
        dying.socket.close()  # what is connected stays so, and nothing comes any more
        assert not first.done()
        assert edge.ask("GET", "/dying/well")[0] == 201
        assert first.result(5)[0] == 201
    assert {asked[1] for asked in edge.pods["primary"].asked} == {"/dying/slow", "/dying/well"}


def test_traefiks_log_says_which_read_was_asked_again(edge: Edge) -> None:
    lines = []
    for asked in (1, 3, 2):
        time.sleep(1.1)
        for _ in range(asked):
            edge.ask("GET", "/pod/fails/502?code=secret")
        lines.append(edge.log.read_text().rpartition("flyreplay: ")[2])
    # The first of each second is written, with those that were not.
    assert [line.split()[0] for line in lines[1:]] == ["1", "3"]
    edge.ask("GET", "/pod/fails/503")
    text = edge.log.read_text()
    assert '/pod/fails/502\\": 502, then 201 from the primary' in text or '/pod/fails/502": 502, then 201' in text
    assert "secret" not in text
    assert "fails/503" not in text.rpartition("fails/502")[2]


@pytest.mark.parametrize("path", ["/page-away", "/page-busy"])
def test_a_browser_is_shown_the_page_in_place_of_no_answer(edge: Edge, path: str) -> None:
    for method in ("GET", "HEAD"):
        status, headers, body = edge.ask(method, path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert status in (502, 503, 504) and body.decode() == (PAGE if method == "GET" else ""), (status, body)
        assert headers["content-length"] == str(len(PAGE.encode())) and headers["cache-control"] == "no-store"
        assert headers["content-type"] == "text/html; charset=utf-8" and not {"content-encoding", "etag"} & set(headers)
        # When to come back says the application, where it does.
        assert headers["retry-after"] == ("3600" if path == "/page-busy" else "2")
    assert edge.ask("GET", path, headers={"Accept": "*/*"})[2] != PAGE.encode()


def test_the_applications_own_page_passes(edge: Edge) -> None:
    status, headers, body = edge.ask("GET", "/page-busy/own", headers={"Accept": "text/html"})
    assert (status, body, headers["retry-after"]) == (503, b"<p>its own", "3600")


@pytest.mark.parametrize("route", ["no-middleware", "no-plugin", "bad-plugin"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_route_without_its_middleware_fails_closed(edge: Edge, route: str, method: str) -> None:
    status, headers, _ = edge.ask(method, f"/closed/{route}")
    assert (status, "fly-replay" in headers) == (404, False)
    assert edge.pods["replica"].asked == []


def test_many_at_once_are_kept_apart(edge: Edge) -> None:
    def one(number: int) -> bool:
        if number % 3 == 0:
            return edge.ask("GET", f"/read/{number}")[2] == b"read here"
        if number % 3 == 1:
            return bool(json.loads(edge.ask("GET", f"/again/{number}")[2])["path"] == f"/again/{number}")
        return edge.ask("POST", "/misrouted", b"x")[0] == 503

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(150)))
