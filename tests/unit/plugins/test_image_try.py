"""An image that is tried: what each line says, what the programs in the pod do, and that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import image_pull, image_try, kube
from ansible_collections.abaci.infra.plugins.module_utils.image_try import Answer, End, Programs, Seen, Socket, Start
from ansible_collections.abaci.infra.plugins.modules import image_try as module
from fake_api import FakeApi

ROOT = Path(__file__).parents[3]
WANTED = image_try.Wanted(
    image="ghcr.io/me/app:5",
    port=3000,
    path="/api/health",
    domain="abaci.example.com",
    database="sqlite.db",
    migrates=True,
    allow_other=False,
    start=60,
    grace=29,
)
SPECS = [yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text()) for role in ("app", "try_image")]
OPTIONS_OF_ROLES = {option for spec in SPECS for option in spec["argument_specs"]["main"]["options"]}
PULLED = image_pull.Status(pulled=True)
HERE = Programs("amd64", "node-1", PULLED, ())
EVERYWHERE = Socket("0.0.0.0", 3000, 0)
GOOD = Start(1.5, (EVERYWHERE,), "10.42.0.9", Answer(200, "fine", 95))
WELL = Seen(
    programs=(HERE,),
    migration=Start(1, code=0),
    primary=GOOD,
    database_bytes=4096,
    written=("/etc/hosts", "/tmp/x"),
    end=End(0.3, 0),
    replica=GOOD,
)


def found(seen: Seen, wanted: image_try.Wanted = WANTED) -> dict[str, tuple[str, str]]:
    """Mark and cause of each line that is not well."""
    return {one.slug: (one.mark, one.cause) for one in image_try.judge(seen, wanted) if one.mark != "ok"}


def primary(**changes: Any) -> Seen:
    return replace(WELL, primary=replace(GOOD, **changes))


def litefs(fault: str | None, reason: str = "why", missing: tuple[str, ...] | None = ()) -> Seen:
    status = image_pull.Status(reason=reason, final=True, fault=fault)
    return replace(WELL, programs=(Programs("arm64", "pi", status, missing, "" if missing is not None else reason),))


def test_an_image_that_does_all_is_well() -> None:
    assert found(WELL) == {}
    results = image_try.judge(WELL, WANTED)
    summary = image_try.summary(results, WANTED)
    assert (summary.code, summary.sentence) == (0, "The image ghcr.io/me/app:5 does what it has to.")


@pytest.mark.parametrize(
    ("seen", "slug", "mark", "words"),
    [
        (litefs(None, "manifest unknown"), "image-pulled", "fail", "node pi (arm64) cannot pull it: manifest unknown"),
        (Seen(), "image-pulled", "fail", "no node takes the application's pods"),
        (litefs("processor"), "image-processor", "fail", "another processor than that of node pi (arm64)"),
        (litefs("program", missing=("litefs", "fusermount3")), "image-programs", "fail", "no litefs and fusermount3"),
        (litefs("program", "x not found", None), "image-programs", "fail", "has no litefs and sh"),
        (litefs("", "exit code 1: bad"), "image-programs", "fail", "litefs version failed on node pi (arm64): exit"),
        (
            replace(WELL, migration=Start(1, code=3, log="no such table\n")),
            "migrates",
            "fail",
            "with 3, and said at its",
        ),
        (replace(WELL, migration=Start(9, error="exec: not found")), "migrates", "fail", "cannot be run: exec: not"),
        (replace(WELL, migration=Start(240.2)), "migrates", "fail", "had not ended after 240 s, and said nothing"),
        (primary(code=1, log="Error: no AUTH_SECRET"), "starts", "fail", "ended by itself with 1, and said at its end"),
        (primary(error="exec: node: not found"), "starts", "fail", "app_command cannot be run: exec: node"),
        (primary(sockets=(Socket("127.0.0.1", 3000, 0),)), "listens", "fail", "on 127.0.0.1 only, and sockets"),
        (primary(sockets=(Socket("::1", 3000, 0),)), "listens", "fail", "on ::1 only"),
        (primary(sockets=(Socket("10.42.0.9", 3000, 0),)), "listens", "fail", "on 10.42.0.9 only, and LiteFS asks"),
        (
            primary(sockets=(Socket("0.0.0.0", 8000, 0), Socket("127.0.0.1", 6379, 999)), answer=None),
            "listens",
            "fail",
            "nothing listens on port 3000 after 2 s; it listens on 8000",
        ),
        (primary(sockets=(Socket("::", 3000, 1000),)), "runs-as", "fail", "runs as user 1000, who may not use"),
        (replace(WELL, database_bytes=0), "opens-database", "warn", "/litefs/sqlite.db is not there"),
        (primary(answer=Answer(400, "Invalid Host")), "answers-health", "fail", "com is answered with 400: Invalid"),
        (primary(answer=None, unanswered="reset"), "answers-health", "fail", "is not answered: reset"),
        (primary(answer=Answer(200, "", 5)), "keeps-connections", "fail", "idle for 5 s (its header Keep-Alive)"),
        (primary(answer=Answer(200, "", 90)), "keeps-connections", "fail", "idle for 90 s"),
        (primary(answer=Answer(200)), "keeps-connections", "unknown", "try_image_idle_seconds=92 measures it"),
        (replace(WELL, idle=92, held=False), "keeps-connections", "fail", "idle for 92 s was closed"),
        (primary(log="ok\nError: EACCES: permission denied, mkdir '/app/x'"), "writes", "warn", "EACCES: permission"),
        (
            replace(WELL, written=("/app/.next/cache/1", "/app/.next/cache/2")),
            "writes",
            "warn",
            "pod: /app/.next/cache",
        ),
        (replace(WELL, written=None), "writes", "unknown", "no find"),
        (replace(WELL, end=End(40, None)), "ends", "fail", "had not ended 29 s after SIGTERM"),
        (replace(WELL, end=End(0.2, 1)), "ends", "fail", "ended with 1 after SIGTERM (0.2 s)"),
        (replace(WELL, end=None), "ends", "unknown", "SIGTERM could not be sent"),
        (
            replace(WELL, replica=replace(GOOD, code=1, log="readonly")),
            "read-only",
            "fail",
            "it ended with 1, and said",
        ),
        (replace(WELL, replica=replace(GOOD, answer=Answer(503, "no"))), "read-only", "fail", "answered with 503: no"),
        (replace(WELL, replica=replace(GOOD, sockets=())), "read-only", "fail", "nothing listens on port 3000"),
        (
            replace(WELL, replica=replace(GOOD, log="attempt to write a readonly database")),
            "read-only",
            "warn",
            "tries to write where it may only read",
        ),
        (replace(WELL, replica=None), "read-only", "unknown", "no database to give it"),
    ],
)
def test_each_fault_is_told_by_its_line_with_what_mends_it(seen: Seen, slug: str, mark: str, words: str) -> None:
    (one,) = [one for one in image_try.judge(seen, WANTED) if one.slug == slug]
    assert one.mark == mark and words in one.cause, one
    assert one.page == f"docs/application.md#{slug}"
    if mark != "unknown":
        assert len(one.command.split()) > 4, "no cure"
        assert set(re.findall(r"\b(?:app|try_image)_\w+", one.command)) <= OPTIONS_OF_ROLES
    summary = image_try.summary(image_try.judge(seen, WANTED), WANTED)
    assert summary.code == {"fail": 2, "warn": 1, "unknown": 0}[mark]
    assert (slug in summary.sentence) is (mark == "fail")


@pytest.mark.parametrize(
    "seen",
    [
        primary(sockets=(Socket("127.0.0.1", 3000, 0), Socket("10.42.0.9", 3000, 0))),
        primary(sockets=(Socket("::", 3000, 0),)),
        primary(answer=Answer(200, "", 5), log="").__class__(**{**vars(WELL), "idle": 92, "held": True}),
        primary(answer=Answer(200, "", None, True)),
        replace(WELL, end=End(0.2, 143)),
    ],
)
def test_what_is_well_in_another_way(seen: Seen) -> None:
    assert found(seen) == {}


def test_who_drops_root_is_well_where_others_may_use_the_mount() -> None:
    seen = primary(sockets=(Socket("::", 3000, 1000),))
    assert found(seen, replace(WANTED, allow_other=True)) == {}


def test_what_was_not_tried_is_not_known_and_never_well() -> None:
    pulled = {"image-pulled", "image-processor", "image-programs"}
    marks = {one.slug: one.mark for one in image_try.judge(Seen(programs=(HERE,)), WANTED)}
    assert {slug for slug, mark in marks.items() if mark == "ok"} == pulled
    assert set(marks.values()) == {"ok", "unknown"}


def test_every_line_has_its_section() -> None:
    titles = {line.removeprefix("### ") for line in (ROOT / image_try.PAGE).read_text().splitlines() if "### " in line}
    assert {check.slug for check in image_try.TABLE} == titles


# --- what the cluster says


def looked(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    states = [{"name": "litefs", "state": first, "imageID": "x@sha256:1"}]
    states.append({"name": "programs", "state": second, "imageID": "x@sha256:1"})
    return {"spec": {"nodeName": "node-1"}, "status": {"containerStatuses": states}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


NO_LITEFS = 'exec: "litefs": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("pod", "missing", "fault"),
    [
        (looked(ended(0), ended(0)), (), None),
        (
            looked(ended(128, NO_LITEFS, "StartError"), ended(0, "litefs\nfusermount3\n")),
            ("litefs", "fusermount3"),
            "program",
        ),
        (
            looked(ended(128, NO_LITEFS, "StartError"), ended(128, NO_LITEFS.replace("litefs", "sh"), "StartError")),
            None,
            "program",
        ),
        (looked(ended(255, "exec format error"), ended(255, "exec format error")), None, "processor"),
    ],
)
def test_the_programs_are_read(pod: dict[str, Any], missing: tuple[str, ...] | None, fault: str | None) -> None:
    read = image_try.programs(pod, "amd64")
    assert read is not None and (read.missing, read.litefs.fault, read.node) == (missing, fault, "node-1")


def test_what_is_not_known_yet_is_waited_for() -> None:
    assert image_try.programs(looked({"running": {}}, ended(0)), "amd64") is None
    assert image_try.programs(looked(ended(0), {"running": {}}), "amd64") is None
    assert image_try.programs({"spec": {}, "status": {}}, "amd64") is None


def test_the_sockets_are_read() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0\n"
        "   1: 0100007F:0BB8 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0\n"
        "   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 3 1 0\n"
        "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 4 1 0\n"
        "   2: 0000000000000000FFFF000001002A0A:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 5 1 0\n"
    )
    assert image_try.sockets(table) == (
        Socket("127.0.0.1", 3000, 1000),
        Socket("::", 3000, 0),
        Socket("::1", 8080, 0),
        Socket("10.42.0.1", 8081, 0),
    )


def test_a_command_whose_quotes_are_open_is_named() -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "primary"}]}}
    with pytest.raises(ValueError, match=r"app_command \(node 'x\) cannot be split .* close its quotes"):
        image_try.complete(pod, "n", "a:1", "node 'x", "", [])
    made = image_try.complete(pod, "n", "a:1", "node 'x y'", "", [])
    assert made["spec"]["containers"][0]["command"][-3:] == ["LITEFS_CANDIDATE=true", "node", "x y"]
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"


# --- the programs in the pod

WRAPPED = image_try.STARTS[image_try.PRIMARY]


def wrapped(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-c", WRAPPED, "try", "env", "A=b", "python3", "-c", program], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("handler", "code"),
    [("", 143), ("signal.signal(15, lambda *_: sys.exit(0))", 0), ("signal.signal(15, signal.SIG_IGN)", None)],
)
def test_sigterm_reaches_the_application_and_its_end_is_the_containers(handler: str, code: int | None) -> None:
    program = f"import os, signal, sys, time; {handler}\nprint(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    process = wrapped(program)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    if code is None:
        time.sleep(0.5)
        assert process.poll() is None, "it is still to be killed"
        os.kill(child, signal.SIGKILL)
        code = 137
    assert process.wait(10) == code


@pytest.mark.parametrize("code", [0, 3, 127])
def test_an_application_that_ends_by_itself_ends_its_container(code: int) -> None:
    assert wrapped(f"raise SystemExit({code})").wait(10) == code


def test_no_pod_is_made_before_the_namespace_can_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCOUNT_SECONDS", 0)
    api = Cluster()
    api.after.clear()
    with pytest.raises(kube.KubeError, match="no ServiceAccount default after 0 s"):
        tried(api)
    assert api.of("POST", "Pod") == [] and left(api) == []


@pytest.mark.parametrize(("mode", "files"), [("wal", {"a.db", "a.db-wal", "a.db-shm"}), ("delete", {"a.db"})])
def test_the_database_is_handed_over_as_a_read_only_mount_needs_it(mode: str, files: set[str], tmp_path: Path) -> None:
    for name in ("data", "copy", "try"):
        (tmp_path / name).mkdir()
    database = sqlite3.connect(tmp_path / "data/a.db")
    database.execute(f"pragma journal_mode={mode}")
    database.execute("create table t (a)")
    database.close()
    here = image_try.HAND_OVER.replace("/data/", f"{tmp_path}/data/").replace("/copy/", f"{tmp_path}/copy/")
    script = here.replace("/try/", f"{tmp_path}/try/")
    subprocess.run(["sh", "-c", script, "hand", "a.db"], check=True)
    assert {path.name for path in (tmp_path / "copy").iterdir()} == files
    assert (tmp_path / "try/go").exists()
    size = image_try.SIZE.replace("/data/", f"{tmp_path}/data/")
    said = [subprocess.check_output(["sh", "-c", size, "size", name], text=True).strip() for name in ("a.db", "b.db")]
    assert int(said[0]) > 0 and said[1] == "0"


def test_the_look_for_programs_names_those_that_are_missing(tmp_path: Path) -> None:
    for name in ("sh", "env"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    said = subprocess.check_output([tmp_path / "sh", "-c", image_try.LOOK], text=True, env={"PATH": str(tmp_path)})
    assert said.split() == ["litefs", "fusermount3", "mount"]


# --- the whole, on an API of this test

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "try", "labels": {}},
    "spec": {
        "initContainers": [{"name": "migrate"}],
        "containers": [{"name": "primary"}, {"name": "replica"}, {"name": "looker"}],
    },
}
NODE = {"labels": {"kubernetes.io/arch": "amd64"}, "taints": [], "schedulable": True}
LISTENS = "   0: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n"


class Cluster(FakeApi):  # type: ignore[misc, unused-ignore]
    """An API whose pods do what an image does: ``litefs`` is how its LiteFS ends, ``end`` how SIGTERM ends it."""

    def __init__(self, litefs: dict[str, Any] | None = None, end: int = 0) -> None:
        super().__init__()
        self.litefs_ends, self.end = litefs or ended(0), end
        self.ran: list[tuple[str, str]] = []
        self.after.append(self._start)

    def _start(self, request: Any) -> None:
        if (request.method, request.kind) == ("POST", "Namespace"):
            self.put(
                {
                    "kind": "ServiceAccount",
                    "metadata": {"name": "default", "namespace": request.body["metadata"]["name"]},
                }
            )
        if (request.method, request.kind) != ("POST", "Pod"):
            return
        pod = self.have("Pod", request.body["metadata"]["name"], request.namespace)
        assert pod is not None
        pod["spec"]["nodeName"] = "node-1"
        if pod["metadata"]["name"] == "try":
            states: list[Any] = [{"name": name, "state": {"running": {}}} for name in ("primary", "replica", "looker")]
            pod["status"] = {
                "podIP": "10.42.0.9",
                "initContainerStatuses": [{"name": "migrate", "state": ended(0)}],
                "containerStatuses": states,
            }
        else:
            second = ended(0, "litefs\n" if self.litefs_ends["terminated"]["exitCode"] else "")
            pod["status"] = looked(self.litefs_ends, second)["status"]

    def run(self, namespace: str, pod: str, container: str, command: Any, timeout: float = 10.0) -> str:
        script = command[2]
        self.ran.append((container, script))
        if script == image_try.END[2]:
            found = self.have("Pod", "try", namespace)
            assert found is not None
            found["status"]["containerStatuses"][0]["state"] = ended(self.end)
        return LISTENS if "/proc/net" in script else "4096\n" if script == image_try.SIZE else ""

    def portforward_get(
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        timeout: float = 10.0,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        assert (port, path, (headers or {})["Host"]) == (3000, "/api/health", "abaci.example.com")
        return 200, {"keep-alive": "timeout=95", "connection": "keep-alive"}, b"{}"


OPTIONS: dict[str, Any] = {
    "namespace": "abaci",
    "name": "abaci-app",
    "image": "ghcr.io/me/app:5",
    "pod": POD,
    "command": "node server.js",
    "migrate_command": "node migrate.js",
    "secrets": {"AUTH_SECRET": "long-enough-to-hide"},
    "pull_secrets": [],
    "login": None,
    "nodes": [NODE],
    "node_selector": {},
    "tolerations": [],
    "pull_timeout": 1,
    "start_timeout": 1,
    "grace": 1,
    "idle": 0,
    "listen_address": "0.0.0.0",
}


def tried(api: Cluster, **changes: Any) -> Seen:
    seen: Seen = module.Try(api, {**OPTIONS, **changes}, WANTED, pause=0.01).run()
    return seen


def left(api: Cluster) -> list[str]:
    return [one["metadata"]["name"] for one in [*api.all("Namespace"), *api.all("Pod")]]


def test_an_image_is_tried_and_nothing_is_left() -> None:
    api = Cluster()
    assert found(tried(api)) == {}
    assert left(api) == []
    namespaces = {request.namespace for request in api.changes() if request.kind not in ("Namespace",)}
    assert len(namespaces) == 1 and namespaces.pop().startswith("abaci-app-try-")
    assert [script for _, script in api.ran if script in (image_try.END[2], image_try.HAND_OVER)] == [
        image_try.END[2],
        image_try.HAND_OVER,
    ]


def test_an_image_without_litefs_is_named() -> None:
    api = Cluster(ended(128, NO_LITEFS, "StartError"))
    faults = found(tried(api))
    assert faults.keys() == {"image-programs"} and "no litefs" in faults["image-programs"][1]
    assert left(api) == []


def test_an_image_for_another_processor_is_not_started() -> None:
    api = Cluster(ended(255, "exec format error"))
    api.after.remove(api._start)

    def both(request: Any) -> None:
        if request.kind == "Namespace":
            api._start(request)
        if (request.method, request.kind) == ("POST", "Pod"):
            assert request.body["metadata"]["name"] != "try"
            pod = api.have("Pod", request.body["metadata"]["name"], request.namespace)
            assert pod is not None
            pod["status"] = looked(api.litefs_ends, api.litefs_ends)["status"]

    api.after.append(both)
    assert found(tried(api))["image-processor"][0] == "fail"
    assert left(api) == []


@pytest.mark.parametrize("error", [kube.KubeError("The API says no."), KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_fails_or_is_stopped_leaves_nothing(error: BaseException) -> None:
    api = Cluster()
    api.run = lambda *_args, **_more: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    if isinstance(error, kube.KubeError):
        with pytest.raises(kube.KubeError):
            tried(api)
    else:
        with pytest.raises(type(error)):
            tried(api)
    assert left(api) == []


def test_what_a_dead_run_left_an_hour_ago_goes_first_and_what_another_run_has_stays() -> None:
    labels = {
        "app.kubernetes.io/component": "image-try",
        "app.kubernetes.io/instance": "abaci-app",
        "app.kubernetes.io/part-of": "abaci",
    }
    api = Cluster()
    for name, hours in (("abaci-app-try-old", 2), ("abaci-app-try-new", 0)):
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours * 3600))
        api.put({"kind": "Namespace", "metadata": {"name": name, "labels": labels, "creationTimestamp": began}})
    tried(api)
    assert left(api) == ["abaci-app-try-new"]


def test_a_pull_secret_is_copied_and_one_that_is_missing_is_named() -> None:
    api = Cluster()
    api.put(
        {"kind": "Secret", "metadata": {"name": "login"}, "type": "kubernetes.io/dockerconfigjson", "data": {"a": "b"}}
    )
    tried(api, pull_secrets=["login"])
    made = [request.body for request in api.of("POST", "Secret")]
    assert [(one["metadata"]["name"], one.get("data")) for one in made] == [
        ("login", {"a": "b"}),
        ("try-secrets", None),
    ]
    with pytest.raises(kube.KubeError, match=r"pull secret other .* take it out of app_image_pull_secrets"):
        tried(Cluster(), pull_secrets=["other"])


def test_the_time_that_an_idle_connection_is_kept_is_measured_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    @contextmanager
    def forward(_namespace: str, _pod: str, _port: int, timeout: float) -> Iterator[Any]:
        def get(path: str, headers: Mapping[str, str]) -> None:
            asked.append(headers["Connection"])
            if len(asked) > 1:
                raise kube.KubeError("it was closed")

        yield get

    api = Cluster()
    api.portforward = forward  # type: ignore[method-assign]
    assert found(tried(api, idle=1))["keeps-connections"][0] == "fail"
    assert asked == ["keep-alive", "keep-alive"]


def test_the_outputs_are_those_of_the_checks() -> None:
    results = image_try.judge(replace(WELL, end=End(1, 9)), WANTED)
    summary = image_try.summary(results, WANTED)
    assert "  × ends on SIGTERM within the grace period (ends)\n      why: it ended with 9" in module.shown(
        "text", results, summary
    )
    assert json.loads(module.shown("json", results, summary))["summary"]["code"] == 2
    assert '<failure message="it ended with 9' in module.shown("junit", results, summary)
