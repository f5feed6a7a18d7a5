"""The manifests of the role storage. NFS is checked here alone, because no machine that ran these tests has it."""

from __future__ import annotations

from typing import Any

import pytest
from evaluating import errors, evaluate
from rendering import check_schema

Object = dict[str, Any]
PATHS = {"vision-training-data": "/export/vision", "uploads-data": "/export/uploads"}
NFS: Object = {"storage_state": "present", "storage_nfs_server": "192.0.2.7", "storage_paths": PATHS}
HOST: Object = {"storage_state": "present", "storage_kind": "host_path", "storage_paths": PATHS}
CLASS: Object = {"storage_state": "present", "storage_kind": "class", "storage_class": "shared"}


def objects(variables: Object) -> dict[tuple[str, str], Object]:
    return {
        (item["kind"], item["metadata"]["name"]): item for item in evaluate("storage", "__storage_objects", **variables)
    }


@pytest.mark.parametrize("variables", [NFS, HOST, CLASS, NFS | {"storage_nfs_mount_options": ["nfsvers=4.1", "hard"]}])
def test_manifests_are_valid(variables: Object) -> None:
    assert errors("storage", **variables) == []
    for item in objects(variables).values():
        check_schema(item)
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "abaci.infra"


@pytest.mark.parametrize("variables", [NFS, HOST], ids=["nfs", "host_path"])
@pytest.mark.parametrize(
    ("claim", "volume", "size", "app"),
    [
        ("vision-training-data", "vision-training-pv", "50Gi", "abaci-vision"),
        ("uploads-data", "uploads-pv", "10Gi", "abaci-uploads"),
    ],
)
def test_names_sizes_class_and_labels_are_the_contracts(
    variables: Object, claim: str, volume: str, size: str, app: str
) -> None:
    made = objects(variables)
    wanted, found = made["PersistentVolumeClaim", claim], made["PersistentVolume", volume]
    assert wanted["metadata"]["namespace"] == "abaci"
    assert wanted["spec"]["accessModes"] == found["spec"]["accessModes"] == ["ReadWriteMany"]
    assert wanted["spec"]["resources"]["requests"]["storage"] == found["spec"]["capacity"]["storage"] == size
    assert wanted["spec"]["storageClassName"] == found["spec"]["storageClassName"] == "nfs"
    labels = {"type": "nfs", "app": app}
    assert wanted["spec"]["selector"]["matchLabels"] == labels
    assert labels.items() <= found["metadata"]["labels"].items()
    assert found["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert (found["spec"]["claimRef"]["namespace"], found["spec"]["claimRef"]["name"]) == ("abaci", claim)


def test_where_the_files_are() -> None:
    assert objects(NFS)["PersistentVolume", "uploads-pv"]["spec"]["nfs"] == {
        "server": "192.0.2.7",
        "path": "/export/uploads",
    }
    host = objects(HOST)["PersistentVolume", "uploads-pv"]["spec"]["hostPath"]
    assert host == {"path": "/export/uploads", "type": "DirectoryOrCreate"}


def test_a_storage_class_makes_its_own_volumes() -> None:
    made = objects(CLASS)
    assert {kind for kind, _ in made} == {"PersistentVolumeClaim"}
    assert all("selector" not in item["spec"] for item in made.values())
    assert {item["spec"]["storageClassName"] for item in made.values()} == {"shared"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (NFS | {"storage_nfs_server": ""}, "storage_nfs_server"),
        (NFS | {"storage_paths": {"uploads-data": "/x"}}, "no path for vision-training-data"),
        (HOST | {"storage_paths": PATHS | {"uploads-data": "x"}}, "do not begin with /"),
        (HOST | {"storage_paths": PATHS | {"upload": "/x"}}, "names upload"),
        (CLASS | {"storage_class": ""}, "storage_class"),
        (NFS | {"storage_remove_data": ["uploads-data"]}, "belongs to storage_state absent"),
        ({"storage_state": "absent", "storage_remove_data": ["upload"]}, "names upload"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: Object, words: str) -> None:
    (sentence,) = errors("storage", **variables)
    assert words in sentence


def test_unmanaged_it_asks_for_nothing() -> None:
    assert errors("storage") == []
    assert errors("storage", storage_class="") == []


def test_absent_names_what_goes_and_nothing_else() -> None:
    variables = NFS | {"storage_state": "absent", "storage_remove_data": ["uploads-data"]}
    named = evaluate("storage", "__storage_named", **variables)
    assert [(item["kind"], item["metadata"]["name"]) for item in named] == [
        ("PersistentVolume", "uploads-pv"),
        ("PersistentVolumeClaim", "uploads-data"),
    ]


def claim(name: str, storage_class: str = "nfs", phase: str = "Bound", **metadata: Any) -> Object:
    spec = {"storageClassName": storage_class} if storage_class else {}
    kind = "PersistentVolumeClaim"
    return {"kind": kind, "metadata": {"name": name, **metadata}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ([], None),
        ([claim("uploads-data"), {}], None),
        ([claim("uploads-data", "local-path")], "another class"),
        ([claim("uploads-data", deletionTimestamp="2026-01-01T00:00:00Z")], "being deleted"),
    ],
)
def test_what_the_api_lets_nobody_change_is_refused_in_a_sentence(claims: list[Object], words: str | None) -> None:
    found = evaluate("storage", "__storage_plan", **NFS, __storage_found={"objects": claims})["errors"]
    assert (words in found[0]) if words else found == []


def test_a_volume_whose_claim_was_deleted_is_freed_unless_it_is_anothers() -> None:
    def volume(name: str, phase: str, namespace: str = "abaci", of: str = "uploads-data") -> Object:
        reference = {"namespace": namespace, "name": of}
        metadata, kind = {"name": name}, "PersistentVolume"
        return {"kind": kind, "metadata": metadata, "spec": {"claimRef": reference}, "status": {"phase": phase}}

    known = [volume("uploads-pv", "Released"), volume("vision-training-pv", "Released", "elsewhere")]
    known += [volume("strange-pv", "Released", of="scratch"), {}]
    plan = evaluate("storage", "__storage_plan", **NFS, __storage_found={"objects": known})
    assert plan["released"] == ["uploads-pv"]
    bound = [volume("uploads-pv", "Bound")]
    assert evaluate("storage", "__storage_plan", **NFS, __storage_found={"objects": bound})["released"] == []
