"""Gathering with an API that is not there, is slow, or has pods that do not answer."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import gather
from ansible_collections.abaci.infra.plugins.module_utils.kube import KubeError
from factory_objects import (
    DATABASE,
    NAME,
    NAMESPACE,
    SYSCTL,
    A,
    B,
    claim,
    info_body,
    kube_node,
    living,
    metrics_body,
    node,
    pod,
    record,
    statefulset,
    stopped,
    vars_body,
    volume,
)

Answer = Callable[[str], tuple[int, dict[str, str], bytes]]


class FakeApi:
    """Answers as kube.Client does; ``bodies`` replaces single answers of single pods."""

    def __init__(self, bodies: dict[tuple[str, str], Any] | None = None, **lists: list[dict[str, Any]]) -> None:
        self.bodies = bodies or {}
        self.lists = lists
        self.asked: list[tuple[str, str]] = []
        self.delay = 0.0
        self.lock = threading.Lock()

    def raw(self, path: str) -> bytes:
        if path == "/version":
            return json.dumps({"gitVersion": "v1.36.3+k3s1", "minor": "36"}).encode()
        if path == "/api/v1/nodes/node-1/proxy/configz":
            raise KubeError("The API answered 502: the kubelet is off.", 502)
        return json.dumps({"kubeletconfig": {"allowedUnsafeSysctls": [SYSCTL]}}).encode()

    def get(self, _version: str, kind: str, name: str, _namespace: str | None = None) -> dict[str, Any] | None:
        found = [item for item in self.lists.get(kind, []) if item["metadata"]["name"] == name]
        return found[0] if found else None

    def list(self, _version: str, kind: str, _namespace: str | None = None) -> list[dict[str, Any]]:
        return self.lists.get(kind, [])

    def server_time(self) -> str:
        return "2026-01-01T12:00:00.5Z"

    @contextlib.contextmanager
    def portforward(self, _namespace: str, pod_name: str, _port: int, timeout: float) -> Iterator[Answer]:
        deadline = time.monotonic() + timeout
        yield lambda path: self.answer(pod_name, path, deadline)

    def answer(self, pod_name: str, path: str, deadline: float) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            self.asked.append((pod_name, path))
        time.sleep(max(0.0, min(self.delay, deadline - time.monotonic() + 0.001)))
        if time.monotonic() > deadline:
            raise KubeError(f"GET on port 20202 of pod {pod_name} was not answered.")
        primary = pod_name.endswith("-0")
        answers = {
            "/info": info_body(A, primary, primary),
            "/debug/vars": vars_body(),
            "/metrics": metrics_body(int(primary), 0 if primary else 0.25, 2 if primary else 0),
        }
        answer = self.bodies.get((pod_name, path), answers[path])
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return answer[0], {}, str(answer[1]).encode()
        return 200, {}, str(answer).encode()


def site(bodies: dict[tuple[str, str], Any] | None = None, **lists: list[dict[str, Any]]) -> FakeApi:
    everything = {
        "Namespace": [{"metadata": {"name": NAMESPACE}}],
        "StatefulSet": [statefulset()],
        "ConfigMap": [record("recorded", A)],
        "Pod": [pod(ordinal) for ordinal in range(3)],
        "PersistentVolumeClaim": [claim(ordinal) for ordinal in range(3)],
        "PersistentVolume": [volume(ordinal) for ordinal in range(3)],
        "Node": [kube_node(f"node-{ordinal}") for ordinal in range(3)],
    }
    return FakeApi(bodies, **(everything | lists))


def look(api: FakeApi, timeout: float = 5.0) -> dict[str, Any]:
    found: dict[str, Any] = gather.gather(api, NAMESPACE, NAME, DATABASE, timeout=timeout)
    return found


def test_a_running_site_is_described_whole() -> None:
    state = look(site())
    assert state["namespace_exists"]
    assert [entry["litefs"]["is_primary"] for entry in state["pods"]] == [True, False, False]
    assert state["pods"][0]["litefs"]["databases"][DATABASE]["txid"] == "0000000000000005"
    assert state["record"]["cluster_id"] == A
    assert [entry["kept"] for entry in state["volumes"]] == [False, False, False]
    assert [entry["allowed_unsafe_sysctls"] for entry in state["nodes"]] == [[SYSCTL], None, [SYSCTL]]
    assert "kubelet is off" in state["nodes"][1]["error"]


def test_a_namespace_that_is_not_there_is_no_error() -> None:
    state = look(FakeApi())
    assert not state["namespace_exists"]
    assert (state["statefulset"]["exists"], state["pods"], state["volumes"]) == (False, [], [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (KubeError("GET /info on port 20202 failed: connection refused."), "connection refused"),
        ("<html>hello</html>", "not JSON"),
        ((503, "lease expired"), "answered 503"),
        ('{"isPrimary": 1}', "no isPrimary"),
    ],
)
def test_a_pod_that_does_not_answer_is_described_and_the_others_too(answer: Any, words: str) -> None:
    state = look(site({("abaci-app-1", "/info"): answer}))
    assert words in state["pods"][1]["litefs"]["error"]
    assert not state["pods"][1]["litefs"]["reachable"]
    assert [entry["litefs"]["reachable"] for entry in state["pods"]] == [True, False, True]


def test_a_half_answer_is_no_answer() -> None:
    state = look(site({("abaci-app-2", "/metrics"): (500, "")}))
    assert not state["pods"][2]["litefs"]["reachable"]
    assert state["pods"][2]["litefs"]["databases"] == {}


def test_a_pod_stopped_by_its_guard_is_not_dialled() -> None:
    api = site(Pod=[stopped(0, "see docs/runbooks/primary-refused.md"), pod(1)])
    state = look(api)
    assert {name for name, _path in api.asked} == {"abaci-app-1"}
    assert state["pods"][0]["init"]["message"] == "see docs/runbooks/primary-refused.md"


def test_a_lag_of_exactly_zero_is_looked_at_twice() -> None:
    api = site({("abaci-app-1", "/metrics"): metrics_body(0, 0)})
    state = look(api)
    assert state["pods"][1]["litefs"]["never_synced"] is True
    assert [entry["litefs"]["never_synced"] for entry in state["pods"]] == [False, True, False]
    assert api.asked.count(("abaci-app-1", "/metrics")) == 2
    assert api.asked.count(("abaci-app-0", "/metrics")) == 1


def test_hazard_a_primary_that_is_written_to_seems_behind_a_replica_that_was_asked_later() -> None:
    api = site({("abaci-app-1", "/debug/vars"): vars_body(txid=7)})
    real = api.answer

    def later(name: str, path: str, deadline: float) -> tuple[int, dict[str, str], bytes]:
        if (name, path) == ("abaci-app-0", "/debug/vars") and ("abaci-app-0", "/debug/vars") in api.asked:
            api.bodies[name, path] = vars_body(txid=9)
        return real(name, path, deadline)

    api.answer = later  # type: ignore[method-assign, assignment]
    state = look(api)
    assert [pod["litefs"]["databases"][DATABASE]["txid"][-1] for pod in state["pods"]] == ["9", "7", "5"]


def test_a_replica_that_is_really_ahead_stays_ahead() -> None:
    state = look(site({("abaci-app-1", "/debug/vars"): vars_body(txid=7)}))
    assert [pod["litefs"]["databases"][DATABASE]["txid"][-1] for pod in state["pods"]] == ["5", "7", "5"]


def test_all_pods_are_asked_at_the_same_time_and_within_the_timeout() -> None:
    api = site(Pod=[pod(ordinal) for ordinal in range(12)])
    api.delay = 0.1
    started = time.monotonic()
    assert all(entry["litefs"]["reachable"] for entry in look(api)["pods"])
    assert time.monotonic() - started < 1.5
    api.delay = 60
    started = time.monotonic()
    assert not any(entry["litefs"]["reachable"] for entry in look(api, timeout=0.3)["pods"])
    assert time.monotonic() - started < 2


def test_an_api_that_does_not_answer_is_an_error() -> None:
    api = site()
    api.list = lambda *_args: (_ for _ in ()).throw(KubeError("The API server does not answer."))  # type: ignore[method-assign, assignment]
    with pytest.raises(KubeError, match="does not answer"):
        look(api)


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b"{}", b'{"kubeletconfig": null}'])
def test_a_kubelet_with_another_configz_is_described(body: bytes) -> None:
    api = site()
    api.raw = lambda path: body  # type: ignore[method-assign, assignment]
    assert gather.ask_kubelet(api, "node-0") == "its kubelet's configz could not be read"


def wait(*documents: dict[str, Any], seconds: float = 5.0) -> tuple[Any, Any, list[str]]:
    remaining = list(documents)

    def next_look() -> dict[str, Any]:
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return gather.wait_replicated(next_look, DATABASE, seconds, pause=0.01)  # type: ignore[no-any-return]


def test_the_wait_is_for_the_position_first_seen_and_not_for_a_moving_one() -> None:
    behind = living({0: node(txid=8, primary=True), 1: node(txid=8), 2: node(txid=6)})
    there = living({0: node(txid=99, primary=True), 1: node(txid=98), 2: node(txid=8)})
    state, position, problems = wait(behind, there)
    assert (problems, position["txid"]) == ([], f"{8:016x}")
    assert state is there


def test_the_wait_goes_on_while_no_pod_is_primary_yet() -> None:
    _state, position, problems = wait(living({0: node(None, database=None)}), living())
    assert (problems, position["pod"]) == ([], "abaci-app-0")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (living({2: node(txid=4)}), "Pod abaci-app-2 is at TXID"),
        (living({2: node(B)}), "Pod abaci-app-2 holds the LiteFS cluster"),
        (living({0: node()}), "No pod says that it is primary."),
        (
            living({0: {**node(), "reachable": False}}, pods=[stopped(0, "refused"), pod(1), pod(2)]),
            r"No pod says that it is primary (abaci-app-0 does not start: refused).",
        ),
        (living({1: node(primary=True)}), "abaci-app-0 and abaci-app-1 each say"),
        (living({0: node(primary=True, database=None)}), "The primary abaci-app-0 has no transaction"),
        (living(statefulset=None), "StatefulSet abaci/abaci-app does not exist"),
    ],
)
def test_when_the_time_is_over_a_sentence_names_the_pod(state: dict[str, Any], words: str) -> None:
    started = time.monotonic()
    _state, _position, problems = wait(state, seconds=0.1)
    assert words in problems[0]
    assert 0.1 <= time.monotonic() - started < 1
