"""A new image under :latest comes by itself, and no acknowledged write is lost; Keel has the rights that this takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from operating import without_registry
from publishing import application, images, publish
from sitebed import Bed, until
from writer import Writer, read_ledger

STATEFULSET = ("statefulset", "abaci-app", "-n", "abaci")
ROLLOUT_S = 240
REPOSITORY = "antialias/soroban-abacus-flashcards"
ACCOUNT = "--as=system:serviceaccount:keel:keel"


def push(bed: Bed, version: str, folder: Path, tag: str = "latest") -> None:
    """Put the application with another VERSION into the registry, as CI does."""
    publish(bed, application(images.Entry("app/VERSION", f"{version}\n".encode())), f"{REPOSITORY}:{tag}", folder)


def versions(bed: Bed) -> set[str]:
    """What the pods' images say, over all pods; a pod that is not ready counts as ''."""
    found = set()
    for pod in bed.pods():
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        name = pod["metadata"]["name"]
        found.add(bed.in_pod(name, "sh", "-c", "cat VERSION 2>/dev/null || echo none").strip() if ready else "")
    return found


def annotated(bed: Bed) -> dict[str, str]:
    found: dict[str, str] = bed.get(*STATEFULSET)["metadata"]["annotations"]
    return found


def following(bed: Bed) -> bool:
    log = bed.kubectl("-n", "keel", "logs", "-l", "app=keel", "--tail=-1")
    return bool("new watch tag digest job added" in log)


def can(bed: Bed, *what: str) -> bool:
    return bool(bed.kubectl("auth", "can-i", ACCOUNT, *what, check=False).strip().startswith("yes"))


def test_hazard_match_tag_stands_on_the_workload_and_keel_watches_the_digest(bed: Bed) -> None:
    assert annotated(bed)["keel.sh/match-tag"] == "true"
    assert annotated(bed)["keel.sh/policy"] == "force"
    until(lambda: following(bed), 60, "Keel says that it watches the tag's digest")
    assert "new watch repository tags job added" not in bed.kubectl("-n", "keel", "logs", "-l", "app=keel", "--tail=-1")


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        (("update", "statefulsets/abaci-app", "-n", "abaci"), True),
        (("update", "statefulsets", "-n", "abaci"), False),
        (("list", "pods", "-n", "abaci"), True),
        (("update", "deployments", "-n", "abaci"), False),
        (("patch", "statefulsets", "-n", "abaci"), False),
        (("delete", "pods", "-n", "abaci"), False),
        (("get", "secrets", "-n", "abaci"), False),
        (("get", "secrets/app-env", "-n", "abaci"), False),
        (("list", "secrets", "-A"), False),
        (("update", "statefulsets", "-n", "kube-system"), False),
        (("list", "deployments", "-n", "default"), False),
        (("list", "nodes"), False),
    ],
)
def test_keel_may_do_what_it_has_to_and_nothing_else(bed: Bed, what: tuple[str, ...], allowed: bool) -> None:
    assert can(bed, *what) is allowed


def test_keels_namespace_refuses_a_privileged_pod(bed: Bed) -> None:
    said = bed.kubectl(
        *("-n", "keel", "run", "intruder", "--image=docker.io/library/busybox:1.36", "--privileged", "--", "true"),
        check=False,
    )
    assert "violates PodSecurity" in said and "restricted" in said


def test_a_new_image_under_latest_runs_everywhere_within_four_minutes_and_no_acknowledged_write_is_lost(
    bed: Bed, tmp_path: Path
) -> None:
    until(lambda: following(bed), 60, "Keel follows the image")
    before = bed.get(*STATEFULSET)
    writer = Writer(bed.site(), tmp_path / "ledger", seconds=ROLLOUT_S + 120, rate=1, concurrency=1).start()
    time.sleep(5)
    version = f"v{time.time_ns()}"
    push(bed, version, tmp_path)
    pushed = time.monotonic()
    until(lambda: versions(bed) == {version}, ROLLOUT_S, "the new image on every pod", every=2)
    took = time.monotonic() - pushed
    time.sleep(5)
    report = writer.stop()
    print(
        f"on every pod {took:.0f} s after the push; longest gap between acknowledged writes {report.longest_gap} s;",
        report,
    )
    assert report.empty_2xx == 0 and report.fly_replay == 0, report
    acknowledged, _, twice = read_ledger(tmp_path / "ledger")
    assert acknowledged and not twice
    for pod in (pod["metadata"]["name"] for pod in bed.pods()):
        until(
            lambda name=pod: set(acknowledged) <= set(map(int, bed.rows(name, "select id from records").split())),
            30,
            f"every acknowledged write on {pod}",
        )
    after = bed.get(*STATEFULSET)
    assert "keel.sh/update-time" in after["spec"]["template"]["metadata"]["annotations"]
    assert "keel automated update" in after["metadata"]["annotations"]["kubernetes.io/change-cause"]
    images_of = [[c["image"] for c in found["spec"]["template"]["spec"]["containers"]] for found in (before, after)]
    assert images_of[0] == images_of[1]


def as_set(thing: dict[str, Any]) -> dict[str, Any]:
    """The object as its owners set it: without the status, and without what the API keeps about writes.

    The first apply after a write by someone else, Keel or a scale here, takes over the fields that were written, at the
    same values, and so renews the version.
    """
    metadata = {key: value for key, value in thing["metadata"].items() if key != "resourceVersion"}
    return {**thing, "metadata": metadata, "status": None}


def test_keels_annotations_survive_site_yml_which_has_nothing_to_do(bed: Bed) -> None:
    before = as_set(bed.get(*STATEFULSET))
    run = bed.playbook()
    assert run.rc == 0, run.output[-4000:]
    assert run.total("changed") == 0, run.output[-8000:]
    after = as_set(bed.get(*STATEFULSET))
    assert after == before
    assert "keel.sh/update-time" in after["spec"]["template"]["metadata"]["annotations"]


def image_of(bed: Bed) -> str:
    found: str = bed.get(*STATEFULSET)["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


@pytest.mark.long
def test_a_freeze_by_hand_stays_over_site_yml_which_pins_what_runs_and_a_thaw_catches_up(
    bed: Bed, tmp_path: Path
) -> None:
    quick = ("--tags", "app", "-e", "keel_poll_schedule='@every 10s'")
    first = bed.playbook(*quick)
    assert first.rc == 0, first.output[-4000:]
    running = versions(bed)
    bed.kubectl("annotate", *STATEFULSET, "keel.sh/policy=never", "--overwrite")
    run = bed.playbook(*quick)
    assert run.rc == 0, run.output[-4000:]
    assert "keeps keel.sh/policy never" in run.output
    assert "@sha256:" in image_of(bed)
    again = bed.playbook(*quick)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]
    version = f"v{time.time_ns()}"
    push(bed, version, tmp_path)
    time.sleep(30)
    assert versions(bed) == running
    bed.kubectl("annotate", *STATEFULSET, "keel.sh/policy=force", "--overwrite")
    thawed = bed.playbook(*quick)
    assert thawed.rc == 0, thawed.output[-4000:]
    until(lambda: versions(bed) == {version}, ROLLOUT_S, "the image that was pushed while frozen", every=2)


def back_within(bed: Bed, pod: str, seconds: float, restarts: int | None = None) -> float:
    """Seconds until the pod answers again; with ``restarts`` the same pod, restarted once more."""
    began = time.monotonic()

    def up() -> bool:
        found = next((one for one in bed.pods() if one["metadata"]["name"] == pod), None)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return False
        status = (found["status"].get("containerStatuses") or [{}])[0]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", []))
        return ready and (restarts is None or status["restartCount"] > restarts)

    until(up, seconds, f"{pod} up again")
    return time.monotonic() - began


def end(bed: Bed, pod: str) -> None:
    """Ask the container's first process to end; the image has no kill, and the call may end with the container."""
    bed.in_pod(pod, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)", check=False)


def restarts_of(bed: Bed, pod: str) -> int:
    (found,) = (one for one in bed.pods() if one["metadata"]["name"] == pod)
    return int(found["status"]["containerStatuses"][0]["restartCount"])


@pytest.mark.long
def test_a_container_that_ends_while_the_registry_is_away_starts_what_is_on_the_node(bed: Bed) -> None:
    before = restarts_of(bed, "abaci-app-0")
    with without_registry(bed):
        end(bed, "abaci-app-0")
        took = back_within(bed, "abaci-app-0", 60, before)
    print(f"the primary was back {took:.1f} s after its end, without the registry")


@pytest.mark.long
def test_frozen_in_the_inventory_a_broken_latest_and_no_registry_change_nothing(bed: Bed, tmp_path: Path) -> None:
    running = versions(bed)
    run = bed.playbook("--tags", "app", "-e", "keel_frozen=true")
    assert run.rc == 0, run.output[-4000:]
    assert annotated(bed)["keel.sh/policy"] == "never" and "@sha256:" in image_of(bed)
    broken = application(images.Entry("usr/local/bin/litefs", b"#!/bin/sh\nexit 1\n", mode=0o755))
    publish(bed, broken, f"{REPOSITORY}:latest", tmp_path)
    try:
        bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", "--wait=true")
        back_within(bed, "abaci-app-0", 60)
        until(lambda: versions(bed) == running, 30, "the build that was frozen, on every pod")
        before = restarts_of(bed, "abaci-app-0")
        with without_registry(bed):
            end(bed, "abaci-app-0")
            killed = back_within(bed, "abaci-app-0", 60, before)
            bed.kubectl("delete", "pod", "abaci-app-0", "-n", "abaci", "--wait=true")
            deleted = back_within(bed, "abaci-app-0", 60)
        print(f"frozen, without the registry: back {killed:.1f} s after its end, {deleted:.1f} s after its deletion")
        assert max(killed, deleted) <= 15
        until(lambda: versions(bed) == running, 30, "the build that was frozen, on every pod")
    finally:
        push(bed, f"v{time.time_ns()}", tmp_path)
    run = bed.playbook("--tags", "app", "-e", "keel_frozen=false")
    assert run.rc == 0, run.output[-4000:]
    assert annotated(bed)["keel.sh/policy"] == "force" and "@" not in image_of(bed)
    run = bed.playbook()
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]


def test_hazard_annotations_of_the_pods_are_ignored(bed: Bed) -> None:
    """Where the old system had them for a while, and wondered why nothing was deployed."""
    manifest = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: bystander, namespace: abaci}
spec:
  replicas: 0
  selector: {matchLabels: {who: bystander}}
  template:
    metadata:
      labels: {who: bystander}
      annotations: {keel.sh/policy: force, keel.sh/match-tag: "true", keel.sh/trigger: poll}
    spec:
      containers: [{name: idle, image: "docker.io/library/busybox:1.36"}]
"""
    bed.kubectl("apply", "-f", "-", stdin=manifest)
    try:
        time.sleep(10)
        log = bed.kubectl("-n", "keel", "logs", "-l", "app=keel", "--tail=-1")
        assert not any("busybox" in line for line in log.splitlines()), (
            "Keel took a pod's annotation for the workload's"
        )
    finally:
        bed.kubectl("delete", "deployment", "bystander", "-n", "abaci")
