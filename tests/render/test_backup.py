"""The scheduled job of the role backup: what is rendered, and that bad input ends in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from evaluating import errors, evaluate
from rendering import Rendered, check_across, check_schema

Object = dict[str, Any]

JOB: Object = {
    "backup_schedule": "17 3 * * *",
    "backup_image": "registry.example/python:3",
    "backup_volume": {"nfs": {"server": "nas.example", "path": "/backups"}},
}
REMOTE: Object = {
    "backup_rclone_remote": "s3:bucket/abaci",
    "backup_rclone_image": "registry.example/rclone:1",
    "backup_rclone_secret": "rclone",
}
# As roles/operation has them where nobody sets them.
SITE: Object = {
    "operation_app": "abaci-app",
    "operation_namespace": "abaci",
    "operation_port": 20202,
    "operation_database": "sqlite.db",
}


def manifests(**variables: Any) -> dict[str, Object]:
    return {obj["kind"]: obj for obj in evaluate("backup", "__backup_objects", **{**SITE, **JOB, **variables})}


def pod(objects: dict[str, Object]) -> Object:
    return dict(objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"])


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"backup_time_zone": "Europe/Berlin"},
        {**REMOTE, "backup_volume": {}},
        {
            "operation_namespace": "market",
            "operation_app": "shop",
            "backup_image_pull_secrets": ["login"],
            "backup_node_selector": {"disk": "big"},
        },
    ],
    ids=["default", "time zone", "remote", "alternative"],
)
def test_manifests_are_valid(variant: Object) -> None:
    objects = manifests(**variant)
    assert set(objects) == {"NetworkPolicy", "ConfigMap", "CronJob"}
    for obj in objects.values():
        check_schema(obj)
        assert obj["metadata"]["namespace"] == variant.get("operation_namespace", "abaci")
        assert obj["metadata"]["name"] == f"{variant.get('operation_app', 'abaci-app')}-backup"
    check_across(Rendered(list(objects.values())))


def test_the_time_is_in_the_zone_that_is_named_and_else_in_the_servers() -> None:
    assert "timeZone" not in manifests()["CronJob"]["spec"]
    spec = manifests(backup_time_zone="Europe/Berlin")["CronJob"]["spec"]
    assert (spec["timeZone"], spec["schedule"]) == ("Europe/Berlin", "17 3 * * *")


def test_what_the_job_runs_is_in_its_configmap() -> None:
    objects = manifests()
    (job,) = (volume["configMap"] for volume in pod(objects)["volumes"] if volume["name"] == "job")
    assert {item["key"] for item in job["items"]} == set(objects["ConfigMap"]["data"])
    (container,) = pod(objects)["containers"]
    assert container["command"] == ["python3", "/job/job.py"]
    compile(objects["ConfigMap"]["data"]["job.py"], "job.py", "exec")


@pytest.mark.parametrize("app", ["abaci-app", "shop"])
def test_hazard_litefs_port_is_opened_to_the_job_and_nobody_else(app: str) -> None:
    """Whoever reaches it gets the database, and can replace it."""
    objects = manifests(operation_app=app)
    policy = objects["NetworkPolicy"]["spec"]
    job = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"] == {"matchLabels": {"app": app}} and policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": job}}], "ports": [{"port": 20202, "protocol": "TCP"}]}
    ]
    assert {"app.kubernetes.io/component": "backup", "app.kubernetes.io/name": app}.items() <= job.items()


def test_a_remote_gets_what_was_exported_before() -> None:
    spec = pod(manifests(**REMOTE))
    assert [container["name"] for container in spec["initContainers"]] == ["export"]
    (rclone,) = spec["containers"]
    assert rclone["command"][:2] == ["rclone", "copy"] and rclone["command"][-1] == "s3:bucket/abaci"
    left = rclone["command"][rclone["command"].index("--exclude") + 1]
    assert left == ".export-*/**", "what a run that is at work, or was killed, has so far is no backup"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"backup_schedule": "nightly"}, "backup_schedule nightly is not a time as cron writes it"),
        ({"backup_schedule": "CRON_TZ=Europe/Berlin 17 3 * * *"}, "is not a time as cron writes it"),
        ({"backup_time_zone": "UTC+2"}, "backup_time_zone UTC+2 is no name of a time zone, such as Europe/Berlin"),
        ({"backup_schedule": "", "backup_schedule_state": "present"}, "backup_schedule is empty: say when"),
        ({"backup_image": ""}, "backup_schedule is set, and backup_image is not"),
        ({"backup_volume": {}}, "neither backup_volume nor backup_rclone_remote says where"),
        ({**REMOTE, "backup_rclone_secret": ""}, "backup_rclone_remote needs backup_rclone_image and"),
        ({**REMOTE, "backup_rclone_image": ""}, "backup_rclone_remote needs backup_rclone_image and"),
        ({"operation_call_off": "restore"}, "operation_call_off is for playbooks/restore.yml"),
        ({"backup_keep": -1}, "backup_keep -1 is negative: 0 keeps all"),
        ({"backup_at": "1h ago", "backup_pod": "1"}, "backup_at and backup_pod are both set"),
        ({"backup_tz": "UTC"}, "backup_tz"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: Object, words: str) -> None:
    (sentence,) = errors("backup", **{**JOB, **variables})
    assert words in sentence


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"backup_schedule": "", "backup_image": "", "backup_volume": {}},
        {"backup_schedule_state": "absent", "backup_image": ""},
        {"backup_schedule_state": "unmanaged", "backup_image": ""},
        {"backup_schedule": "@daily", "backup_time_zone": "America/Argentina/Buenos_Aires"},
        {"backup_time_zone": "UTC"},
        {"backup_at": "1h ago"},
        {"backup_time_zone": "Etc/GMT+2"},
        {**REMOTE, "backup_volume": {}},
    ],
)
def test_good_input_is_none(variables: Object) -> None:
    assert errors("backup", **{**JOB, **variables}) == []
