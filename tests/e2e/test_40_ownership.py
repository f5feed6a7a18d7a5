"""Who owns what: the inventory, a hand on kubectl, and what neither may move."""

from __future__ import annotations

import time

from sitebed import Bed, until

STATEFULSET = ("statefulset", "abaci-app", "-n", "abaci")


def replicas(bed: Bed) -> int:
    return int(bed.get(*STATEFULSET)["spec"]["replicas"])


def ready(bed: Bed, count: int) -> None:
    until(lambda: bed.get(*STATEFULSET)["status"].get("readyReplicas") == count, 120, f"{count} pods ready")


def test_a_scale_by_hand_stays_and_its_new_volume_is_kept_from_its_creation(bed: Bed) -> None:
    bed.kubectl("scale", "statefulset", "abaci-app", "-n", "abaci", "--replicas=4")
    ready(bed, 4)
    claim = bed.get("pvc", "litefs-data-abaci-app-3", "-n", "abaci")
    volume = bed.get("pv", claim["spec"]["volumeName"])
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    run = bed.playbook("--tags", "app")
    assert run.rc == 0, run.output[-4000:]
    assert run.total("changed") == 0, run.output[-6000:]
    assert replicas(bed) == 4
    bed.kubectl("scale", "statefulset", "abaci-app", "-n", "abaci", "--replicas=3")
    until(lambda: len(bed.pods()) == 3, 60, "the fourth pod gone")


def test_every_data_volume_is_retained(bed: Bed) -> None:
    ours = [
        item
        for item in bed.get("pv")["items"]
        if item["spec"]["claimRef"]["name"].startswith("litefs-data-")
        and item["spec"]["claimRef"]["namespace"] == "abaci"
    ]
    assert len(ours) >= 3
    assert {item["spec"]["persistentVolumeReclaimPolicy"] for item in ours} == {"Retain"}


def test_a_changed_count_scales_and_the_old_count_scales_back(bed: Bed) -> None:
    for desired in (2, 3):
        run = bed.playbook("--tags", "app", "-e", f"app_replicas={desired}")
        assert run.rc == 0, run.output[-4000:]
        assert replicas(bed) == desired
        ready(bed, desired)


def test_the_annotations_of_a_rollout_restart_and_of_keel_survive(bed: Bed) -> None:
    bed.kubectl("rollout", "restart", *STATEFULSET)
    bed.kubectl("rollout", "status", *STATEFULSET, "--timeout=240s", timeout=300)
    patch = '{"metadata":{"annotations":{"keel.sh/update-time":"2026-01-01"}}}'
    bed.kubectl("patch", *STATEFULSET, "--type=merge", "-p", patch)
    before = bed.get(*STATEFULSET)
    run = bed.playbook("--tags", "app")
    assert run.rc == 0 and run.total("changed") == 0, run.output[-4000:]
    after = bed.get(*STATEFULSET)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert "kubectl.kubernetes.io/restartedAt" in after["spec"]["template"]["metadata"]["annotations"]
    assert after["metadata"]["annotations"]["keel.sh/update-time"] == "2026-01-01"


def test_bad_input_an_image_that_does_not_exist_touches_no_pod(bed: Bed) -> None:
    before = bed.get(*STATEFULSET), sorted(pod["metadata"]["uid"] for pod in bed.pods())
    started = time.monotonic()
    run = bed.playbook("--tags", "app", "-e", "app_image=ghcr.io/antialias/soroban-abacus-flashcards:no-such-tag")
    assert run.rc != 0
    assert time.monotonic() - started < 180
    assert "app_image" in run.output and "no-such-tag" in run.output
    after = bed.get(*STATEFULSET), sorted(pod["metadata"]["uid"] for pod in bed.pods())
    assert after[0]["metadata"]["generation"] == before[0]["metadata"]["generation"] and after[1] == before[1]
    assert "pull" not in bed.kubectl("get", "pods", "-n", "abaci", "-o", "name")
    again = bed.playbook("--tags", "app")
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]


def test_the_primary_is_not_moved_by_a_changed_inventory(bed: Bed) -> None:
    run = bed.playbook("--tags", "app", "-e", "app_primary_ordinal=1")
    assert run.rc != 0
    assert "app_primary_ordinal" in run.output and "promote" in run.output
    assert bed.litefs("abaci-app-0")["isPrimary"] is True


def test_secrets_are_never_made_again(bed: Bed) -> None:
    before = bed.get("secrets", "-n", "abaci")
    run = bed.playbook("--tags", "app,redis")
    assert run.rc == 0
    data = {item["metadata"]["name"]: item.get("data") for item in before["items"]}
    assert {item["metadata"]["name"]: item.get("data") for item in bed.get("secrets", "-n", "abaci")["items"]} == data
    assert data["app-env"]["AUTH_SECRET"]


def test_redis_keeps_a_session_over_a_restart(bed: Bed) -> None:
    first = bed.edge("PUT", "/api/session")
    cookies = [value.split(";")[0] for name, value in first.headers if name.lower() == "set-cookie"]
    cookie = next(value for value in cookies if value.startswith("session="))
    assert first.status == 200
    bed.kubectl("rollout", "restart", "deployment/redis", "-n", "abaci")
    bed.kubectl("rollout", "status", "deployment/redis", "-n", "abaci", "--timeout=120s", timeout=150)

    def kept() -> bool:
        answer = bed.edge("GET", "/api/session", headers={"Cookie": cookie})
        return answer.status == 200 and bool(answer.json() == first.json())

    until(kept, 30, "the session is still there")
