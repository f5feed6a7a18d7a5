"""rollout_wait against an API: whom it replaces where the controller does not, in which order, and what it says."""

from __future__ import annotations

from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import conditions, rollout, waiting
from ansible_collections.abaci.infra.plugins.modules import rollout_wait
from fake_api import FakeApi, LiteFS, Request, run

Object = dict[str, Any]
NEW, OLD = "r2", "r1"
CRASH = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits in these tests, and no trouble has to last."""
    monkeypatch.setattr(waiting, "POLL", 0)
    for name in ("_PULL", "_CRASH", "_REFUSED", "_UNSCHEDULABLE", "_REJECTED"):
        monkeypatch.setattr(rollout, name, 0)


def member(ordinal: int, revision: str, *, ready: bool = True, container: Object | None = None) -> Object:
    status: dict[str, Any] = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    if container is not None:
        status["containerStatuses"] = [{"name": "app", "restartCount": 3, "ready": False, **container}]
    made = make.pod(ordinal, **status)
    made["metadata"]["labels"]["controller-revision-hash"] = revision
    return made


class Rolling(FakeApi):  # type: ignore[misc]
    """A StatefulSet with OnDelete: a pod that is deleted comes back new, and ready once the primary is."""

    def __init__(self, *pods: Object, dead: tuple[int, ...] = (), good: bool = True) -> None:
        nodes = [make.kube_node(f"node-{n}", ready=n not in dead) | {"kind": "Node"} for n in range(3)]
        self.good = good
        sts = make.statefulset() | {"kind": "StatefulSet"}
        sts["spec"]["selector"] = {"matchLabels": {"app": make.NAME}}
        sts["spec"]["updateStrategy"] = {"type": "OnDelete"}
        sts["spec"]["template"]["metadata"]["annotations"] = {}
        sts["status"] = {"observedGeneration": 4, "currentRevision": OLD, "updateRevision": NEW, "replicas": 3}
        super().__init__(sts, *nodes, *pods)
        self.count()
        self.after.append(self.control)

    def control(self, request: Request) -> None:
        if (request.method, request.kind) != ("DELETE", "Pod"):
            return
        ordinal = int(request.name.rpartition("-")[2])
        up = ordinal == 0 or any(
            conditions.is_ready(one) for one in self.all("Pod") if one["metadata"]["name"][-1] == "0"
        )
        broken = CRASH if ordinal == 0 and not self.good else None
        self.put(member(ordinal, NEW, ready=up and broken is None, container=broken))
        self.count()

    def count(self) -> None:
        status = (self.have("StatefulSet", make.NAME) or {})["status"]
        pods = self.all("Pod")
        status["readyReplicas"] = sum(conditions.is_ready(one) for one in pods)
        status["updatedReplicas"] = sum(one["metadata"]["labels"]["controller-revision-hash"] == NEW for one in pods)


def wait(api: FakeApi, **options: Any) -> dict[str, Any]:
    asked = {"kind": "StatefulSet", "name": make.NAME, "namespace": make.NAMESPACE, "timeout": 2, "replace": True}
    return run(rollout_wait, api, **(asked | options))


DOWN = member(0, OLD, ready=False, container=CRASH)


def test_a_primary_that_is_not_up_goes_first_and_then_the_replicas_from_the_highest_down() -> None:
    api = Rolling(DOWN, member(1, OLD), member(2, OLD, ready=False))
    answer = wait(api)
    assert answer["replaced"] == ["abaci-app-0", "abaci-app-2", "abaci-app-1"] and answer["changed"]


def test_hazard_a_primary_that_runs_is_the_last() -> None:
    assert wait(Rolling(*(member(n, OLD) for n in range(3))))["replaced"][-1] == "abaci-app-0"
    # Nor the first where it is not ready: it may be in the middle of a migration.
    slow = member(0, OLD, ready=False, container={"state": {"running": {}}})
    assert wait(Rolling(slow, member(1, OLD), member(2, OLD)), timeout=0)["replaced"] == ["abaci-app-2"]


def test_hazard_only_the_pod_that_was_looked_at_is_deleted() -> None:
    api = Rolling(DOWN, member(1, OLD), member(2, OLD))
    first = api.have("Pod", "abaci-app-0")
    assert first is not None
    uid, version = first["metadata"]["uid"], first["metadata"]["resourceVersion"]
    wait(api)
    assert api.of("DELETE", "Pod")[0].body["preconditions"] == {"uid": uid, "resourceVersion": version}


def test_the_pod_of_a_dead_node_is_left_alone_and_named() -> None:
    dead = member(2, OLD, ready=False)
    answer = wait(Rolling(member(0, OLD), member(1, OLD), dead, dead=(2,)))
    assert answer["replaced"] == ["abaci-app-1", "abaci-app-0"] and not answer.get("failed")
    assert "abaci-app-2 was not waited for: its node node-2 is not Ready" in str(answer["warnings"])


def test_hazard_no_replica_is_restarted_while_the_primarys_node_is_away() -> None:
    api = Rolling(member(0, OLD, ready=False), member(1, OLD), member(2, OLD), dead=(0,))
    answer = wait(api)
    assert answer["failed"] and "promote.yml" in answer["msg"] and not api.of("DELETE", "Pod")


def test_hazard_one_after_the_other() -> None:
    """Each is ready before the next goes."""
    api = Rolling(member(0, OLD), member(1, OLD), member(2, NEW, ready=False))
    answer = wait(api, timeout=0)
    assert answer["failed"] and answer["replaced"] == []


def test_without_replace_nothing_is_deleted() -> None:
    api = Rolling(*(member(n, OLD) for n in range(3)))
    wait(api, replace=False, timeout=0)
    assert not api.changes()


def test_the_sentence_of_a_crash_loop_has_the_last_lines_of_the_log() -> None:
    api = Rolling(DOWN, member(1, OLD), member(2, OLD), good=False)
    api.litefs["abaci-app-0"] = LiteFS()
    api.litefs["abaci-app-0"].log = "\n".join(
        [*(f"line {n}" for n in range(30)), "Error: no such column: x" + "y" * 2000]
    )
    answer = wait(api)
    assert answer["failed"] and "ends again and again (exit code 1)" in answer["msg"]
    assert "Its last lines: " in answer["msg"] and len(answer["msg"]) < 1500 and answer["msg"].endswith("yyy")
    asked = next(one for one in api.requests if one.subresource == "log")
    assert asked.query == {"container": "app", "previous": "true", "tailLines": "10"}
    api.litefs.clear()
    assert "Its last lines" not in wait(Rolling(DOWN, member(1, OLD), member(2, OLD), good=False))["msg"]


def probed(ordinal: int, port: int | str = "proxy") -> Object:
    made = member(ordinal, NEW, ready=False, container={"state": {"running": {}}})
    headers = [{"name": "Host", "value": "abaci.localhost"}]
    made["spec"]["containers"][0] |= {
        "ports": [{"name": "proxy", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/api/health", "port": port, "httpHeaders": headers}},
    }
    return made


@pytest.mark.parametrize("port", ["proxy", 8080])
def test_what_the_health_path_answers_is_in_the_sentence_when_the_time_is_over(port: int | str) -> None:
    api = Rolling(probed(0, port), member(1, NEW), member(2, NEW))
    api.litefs["abaci-app-0"] = site = LiteFS()
    asked: list[str] = []

    def answer(method: str, path: str, _body: bytes) -> tuple[int, bytes]:
        asked.append(f"{method} {path}")
        return 503, b'{"status": "unhealthy",\n "error": "URL_INVALID"}' + b"x" * 2000

    site.answer = answer  # type: ignore[method-assign]
    message = wait(api, replace=False, timeout=0)["msg"]
    assert asked == ["GET /api/health"]
    assert "2 of 3 pods are ready" in message and len(message) < 800
    assert 'GET /api/health on port 8080 of pod abaci-app-0 is answered 503: {"status": "unhealthy", "error"' in message


def test_a_health_path_that_is_not_answered_is_said_too() -> None:
    api = Rolling(probed(0), member(1, NEW), member(2, NEW))
    message = wait(api, replace=False, timeout=0)["msg"]
    assert "2 of 3 pods are ready" in message and "GET /api/health on port 8080 of pod abaci/abaci-app-0" in message


def test_nothing_is_asked_of_a_pod_that_does_not_run_or_has_no_such_probe() -> None:
    starts = probed(0)
    starts["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "PodInitializing"}}
    for pod in (starts, member(0, NEW, ready=False, container={"state": {"running": {}}})):
        api = Rolling(pod, member(1, NEW), member(2, NEW))
        assert "GET" not in wait(api, replace=False, timeout=0)["msg"]


def test_an_api_that_restarts_meanwhile_is_waited_for() -> None:
    api = Rolling(DOWN, member(1, OLD), member(2, OLD))
    api.fail("GET", "StatefulSet", how="timeout")
    api.fail("DELETE", "Pod", how=409)
    assert wait(api)["replaced"] == ["abaci-app-0", "abaci-app-2", "abaci-app-1"]


def test_done_is_only_what_the_controller_has_looked_at() -> None:
    api = Rolling(*(member(n, NEW) for n in range(3)))
    sts = api.have("StatefulSet", make.NAME)
    assert sts is not None
    sts["metadata"]["generation"] = 5
    assert "its controller has not looked at the change yet" in wait(api, timeout=0)["msg"]
    assert "its controller has not looked at the change yet" in wait(api, timeout=0, without=[2])["msg"]
