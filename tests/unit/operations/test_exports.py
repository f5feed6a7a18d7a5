"""What counts as a backup: the same cases for the playbook's export and for the job in the cluster."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import clock
from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    checksum,
    keeping,
    positions,
    retention,
    sqlitefile,
)
from ansible_collections.abaci.infra.plugins.modules import litefs_backup
from fake_api import Cluster, LiteFS, database, run
from playing import DATABASE

ROOT = Path(__file__).resolve().parents[3]
CONTENT = database("one", "two")
Back = Callable[..., tuple[int, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    nodes: dict[str, LiteFS]

    def do_GET(self) -> None:
        node = self.nodes[str(self.connection.getsockname()[0])]
        if not node.running:
            return self.send_error(503)
        if self.path == "/events":
            return self.send_error(404)
        status, body = node.answer("GET", self.path, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def api() -> Cluster:
    return Cluster(content=CONTENT)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def job(api: Cluster, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The job as a module, in front of the site's pods: each an address of this machine."""
    verified, shared = types.ModuleType("verified"), types.ModuleType("verified.operations")
    verified.clock = clock  # type: ignore[attr-defined]
    for part in (checksum, keeping, positions, retention, sqlitefile):
        setattr(shared, part.__name__.rpartition(".")[2], part)
    monkeypatch.setitem(sys.modules, "verified", verified)
    monkeypatch.setitem(sys.modules, "verified.operations", shared)
    spec = importlib.util.spec_from_file_location("job", ROOT / "roles/backup/files/job.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    addresses = {f"127.0.0.{ordinal + 1}": api.node(ordinal) for ordinal in range(3)}
    monkeypatch.setattr(Handler, "nodes", addresses, raising=False)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    port = server.server_address[1]
    whole = socket.getaddrinfo

    def lookup(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "headless":
            return whole(host, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(module.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity/clusterID").write_text(make.A)
    target.mkdir()
    environment = {"SERVICE": "headless", "PORT": port, "DATABASE": make.DATABASE, "NAMESPACE": make.NAMESPACE}
    environment |= {"STATEFULSET": make.NAME, "TARGET": target, "IDENTITY": tmp_path / "identity", "KEEP": 1}
    environment |= {"PATIENCE": 0}
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    before = signal.getsignal(signal.SIGTERM)
    yield module
    signal.signal(signal.SIGTERM, before)
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["playbook", "job"])
def back_up(request: pytest.FixtureRequest, api: Cluster, target: Path, capsys: pytest.CaptureFixture[str]) -> Back:
    """Make a backup with one of the two: (exit code, what it said)."""
    if request.param == "job":
        module = request.getfixturevalue("job")

        def by_job() -> tuple[int, str]:
            code: int = module.main()
            said = capsys.readouterr()
            return code, said.out + said.err

        return by_job

    def by_playbook() -> tuple[int, str]:
        answer = run(litefs_backup, api, **DATABASE, directory=str(target), keep=1)
        return int(bool(answer.get("failed"))), str(answer)

    return by_playbook


def manifests(target: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(target.glob("*.manifest.json"))]


def everyone(api: Cluster, **changed: Any) -> None:
    for node in api.disks.values():
        for key, value in changed.items():
            setattr(node, key, value)


def test_a_backup_is_the_primarys_content_with_a_private_manifest(back_up: Back, api: Cluster, target: Path) -> None:
    code, said = back_up()
    assert code == 0, said
    (made,) = manifests(target)
    assert (target / made["file"]).read_bytes() == CONTENT
    assert (made["cluster_id"], made["txid"], made["checksum"]) == (make.A, f"{5:016x}", api.node(0).checksum)
    assert made["at_primary"] is True and made["user_version"] == 1 and len(made["tables_sha256"]) == 64
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o600}


SPOILED = {
    "of another position, though sound": lambda content: content[:60] + b"\x00\x00\x00\x07" + content[64:],
    "cut short": lambda content: content[:-100],
    "an error text at its end": lambda content: content + b"internal error",
    "zeroes": lambda content: bytes(len(content)),
    "nothing": lambda _content: b"",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_what_cannot_be_proven_is_no_backup_and_leaves_nothing(
    back_up: Back, api: Cluster, target: Path, spoil: Callable[[bytes], bytes]
) -> None:
    everyone(api, spoil=spoil)
    code, said = back_up()
    assert code != 0 and "o backup was made" in said
    assert list(target.iterdir()) == []


def test_another_cluster_than_the_recorded_one_is_no_backup(back_up: Back, api: Cluster, target: Path) -> None:
    everyone(api, cluster=make.B)
    assert back_up()[0] != 0 and list(target.iterdir()) == []


def test_a_cluster_id_that_changes_meanwhile_is_no_backup(api: Cluster, target: Path) -> None:
    """The job takes the id that it chose by; the export reads it before and after."""
    node, ids = api.node(1), iter([make.B, make.A] * 3)
    node.follows, node.during_export = None, lambda: setattr(node, "cluster", next(ids))
    answer = run(litefs_backup, api, **DATABASE, directory=str(target), pods=["abaci-app-1"])
    assert answer["failed"] and "changed from" in answer["msg"] and list(target.iterdir()) == []


def test_the_newest_replaces_older_ones_beyond_those_that_are_kept(back_up: Back, api: Cluster, target: Path) -> None:
    target.mkdir(exist_ok=True)
    assert back_up()[0] == 0
    (first,) = manifests(target)
    _stamp(target, first, "2026-01-01T00:00:00Z")
    assert back_up()[0] == 0
    (left,) = manifests(target)
    assert left["time"] != "2026-01-01T00:00:00Z" and len(list(target.iterdir())) == 2


def test_without_a_primary_a_copy_is_kept_as_what_it_is_and_no_older_one_goes(
    back_up: Back, api: Cluster, target: Path, request: pytest.FixtureRequest
) -> None:
    assert back_up()[0] == 0
    (first,) = manifests(target)
    _stamp(target, first, "2026-01-01T00:00:00Z")
    api.node(0).running = False
    code, said = back_up()
    by_job = "job" in request.node.callspec.id
    assert code == int(by_job), said
    made = manifests(target)
    assert len(made) == 2 and {one["file"] == "older.sqlite": one["at_primary"] for one in made} == {
        True: True,
        False: False,
    }
    if by_job:
        assert "no primary answered" in said


def test_the_job_waits_for_a_primary_that_answers_a_moment_later(
    job: Any, api: Cluster, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when network policies let a new pod through only to its own node at first, or while the primary restarts."""
    monkeypatch.setenv("PATIENCE", "60")
    looks = iter(range(10))

    def later(_seconds: float) -> None:
        api.node(0).running = next(looks) == 2

    for away in ((0, 1, 2), (0,)):
        looks = iter(range(10))
        for ordinal in range(3):
            api.node(ordinal).running = ordinal not in away
        monkeypatch.setattr(job.time, "sleep", later)
        assert job.main() == 0 and next(looks) == 3
        assert [one["at_primary"] for one in manifests(target)] == [True]


def test_a_replica_that_is_behind_is_not_taken_while_the_primary_answers(
    back_up: Back, api: Cluster, target: Path
) -> None:
    for ordinal in (1, 2):
        api.node(ordinal).follows = None
    content = database("one", "two", "three")
    api.node(0).write(content)
    code, said = back_up()
    assert code == 0, said
    (made,) = manifests(target)
    assert (target / made["file"]).read_bytes() == content and made["at_primary"] is True


def test_a_backup_of_the_same_moment_is_not_replaced(back_up: Back, api: Cluster, target: Path) -> None:
    assert back_up()[0] == 0
    first = {path: path.read_bytes() for path in target.iterdir()}
    api.node(0).spoil = lambda content: content
    back_up()
    assert all(path.read_bytes() == content for path, content in first.items() if path.exists())


def test_what_a_killed_run_left_goes_when_a_later_one_begins(job: Any, target: Path) -> None:
    for name, age in (("old", 2 * 3600), ("of a run at work", 0)):
        left = target / f".export-{name}"
        left.mkdir()
        (left / "database").write_bytes(b"x")
        for path in (left / "database", left):
            os.utime(path, (time.time() - age, time.time() - age))
    assert job.main() == 0
    assert [path.name for path in target.glob(".export-*")] == [".export-of a run at work"]


def test_a_job_that_is_told_to_end_takes_its_folder_away(job: Any, api: Cluster, target: Path) -> None:
    for node in api.disks.values():
        node.during_export = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit, match="told to end"):
        job.main()
    assert list(target.iterdir()) == []


def _stamp(target: Path, manifest: dict[str, Any], when: str) -> None:
    """As if it had been made then."""
    (note,) = target.glob("*.manifest.json")
    (target / manifest["file"]).rename(target / "older.sqlite")
    note.unlink()
    (target / "older.manifest.json").write_text(json.dumps(manifest | {"time": when, "file": "older.sqlite"}))


def test_one_pod_that_cannot_be_exported_does_not_take_the_others_with_it(api: Cluster, target: Path) -> None:
    api.node(1).follows, api.node(1).content = None, b"garbage"
    pods = [f"abaci-app-{ordinal}" for ordinal in (1, 0, 2)]
    options = {**DATABASE, "directory": str(target), "pods": pods, "reason": "before promote"}
    answer = run(litefs_backup, api, **options, partial=True)
    assert "failed" not in answer and [one["pod"] for one in answer["manifests"]] == pods[1:]
    assert [one["pod"] for one in answer["problems"]] == ["abaci-app-1"] and "SQLite" in answer["problems"][0][
        "problem"
    ]
    assert answer["exports"] == answer["manifests"] + answer["problems"] and len(answer["did"]) == 2
    assert answer["did"][0] == f"exported to {answer['manifests'][0]['path']}"
    answer = run(litefs_backup, api, **options)
    assert answer["failed"] is True and len(answer["manifests"]) == 2, "what was made is named all the same"


def test_the_job_takes_no_replica_that_never_came_into_sync(job: Any) -> None:
    """LiteFS calls its lag 0."""
    node = {"cluster_id": make.A, "txid": f"{5:016x}", "checksum": "", "follows": True}
    nodes = [{**node, "address": "leader", "primary": True, "lag": None}]
    nodes += [{**node, "address": "replica", "primary": False, "lag": 0.0}]
    assert job.choose(nodes, make.A)["address"] == "leader"
    nodes[1]["lag"] = 0.4
    assert job.choose(nodes, make.A)["address"] == "replica"
