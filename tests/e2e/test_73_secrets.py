"""Secrets are nowhere but where they have to be: marked ones are planted, and then looked for everywhere else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitebed import ROOT, Bed, PlaybookRun, until

SAMPLE_S = 0.2
# Everything that holds configuration, but Secrets, whose data is where they belong.
KINDS = (
    "namespaces,nodes,events,serviceaccounts,configmaps,services,persistentvolumeclaims,persistentvolumes,pods,"
    "deployments,daemonsets,statefulsets,replicasets,controllerrevisions,jobs,cronjobs,ingresses,"
    "ingressroutes.traefik.io,middlewares.traefik.io,helmchartconfigs.helm.cattle.io,networkpolicies,roles,rolebindings"
)
# Where programs of a node leave files.
PLACES = ("/etc", "/home", "/opt", "/root", "/run", "/tmp", "/usr/local", "/var/lib", "/var/log", "/var/tmp")


@dataclass
class Marks:
    """Planted secrets by the variable that carries them, and everything that they are recognised by."""

    values: dict[str, str]
    variables: Path
    needles: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            plain = value.encode()
            forms = {value, urllib.parse.quote(value, safe=""), base64.b64encode(plain).decode().rstrip("=")}
            # In the middle of something longer that was encoded, base64 has three other shapes.
            for shift in (1, 2):
                middle = base64.b64encode(b"x" * shift + plain).decode()[4:]
                forms.add(middle.rstrip("=")[:-2])
            self.needles[name] = {form for form in forms if len(form) >= 12}

    def found_in(self, text: str) -> set[str]:
        """The variables of which something stands in `text`."""
        return {name for name, forms in self.needles.items() if any(form in text for form in forms)}


@pytest.fixture(scope="module")
def marks(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Marks:
    folder = tmp_path_factory.mktemp("marks")
    folder.chmod(0o700)
    key = Path(bed.variables["app_tls_private_key_file"]).read_text()
    values = {
        name: f"MARK{name.replace('_', '')}{secrets.token_hex(12)}" for name in ("auth", "redis", "token", "keel")
    }
    variables: dict[str, Any] = {
        "app_secrets": {"AUTH_SECRET": values["auth"]},
        "redis_password": values["redis"],
        "app_registry_token": values["token"],
        "keel_secrets": {"BASIC_AUTH_PASSWORD": values["keel"]},
        "keel_env": {**bed.variables.get("keel_env", {}), "BASIC_AUTH_USER": "operator"},
        "app_tls": "provided",
        "app_tls_certificate_file": "",
        "app_tls_private_key_file": "",
        "app_tls_certificate": Path(bed.variables["app_tls_certificate_file"]).read_text(),
        "app_tls_private_key": key,
    }
    values["tls"] = next(line for line in key.splitlines() if len(line) == 64)
    values["k3s"] = bed.node_exec("server-0", "cat", "/var/lib/rancher/k3s/server/token").strip().rpartition(":")[2]
    path = folder / "variables.json"
    path.touch(0o600)
    path.write_text(json.dumps(variables))
    return Marks(values, path)


class Watch:
    """Reads the command lines of all processes, here and so on all nodes, again and again."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self.samples = 0
        self.stop = threading.Event()

    def look(self) -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                self.lines.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        self.samples += 1

    def loop(self) -> None:
        while not self.stop.wait(SAMPLE_S):
            self.look()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """The nodes are containers of this machine, so its process list holds theirs."""
    watch = Watch()
    thread = threading.Thread(target=watch.loop, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join(10)


@pytest.fixture(scope="module")
def run(bed: Bed, marks: Marks) -> tuple[PlaybookRun, Watch, float]:
    started = time.time()
    with watching() as watch:
        done = bed.playbook("-vvv", "--diff", "-e", f"@{marks.variables}")
    assert done.rc == 0, done.output[-4000:]
    return done, watch, started


def test_the_marks_are_in_use(bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    """What was planted works, or the other tests would look for nothing."""
    held = {item["metadata"]["name"]: item.get("data", {}) for item in bed.get("secrets", "-n", "abaci")["items"]}
    held["keel"] = bed.get("secret", "keel", "-n", "keel")["data"]

    def value(secret: str, key: str) -> str:
        return base64.b64decode(held[secret][key]).decode()

    assert value("app-env", "AUTH_SECRET") == marks.values["auth"]
    assert value("redis", "password") == marks.values["redis"] and marks.values["redis"] in value(
        "app-env", "REDIS_URL"
    )
    assert marks.values["token"] in value("ghcr-registry", ".dockerconfigjson")
    assert value("keel", "BASIC_AUTH_PASSWORD") == marks.values["keel"]
    assert marks.values["tls"] in value("abaci-tls", "tls.key")
    until(
        lambda: bed.edge("GET", "/api/health").json()["status"] == "healthy",
        60,
        "the application with its new Redis URL",
    )


def test_not_in_the_output_at_vvv_nor_in_a_diff(marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    assert len(run[0].output) > 10_000 and "+++ after" in run[0].output
    assert marks.found_in(run[0].output) == set()


def test_not_in_check_mode_either(bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    other = json.loads(marks.variables.read_text())
    other["app_secrets"] = {"AUTH_SECRET": marks.values["auth"][::-1], "SECOND": marks.values["auth"]}
    other["redis_password"] = marks.values["redis"][::-1]
    path = marks.variables.with_name("other.json")
    path.touch(0o600)
    path.write_text(json.dumps(other))
    checked = bed.playbook("-vvv", "--check", "--diff", "--tags", "redis,app,keel", "-e", f"@{path}")
    assert checked.rc == 0, checked.output[-3000:]
    backwards = Marks({"auth": marks.values["auth"][::-1], "redis": marks.values["redis"][::-1]}, path)
    assert marks.found_in(checked.output) | backwards.found_in(checked.output) == set()


def test_not_in_the_process_list(marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    assert run[1].samples > 50
    assert any("ansible-playbook" in line for line in run[1].lines)
    assert any("redis-server" in line for line in run[1].lines), "the nodes' processes are in this machine's list"
    assert {name for line in run[1].lines for name in marks.found_in(line)} == set()


def test_not_in_what_a_failing_run_says(bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    errors = (
        {"app_image": "ghcr.io/antialias/soroban-abacus-flashcards:no-such-tag"},
        {"app_env": {"AUTH_SECRET": "twice"}},
        {"app_tls_certificate": "no certificate"},
        {"redis_maxmemory": "9gb"},
        {"keel_poll_schedule": "often"},
    )
    for error in errors:
        failed = bed.playbook(
            *("-vvv", "--diff", "--tags", "redis,app,keel", "-e", f"@{marks.variables}", "-e", json.dumps(error))
        )
        assert failed.rc != 0, error
        assert marks.found_in(failed.output) == set(), error
        assert re.search("|".join(error), failed.output), "the sentence names the variable"


def test_not_in_any_object_but_the_data_of_secrets(
    bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]
) -> None:
    text = bed.kubectl("get", KINDS, "-A", "-o", "json", "--show-managed-fields=true")
    assert marks.found_in(text) == set()
    for item in bed.get("secrets", "-A")["items"]:
        assert marks.found_in(json.dumps(item["metadata"])) == set(), item["metadata"]["name"]


def test_not_in_the_pods_logs(bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]) -> None:
    for pod in bed.get("pods", "-A")["items"]:
        place = ("-n", pod["metadata"]["namespace"], pod["metadata"]["name"])
        log = bed.kubectl("logs", *place, "--all-containers", "--tail=-1", check=False)
        assert marks.found_in(log) == set(), place


def patterns(marks: Marks) -> str:
    return "\n".join(sorted(form for forms in marks.needles.values() for form in forms))


def test_not_in_files_that_others_can_read_on_the_nodes(
    bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]
) -> None:
    # As a user who is nobody: what its directories keep from him is not readable by others.
    script = (
        'p=$(mktemp /run/marks.XXXXXX); cat > "$p"; chmod 644 "$p"; '
        f'runuser -u nobody -- grep -rlsIF -f "$p" {" ".join(PLACES)} | grep -vx "$p"; rm -f "$p"'
    )
    for node in bed.nodes():
        box = f"abaci-{bed.name}-{node}"
        done = subprocess.run(
            ["docker", "exec", "-i", box, "sh", "-c", script],
            input=patterns(marks),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stdout.split() == [], done.stdout


def test_not_in_files_that_others_can_read_on_the_controller(
    bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float], tmp_path: Path
) -> None:
    since = run[2]
    read = []
    for place in (ROOT, Path("/tmp"), Path.home()):
        for folder, folders, files in os.walk(place):
            # What others cannot enter is none of theirs; the parts of the bed hold nothing of a run.
            folders[:] = [
                name
                for name in folders
                if name not in (".venv", ".git", ".cache") and _readable_by_others(Path(folder, name), 0o005)
            ]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if (
                        path.stat().st_mtime >= since
                        and path.stat().st_size < 1 << 24
                        and _readable_by_others(path, 0o004)
                    ):
                        read.append(path)
    texts = {path: path.read_bytes().decode(errors="replace") for path in read if path.is_file()}
    assert {str(path): found for path, text in texts.items() if (found := marks.found_in(text))} == {}


def _readable_by_others(path: Path, bits: int) -> bool:
    with contextlib.suppress(OSError):
        return not path.is_symlink() and path.stat().st_mode & bits == bits
    return False


def test_a_run_without_them_keeps_what_the_cluster_holds(
    bed: Bed, marks: Marks, run: tuple[PlaybookRun, Watch, float]
) -> None:
    again = bed.playbook()
    assert again.rc == 0, again.output[-4000:]
    held = bed.get("secret", "app-env", "-n", "abaci")["data"]["AUTH_SECRET"]
    assert base64.b64decode(held).decode() == marks.values["auth"]
