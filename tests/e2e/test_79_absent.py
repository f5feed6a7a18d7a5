"""Every role that talks to the cluster can be taken away, its data stays, and the next run brings all of it back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sitebed import Bed, until

ROLES = ("traefik", "cert_manager", "redis", "app", "keel", "storage", "fuse_device_plugin")
AWAY = json.dumps({f"{role}_state": "absent" for role in ROLES})
KEPT = ("litefs-data-abaci-app-0", "litefs-data-abaci-app-1", "litefs-data-abaci-app-2", "redis-data")


def volumes(bed: Bed) -> dict[str, Any]:
    """Claims of the application's namespace and the volumes behind them, by name."""
    return {
        item["metadata"]["name"]: (item["metadata"]["uid"], item["spec"]["volumeName"])
        for item in bed.get("pvc", "-n", "abaci")["items"]
        if not item["metadata"].get("deletionTimestamp")
    }


def names(bed: Bed, kinds: str, namespace: str = "abaci") -> set[str]:
    return {f"{item['kind']}/{item['metadata']['name']}" for item in bed.get(kinds, "-n", namespace)["items"]}


def shared_file(bed: Bed, pod: str, *command: str) -> str:
    return str(bed.in_pod(pod, "sh", "-c", " ".join(command)).strip())


def test_shared_files_are_the_hosts_under_the_contracts_names(bed: Bed) -> None:
    """On the bed the claims are bound to directories of the hosts; NFS is not in the kernel of these machines."""
    for claim, volume, size in (
        ("vision-training-data", "vision-training-pv", "50Gi"),
        ("uploads-data", "uploads-pv", "10Gi"),
    ):
        found = bed.get("pvc", claim, "-n", "abaci")
        assert (found["spec"]["storageClassName"], found["spec"]["volumeName"]) == ("nfs", volume)
        assert (found["status"]["phase"], found["status"]["capacity"]["storage"]) == ("Bound", size)
        assert bed.get("pv", volume)["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    shared_file(bed, "abaci-app-0", "echo picture > /app/apps/web/data/uploads/picture")
    node = bed.get("pod", "abaci-app-0", "-n", "abaci")["spec"]["nodeName"]
    path = bed.get("pv", "uploads-pv")["spec"]["hostPath"]["path"]
    assert bed.node_exec(node, "cat", f"{path}/picture").strip() == "picture"


@pytest.fixture(scope="module")
def before(bed: Bed) -> dict[str, Any]:
    started = bed.playbook()
    assert started.rc == 0, started.output[-4000:]
    posted = bed.edge("POST", "/api/records", b'{"body": "before absent"}')
    assert posted.status == 201, posted
    rows = bed.rows("abaci-app-0", "select count(*), sum(id) from records")
    for pod in ("abaci-app-1", "abaci-app-2"):
        until(
            lambda name=pod: bed.rows(name, "select count(*), sum(id) from records") == rows, 30, f"all rows on {pod}"
        )
    record = bed.get("configmap", "abaci-app-litefs-identity", "-n", "abaci")["data"]
    secrets = {item["metadata"]["name"]: item.get("data") for item in bed.get("secrets", "-n", "abaci")["items"]}
    return {"rows": rows, "record": record, "volumes": volumes(bed), "secrets": secrets}


def test_absent_in_check_mode_removes_nothing(bed: Bed, before: dict[str, Any]) -> None:
    checked = bed.playbook("--check", "--tags", ",".join(ROLES).replace("fuse_", ""), "-e", AWAY)
    assert checked.rc == 0 and checked.total("changed") > 0, checked.output[-4000:]
    assert "StatefulSet/abaci-app" in names(bed, "statefulsets")


def test_absent_takes_away_what_runs_and_keeps_what_is_data(bed: Bed, before: dict[str, Any]) -> None:
    run = bed.playbook("-e", AWAY)
    assert run.rc == 0, run.output[-6000:]
    until(lambda: bed.pods() == [], 90, "no pod of the application")
    assert (
        names(bed, "statefulsets,deployments,services,ingresses,ingressroutes.traefik.io,middlewares.traefik.io")
        == set()
    )
    assert names(bed, "networkpolicies") == set()
    assert names(bed, "deployments,networkpolicies", "keel") == set()
    assert names(bed, "daemonsets,deployments", "cert-manager") == set()
    assert "DaemonSet/fuse-device-plugin" not in names(bed, "daemonsets", "kube-system")
    assert "Role/keel-keel" not in names(bed, "roles")
    found = volumes(bed)
    assert set(KEPT) <= set(found), found
    assert found == before["volumes"]
    for _, volume in found.values():
        assert bed.get("pv", volume)["status"]["phase"] == "Bound"
    assert bed.get("configmap", "abaci-app-litefs-identity", "-n", "abaci")["data"] == before["record"]
    kept = {item["metadata"]["name"]: item.get("data") for item in bed.get("secrets", "-n", "abaci")["items"]}
    assert {name: kept[name] for name in ("app-env", "redis")} == {
        name: before["secrets"][name] for name in ("app-env", "redis")
    }


def test_absent_again_changes_nothing(bed: Bed, before: dict[str, Any]) -> None:
    again = bed.playbook("-e", AWAY)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]


def test_data_of_the_storage_role_goes_only_by_name(bed: Bed, before: dict[str, Any]) -> None:
    wrong = bed.playbook("--tags", "storage", "-e", '{"storage_state": "absent", "storage_remove_data": ["upload"]}')
    assert wrong.rc != 0 and "storage_remove_data" in wrong.output
    named = '{"storage_state": "absent", "storage_remove_data": ["vision-training-data"]}'
    run = bed.playbook("--tags", "storage", "-e", named)
    assert run.rc == 0, run.output[-4000:]
    assert "vision-training-data" not in volumes(bed) and "uploads-data" in volumes(bed)


def test_the_next_run_brings_the_data_back(bed: Bed, before: dict[str, Any]) -> None:
    run = bed.playbook()
    assert run.rc == 0, run.output[-6000:]
    for ordinal in range(3):
        until(
            lambda pod=f"abaci-app-{ordinal}": bed.rows(pod, "select count(*), sum(id) from records") == before["rows"],
            60,
            f"every row on pod {ordinal}",
        )
    found = volumes(bed)
    assert {name: found[name] for name in KEPT} == {name: before["volumes"][name] for name in KEPT}
    assert found["uploads-data"] == before["volumes"]["uploads-data"]
    assert shared_file(bed, "abaci-app-0", "cat /app/apps/web/data/uploads/picture || true") == "picture"
    assert bed.edge("POST", "/api/records", b'{"body": "after absent"}').status == 201
    again = bed.playbook()
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]


def test_a_shared_claim_that_was_deleted_by_hand_finds_its_volume_again(bed: Bed) -> None:
    bed.kubectl("delete", "pvc", "uploads-data", "-n", "abaci", "--wait=false")
    leaving = bed.playbook("--tags", "storage")
    assert leaving.rc != 0 and "being deleted" in leaving.output, leaving.output[-3000:]
    bed.kubectl("delete", "pod", "-n", "abaci", "-l", "app=abaci-app", "--wait=false")
    until(lambda: "PersistentVolumeClaim/uploads-data" not in names(bed, "pvc"), 120, "the claim is gone")
    run = bed.playbook("--tags", "storage")
    assert run.rc == 0, run.output[-3000:]
    until(
        lambda: shared_file(bed, "abaci-app-0", "cat /app/apps/web/data/uploads/picture") == "picture", 180, "the file"
    )
    healed = bed.playbook()
    assert healed.rc == 0, healed.output[-4000:]
