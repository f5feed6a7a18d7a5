"""By which text the pods name their image, and whether each new pod pulls it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import app_image, app_plan, placement
from factory_objects import IMAGE, desired, document, living, pod, statefulset

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = IMAGE.rpartition(":")[0]


def site(*digests: str, ready: tuple[int, ...] = (0, 1, 2), image: str = IMAGE) -> dict[str, Any]:
    """A site whose pods run these digests, by ordinal."""
    pods = []
    for ordinal, digest in enumerate(digests):
        made = pod(ordinal)
        made["status"]["containerStatuses"][0]["imageID"] = f"{NAME}@{digest}" if digest else ""
        made["status"]["conditions"][0]["status"] = "True" if ordinal in ready else "False"
        pods.append(made)
    applied = statefulset()
    applied["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return document(statefulset=applied, pods=pods)


@pytest.mark.parametrize("tag", ["latest", "main", "stable", "v1"])
def test_a_tag_is_pulled_by_each_new_pod_whatever_it_is_called(tag: str) -> None:
    choice = app_image.choose(site(A, A, A), f"{NAME}:{tag}", False, 0)
    assert (choice.text, choice.pull, choice.pin) == (f"{NAME}:{tag}", True, False)


@pytest.mark.parametrize("frozen", [True, False])
def test_images_that_lie_on_the_nodes_need_no_registry(frozen: bool) -> None:
    """What was imported from a file has a tag and no digest that a node would know it by."""
    asked = desired(image=f"{NAME}:v1", guard_image="busybox:1", pull_policy="IfNotPresent")
    if frozen:
        asked["annotations"] = {"keel.sh/policy": "never"}
    image = app_plan.plan(site(A, A, A), asked)["image"]
    assert (image["text"], image["pull"], image["pin"]) == (f"{NAME}:v1", False, False)
    assert [(one["image"], one.get("kept")) for one in image["pulls"]] == [(f"{NAME}:v1", True), ("busybox:1", True)]
    always = app_plan.plan(site(A, A, A), {**asked, "pull_policy": "Always", "annotations": {}})["image"]
    assert always["pull"] and "kept" not in always["pulls"][0]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_digest_needs_no_pull_and_no_freeze(frozen: bool) -> None:
    choice = app_image.choose(site(A, A, A), f"{IMAGE}@{B}", frozen, 0)
    assert (choice.text, choice.pull, choice.pin) == (f"{IMAGE}@{B}", False, False)


@pytest.mark.parametrize(
    ("digests", "ready", "ordinal", "frozen_at", "why"),
    [
        ((A, A, A), (0, 1, 2), 0, A, "all the same"),
        ((A, A, B), (0, 1), 0, A, "a rollout that hangs at its first replica"),
        ((A, B, B), (0, 1, 2), 0, A, "the primary's, in the middle of a rollout"),
        ((B, A, A), (1, 2), 0, A, "the primary crashes on the new build"),
        ((B, A, B), (0, 1, 2), 1, A, "the primary has another ordinal"),
        (("", A, A), (0, 1, 2), 0, A, "a runtime that names no digest for one"),
    ],
)
def test_frozen_is_the_digest_that_runs(
    digests: tuple[str, ...], ready: tuple[int, ...], ordinal: int, frozen_at: str, why: str
) -> None:
    choice = app_image.choose(site(*digests, ready=ready), IMAGE, True, ordinal)
    assert (choice.text, choice.pull, choice.running) == (f"{IMAGE}@{frozen_at}", False, True), why
    assert frozen_at in choice.note


def test_frozen_once_it_stays_whatever_a_pod_runs() -> None:
    choice = app_image.choose(site(B, B, B, image=f"{IMAGE}@{A}"), IMAGE, True, 0)
    assert (choice.text, choice.running) == (f"{IMAGE}@{A}", True)


def test_the_thaw_brings_the_tag_back() -> None:
    choice = app_image.choose(site(A, A, A, image=f"{IMAGE}@{A}"), IMAGE, False, 0)
    assert (choice.text, choice.pull) == (IMAGE, True)


@pytest.mark.parametrize(
    "state",
    [
        document(),
        site("", "", ""),
        site(A, A, A, image=f"{NAME}:v1"),
        site(A, A, A, image=f"{NAME}:v1@{A}"),
        site(A, A, A, ready=()),
    ],
    ids=[
        "first start",
        "no digest known",
        "another tag is set",
        "another tag is set while frozen",
        "none ready",
    ],
)
def test_what_does_not_run_yet_is_frozen_at_what_is_pulled(state: dict[str, Any]) -> None:
    choice = app_image.choose(state, IMAGE, True, 0)
    assert (choice.text, choice.pull, choice.pin) == (IMAGE, True, True)


@pytest.mark.parametrize(
    ("image", "image_id", "same"),
    [
        ("busybox:1.36", f"docker.io/library/busybox@{A}", True),
        ("me/app", f"docker.io/me/app@{A}", True),
        ("localhost:5000/app:1", f"localhost:5000/app@{A}", True),
        ("ghcr.io/me/app:1", f"ghcr.io/you/app@{A}", False),
    ],
)
def test_a_digest_of_another_repository_is_not_taken(image: str, image_id: str, same: bool) -> None:
    state = site(A, image=image)
    state["pods"][0]["image_id"] = image_id
    assert app_image.running_digest(state, image, 0) == (A if same else "")


def test_the_processors_are_those_of_the_nodes_that_may_run_it() -> None:
    def node(arch: str, **more: Any) -> Any:
        return {"labels": {"kubernetes.io/arch": arch, "disk": "ssd"}, "taints": [], "schedulable": True, **more}

    nodes = [node("arm64"), node("amd64"), node("amd64"), node("riscv64", schedulable=False)]
    assert placement.architectures(nodes, {}) == ["amd64", "arm64"]
    assert placement.architectures(nodes, {"node_selector": {"disk": "hdd"}}) == []


def test_an_image_is_tried_for_each_processor_of_the_nodes_that_may_run_it() -> None:
    """A pod is tried where the scheduler puts it; the rollout begins wherever the highest ordinal is."""
    state = living()
    for node, processor in zip(state["nodes"], ("amd64", "arm64", "arm64"), strict=True):
        node["labels"]["kubernetes.io/arch"] = processor
    pulls = app_plan.plan(state, desired(image=IMAGE))["image"]["pulls"]
    assert [(one["variable"], one["architecture"]) for one in pulls] == [
        ("app_image", "amd64"),
        ("app_image", "arm64"),
        ("app_guard_image", "amd64"),
        ("app_guard_image", "arm64"),
    ]
    state["nodes"][0]["schedulable"] = False
    pulls = app_plan.plan(state, desired(image=IMAGE))["image"]["pulls"]
    assert [(one["variable"], "architecture" in one) for one in pulls] == [
        ("app_image", False),
        ("app_guard_image", False),
    ]


def test_the_plan_says_it_and_where_the_pull_hangs_it_is_the_applications_trouble() -> None:
    plan = app_plan.plan(living(), desired(image=IMAGE))
    pulls = [pull["variable"] for pull in plan["image"].pop("pulls")]
    assert plan["image"] == {"text": IMAGE, "pull": True, "pin": False, "running": False, "note": ""}
    assert pulls == ["app_image", "app_guard_image"]
    waiting = {"name": "pull", "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}
    guard = {"name": "guard", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
    hangs = pod(1, initContainerStatuses=[waiting, guard], containerStatuses=[])
    crashes = pod(
        2,
        initContainerStatuses=[
            {"name": "pull", "restartCount": 1, "state": {"terminated": {"exitCode": 1, "message": "no litefs"}}},
            guard,
        ],
    )
    found = document(pods=[hangs, crashes])["pods"]
    assert found[0]["waiting"] == {"reason": "ErrImagePull", "message": "denied"}
    assert found[1]["waiting"]["message"] == "no litefs"
    # Never "stopped by the guard", which has not looked yet.
    assert [one["init"]["state"] for one in found] == ["waiting", "waiting"]


@pytest.mark.parametrize(("digest", "pinned"), [(A, True), ("", False), (None, False)])
def test_frozen_from_the_first_start_is_what_was_pulled_of_the_applications_own_image(
    digest: str | None, pinned: bool
) -> None:
    pulled = [
        {"__app_pull": {"variable": "app_guard_image"}, "digest": B},
        {"__app_pull": {"variable": "app_image"}, "digest": digest},
    ]
    choice = app_image.choose(document(), IMAGE, True, 0, pulled)
    assert (choice.text, choice.pull, choice.pin) == ((f"{IMAGE}@{A}", False, False) if pinned else (IMAGE, True, True))
    assert app_image.choose(document(), IMAGE, False, 0, pulled).text == IMAGE, "it is not frozen"
    assert app_image.choose(document(), IMAGE, True, 0).pin


def test_the_plan_takes_what_was_pulled() -> None:
    pulled = [{"__app_pull": {"variable": "app_image"}, "digest": A}]
    asked = desired(image=IMAGE, annotations={"keel.sh/policy": "never"})
    assert app_plan.plan(document(), asked)["image"]["pin"]
    image = app_plan.plan(document(), {**asked, "pulled": pulled})["image"]
    assert (image["text"], image["pull"], image["pin"]) == (f"{IMAGE}@{A}", False, False)
