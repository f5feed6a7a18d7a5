"""What an apply changes, what check mode can ask the API, and what it has to list as still to be created."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import applying, kube
from ansible_collections.abaci.infra.plugins.modules import server_side_apply


class Cluster:
    def __init__(self, kinds: set[str], namespaces: set[str]) -> None:
        self.kinds, self.namespaces, self.asked = kinds, namespaces, 0

    def knows(self, _api_version: str, kind: str) -> bool:
        return kind in self.kinds

    def get(self, _api_version: str, _kind: str, name: str) -> dict[str, Any] | None:
        self.asked += 1
        return {} if name in self.namespaces else None


def manifest(kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


OBJECTS = [
    manifest("Namespace", "abaci"),
    manifest("Secret", "redis", "abaci"),
    manifest("Middleware", "hsts", "abaci"),
    manifest("ConfigMap", "c", "there"),
    manifest("Secret", "s", "there"),
]


def test_on_a_living_cluster_only_what_the_run_itself_makes_possible_is_left_out() -> None:
    cluster: Any = Cluster({"Namespace", "Secret", "ConfigMap"}, {"there"})
    possible, others = applying.scope(cluster, OBJECTS, "")
    assert possible == [0, 3, 4]
    assert others == [
        "Secret abaci/redis (namespace abaci does not exist yet)",
        "Middleware abaci/hsts (the API does not know v1 Middleware yet)",
    ]
    assert cluster.asked == 2


def test_without_an_api_everything_would_be_created() -> None:
    possible, others = applying.scope(None, OBJECTS[:2], "no API answers yet")
    assert possible == []
    assert others == ["Namespace abaci (no API answers yet)", "Secret abaci/redis (no API answers yet)"]


def test_no_value_of_an_object_is_in_the_answer() -> None:
    secret = {**OBJECTS[1], "stringData": {"password": "geheim"}}
    assert "geheim" not in repr(applying.scope(None, [secret], "why"))


class Store(Cluster):
    """Keeps what is applied; `stored` holds the objects by label."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        super().__init__({"Namespace", "ConfigMap"}, {"there"})
        self.stored = {applying.label(obj): obj for obj in objects}
        self.applied: list[tuple[str, bool]] = []

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        if kind == "Namespace":
            return super().get(api_version, kind, name)
        return self.stored.get(f"{kind} {namespace}/{name}")

    def apply(self, obj: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> dict[str, Any]:
        assert (manager, force) == ("abaci.infra", True)
        if obj["metadata"]["name"] == "bad":
            raise kube.KubeError("The API server answered 422.", 422)
        self.applied.append((applying.label(obj), dry_run))
        volatile = {"resourceVersion": "2", "generation": 7, "managedFields": [{}]}
        return {**obj, "metadata": {**obj["metadata"], **volatile}, "status": {"now": 1}}


def run(cluster: Any, objects: list[dict[str, Any]], namespace: str = "", check: bool = False) -> tuple[list[str], Any]:
    changes: list[str]
    changes, differences = server_side_apply.run(cluster, objects, namespace, check)
    return changes, differences


SAME, NEW = manifest("ConfigMap", "same", "there"), manifest("ConfigMap", "new", "there")
OLDER = {**SAME, "metadata": {**SAME["metadata"], "resourceVersion": "1", "uid": "u"}, "status": {"now": 0}}


def test_what_the_api_and_controllers_write_is_no_change() -> None:
    assert run(Store(OLDER), [SAME]) == ([], [])


def test_each_change_has_its_name_and_difference_and_the_rest_has_none() -> None:
    store = Store(OLDER, {**NEW, "data": {"a": "1"}})
    changes, differences = run(store, [SAME, {**NEW, "data": {"a": "2"}}])
    assert changes == ["ConfigMap there/new"]
    assert [d["after_header"] for d in differences] == ["ConfigMap there/new"]
    assert "a: '1'" in differences[0]["before"] and "a: '2'" in differences[0]["after"]
    assert "status" not in differences[0]["after"] and "resourceVersion" not in differences[0]["after"]


def test_a_missing_namespace_comes_first_and_one_that_exists_is_left_alone() -> None:
    store = Store()
    assert run(store, [NEW], "abaci")[0] == ["Namespace abaci", "ConfigMap there/new"]
    store = Store()
    assert run(store, [NEW], "there")[0] == ["ConfigMap there/new"]
    assert store.applied == [("ConfigMap there/new", False)]


def test_check_mode_stores_nothing_and_names_what_the_real_run_does() -> None:
    store = Store(OLDER)
    objects = [SAME, NEW, manifest("ConfigMap", "c", "abaci")]
    changes, differences = run(store, objects, "abaci", check=True)
    assert changes == [
        "ConfigMap abaci/c (namespace abaci does not exist yet)",
        "Namespace abaci",
        "ConfigMap there/new",
    ]
    assert all(dry_run for _, dry_run in store.applied)
    assert differences[0]["after_header"] == "would be created"
    real = Store(OLDER)
    assert {line.split(" (")[0] for line in changes} == set(run(real, objects, "abaci")[0])
    assert not any(dry_run for _, dry_run in real.applied)


def test_check_mode_without_an_api_names_all() -> None:
    changes, _ = run(None, [NEW], "abaci", check=True)
    assert changes == ["Namespace abaci (no API answers yet)", "ConfigMap there/new (no API answers yet)"]


def test_a_refused_object_is_named() -> None:
    with pytest.raises(kube.KubeError, match="ConfigMap there/bad cannot be applied") as caught:
        run(Store(), [manifest("ConfigMap", "bad", "there")])
    assert caught.value.status == 422
