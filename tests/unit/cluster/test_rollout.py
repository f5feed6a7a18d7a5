"""How far a rollout is: what is done, what only takes time, and what never ends well."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import rollout

Object = dict[str, Any]


def workload(kind: str = "StatefulSet", spec: Object | None = None, generation: int = 2, **status: Any) -> Object:
    status = {"observedGeneration": 2, **status}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "x", "a": "b"}}, **(spec or {})}
    return {
        "kind": kind,
        "metadata": {"name": "x", "namespace": "abaci", "uid": "w", "generation": generation},
        "spec": spec,
        "status": status,
    }


def pod(name: str = "x-0", revision: str = "new", **status: Any) -> Object:
    labels = {"controller-revision-hash": revision, "pod-template-hash": revision}
    created = "2026-01-02T00:00:00Z" if revision == "new" else "2026-01-01T00:00:00Z"
    metadata = {"name": name, "namespace": "abaci", "uid": name, "labels": labels, "creationTimestamp": created}
    return {"metadata": metadata, "status": status}


def container(name: str = "app", image: str = "ghcr.io/a/b:1", ready: bool = False, **states: Any) -> Object:
    return {"name": name, "image": image, "ready": ready, **states}


def warning(obj: str, reason: str, message: str, at: str = "2026-01-01T00:00:00Z") -> Object:
    involved = {"name": obj, "uid": "w" if obj == "x" else obj}
    return {"type": "Warning", "reason": reason, "message": message, "involvedObject": involved, "lastTimestamp": at}


FULL: Object = {
    "replicas": 3,
    "updatedReplicas": 3,
    "readyReplicas": 3,
    "availableReplicas": 3,
    "updateRevision": "new",
}


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (workload(**FULL), "done"),
        (workload("Deployment", **FULL), "done"),
        (workload(**FULL, generation=3), "waiting"),
        (workload(**{**FULL, "observedGeneration": 0}), "waiting"),
        (workload(**{**FULL, "updatedReplicas": 2}), "waiting"),
        (workload(**{**FULL, "readyReplicas": 2}), "waiting"),
        (workload(**{**FULL, "replicas": 4}), "waiting"),
        (workload("Deployment", **{**FULL, "availableReplicas": 2}), "waiting"),
        (workload(spec={"replicas": 0}, replicas=0), "done"),
        # kubernetes.core's own wait never ends with a partition
        (
            workload(spec={"updateStrategy": {"rollingUpdate": {"partition": 2}}}, **{**FULL, "updatedReplicas": 1}),
            "done",
        ),
        (
            workload(spec={"updateStrategy": {"rollingUpdate": {"partition": 1}}}, **{**FULL, "updatedReplicas": 1}),
            "waiting",
        ),
        (
            workload(spec={"updateStrategy": {"rollingUpdate": {"partition": 9}}}, **{**FULL, "updatedReplicas": 0}),
            "done",
        ),
        (
            workload(
                spec={"updateStrategy": {"rollingUpdate": {"partition": 5}}, "ordinals": {"start": 4}},
                **{**FULL, "updatedReplicas": 2},
            ),
            "done",
        ),
        (workload(spec={"updateStrategy": {"type": "OnDelete"}}, **{**FULL, "updatedReplicas": 0}), "done"),
        (workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=2), "done"),
        (workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=1, numberAvailable=2), "waiting"),
        (workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=1), "waiting"),
        (workload("DaemonSet", desiredNumberScheduled=0), "waiting"),
    ],
)
def test_done_is_what_the_spec_asks_for(given: Object, state: str) -> None:
    assert rollout.judge(given, [], []).state == state


def test_a_workload_without_status_waits_for_its_controller() -> None:
    fresh = workload()
    del fresh["status"]
    status = rollout.judge(fresh, [], [])
    assert status.state == "waiting"
    assert "has not looked" in status.sentence


PULL = container(state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
CRASH = container(
    state={"waiting": {"reason": "CrashLoopBackOff"}},
    lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
)
GUARD = container(
    "guard", state={"running": {}}, lastState={"terminated": {"exitCode": 1, "message": "empty volume\n"}}
)
LOST = GUARD | {"lastState": {"terminated": {"exitCode": 12, "message": "empty volume\n"}}}
FIRST_CRASH = container(state={"running": {}}, lastState={"terminated": {"exitCode": 1, "reason": "Error"}})
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available.",
}


@pytest.mark.parametrize(
    ("pods", "events", "words"),
    [
        ([pod(containerStatuses=[PULL])], [], ["ghcr.io/a/b:1", "container app of pod x-0", "Back-off pulling image"]),
        (
            [pod(containerStatuses=[PULL])],
            [
                warning("x-0", "Failed", "Failed to pull image: not found", "2026-01-01T00:00:01Z"),
                warning("x-0", "Failed", "Error: ErrImagePull", "2026-01-01T00:00:02Z"),
                warning("other", "Failed", "image of someone else", "2026-01-01T00:00:03Z"),
            ],
            ["cannot be pulled", "not found"],
        ),
        ([pod(containerStatuses=[CRASH])], [], ["again and again", "137, OOMKilled", "logs x-0 -c app --previous"]),
        ([pod(initContainerStatuses=[GUARD])], [], ["init container guard of pod x-0 refuses: empty volume."]),
        ([pod(initContainerStatuses=[LOST])], [], ["empty volume. Where that volume is lost", "playbooks/promote.yml"]),
        ([pod(conditions=[UNSCHEDULABLE])], [], ["no node takes pod x-0: 0/3 nodes are available."]),
        (
            [pod(phase="Failed", reason="SysctlForbidden", message="forbidden sysctl")],
            [],
            ["SysctlForbidden: forbidden sysctl"],
        ),
        (
            [
                pod(
                    containerStatuses=[
                        container(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}})
                    ]
                )
            ],
            [],
            ["cannot be started: no key."],
        ),
        ([], [warning("x", "FailedCreate", "violates PodSecurity")], ["gets no pod: violates PodSecurity."]),
    ],
    ids=["pull", "pull event", "crash", "guard", "lost volume", "unschedulable", "rejected", "config", "admission"],
)
def test_a_cause_that_lasts_fails_with_its_sentence(pods: list[Object], events: list[Object], words: list[str]) -> None:
    status = rollout.judge(workload(updateRevision="new"), pods, events)
    assert status.state == "failed"
    assert status.patience > 0
    assert status.sentence.startswith("StatefulSet abaci/x ")
    assert status.sentence.endswith(".") and not status.sentence.endswith("..")
    assert [word for word in words if word not in status.sentence] == []


def test_hazard_an_event_of_an_earlier_rollout_stays_for_an_hour_and_is_no_cause() -> None:
    old = warning("x", "FailedCreate", "pvc data-x-0 is being deleted") | {"lastTimestamp": "2026-01-01T10:00:00Z"}
    waiting = pod(containerStatuses=[{"name": "app", "state": {"running": {}}}])
    waiting["metadata"]["creationTimestamp"] = "2026-01-01T10:00:01Z"
    assert rollout.judge(workload(updateRevision="new"), [waiting], [old]).state == "waiting"
    all_there = [waiting | {"metadata": {**waiting["metadata"], "name": f"x-{number}"}} for number in range(5)]
    fresh = old | {"lastTimestamp": "2026-01-01T10:00:09Z"}
    assert rollout.judge(workload(updateRevision="new"), all_there, [fresh]).state == "waiting"
    assert rollout.judge(workload(updateRevision="new"), [waiting], [fresh]).state == "failed"


def test_what_a_registry_says_twice_is_said_once() -> None:
    twice = warning("x-0", "Failed", "Failed to pull image: ghcr.io/a/b:1: not found. not found.")
    status = rollout.judge(workload(updateRevision="new"), [pod(containerStatuses=[PULL])], [twice])
    assert status.sentence.endswith("cannot be pulled: Failed to pull image: ghcr.io/a/b:1: not found.")


def test_a_first_crash_is_no_crash_loop() -> None:
    assert rollout.judge(workload(updateRevision="new"), [pod(containerStatuses=[FIRST_CRASH])], []).state == "waiting"


def test_an_init_container_that_has_come_through_in_the_end_is_no_refusal() -> None:
    done = {**GUARD, "ready": True, "state": {"terminated": {"exitCode": 0}}}
    assert rollout.judge(workload(updateRevision="new"), [pod(initContainerStatuses=[done])], []).state == "waiting"


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "DaemonSet"])
def test_trouble_of_pods_that_the_rollout_replaces_does_not_count(kind: str) -> None:
    status: Object = {"updateRevision": "new", "desiredNumberScheduled": 3}
    pods = [pod("x-1", "old", containerStatuses=[CRASH]), pod("x-2", containerStatuses=[container()])]
    going = pod("x-3", containerStatuses=[CRASH])
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert rollout.judge(workload(kind, **status), [*pods, going], []).state == "waiting"


def test_a_paused_deployment_and_one_past_its_deadline_fail_at_once() -> None:
    paused = rollout.judge(workload("Deployment", spec={"paused": True}), [], [])
    condition = {"type": "Progressing", "status": "False", "message": "has timed out progressing."}
    late = rollout.judge(workload("Deployment", conditions=[condition]), [], [])
    assert (paused.state, paused.patience, late.state, late.patience) == ("failed", 0, "failed", 0)
    assert "kubectl rollout resume" in paused.sentence
    assert "has timed out progressing." in late.sentence


CREATING = container(state={"waiting": {"reason": "ContainerCreating"}})


@pytest.mark.parametrize(
    ("pods", "events", "end"),
    [
        ([pod()], [warning("x-0", "Unhealthy", "Readiness probe failed: 503")], "Readiness probe failed: 503."),
        ([pod(containerStatuses=[CREATING])], [], "container app is at ContainerCreating."),
        ([pod(phase="Pending")], [warning("other", "Unhealthy", "not ours")], "phase Pending."),
    ],
)
def test_what_is_last_known_ends_the_sentence_while_waiting(pods: list[Object], events: list[Object], end: str) -> None:
    ready = pod("x-1", conditions=[{"type": "Ready", "status": "True"}])
    status = rollout.judge(workload(updateRevision="new", replicas=3, updatedReplicas=3), [ready, *pods], events)
    assert status.sentence == f"StatefulSet abaci/x is not ready: 0 of 3 pods are ready; pod x-0: {end}"


def test_selector_is_what_a_list_query_takes() -> None:
    assert rollout.selector(workload()) == "a=b,app=x"


def test_hazard_the_device_comes_seconds_after_its_plugin() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    down = {"metadata": {"name": "down"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    has = {"metadata": {"name": "has"}, "status": {**ready, "allocatable": {"squat.ai/fuse": "110"}}}
    none = {"metadata": {"name": "none"}, "status": {**ready, "allocatable": {"squat.ai/fuse": "0"}}}
    assert rollout.judge_nodes([has, down], "squat.ai/fuse").state == "done"
    status = rollout.judge_nodes([has, none, down], "squat.ai/fuse")
    assert status.state == "waiting" and "node none does not offer squat.ai/fuse" in status.sentence


READY, DOWN = (
    {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}}
    for name, status in (("node-1", "True"), ("node-3", "Unknown"))
)


def on(node: str, name: str, revision: str = "new", **status: Any) -> Object:
    return {**pod(name, revision, **status), "spec": {"nodeName": node}}


@pytest.mark.parametrize(
    ("counts", "away", "state"),
    [
        ({"updatedNumberScheduled": 3, "numberAvailable": 2}, "new", "done"),
        ({"updatedNumberScheduled": 2, "numberAvailable": 2}, "old", "done"),
        ({"updatedNumberScheduled": 2, "numberAvailable": 2}, "new", "waiting"),
        ({"updatedNumberScheduled": 3, "numberAvailable": 1}, "new", "waiting"),
        # Without a toleration the node's taint has taken it from the wanted ones already.
        (
            {"desiredNumberScheduled": 2, "numberMisscheduled": 1, "updatedNumberScheduled": 2, "numberAvailable": 1},
            "new",
            "waiting",
        ),
    ],
)
def test_a_daemon_set_does_not_wait_for_a_node_that_is_not_ready_and_says_so(
    counts: Object, away: str, state: str
) -> None:
    given = workload("DaemonSet", **{"desiredNumberScheduled": 3, "currentNumberScheduled": 3, **counts})
    pods = [on("node-1", "x-a"), on("node-1", "x-b"), on("node-3", "x-c", away)]
    status = rollout.judge(given, pods, [], [READY, DOWN])
    assert status.state == state
    assert ("on node node-3, which is not Ready" in status.warning) == (state == "done")


def test_a_stateful_sets_pod_on_a_node_that_is_not_ready_is_named_and_not_waited_for_to_the_end() -> None:
    given = workload(**{**FULL, "readyReplicas": 2})
    status = rollout.judge(given, [on("node-1", "x-0"), on("node-3", "x-2")], [], [READY, DOWN])
    assert status.state == "waiting" and "0 of 2 pods are ready" in status.sentence, "x-1 is not there yet"
    pods = [on("node-1", f"x-{ordinal}", **UP) for ordinal in (0, 1)]
    status = rollout.judge(given, [*pods, on("node-3", "x-2")], [], [READY, DOWN])
    assert status.state == "done" and status.warning == "Pod x-2 was not waited for: its node node-3 is not Ready."
    assert rollout.judge(workload(**FULL), [], [], [READY, DOWN]).state == "done"


UP: Object = {"conditions": [{"type": "Ready", "status": "True"}]}
REFUSED: Object = {"initContainerStatuses": [GUARD]}


@pytest.mark.parametrize(
    ("pods", "without", "state", "words"),
    [
        ([pod("x-0", **REFUSED), pod("x-1", **UP), pod("x-2", **UP)], [0], "done", ""),
        ([pod("x-0", **REFUSED), pod("x-1", **UP), pod("x-2", **UP)], [], "failed", "guard of pod x-0 refuses"),
        ([pod("x-0", **REFUSED), pod("x-1", "old", **UP), pod("x-2", **UP)], [0], "waiting", "1 of 2 pods have"),
        ([pod("x-0", **REFUSED), pod("x-1"), pod("x-2", **UP)], [0], "waiting", "1 of 2 pods are ready"),
        ([pod("x-0", **REFUSED), pod("x-2", **UP)], [0], "waiting", "1 of 2 pods are ready"),
        (
            [pod("x-0", "old", **UP), pod("x-1", "old", **UP), pod("x-2", **REFUSED)],
            [2],
            "done",
            "x-0, x-1 keep the template they have until x-2 is ready.",
        ),
        ([pod("x-0", containerStatuses=[PULL]), pod("x-1", **REFUSED), pod("x-2", **UP)], [1], "failed", "x-0"),
        ([pod("x-0", **UP), pod("x-1", containerStatuses=[PULL]), pod("x-2")], [1, 2], "done", ""),
    ],
    ids=["fenced", "not fenced", "old", "not ready", "no pod", "fenced above", "another's trouble", "the first only"],
)
def test_pods_that_are_fenced_are_not_waited_for(
    pods: list[Object], without: list[int], state: str, words: str
) -> None:
    ready = sum(pod["status"] == UP for pod in pods)
    given = workload(replicas=3, updatedReplicas=3, readyReplicas=ready, updateRevision="new")
    status = rollout.judge(given, pods, [], [], without)
    assert status.state == state and words in status.sentence + status.warning, status
    changed = workload(generation=3, replicas=3, updatedReplicas=3, readyReplicas=ready, updateRevision="new")
    assert rollout.judge(changed, pods, [], [], without).state != "done"
