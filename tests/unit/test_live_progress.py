"""What is said while a module waits or copies: the words, how often, where it goes, and that all say it."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import http.server
import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import rollout, telling
from ansible_collections.abaci.infra.plugins.module_utils.operations import sqlitefile
from ansible_collections.abaci.infra.plugins.plugin_utils import live

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
TIMES = re.compile(r"(\d+) s so far")


def told(done: float | None, at: float, total: float | None = 48e6, unit: str = "bytes", **more: Any) -> telling.Told:
    return telling.Told(**({"what": "Export", "left": None} | more), done=done, total=total, unit=unit, at=at)


# --- the words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], "Still waiting for: steps | Run the next step; 10 s so far, at most 590 s more"),
        (
            [told(0, 92), told(12e6, 98)],
            "Export: 12.0 of 48.0 MB (25 %); 10 s so far, about 18 s more",
        ),
        ([told(12e6, 100, None)], "Export: 12.0 MB; 10 s so far"),
        ([told(48e6 - 1, 100)], "Export: 48.0 of 48.0 MB (99 %); 10 s so far"),
        (
            [told(2, 98, 3, "pods ready", left=200.0, what="StatefulSet abaci/abaci-app")],
            "StatefulSet abaci/abaci-app: 2 of 3 pods ready; 10 s so far, at most 198 s more",
        ),
        (
            [told(12e6, 88)],
            "Export: 12.0 of 48.0 MB (25 %), and nothing new for 12 s; 10 s so far",
        ),
        ([told(None, 60, None, what="Integrity check of database.")], "Integrity check of database; 10 s so far"),
        ([told(48e6, 92), told(1e3, 99, what="SHA-256"), told(2e3, 100, 4e3, what="SHA-256")], "about 2 s more"),
    ],
)
def test_a_line_says_what_how_far_and_how_long(lines: list[telling.Told], wanted: str) -> None:
    assert telling.sentence(lines, 100.0, 10.0, "steps | Run the next step", 600.0 if not lines else None).endswith(
        wanted
    )


def test_one_thing_is_told_once_a_second_and_its_end_at_once() -> None:
    first = told(1, 10.0)
    assert telling.due(None, first)
    assert not telling.due(first, told(2, 10.9))
    assert telling.due(first, told(2, 11.0))
    assert telling.due(first, told(48e6, 10.1))
    assert not telling.due(told(48e6, 10.1), told(48e6, 10.2))
    assert telling.due(first, told(1, 10.1, what="SHA-256"))
    assert telling.due(first, told(2, 3.0)), "a clock that was set back silences nobody"


def test_nobody_listens_and_nothing_happens(tmp_path: Path) -> None:
    telling.Teller("").tell("Export", 1, 2)
    gone = telling.Teller(str(tmp_path / "gone"))
    gone.tell("Export", 1, 2)
    assert not (tmp_path / "gone").exists()


def test_half_a_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "told"
    path.touch()
    teller = telling.Teller(str(path))
    teller.tell("Export\nof " + "x" * 500, 1, 0)
    (one,) = telling.read(path.read_text() + '{"what": "Exp')
    assert one.what.startswith("Export of xxx") and len(one.what) == telling.LONGEST
    assert one.total is None


def test_a_rolling_update_counts_no_old_pod() -> None:
    found = {"kind": "StatefulSet", "spec": {"replicas": 3}, "status": {"readyReplicas": 3, "updatedReplicas": 1}}
    assert rollout.how_far(found) == (1, 3, "pods ready")
    daemons = {"desiredNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 3}
    assert rollout.how_far({"kind": "DaemonSet", "spec": {}, "status": daemons}) == (2, 3, "pods ready")
    assert rollout.how_far({"kind": "Certificate", "spec": {}}) == (None, None, "")


def test_the_size_of_an_export_is_in_its_header(tmp_path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("CREATE TABLE rows AS SELECT 1")
    content = (tmp_path / "db").read_bytes()
    assert sqlitefile.said_size(content[:65536]) == len(content)
    # A count that SQLite would not trust, and what is no database.
    assert sqlitefile.said_size(content[:24] + bytes(4) + content[28:]) is None
    assert sqlitefile.said_size(b"no database") is None


# --- where it goes ---------------------------------------------------------------------------------------------------


class Shown:
    """Display's part that is used."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def display(self, text: str, **options: Any) -> None:
        self.calls.append((text, options))


def test_in_a_log_lines_and_on_a_terminal_in_place() -> None:
    log, terminal = Shown(), Shown()
    live.Screen(0, "node-1: ", log).show("one\rtwo")
    assert log.calls == [("node-1: one two", {"stderr": False})]
    screen = live.Screen(10, "", terminal)
    screen.show("as long as this")
    screen.clear()
    assert terminal.calls == [
        ("\r\x1b[Kas long a\r", {"screen_only": True, "newline": False}),
        ("as long as this", {"log_only": True}),
        ("\r\x1b[K\r", {"screen_only": True, "newline": False}),
    ]


# --- with ansible-playbook -------------------------------------------------------------------------------------------


class Api(http.server.BaseHTTPRequestHandler):
    """A StatefulSet whose third pod takes its time, and a download that comes slowly."""

    ready_at = 0.0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/slow":
            return self._slow()
        found: dict[str, Any] = {"items": [], "metadata": {}}
        if path.endswith("/statefulsets/abaci-app"):
            ready = 3 if time.monotonic() >= self.ready_at else 2
            counts = {"replicas": 3, "readyReplicas": ready, "updatedReplicas": 3, "currentReplicas": 3}
            found = {
                "kind": "StatefulSet",
                "metadata": {"name": "abaci-app", "namespace": "abaci", "generation": 1},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "abaci"}}, "template": {"metadata": {}}},
                "status": {**counts, "observedGeneration": 1, "currentRevision": "r", "updateRevision": "r"},
            }
        text = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        return None

    def _slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(12 << 20))
        self.end_headers()
        for _second in range(12):
            self.wfile.write(bytes(1 << 20))
            time.sleep(1)

    def log_message(self, *_arguments: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Api.ready_at = time.monotonic() + 3600
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def playbook(folder: Path, task: dict[str, Any], **more: Any) -> list[str]:
    """The command that runs one task."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [{"name": "Wait for it", **task, **more}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(folder / "play.yml")]


def environment() -> dict[str, str]:
    return os.environ | {"ANSIBLE_LOCALHOST_WARNING": "False", "COLUMNS": "120"}


def kubeconfig(folder: Path, address: str) -> str:
    named = {"clusters": [{"name": "a", "cluster": {"server": address}}], "users": [{"name": "a", "user": {}}]}
    context = {"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "current-context": "a"}
    (folder / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **named, **context}))
    return str(folder / "kubeconfig")


def rollout_task(folder: Path, address: str, timeout: int = 60) -> dict[str, Any]:
    workload = {"kind": "StatefulSet", "name": "abaci-app", "namespace": "abaci", "timeout": timeout}
    return {"abaci.infra.rollout_wait": {"kubeconfig": kubeconfig(folder, address), **workload}}


def test_a_rollout_says_every_5_s_in_a_log_how_many_pods_are_ready(tmp_path: Path, address: str) -> None:
    command = playbook(tmp_path, rollout_task(tmp_path, address, timeout=170))
    far = re.compile(r"StatefulSet abaci/abaci-app: 2 of 3 pods ready; \d+ s so far, at most \d+ s more")
    seen: list[tuple[float, str]] = []
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            seen.append((time.monotonic(), line.rstrip("\n")))
            # The pod is ready when it was said of it twice: how long that takes is up to the machine.
            if sum(bool(far.fullmatch(one)) for _at, one in seen) >= 2:
                Api.ready_at = min(Api.ready_at, time.monotonic())
    text = "\n".join(line for _at, line in seen)
    assert run.returncode == 0, text
    said = [(at, line) for at, line in seen if TIMES.search(line)]
    began = next(at for at, line in seen if line.startswith("TASK"))
    moments = [began, *(at for at, _line in said)]
    # 5 s, and what a busy machine takes to start the task and to show a line.
    assert max(after - before for before, after in itertools.pairwise(moments)) < 15, said
    assert far.fullmatch(said[-1][1]), text
    assert "\r" not in text and "\x1b" not in text


def test_a_download_says_on_a_terminal_in_place_how_far_it_is(tmp_path: Path, address: str) -> None:
    task = {"url": f"{address}/slow", "dest": str(tmp_path / "got"), "mode": "0644", "timeout": 30}
    digest = hashlib.sha256(bytes(12 << 20)).hexdigest()
    command = playbook(tmp_path, {"abaci.infra.download": {**task, "sha256": digest}})
    main, end = pty.openpty()
    text = b""
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdin=end, stdout=end, stderr=end) as run:
        os.close(end)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if select.select([main], [], [], 1)[0]:
                try:
                    piece = os.read(main, 4096)
                except OSError:  # all have closed it
                    break
                if not piece:
                    break
                text += piece
    os.close(main)
    shown = text.decode()
    assert run.returncode == 0, shown
    frames = re.findall(r"\r\x1b\[K([^\r\n]*)\r", shown)
    assert len([frame for frame in frames if TIMES.search(frame)]) >= 2, shown
    far = r"Download of slow: \d+\.\d of 12\.6 MB \(\d+ %\); \d+ s so far, about \d+ s more"
    assert any(re.match(far, frame) for frame in frames), frames
    # What is shown in place is taken away before the result.
    assert frames[-1] == "" and re.search(r"\r\x1b\[K\r[^\r\n]*changed: \[localhost\]", shown), shown


def test_a_module_that_tells_nothing_is_named_and_a_task_without_a_log_tells_only_its_name(
    tmp_path: Path, address: str
) -> None:
    Api.ready_at = time.monotonic() + 3600
    command = playbook(tmp_path, rollout_task(tmp_path, address, 7), no_log=True)
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout
    assert re.search(r"^Still waiting for: Wait for it; 5 s so far, at most 2 s more$", done.stdout, re.MULTILINE)
    assert "pods ready" not in done.stdout


def test_what_a_program_reads_stays_whole(tmp_path: Path, address: str) -> None:
    Api.ready_at = time.monotonic() + 3600
    command = playbook(tmp_path, rollout_task(tmp_path, address, 20))
    asked = environment() | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    done = subprocess.run(command, cwd=tmp_path, env=asked, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["stats"]["localhost"]["failures"] == 1
    assert "2 of 3 pods ready" in done.stderr


def test_check_mode_waits_for_nothing(tmp_path: Path, address: str) -> None:
    command = [*playbook(tmp_path, rollout_task(tmp_path, address)), "--check"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not TIMES.search(done.stdout), done.stdout


# --- everybody says it -----------------------------------------------------------------------------------------------

# Loops that pause or read and tell nothing, and why.
SILENT = {
    "module_utils/bundle.py:write": "texts of some kilobytes that were read before",
    "module_utils/datastore.py:put_back": "a password",
    "module_utils/gather.py:ask_pod": "looks twice, half a second apart",
    "module_utils/operations/export.py:_fetch": "one second",
    "module_utils/port_tries.py:close": "two seconds",
}
# In the archive's pod no Ansible listens.
NOT_OURS = ("module_utils/archive/", "module_utils/telling.py")
# They look once, each request with a time-out of seconds, and use of such code only what neither waits nor copies.
ONCE = {
    "archive_tail",
    "check_settings",
    "fuse_probe",
    "objects_info",
    "operation_lock",
    "site_check",
    "site_logs",
    "site_status",
}
OWN = {"host_probe": "action/host_probe.py", "operation": "action/operation.py"}


def calls(node: ast.AST) -> set[str]:
    """The names of all that is called in it, but for the sentences of saying.py."""
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            called = one.func
            if "saying" not in ast.dump(called):
                found.add(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
    return found


def waits_or_copies(function: ast.FunctionDef) -> bool:
    """Whether it pauses, or reads a file or an answer piece by piece."""
    reads = any(isinstance(one, ast.While) and "read" in calls(one.test) for one in ast.walk(function))
    return reads or bool(calls(function) & {"sleep", "copyfileobj", "copyfile", "addfile", "backup"})


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """Those of a file."""
    found = (one for one in ast.walk(parsed(path)) if isinstance(one, ast.FunctionDef))
    return {f"{path.relative_to(PLUGINS)}:{one.name}": one for one in found}


def ours() -> list[Path]:
    paths = [path for part in ("module_utils", "modules") for path in sorted((PLUGINS / part).rglob("*.py"))]
    return [path for path in paths if not str(path.relative_to(PLUGINS)).startswith(NOT_OURS)]


def test_every_wait_and_every_copy_tells() -> None:
    found = {name: one for path in ours() for name, one in functions(path).items() if waits_or_copies(one)}
    assert len(found) > 20
    silent = {name for name, one in found.items() if not calls(one) & {"tell", "Reading", "copy_file"}}
    assert silent == set(SILENT)


@functools.cache
def imported(path: Path) -> set[Path]:
    """The files of module_utils that a file imports."""
    found = set()
    here = path.relative_to(PLUGINS).parent
    for one in ast.walk(parsed(path)):
        if not isinstance(one, ast.ImportFrom):
            continue
        text = (one.module or "").replace("ansible_collections.abaci.infra.plugins.", "")
        base = PLUGINS / here if one.level else PLUGINS
        for _up in range(max(one.level - 1, 0)):
            base = base.parent
        base = base / text.replace(".", "/") if text else base
        found |= {base.with_suffix(".py"), *(base / f"{name.name}.py" for name in one.names)}
    return {one for one in found if one.is_file() and PLUGINS in one.parents}


def reached(path: Path) -> set[Path]:
    """All files that a module brings with it."""
    found, todo = set(), [path]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += imported(one)
    return found


def test_every_module_that_waits_or_copies_has_the_action_plugin() -> None:
    telling_files = {path for path in ours() if any(waits_or_copies(one) for one in functions(path).values())}
    modules = {path.stem: path for path in (PLUGINS / "modules").glob("*.py")}
    long = {name for name, path in modules.items() if reached(path) & telling_files}
    routed = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]["modules"]
    assert {one["action_plugin"] for one in routed.values()} == {"abaci.infra.operation"}
    assert {"waiting.py", "transfer.py", "datastore.py"} <= {path.name for path in telling_files}
    assert long - set(routed) - set(OWN) == ONCE & long
    assert set(routed) <= set(modules)
    for path in OWN.values():
        assert "live.said(self" in (PLUGINS / path).read_text()
