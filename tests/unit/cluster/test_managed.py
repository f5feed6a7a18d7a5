"""When an object shows by itself that applying its manifest again would do nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import managed

Object = dict[str, Any]

MANIFEST: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "redis", "namespace": "abaci", "labels": {"app": "redis"}},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "nodeSelector": {"disk": "fast"},
                "containers": [
                    {
                        "name": "redis",
                        "command": ["redis-server", "/config"],
                        "ports": [{"containerPort": 6379, "name": "redis"}],
                        "emptyDir": {},
                    }
                ],
            }
        },
    },
}
PORT = 'k:{"containerPort":6379,"protocol":"TCP"}'
FIELDS: Object = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:nodeSelector": {},
                "f:containers": {
                    'k:{"name":"redis"}': {
                        ".": {},
                        "f:name": {},
                        "f:command": {},
                        "f:emptyDir": {},
                        "f:ports": {PORT: {".": {}, "f:containerPort": {}, "f:name": {}}},
                    }
                },
            }
        },
    },
}


def found(fields: Object = FIELDS, **entry: Any) -> Object:
    """The object as the API has it after the apply, with its defaults."""
    obj = copy.deepcopy(MANIFEST)
    obj["metadata"] |= {
        "uid": "1",
        "managedFields": [
            {"manager": "controller", "operation": "Update", "fieldsV1": {"f:status": {}}},
            {"manager": "us", "operation": "Update", "fieldsV1": {}},
            {"manager": "us", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": fields, **entry},
        ],
    }
    obj["spec"]["strategy"] = {"type": "Recreate"}
    pod = obj["spec"]["template"]["spec"]
    pod["containers"][0] |= {"imagePullPolicy": "Always"}
    pod["containers"][0]["ports"][0]["protocol"] = "TCP"
    pod["containers"].insert(0, {"name": "injected"})
    return obj


def pod(obj: Object) -> Object:
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


def test_defaults_and_what_others_added_to_merged_lists_are_no_change() -> None:
    assert managed.unchanged(MANIFEST, found(), "us")
    assert not managed.unchanged(MANIFEST, found(), "others")


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj["metadata"]["labels"].update(app="other"),
        lambda obj: obj["spec"].update(replicas=2),
        lambda obj: pod(obj)["nodeSelector"].update(more="x"),
        lambda obj: pod(obj)["containers"][1]["command"].append("--more"),
        lambda obj: pod(obj)["containers"][1]["emptyDir"].update(medium="Memory"),
        lambda obj: pod(obj)["containers"].pop(),
        lambda obj: pod(obj)["containers"][1]["ports"].clear(),
    ],
)
def test_hazard_what_was_changed_by_hand_is_seen(change: Any) -> None:
    obj = found()
    change(obj)
    assert not managed.unchanged(MANIFEST, obj, "us")


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj["metadata"].pop("labels"),
        lambda obj: obj["metadata"]["labels"].update(more="x"),
        lambda obj: obj["spec"].pop("replicas"),
        lambda obj: pod(obj)["nodeSelector"].clear(),
        lambda obj: pod(obj).pop("nodeSelector"),
        lambda obj: pod(obj)["containers"].append({"name": "second"}),
        lambda obj: pod(obj)["containers"].clear(),
        lambda obj: pod(obj)["containers"][0].pop("ports"),
        lambda obj: obj.update(apiVersion="apps/v1beta1"),
    ],
)
def test_hazard_another_manifest_than_the_last_is_seen(change: Any) -> None:
    manifest = copy.deepcopy(MANIFEST)
    change(manifest)
    assert not managed.unchanged(manifest, found(), "us")


def test_hazard_a_field_that_another_took_over_is_seen_even_with_our_value() -> None:
    fields = copy.deepcopy(FIELDS)
    del fields["f:spec"]["f:replicas"]
    assert not managed.unchanged(MANIFEST, found(fields), "us")


def test_an_object_that_shows_nothing_is_asked_about() -> None:
    assert not managed.unchanged(MANIFEST, found(subresource="status"), "us")
    assert not managed.unchanged(MANIFEST, {"metadata": {}}, "us")


def test_sets_and_order() -> None:
    manifest = {"apiVersion": "v1", "metadata": {"name": "x", "finalizers": ["a", "b"]}}
    fields: dict[str, Any] = {"f:metadata": {"f:finalizers": {'v:"a"': {}, 'v:"b"': {}}}}
    entry = {"manager": "us", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields}
    for finalizers, same in ((["a", "b"], True), (["a", "c", "b"], True), (["b", "a"], False), (["a"], False)):
        obj = {"metadata": {"finalizers": finalizers, "managedFields": [entry]}}
        assert managed.unchanged(manifest, obj, "us") is same


def test_claim_templates_may_be_completed_since_nobody_can_change_them() -> None:
    manifest = {"apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"volumeClaimTemplates": [{"a": {"b": 1}}]}}
    entry = {
        "manager": "us",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsV1": {"f:spec": {"f:volumeClaimTemplates": {}}},
    }
    obj = {"metadata": {"managedFields": [entry]}, "spec": {"volumeClaimTemplates": [{"a": {"b": 1, "c": 2}, "d": 3}]}}
    assert managed.unchanged(manifest, obj, "us")
    obj["spec"]["volumeClaimTemplates"][0]["a"]["b"] = 2  # type: ignore[index]
    assert not managed.unchanged(manifest, obj, "us")


@pytest.mark.parametrize(
    ("wanted", "has", "same"),
    [
        ([{"kind": "ServiceAccount", "apiGroup": ""}], [{"kind": "ServiceAccount"}], True),
        ({"fieldPath": "a"}, {"fieldPath": "a", "apiVersion": "v1"}, True),
        ({"fieldPath": "a"}, {"fieldPath": "a", "apiVersion": "v2"}, False),
        (
            [{"operations": ["CREATE"], "resources": ["*"]}],
            [{"operations": ["CREATE"], "resources": ["*"], "scope": "*"}],
            True,
        ),
        ([{"podSelector": {}}], [{}], False),
        ([{"ports": [1]}], [{"ports": [1], "from": []}], False),
    ],
)
def test_what_the_api_fills_in_inside_values_that_are_replaced_as_a_whole(wanted: Any, has: Any, same: bool) -> None:
    entry = {
        "manager": "us",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsV1": {"f:data": {}, "f:spec": {"f:x": {}}},
    }
    manifest = {"apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"x": wanted}, "data": None}
    assert managed.unchanged(manifest, {"metadata": {"managedFields": [entry]}, "spec": {"x": has}}, "us") is same
