"""The manifests of the role archive: one pod that may do little, and whom it may talk to."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils.archive import settings
from ansible_collections.abaci.infra.plugins.module_utils.operations import retarget
from evaluating import asked, errors, evaluate
from rendering import ROOT, Rendered, check_across, check_schema

Object = dict[str, Any]
RECORD = {"data": {"primaryOrdinal": "1", "clusterID": "LFSC0123456789ABCDEF"}}
BASIC: Object = {
    "archive_image": "registry.example/python:3.12",
    "__archive_bundle": {"data": "UEsDBA==", "digest": "0" * 64},
}
REMOTE: Object = {
    "archive_rclone_remote": "s3:bucket/abaci",
    "archive_rclone_image": "registry.example/rclone:1",
    "archive_rclone_secret": "rclone",
}
ALTERNATIVE: Object = {
    **REMOTE,
    "app_namespace": "market",
    "app_name": "shop",
    "app_litefs_port": 20203,
    "archive_image_pull_secrets": ["login"],
    "archive_volume": {"nfs": {"server": "nas", "path": "/archive"}},
    "archive_storage_size": "",
    "archive_max_size": "",
    "archive_keep": 30,
    "archive_user": 1000,
    "archive_node_selector": {"disk": "large"},
    "archive_tolerations": [{"key": "disk", "operator": "Exists"}],
    "archive_metrics_from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    "archive_egress": [{"ports": [{"port": 9000, "protocol": "TCP"}]}],
}


def manifests(found: Object | None = None, **variables: Any) -> dict[tuple[str, str], Object]:
    """By kind and the end of the name."""
    there = {"__archive_found": found or {"objects": [{}, {}, RECORD]}}
    variables = BASIC | there | variables
    objects = evaluate("archive", "__archive_objects", **variables)
    name = f"{variables.get('app_name', 'abaci-app')}-archive"
    return {(item["kind"], item["metadata"]["name"].removeprefix(name)): item for item in objects}


def pod(**variables: Any) -> Object:
    spec: Object = manifests(**variables)["Deployment", ""]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(params=[{}, ALTERNATIVE, REMOTE], ids=["default", "alternative", "remote"])
def variant(request: pytest.FixtureRequest) -> Object:
    return dict(request.param)


def test_manifests_are_valid_and_agree(variant: Object) -> None:
    objects = manifests(**variant)
    for item in objects.values():
        check_schema(item)
        assert item["metadata"]["namespace"] == variant.get("app_namespace", "abaci")
    check_across(Rendered(list(objects.values())), [("Secret", "rclone")])
    assert errors("archive", **BASIC, **variant) == []


def test_it_is_there_where_an_image_is_named_and_else_not_touched() -> None:
    assert evaluate("archive", "archive_state") == "unmanaged" and errors("archive") == []
    assert evaluate("archive", "archive_state", backup_image="python:3.12") == "present"


def test_the_program_understands_its_settings(tmp_path: Path, variant: Object) -> None:
    config = manifests(**variant)["ConfigMap", ""]
    assert config["binaryData"] == {"archive.pyz": "UEsDBA=="}
    (tmp_path / "settings.json").write_text(config["data"]["settings.json"])
    told = settings.read(tmp_path / "settings.json")
    name, space = variant.get("app_name", "abaci-app"), variant.get("app_namespace", "abaci")
    assert told.service == f"{name}-headless.{space}.svc.cluster.local"
    assert (told.port, told.record) == (variant.get("app_litefs_port", 20202), f"{name}-litefs-identity")
    assert told.keep == variant.get("archive_keep", 14) * 86400
    for one in dataclasses.fields(told):
        assert type(getattr(told, one.name)).__name__ in (one.type, "int"), one.name
    mounts = {mount["mountPath"] for mount in pod(**variant)["containers"][0]["volumeMounts"]}
    assert {told.buffer, *([told.target] if told.target else [])} <= mounts
    assert bool(told.target) is bool(variant.get("archive_volume"))
    assert not told.remote_stamp or str(Path(told.remote_stamp).parent) in mounts


def test_never_two_at_one_archive_and_apart_from_the_primary() -> None:
    assert manifests()["Deployment", ""]["spec"]["strategy"] == {"type": "Recreate"}
    (term,) = pod()["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == {
        "app": "abaci-app",
        "statefulset.kubernetes.io/pod-name": "abaci-app-1",
    }
    assert "affinity" not in pod(found={"objects": [{}, {}, None]})


def test_the_pod_meets_the_restricted_profile(variant: Object) -> None:
    spec = pod(**variant)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        tokens = [mount["name"] for mount in container["volumeMounts"] if mount["name"] == "token"]
        assert tokens == (["token"] if container["name"] == "archive" else [])
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "128Mi"


def test_it_may_note_events_and_read_the_record(variant: Object) -> None:
    record = f"{variant.get('app_name', 'abaci-app')}-litefs-identity"
    assert manifests(**variant)["Role", ""]["rules"] == [
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [record], "verbs": ["get"]},
    ]


def test_litefs_lets_it_in_and_the_applications_pods_alone_come_to_it(variant: Object) -> None:
    objects = manifests(**variant)
    litefs, own = objects["NetworkPolicy", "-litefs"]["spec"], objects["NetworkPolicy", ""]["spec"]
    labels = objects["Deployment", ""]["spec"]["template"]["metadata"]["labels"]
    name, port = variant.get("app_name", "abaci-app"), variant.get("app_litefs_port", 20202)
    assert litefs["podSelector"] == {"matchLabels": {"app": name}} and "app" not in labels
    assert litefs["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": port, "protocol": "TCP"}]}
    ]
    assert own["policyTypes"] == ["Ingress", "Egress"]
    fed, *others = own["ingress"]
    assert fed == {
        "from": [{"podSelector": {"matchLabels": {"app": name}}}],
        "ports": [{"port": settings.Settings.feed_port, "protocol": "TCP"}],
    }
    peers = [rule["from"] for rule in others]
    assert peers == ([variant["archive_metrics_from"]] if "archive_metrics_from" in variant else [])
    ports = [{item["port"] for item in rule["ports"]} for rule in own["egress"]]
    assert ports == [{53}, {port}, {443, 6443}, *([{9000}] if "archive_egress" in variant else [])]


def test_the_applications_pods_find_it_by_the_name_that_a_promote_renders(variant: Object) -> None:
    objects = manifests(**variant)
    service, template = objects["Service", ""], objects["Deployment", ""]["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local:{port['port']}"
    app = variant.get("app_name", "abaci-app")
    text = evaluate("app", "__app_headless", **variant)
    rendered = retarget.litefs_yml(f"  advertise-url: http://{app}-0.{text}:20202\n", app, 1, archive=True)
    assert rendered.splitlines()[-1] == f"  advertise-url: http://{name}"
    named = {item["name"]: item["containerPort"] for item in template["spec"]["containers"][0]["ports"]}
    assert named[port["targetPort"]] == port["port"] == settings.Settings.feed_port


def test_the_pod_restarts_when_its_program_or_settings_change_and_only_then() -> None:
    def checksum(**variables: Any) -> str:
        template = manifests(**variables)["Deployment", ""]["spec"]["template"]
        return str(template["metadata"]["annotations"]["abaci.infra/config-checksum"])

    other = {"__archive_bundle": {"data": "UEsDBA==", "digest": "1" * 64}}
    assert checksum() == checksum(archive_storage_class="fast")
    assert len({checksum(), checksum(archive_keep=15), checksum(**other)}) == 3


def claimed(size: str, cls: str) -> Object:
    spec = {"resources": {"requests": {"storage": size}}, "storageClassName": cls}
    place = {"name": "abaci-app-archive", "namespace": "abaci"}
    return {"objects": [{}, {"kind": "PersistentVolumeClaim", "metadata": place, "spec": spec}, RECORD]}


def test_a_claim_that_exists_keeps_its_class_and_another_size_is_refused() -> None:
    found = claimed("10Gi", "slow")
    assert manifests(found=found)["PersistentVolumeClaim", ""]["spec"]["storageClassName"] == "slow"
    tasks = yaml.safe_load((ROOT / "roles/archive/tasks/present.yml").read_text())
    (apply,) = (task["abaci.infra.server_side_apply"] for task in tasks if "abaci.infra.server_side_apply" in task)
    assert apply["size_variable"] == "archive_storage_size"


@pytest.mark.parametrize("role", ["archive", "redis"])
def test_hazard_what_is_absent_keeps_its_data_until_that_is_named_too(role: str) -> None:
    kept = {"PersistentVolumeClaim", "PersistentVolume", "Secret", "Namespace"}

    def removed(**named: bool) -> set[str]:
        (objects,) = asked(role, "absent.yml", "abaci.infra.server_side_apply", "absent", **named)
        return {item["kind"] for item in objects}

    assert removed() & kept == removed(**{f"{role}_remove_data": False}) & kept == set()
    assert removed(**{f"{role}_remove_data": True}) & kept


def test_absent_keeps_the_transactions() -> None:
    removed = evaluate("archive", "__archive_removed")
    assert "PersistentVolumeClaim" not in {item["kind"] for item in removed}
    made = {(kind, f"abaci-app-archive{end}") for kind, end in manifests() if kind != "PersistentVolumeClaim"}
    assert {(item["kind"], item["metadata"]["name"]) for item in removed} == made
    # What lets it in goes last but for what is nobody's way.
    assert removed[0]["kind"] == "Deployment"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"archive_state": "present"}, "archive_image is not set"),
        ({**BASIC, "archive_keep": 0}, "archive_keep is 0"),
        ({**BASIC, "archive_user": 0}, "archive_user is 0"),
        ({**BASIC, "archive_max_size": "lots"}, "archive_max_size: lots is no size"),
        ({**BASIC, "archive_storage_size": ""}, "would go with its pod"),
        ({**BASIC, "archive_max_size": "10Gi"}, "archive_max_size (10Gi) has to be less than archive_storage_size"),
        (
            {**BASIC, "archive_buffer_size": "20Gi", "archive_volume": {"nfs": {"server": "nas", "path": "/a"}}},
            "archive_buffer_size (20Gi) has to be less",
        ),
        ({**BASIC, "archive_rclone_remote": "s3:b"}, "needs archive_rclone_image"),
        ({**BASIC, "archive_remove_data": True}, "belongs to archive_state absent"),
        ({"archive_kep": 3}, "archive_kep"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: Object, words: str) -> None:
    given = {name: value for name, value in variables.items() if not name.startswith("__")}
    (sentence,) = errors("archive", **given)
    assert words in sentence


def test_the_copying_to_the_remote_goes_on_after_a_failure_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Runs the container's own script with an rclone that fails at first."""
    (tmp_path / "rclone").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$(wc -l < {tmp_path}/asked)" -gt 1 ]\n'
    )
    (tmp_path / "rclone").chmod(0o755)
    container = pod(**REMOTE, archive_rclone_interval=1)["containers"][1]
    script = manifests(**REMOTE)["ConfigMap", ""]["data"]["copy.sh"].replace("/remote/copied", str(tmp_path / "copied"))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **{one["name"]: one["value"] for one in container["env"]}}
    process = subprocess.Popen([shutil.which("dash") or "sh", "-c", script], env=env)
    deadline = time.monotonic() + 15
    while not (tmp_path / "asked").exists() or len((tmp_path / "asked").read_text().splitlines()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "copied").exists()
    process.terminate()
    assert process.wait(5) == 0
    first, second, third, *_ = (tmp_path / "asked").read_text().splitlines()
    assert first.endswith("/archive s3:bucket/abaci") and "--max-age 2h" in third
    # What counts as all was copied is a run that left nothing out.
    assert "--max-age" not in first and "--max-age" not in second
    assert container["command"] == ["sh", "/program/copy.sh"] and "sync" not in script


def test_the_image_is_pulled_as_the_pod_would_pull_it() -> None:
    tasks = yaml.safe_load((ROOT / "roles/archive/tasks/present.yml").read_text())
    (check,) = (task["abaci.infra.image_pull_check"] for task in tasks if "abaci.infra.image_pull_check" in task)
    assert check["kept"] is (pod()["containers"][0]["imagePullPolicy"] == "IfNotPresent")
