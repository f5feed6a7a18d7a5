"""The stand-in for Keel does what is documented of 0.22.1, its traps among it."""

from __future__ import annotations

import copy
import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "testbed/keel/keel.py"
spec = importlib.util.spec_from_file_location("keel_standin", FILE)
assert spec and spec.loader
keel = importlib.util.module_from_spec(spec)
sys.modules["keel_standin"] = keel
spec.loader.exec_module(keel)

APP = "ghcr.io/owner/site:latest"
FOLLOWED = {
    "keel.sh/policy": "force",
    "keel.sh/match-tag": "true",
    "keel.sh/trigger": "poll",
    "keel.sh/pollSchedule": "@every 2m",
}


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def workload(annotations: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "kind": "StatefulSet",
        "metadata": {"name": "site", "namespace": "abaci", "resourceVersion": "7", "annotations": annotations or {}},
        "spec": {
            "selector": {"matchLabels": {"app": "site"}},
            "template": {
                "metadata": {},
                "spec": {
                    "initContainers": [{"name": "guard", "image": "docker.io/library/busybox:1.36"}],
                    "containers": [{"name": "app", "image": APP}],
                },
            },
        },
    }
    made["metadata"].update(changes)  # type: ignore[attr-defined]
    return made


def pod(running: str, **state: Any) -> dict[str, Any]:
    return {
        "metadata": {},
        "spec": {"containers": [{"name": "app", "image": APP}]},
        "status": {"containerStatuses": [{"name": "app", "imageID": f"ghcr.io/owner/site@{running}", **state}]},
    }


class Cluster:
    """The API: one workload, its pods, and whether updates and lists of nodes are refused."""

    def __init__(self, item: dict[str, Any], running: str = "") -> None:
        self.item = item
        self.running = [pod(running)] if running else []
        self.conflict = False
        self.may_list_nodes = True
        self.updates: list[dict[str, Any]] = []

    def workloads(self, namespace: str) -> list[dict[str, Any]]:
        assert namespace == "abaci"
        return [copy.deepcopy(self.item)]

    def pods(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        return self.running

    def nodes(self) -> list[dict[str, Any]]:
        if not self.may_list_nodes:
            raise keel.Refused(403, "403 nodes is forbidden")
        return [{}]

    def update(self, item: dict[str, Any]) -> None:
        if self.conflict:
            raise keel.Refused(409, "409 the object has been modified")
        self.updates.append(item)
        self.item = item


class Shelf:
    """The registry: digests by tag, in the registry's order."""

    def __init__(self, **tags: int) -> None:
        self.by_tag = tags

    def digest(self, image: Any) -> str:
        return digest(self.by_tag[image.tag])

    def tags(self, image: Any) -> list[str]:
        return list(self.by_tag)


class Bench:
    """A poller with a clock that the test sets."""

    def __init__(self, cluster: Cluster, shelf: Shelf) -> None:
        self.cluster, self.shelf, self.time = cluster, shelf, 0.0
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.keel = keel.Keel(cluster, shelf, "abaci", now=lambda: self.time, log=self.note)
        self.step(0)

    def note(self, message: str, **fields: Any) -> None:
        self.lines.append((message, fields))

    def step(self, seconds: float = 121) -> None:
        self.time += seconds
        self.keel.scan()
        self.keel.poll()

    def said(self, text: str) -> int:
        return sum(text in message for message, _ in self.lines)


@pytest.mark.parametrize(
    ("annotations", "labels", "expected"),
    [
        (FOLLOWED, {}, True),
        ({"keel.sh/policy": "force", "keel.sh/matchTag": "true"}, {}, True),
        ({"keel.sh/policy": "force"}, {}, False),
        ({"keel.sh/policy": "force", "keel.sh/match-tag": "True"}, {}, False),
        ({"keel.sh/policy": "force"}, {"keel.sh/match-tag": "true"}, False),
        ({"keel.sh/match-tag": "true"}, {"keel.sh/policy": "force"}, False),
        ({}, {"keel.sh/policy": "force", "keel.sh/match-tag": "true"}, True),
        ({"keel.sh/policy": "never"}, {"keel.sh/policy": "force"}, None),
        ({}, {}, None),
    ],
)
def test_policy_annotations_go_before_labels_and_match_tag_has_to_stand_beside_the_policy(
    annotations: dict[str, str], labels: dict[str, str], expected: bool | None
) -> None:
    found = keel.policy(workload(annotations, labels=labels))
    assert (found and found.keep_tag) == expected if expected is not None else found is None


def test_annotations_of_the_pod_template_are_ignored() -> None:
    item = workload()
    item["spec"]["template"]["metadata"]["annotations"] = FOLLOWED
    bench = Bench(Cluster(item, digest(1)), Shelf(latest=2))
    bench.step()
    assert bench.cluster.updates == [] and bench.keel.watches == {}


def test_without_the_trigger_nothing_is_polled() -> None:
    item = workload({key: value for key, value in FOLLOWED.items() if key != "keel.sh/trigger"})
    bench = Bench(Cluster(item, digest(1)), Shelf(latest=2))
    assert bench.keel.watches == {}


def test_a_moved_tag_is_followed_by_digest_on_its_schedule_and_once() -> None:
    bench = Bench(Cluster(workload(FOLLOWED), digest(1)), Shelf(latest=1, main=9))
    assert bench.said("new watch tag digest job added") == 1
    bench.step()
    assert bench.cluster.updates == []
    bench.shelf.by_tag["latest"] = 2
    bench.step(3)
    assert bench.cluster.updates == []
    bench.step()
    bench.step()
    assert len(bench.cluster.updates) == 1


def test_an_update_writes_the_whole_object_and_leaves_the_image_text() -> None:
    before = workload(FOLLOWED)
    before["spec"]["template"]["metadata"]["annotations"] = {"other": "stays"}
    unchanged = copy.deepcopy(before)
    image = keel.parse_image(APP)
    after = keel.updated(before, image, "latest", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert after["spec"]["template"]["spec"] == before["spec"]["template"]["spec"]
    notes = after["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"other": "stays", "keel.sh/update-time": "2026-01-02 03:04:05.000000 +0000 UTC m=+1.000000001"}
    cause = after["metadata"]["annotations"]["kubernetes.io/change-cause"]
    assert cause == "keel automated update, version latest -> latest [2026-01-02T03:04:05Z]"
    assert after["metadata"]["resourceVersion"] == "7" and before == unchanged
    assert (
        "annotations" not in before["metadata"] or "kubernetes.io/change-cause" not in before["metadata"]["annotations"]
    )


def test_hazard_without_match_tag_it_misses_the_moved_tag_and_goes_to_another() -> None:
    annotations = {key: value for key, value in FOLLOWED.items() if key != "keel.sh/match-tag"}
    same = Bench(Cluster(workload(annotations), digest(1)), Shelf(latest=1))
    same.shelf.by_tag["latest"] = 2
    same.step()
    assert same.cluster.updates == [] and same.said("new watch repository tags job added") == 1
    flipped = Bench(Cluster(workload(annotations), digest(1)), Shelf(main=9, latest=1))
    containers = flipped.cluster.item["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "ghcr.io/owner/site:main"


def test_without_the_right_to_list_nodes_names_of_tags_move_nothing() -> None:
    annotations = {key: value for key, value in FOLLOWED.items() if key != "keel.sh/match-tag"}
    cluster = Cluster(workload(annotations), digest(1))
    cluster.may_list_nodes = False
    bench = Bench(cluster, Shelf(main=9, latest=1))
    assert cluster.updates == [] and bench.said("eligible platforms could not be established") == 1


def test_a_push_while_keel_was_down_is_found_by_what_the_pods_run() -> None:
    bench = Bench(Cluster(workload(FOLLOWED), digest(1)), Shelf(latest=2))
    assert len(bench.cluster.updates) == 1
    unknown = Bench(Cluster(workload(FOLLOWED)), Shelf(latest=2))
    assert unknown.cluster.updates == []


@pytest.mark.parametrize(
    ("workloads", "expected"),
    [
        ([], 5),
        ([[]], 5),
        ([[5, 4]], 5),
        ([[4]], 4),
        ([[5], [4]], 4),
    ],
)
def test_a_rollout_under_way_is_no_drift(workloads: list[list[int]], expected: int) -> None:
    assert keel.baseline(digest(5), [[digest(n) for n in found] for found in workloads]) == digest(expected)


def test_a_pod_that_ends_or_waits_says_nothing_of_what_runs() -> None:
    image = keel.parse_image(APP)
    leaving = pod(digest(1))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert keel.running_digests(image, [leaving, pod(digest(2), state={"waiting": {}}), pod(digest(3))]) == [digest(3)]


def test_hazard_a_conflict_skips_the_release_until_the_next_push() -> None:
    bench = Bench(Cluster(workload(FOLLOWED), digest(1)), Shelf(latest=1))
    bench.cluster.conflict = True
    bench.shelf.by_tag["latest"] = 2
    bench.step()
    assert bench.said("got error while updating resource") == 1
    bench.cluster.conflict = False
    bench.step()
    assert bench.cluster.updates == []
    bench.shelf.by_tag["latest"] = 3
    bench.step()
    assert len(bench.cluster.updates) == 1


def test_a_freeze_drops_the_watch_and_a_thaw_finds_what_was_pushed_meanwhile() -> None:
    bench = Bench(Cluster(workload(FOLLOWED), digest(1)), Shelf(latest=1))
    bench.cluster.item["metadata"]["annotations"]["keel.sh/policy"] = "never"
    bench.step(3)
    assert bench.said("image no longer tracked, removing watcher") == 1
    bench.shelf.by_tag["latest"] = 2
    bench.step()
    assert bench.cluster.updates == []
    bench.cluster.item["metadata"]["annotations"]["keel.sh/policy"] = "force"
    bench.step(3)
    assert len(bench.cluster.updates) == 1


def test_only_the_containers_that_are_asked_for_are_followed() -> None:
    names = [item["name"] for item in keel.containers(workload(FOLLOWED))]
    assert names == ["app"]
    both = workload(FOLLOWED | {"keel.sh/initContainers": "true"})
    assert [item["name"] for item in keel.containers(both)] == ["guard", "app"]
    one = workload(FOLLOWED | {"keel.sh/initContainers": "true", "keel.sh/monitorContainers": "^guard$"})
    assert [item["name"] for item in keel.containers(one)] == ["guard"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/a/b:latest", ("ghcr.io", "a/b", "latest")),
        ("ghcr.io/a/b", ("ghcr.io", "a/b", "latest")),
        ("redis:7", ("index.docker.io", "library/redis", "7")),
        ("me/tool", ("index.docker.io", "me/tool", "latest")),
        ("registry:5000/x:1", ("registry:5000", "x", "1")),
    ],
)
def test_names_of_images(text: str, expected: tuple[str, str, str]) -> None:
    found = keel.parse_image(text)
    assert (found.host, found.repository, found.tag) == expected


def test_an_image_by_digest_has_no_tag_that_could_move() -> None:
    assert keel.parse_image(f"ghcr.io/a/b@{digest(1)}") is None


@pytest.mark.parametrize(("text", "expected"), [("@every 2m", 120), ("@every 1h30m", 5400), ("@every 10s", 10)])
def test_schedules(text: str, expected: float) -> None:
    assert keel.seconds(text) == expected


def test_a_schedule_that_it_does_not_know_is_an_error_in_the_log() -> None:
    bench = Bench(Cluster(workload(FOLLOWED | {"keel.sh/pollSchedule": "often"})), Shelf(latest=1))
    assert bench.keel.watches == {} and bench.said("failed to add image watch job") == 1
