"""What check mode can ask the API, and what it has to list as still to be created."""

from __future__ import annotations

from typing import Any

from ansible_collections.abaci.infra.plugins.modules import dry_run_scope


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
    possible, others = dry_run_scope.scope(cluster, OBJECTS, "")
    assert possible == [0, 3, 4]
    assert others == [
        "Secret abaci/redis (namespace abaci does not exist yet)",
        "Middleware abaci/hsts (the API does not know v1 Middleware yet)",
    ]
    assert cluster.asked == 2


def test_without_an_api_everything_would_be_created() -> None:
    possible, others = dry_run_scope.scope(None, OBJECTS[:2], "no API answers yet")
    assert possible == []
    assert others == ["Namespace abaci (no API answers yet)", "Secret abaci/redis (no API answers yet)"]


def test_no_value_of_an_object_is_in_the_answer() -> None:
    secret = {**OBJECTS[1], "stringData": {"password": "geheim"}}
    assert "geheim" not in repr(dry_run_scope.scope(None, [secret], "why"))
