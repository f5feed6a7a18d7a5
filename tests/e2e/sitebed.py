"""What the end-to-end tests know of the bed: its nodes, its edge, its cluster, and how a playbook is run on it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from writer import Site

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK_TIMEOUT_S = 900


@dataclass
class Response:
    """An answer of the edge; `status` 0 stands for a connection that failed, with the reason in `body`."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class PlaybookRun:
    """A finished ansible-playbook: its return code, its output and, where asked for, the results that changed."""

    rc: int
    output: str
    changed: list[dict[str, Any]] = field(default_factory=list)
    # What tests/tools/callbacks/count.py counted
    count: dict[str, Any] = field(default_factory=dict)
    # What it asked of the API, as "METHOD target"
    requests: list[str] = field(default_factory=list)

    @functools.cached_property
    def recap(self) -> dict[str, dict[str, int]]:
        """host -> counter name -> count, from the recap."""
        lines = self.output.partition("PLAY RECAP")[2].splitlines()
        rows = [line.split(":", 1) for line in lines if "ok=" in line]
        return {
            host.strip(): {key: int(value) for key, value in (word.split("=") for word in counts.split())}
            for host, counts in rows
        }

    def total(self, counter: str) -> int:
        return sum(counts[counter] for counts in self.recap.values())


class Bed:
    """A running bed, found through the inventory that bed.py wrote."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inventory = ROOT / ".bed" / name / "inventory"
        self.variables: dict[str, Any] = yaml.safe_load((self.inventory / "hosts.yml").read_text())["all"]["vars"]
        self.kubeconfig = self.variables["k3s_kubeconfig"]
        self.api_port = int(urllib.parse.urlsplit(self.variables["k3s_kubeconfig_server"]).port or 443)
        self.https_port = int(self.variables["app_edge_https_port"])
        self.http_port = int(self.variables["app_edge_http_port"])
        self.ca_file = self.variables["app_tls_ca_file"]

    # The cluster

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
        command = [str(ROOT / ".venv/bin/kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=timeout)
        if check and result.returncode:
            raise AssertionError(f"{' '.join(arguments)}: {result.stderr}")
        return result.stdout if result.returncode == 0 else result.stdout + result.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def pods(self, namespace: str = "abaci", name: str = "abaci-app") -> list[dict[str, Any]]:
        return list(self.get("pods", "-n", namespace, "-l", f"app={name}")["items"])

    def in_pod(self, pod: str, *command: str, namespace: str = "abaci", check: bool = True) -> str:
        return self.kubectl("exec", "-n", namespace, pod, "-c", "app", "--", *command, check=check)

    def node_exec(self, node: str, *command: str, check: bool = True) -> str:
        result = subprocess.run(
            ["docker", "exec", self._box(node), *command], capture_output=True, text=True, timeout=120
        )
        if check and result.returncode:
            raise AssertionError(f"{node}: {' '.join(command)}: {result.stderr}")
        return result.stdout

    def power_off(self, node: str) -> None:
        """As when its power is cut: nothing on the node gets to say anything."""
        _docker("kill", self._box(node))

    def power_on(self, node: str) -> None:
        _docker("start", self._box(node))

    def ready(self, node: str) -> bool:
        conditions = self.get("node", node)["status"]["conditions"]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def nodes(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.get("nodes")["items"]]

    def rows(self, pod: str, query: str, namespace: str = "abaci") -> str:
        """What sqlite3 prints for a query in one pod."""
        return self.in_pod(pod, "sqlite3", "/litefs/sqlite.db", query, namespace=namespace).strip()

    def litefs(self, pod: str, path: str = "/info", namespace: str = "abaci") -> Any:
        program = (
            f"import urllib.request as u;print(u.urlopen('http://127.0.0.1:20202{path}',timeout=5).read().decode())"
        )
        return json.loads(self.in_pod(pod, "python3", "-c", program, namespace=namespace))

    def node_address(self, node: str) -> str:
        return str(
            _docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self._box(node))
        )

    def _box(self, node: str) -> str:
        return f"abaci-{self.name}-{node}"

    @contextlib.contextmanager
    def client_container(self, purpose: str) -> Iterator[str]:
        """A container on the bed's network that is no node of the cluster."""
        image = _docker("inspect", "-f", "{{.Image}}", self._box("server-0"))
        box = self._box(f"client-{purpose}")
        label = f"abaci.bed={self.name}"
        network = f"abaci-{self.name}"
        _docker("run", "-d", "--rm", "--label", label, "--network", network, "--name", box, image, "sleep", "3600")
        try:
            yield box
        finally:
            _docker("rm", "-f", box)

    # The edge

    def edge(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        domain: str = "abaci.localhost",
        verify: bool = True,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Response:
        connection = self.site(domain, verify=verify, timeout=timeout).open()
        return _ask(connection, method, path, body, headers or {})

    def site(self, domain: str = "abaci.localhost", *, verify: bool = True, timeout: float = 10) -> Site:
        """The site as the writer with the ledger wants it; its domain is in no DNS."""
        return Site(
            f"https://{domain}:{self.https_port}",
            connect=("127.0.0.1", self.https_port),
            ca=self.ca_file,
            verify=verify,
            timeout=timeout,
        )

    def plain(self, method: str, path: str, domain: str = "abaci.localhost") -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        return _ask(connection, method, path, None, {"Host": domain})

    # Playbooks

    def playbook(
        self,
        *arguments: str,
        playbook: str = "site.yml",
        want_changes: bool = False,
        count: Path | None = None,
        project: Path | None = None,
    ) -> PlaybookRun:
        """Run a playbook; with ``count``, a file for it, also count what it executes.

        ``project``: run it there, with the collections that are installed in its folder ``collections``.
        """
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1"}
        if project:
            environment["ANSIBLE_COLLECTIONS_PATH"] = str(project / "collections")
        if count:
            environment |= {
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callbacks"),
                "ANSIBLE_CALLBACKS_ENABLED": "count",
                "COUNT_FILE": str(count),
                "PYTHONPATH": str(ROOT / "tests/tools/requests"),
                "COUNT_REQUESTS": str(count.with_suffix(".requests")),
                "COUNT_REQUESTS_PORT": str(self.api_port),
            }
        if want_changes:
            environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
        result = subprocess.run(
            [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(self.inventory), playbook, *arguments],
            capture_output=True,
            text=True,
            cwd=project or ROOT,
            env=environment,
            timeout=PLAYBOOK_TIMEOUT_S,
        )
        run = PlaybookRun(result.returncode, result.stdout + result.stderr)
        if count:
            run.count = json.loads(count.read_text())
            run.requests = api_requests(count.with_suffix(".requests").read_text())
        if want_changes:
            document, _ = json.JSONDecoder().raw_decode(result.stdout, result.stdout.index("{"))
            run.changed = [
                outcome
                for play in document["plays"]
                for task in play["tasks"]
                for outcome in task["hosts"].values()
                if outcome.get("changed")
            ]
        return run


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> Response:
    try:
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.getheaders(), answer.read())
    except (OSError, http.client.HTTPException) as error:
        return Response(0, [], str(error).encode())


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.5) -> Any:
    """The first true value of `condition`, asked until `seconds` are over; what it raises counts as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
            last = value
        except (AssertionError, subprocess.SubprocessError, ValueError, KeyError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds:.0f} s (last: {last})")


@contextlib.contextmanager
def background(action: Callable[[], object], every: float) -> Iterator[None]:
    """Run `action` again and again beside the body."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            action()
            stop.wait(every)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def api_requests(noted: str) -> list[str]:
    """The requests that tests/tools/requests noted; see there."""
    lines = noted.splitlines()
    sockets = lines.count("connection") - lines.count("http")
    return [line for line in lines if line not in ("connection", "http")] + ["GET (WebSocket)"] * sockets


def run_bed(verb: str, name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "testbed/bed.py"), verb, "--name", name, *arguments], check=True)
