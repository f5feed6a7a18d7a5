"""What Keel, a registry's token and shared files change in the application's objects."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from ansible_collections.abaci.infra.plugins.module_utils import app_image
from evaluating import evaluate
from evaluating import living as there
from rendering import ROOT, Rendered, Run, check_schema, run_role
from test_app import ALL, GATHERED, KEEL, plan

Object = dict[str, Any]


VARIANTS: dict[str, Object] = {
    "default": {},
    "off": {"keel_state": "absent", **plan(annotations={})},
    "token": {"app_registry_token": "t0ken", "app_image_pull_secrets": ["mine"]},
    "storage": {"storage_state": "present"},
}


@pytest.fixture(scope="module")
def run() -> Run:
    variants = {
        name: {**GATHERED, **plan(), "app_domain": "abaci.localhost", **values} for name, values in VARIANTS.items()
    }
    made = run_role("app", ["validate.yml"], ALL, variants)
    assert made.failures == {}
    return made


def annotations_of(rendered: Rendered) -> dict[str, str]:
    found: dict[str, str] = rendered.one("StatefulSet")["metadata"]["annotations"]
    return {name: value for name, value in found.items() if "keel" in name}


@pytest.mark.parametrize("name", VARIANTS)
def test_manifests_are_valid(run: Run, name: str) -> None:
    for item in run[name].objects:
        check_schema(item)


def test_hazard_annotations_stand_on_the_statefulset_with_match_tag_and_not_on_the_pods(run: Run) -> None:
    assert annotations_of(run["default"]) == KEEL
    for name in VARIANTS:
        template = run[name].one("StatefulSet")["spec"]["template"]
        assert not [key for key in template["metadata"]["annotations"] if "keel" in key]


def test_switched_off_nothing_of_keel_is_left(run: Run) -> None:
    assert annotations_of(run["off"]) == {}


def test_the_plan_is_given_what_the_inventory_says_of_keel_and_storage() -> None:
    default = evaluate("app", "__app_desired")
    assert default["keel"] == {"state": "present", "frozen": False, "schedule": "@every 2m", "approvals": 0}
    volumes = [{"claim": "vision-training-data"}, {"claim": "uploads-data"}]
    assert default["storage"] == {"state": "unmanaged", "kind": "nfs", "volumes": volumes}
    given = {"keel_state": "absent", "keel_frozen": "yes", "keel_approvals": "2", "keel_poll_schedule": "@every 5m"}
    files = {"storage_state": "present", "storage_kind": "host_path", "storage_volumes": [{"claim": "own"}]}
    asked = evaluate("app", "__app_desired", **given, **files, app_annotations={"team": "web"})
    assert asked["keel"] == {"state": "absent", "frozen": True, "schedule": "@every 5m", "approvals": 2}
    assert asked["storage"] == {"state": "present", "kind": "host_path", "volumes": [{"claim": "own"}]}
    assert asked["annotations"] == {"team": "web"}


def test_a_token_makes_the_pull_secret_and_without_one_there_is_none(run: Run) -> None:
    assert "ghcr-registry" not in run["default"].names("Secret")
    assert "imagePullSecrets" not in run["default"].one("StatefulSet")["spec"]["template"]["spec"]
    secret = run["token"].one("Secret", "ghcr-registry")
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert config["auths"]["ghcr.io"]["username"] == "antialias"
    assert base64.b64decode(config["auths"]["ghcr.io"]["auth"]) == b"antialias:t0ken"
    spec = run["token"].one("StatefulSet")["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "mine"}, {"name": "ghcr-registry"}]
    rest = [item for item in run["token"].objects if item["metadata"]["name"] != "ghcr-registry"]
    assert "t0ken" not in repr(rest)


def test_a_token_that_is_there_already_is_not_tried_again() -> None:
    given = {"app_registry_token": "t0ken", "app_namespace": "abaci"}
    config = evaluate("app", "__app_registry_config", **given)
    text = config if isinstance(config, str) else json.dumps(config, sort_keys=True)
    held = {
        "metadata": {"namespace": "abaci", "name": "ghcr-registry"},
        "data": {".dockerconfigjson": base64.b64encode(text.strip().encode()).decode()},
    }
    assert evaluate("app", "__app_living_registry", **there(registry=held)) == held["data"][".dockerconfigjson"]
    assert evaluate("app", "__app_living_registry", **there()) == ""


def test_shared_files_are_mounted_at_the_contracts_paths(run: Run) -> None:
    spec = run["storage"].one("StatefulSet")["spec"]["template"]["spec"]
    claims = {
        item["name"]: item["persistentVolumeClaim"]["claimName"]
        for item in spec["volumes"]
        if "persistentVolumeClaim" in item
    }
    assert claims == {"vision-training-data": "vision-training-data", "uploads-data": "uploads-data"}
    mounts = {item["name"]: item["mountPath"] for item in spec["containers"][0]["volumeMounts"]}
    assert mounts["vision-training-data"] == "/app/apps/web/data/vision-training"
    assert mounts["uploads-data"] == "/app/apps/web/data/uploads"
    listed = [item["claim"] for item in evaluate("storage", "storage_volumes")]
    assert sorted(listed) == sorted(claims.values())


def test_what_the_application_takes_for_granted_are_the_other_roles_defaults() -> None:
    text = "".join((ROOT / f"roles/app/{part}/main.yml").read_text() for part in ("defaults", "vars"))
    assert evaluate("keel", "keel_state") == "present" and "keel_state | default('present')" in text
    assert evaluate("keel", "keel_frozen") is False and "keel_frozen | default(false)" in text
    assert evaluate("keel", "keel_approvals") == 0 and "keel_approvals | default(0)" in text
    assert f"keel_poll_schedule | default('{evaluate('keel', 'keel_poll_schedule')}')" in text
    assert evaluate("storage", "storage_state") == "unmanaged" and "storage_state | default('unmanaged')" in text


def test_every_image_of_the_pods_is_pulled_before_they_change() -> None:
    role = ROOT / "roles/app"
    named = re.findall(r"image: {{ (\w+) }}", (role / "templates/statefulset-abaci-app.yml.j2").read_text())
    asked = evaluate("app", "__app_desired", app_image="a:1", app_guard_image="b:1", app_tls="upstream", **plan())
    assert (asked["image"], asked["guard_image"], asked["pull_policy"]) == ("a:1", "b:1", "Always")
    kept = app_image.pulls(app_image.Choice("a:1", False), "a:1", "b:1", kept=True)
    assert [pull["kept"] for pull in kept] == [True, True]
    pulls = app_image.pulls(app_image.Choice("a:1", True), "a:1", "b:1")
    assert {name.removeprefix("__") for name in named} == {pull["variable"] for pull in pulls}
    (only,) = app_image.pulls(app_image.Choice("a@sha256:0", False, running=True), "a:1", "b:1")
    assert only["variable"] == "app_guard_image"
    assert {pull["variable"]: pull["image"] for pull in pulls} == {"app_image": "a:1", "app_guard_image": "b:1"}
    # The one that has to hold LiteFS is run, since a digest is not run by the init container `pull`.
    assert [pull.get("command") for pull in pulls] == [["litefs", "version"], None]
    # The guard's, as in the pods, only where a node lacks it: a registry that is away holds up no other change.
    assert [pull.get("kept", False) for pull in pulls] == [False, True]
    tasks = yaml.safe_load((role / "tasks/statefulset.yml").read_text())
    names = [task["name"] for task in tasks]
    (pull,) = (task for task in tasks if "abaci.infra.image_pull_check" in task)
    assert pull["loop"] == "{{ __app_plan.image.pulls }}" and pull["when"] == "__app_pods_change"
    assert names.index(pull["name"]) < names.index("statefulset | Apply the StatefulSet")
    given = trust_as_template(pull["abaci.infra.image_pull_check"]["node_selector"])
    selected = [
        evaluate("app", "__x", __x=given, app_node_selector={"disk": "fast"}, __app_pull=one)
        for one in ({"image": "a:1"}, {"image": "a:1", "architecture": "arm64"})
    ]
    assert selected == [{"disk": "fast"}, {"disk": "fast", "kubernetes.io/arch": "arm64"}]


def test_frozen_from_the_first_start_is_what_was_pulled() -> None:
    tasks = yaml.safe_load((ROOT / "roles/app/tasks/statefulset.yml").read_text())
    names = [task["name"] for task in tasks]
    (freeze,) = (task for task in tasks if task.get("ansible.builtin.include_tasks") == "plan.yml")
    assert "__app_plan.image.pin" in freeze["when"]
    pull, apply = (
        "statefulset | Check that the images can be pulled",
        "statefulset | Apply the StatefulSet",
    )
    assert names.index(pull) < names.index(freeze["name"]) < names.index(apply)
    pulled = [{"__app_pull": {"variable": "app_image"}, "digest": "sha256:0"}]
    assert evaluate("app", "__app_desired", **plan(), __app_pulled={"results": pulled})["pulled"] == pulled
    assert evaluate("app", "__app_desired", **plan())["pulled"] == []
