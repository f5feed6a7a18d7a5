"""The manifests of the role keel: restricted, with rights in one namespace, and reachable by nobody."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from evaluating import errors, evaluate
from rendering import ROOT, Rendered, check_across, check_schema

Object = dict[str, Any]
ALTERNATIVE: Object = {
    "keel_namespace": "robots",
    "keel_watch_namespace": "market",
    "keel_image": "registry.example/keel@sha256:" + "0" * 64,
    "keel_image_pull_secrets": ["login"],
    "keel_poll_schedule": "@every 1h30m",
    "keel_registry_secrets": ["ghcr-registry", "other"],
    "keel_env": {"NOTIFICATION_LEVEL": "warn", "NUMBER": 3},
    "keel_secrets": {"SLACK_APP_TOKEN": "geheim"},
    "keel_approvals": 1,
}


def manifests(**variables: Any) -> dict[str, Object]:
    variables = {"__keel_checksum_key": "a-key", **variables}
    objects = [
        evaluate("keel", "__keel_namespace_object", **variables),
        *evaluate("keel", "__keel_objects", **variables),
    ]
    if variables.get("keel_secrets"):
        objects.append(evaluate("keel", "__keel_secret_object", **variables))
    return {item["kind"]: item for item in objects}


@pytest.fixture(params=[{}, ALTERNATIVE], ids=["default", "alternative"])
def variant(request: pytest.FixtureRequest) -> Object:
    return dict(request.param)


def test_manifests_are_valid_and_agree(variant: Object) -> None:
    objects = manifests(**variant)
    for item in objects.values():
        check_schema(item)
    check_across(Rendered(list(objects.values())))
    names = {(item["kind"], item["metadata"].get("namespace")) for item in objects.values()}
    assert ("Deployment", variant.get("keel_namespace", "keel")) in names
    assert errors("keel", **variant) == []


def test_the_seeds_name_and_label_find_its_log() -> None:
    deployment = manifests()["Deployment"]
    assert (deployment["metadata"]["namespace"], deployment["metadata"]["name"]) == ("keel", "keel")
    assert deployment["spec"]["template"]["metadata"]["labels"]["app"] == "keel"


def test_the_pod_meets_the_profile_that_its_namespace_enforces(variant: Object) -> None:
    objects = manifests(**variant)
    assert objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 666
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}]


def test_two_never_run_at_once() -> None:
    spec = manifests()["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_rights_are_in_one_namespace_and_change_statefulsets_alone(variant: Object) -> None:
    objects = manifests(**variant)
    assert not {"ClusterRole", "ClusterRoleBinding", "Service"} & set(objects)
    namespace = variant.get("keel_watch_namespace", "abaci")
    assert objects["Role"]["metadata"]["namespace"] == objects["RoleBinding"]["metadata"]["namespace"] == namespace
    verbs: dict[str, set[str]] = {}
    for rule in objects["Role"]["rules"]:
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    assert {name for name, allowed in verbs.items() if allowed - {"get", "list", "watch"}} == {"statefulsets"}
    assert verbs["statefulsets"] == {"get", "list", "watch", "update"}
    (subject,) = objects["RoleBinding"]["subjects"]
    assert subject["namespace"] == objects["ServiceAccount"]["metadata"]["namespace"]


def test_it_reads_no_secret_but_the_pull_secrets_by_name() -> None:
    assert not [rule for rule in manifests()["Role"]["rules"] if "secrets" in rule["resources"]]
    (rule,) = [rule for rule in manifests(**ALTERNATIVE)["Role"]["rules"] if "secrets" in rule["resources"]]
    assert (rule["resourceNames"], rule["verbs"]) == (["ghcr-registry", "other"], ["get"])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, []),
        ({"app_registry_token": ""}, []),
        ({"app_registry_token": "t"}, ["ghcr-registry"]),
        ({"app_image_pull_secrets": ["mine"], "app_registry_token": "t"}, ["mine", "ghcr-registry"]),
    ],
)
def test_the_pull_secrets_are_the_applications(variables: Object, expected: list[str]) -> None:
    assert evaluate("keel", "keel_registry_secrets", **variables) == expected


def test_it_polls_one_namespace_and_leaves_helm_alone(variant: Object) -> None:
    (container,) = manifests(**variant)["Deployment"]["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item["value"] for item in container["env"]}
    assert env["POLL"] == "true" and env["HELM3_PROVIDER"] == "false"
    assert env["RESTRICTED_NAMESPACE"] == variant.get("keel_watch_namespace", "abaci")
    assert env["POLL_DEFAULTSCHEDULE"] == variant.get("keel_poll_schedule", "@every 2m")
    assert all(isinstance(value, str) for value in env.values())
    assert len(env) == len(container["env"])


def test_hazard_unauthenticated_webhooks_nobody_can_reach_them() -> None:
    policy = manifests()["NetworkPolicy"]["spec"]
    assert policy == {"podSelector": {"matchLabels": {"app": "keel"}}, "policyTypes": ["Ingress"]}


def test_what_is_secret_stands_in_the_secret_alone() -> None:
    objects = manifests(**ALTERNATIVE)
    secret = objects.pop("Secret")
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == {
        "SLACK_APP_TOKEN": "geheim"
    }
    assert "geheim" not in repr(objects) and base64.b64encode(b"geheim").decode() not in repr(objects)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"keel_poll_schedule": "2m"}, "keel_poll_schedule"),
        ({"keel_poll_schedule": "*/2 * * * *"}, "six fields"),
        ({"keel_namespace": "abaci"}, "namespace of its own"),
        ({"keel_watch_namespace": "Abaci"}, "lower case"),
        ({"keel_image": ""}, "keel_image"),
        ({"keel_approvals": 1}, "nothing says where they are given"),
        ({"keel_approvals": -1}, "negative"),
        ({"keel_env": {"POLL": "false"}}, "may not set POLL"),
        ({"keel_env": {"A": "1"}, "keel_secrets": {"A": "2"}}, "both set A"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: Object, words: str) -> None:
    (sentence,) = errors("keel", **variables)
    assert words in sentence


@pytest.mark.parametrize("schedule", ["@every 2m", "@every 1h30m", "@hourly", "0 */2 * * * *"])
def test_schedules_of_keel_are_accepted(schedule: str) -> None:
    assert errors("keel", keel_poll_schedule=schedule) == []


def test_absent_all_but_its_namespace_goes() -> None:
    made = {(item["kind"], item["metadata"]["name"]) for item in manifests(**{"keel_secrets": {"A": "b"}}).values()}
    removed = {(item["kind"], item["metadata"]["name"]) for item in evaluate("keel", "__keel_removed")}
    assert made - removed == {("Namespace", "keel")} and removed <= made


def test_it_updates_no_other_workload_than_the_application() -> None:
    (rule,) = [rule for rule in manifests(app_name="shop")["Role"]["rules"] if "update" in rule["verbs"]]
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["statefulsets"],
        "resourceNames": ["shop"],
        "verbs": ["update"],
    }


def deployed(serves: str) -> Object:
    env = [{"name": "POLL", "value": "true"}, {"name": "RESTRICTED_NAMESPACE", "value": serves}]
    return {"spec": {"template": {"spec": {"containers": [{"name": "keel", "env": env}]}}}}


def test_it_is_not_taken_from_another_site() -> None:
    tasks = yaml.safe_load((ROOT / "roles/keel/tasks/present.yml").read_text())
    (refusal,) = (task for task in tasks if "ansible.builtin.assert" in task)
    assert refusal["ansible.builtin.assert"]["that"] == "__keel_serves in ['', keel_watch_namespace]"
    assert tasks.index(refusal) < [task["name"] for task in tasks].index("present | Ensure Keel")
    assert evaluate("keel", "__keel_serves", __keel_found={"objects": [deployed("abaci"), {}]}) == "abaci"
    assert evaluate("keel", "__keel_serves", __keel_found={"objects": [{}, {}]}) == ""


def test_the_key_of_its_checksum_stays_and_stands_only_on_the_secret() -> None:
    objects = manifests(**ALTERNATIVE)
    secret = objects.pop("Secret")
    assert secret["metadata"]["annotations"] == {"abaci.infra/checksum-key": "a-key"}
    assert "a-key" not in repr(objects)
    found = {"objects": [{}, {"metadata": {"annotations": {"abaci.infra/checksum-key": "old"}}}]}
    assert evaluate("keel", "__keel_checksum_key_living", __keel_found=found) == "old"
    assert evaluate("keel", "__keel_checksum_key_living", __keel_found={"objects": [{}, {}]}) == ""
