"""Applying a list of manifests: what is asked, what is written, in which order, and what check mode says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import applying, kube, waiting
from ansible_collections.abaci.infra.plugins.modules import server_side_apply

Object = dict[str, Any]
HELM = {"meta.helm.sh/release-name": "cm", "meta.helm.sh/release-namespace": "infra"}


def manifest(kind: str, name: str, namespace: str | None = None, **more: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


class Store:
    """Keeps what is applied, with managedFields of it; CRDs are served from the `slow`-th look on."""

    def __init__(self, *objects: Object, kinds: set[str] | None = None, slow: int = 0) -> None:
        self.kinds = kinds or {"Namespace", "ConfigMap", "Secret", "Deployment", applying.DEFINITION, "ClusterIssuer"}
        self.stored = {applying.label(obj): obj for obj in objects}
        self.slow, self.asked, self.written, self.refusals = slow, [], [], []  # type: ignore[var-annotated]

    def get(self, _version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        self._ask("GET", kind)
        found = self.stored.get(applying.label(manifest(kind, name, namespace)))
        if kind == applying.DEFINITION and found:
            self.slow -= 1
            status = "True" if self.slow < 0 else "False"
            return {**found, "status": {"conditions": [{"type": "Established", "status": status}]}}
        return copy.deepcopy(found)

    def list(self, _version: str, kind: str, namespace: str | None = None) -> list[Object]:
        self._ask("LIST", kind)
        return [
            copy.deepcopy(obj)
            for obj in self.stored.values()
            if obj["kind"] == kind and namespace in (None, obj["metadata"].get("namespace"))
        ]

    def apply(self, obj: Object, manager: str, *, force: bool, dry_run: bool) -> Object:
        assert (manager, force) == ("abaci.infra", True)
        if self.refusals:
            raise self.refusals.pop(0)
        self.written.append(("dry run" if dry_run else "apply", applying.label(obj)))
        entry = {"manager": manager, "operation": "Apply", "apiVersion": obj["apiVersion"], "fieldsV1": fields(obj)}
        metadata = {**obj["metadata"], "resourceVersion": "2", "managedFields": [entry], "uid": "1"}
        made = {**copy.deepcopy(obj), "metadata": metadata, "status": {"now": 1}}
        if not dry_run:
            self.stored[applying.label(obj)] = made
        return made

    def delete(
        self, _version: str, kind: str, name: str, namespace: str | None = None, *, propagation_policy: str
    ) -> bool:
        label = applying.label(manifest(kind, name, namespace))
        self.written.append((f"delete, {propagation_policy}", label))
        return self.stored.pop(label, None) is not None

    def _ask(self, what: str, kind: str) -> None:
        self.asked.append((what, kind))
        if kind not in self.kinds:
            raise kube.KubeError(f"The API does not know {kind}.", 404, unknown_kind=True)


def fields(obj: Object) -> Object:
    """fieldsV1 of a manifest whose lists are replaced as a whole."""

    def walk(value: Any) -> Object:
        return {f"f:{key}": walk(part) for key, part in value.items()} if isinstance(value, dict) else {}

    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("name", "namespace")}
    return walk(body | ({"metadata": metadata} if metadata else {}))


def run(
    store: Store | None,
    objects: list[Object],
    absent: list[Object] | None = None,
    check: bool = False,
    timeout: int = 0,
) -> applying.Apply:
    job = applying.Apply(store, check, timeout)  # type: ignore[arg-type]
    job.run(objects, absent or [])
    return job


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "POLL", 0)
    monkeypatch.setattr(waiting, "POLL", 0)


NAMES = [manifest("ConfigMap", name, "there", data={"a": "1"}) for name in ("one", "two", "three")]


def test_once_applied_one_request_for_each_kind_and_namespace_is_all() -> None:
    store = Store(manifest("Namespace", "there"))
    objects = [*NAMES, manifest("Secret", "s", "there", data={"k": "dg=="})]
    assert run(store, objects).changes == [applying.label(obj) for obj in objects]
    store.asked.clear()
    store.written.clear()
    again = run(store, objects)
    assert again.changes == again.differences == store.written == []
    assert sorted(store.asked) == [("GET", "Secret"), ("LIST", "ConfigMap")]


def test_a_kind_in_several_namespaces_is_listed_once_unless_such_a_list_is_large() -> None:
    store = Store(manifest("Namespace", "a"), manifest("Namespace", "b"), kinds={"Namespace", "Role", "ConfigMap"})
    objects = [manifest(kind, "same", namespace) for kind in ("Role", "ConfigMap") for namespace in ("a", "b")]
    run(store, objects)
    store.stored["Role b/same"]["rules"] = [{"verbs": ["get"]}]
    store.asked.clear()
    store.written.clear()
    assert run(store, [*objects, manifest("Role", "new", "a")]).changes == ["Role b/same", "Role a/new"]
    assert sorted(store.asked) == [("GET", "ConfigMap"), ("GET", "ConfigMap"), ("LIST", "Role")]


@pytest.mark.parametrize("check", [False, True])
def test_a_namespace_is_asked_for_only_where_nothing_is_found_in_it(check: bool) -> None:
    store = Store()
    job = applying.Apply(store, check)  # type: ignore[arg-type]
    job.run(NAMES, [], namespace="there")
    assert [label.partition(" (")[0] for label in job.changes] == [
        "Namespace there",
        *(applying.label(obj) for obj in NAMES),
    ]
    assert store.asked.count(("GET", "Namespace")) == 1


def test_hazard_what_was_changed_by_hand_is_put_right_and_nothing_else() -> None:
    store = Store()
    run(store, NAMES)
    store.stored["ConfigMap there/two"]["data"]["a"] = "2"
    store.written.clear()
    job = run(store, NAMES)
    assert job.changes == ["ConfigMap there/two"] and store.written == [("apply", "ConfigMap there/two")]
    (shown,) = job.differences
    assert (shown["before"]["data"], shown["after"]["data"]) == ({"a": "2"}, {"a": "1"})
    assert "status" not in shown["after"] and "managedFields" not in shown["after"]["metadata"]


def test_hazard_taking_over_a_field_of_the_same_value_is_no_change() -> None:
    store = Store()
    run(store, NAMES)
    store.stored["ConfigMap there/two"]["metadata"]["managedFields"] = []
    assert run(store, NAMES).changes == []


def test_check_mode_asks_by_dry_runs_and_stores_nothing() -> None:
    store = Store(manifest("Namespace", "there"))
    job = run(store, NAMES, check=True)
    assert job.changes == [applying.label(obj) for obj in NAMES]
    assert {what for what, _label in store.written} == {"dry run"} and len(store.stored) == 1


def test_check_mode_names_what_the_run_itself_would_first_make_possible() -> None:
    store = Store(manifest("Namespace", "there"), kinds={"Namespace", "ConfigMap"})
    objects = [
        manifest("Namespace", "abaci"),
        manifest("ConfigMap", "c", "abaci"),
        manifest("Middleware", "hsts", "there"),
        NAMES[0],
    ]
    job = run(store, objects, check=True)
    assert job.changes == [
        "Namespace abaci",
        "ConfigMap abaci/c (namespace abaci does not exist yet)",
        "Middleware there/hsts (the API does not know v1 Middleware yet)",
        "ConfigMap there/one",
    ]
    assert store.written == [("dry run", "Namespace abaci"), ("dry run", "ConfigMap there/one")]
    assert job.differences[0] == {
        "before": "",
        "after": "".join(f"{line}\n" for line in job.changes[1:3]),
        "after_header": "would be created",
    }


def test_check_mode_without_an_api_names_everything_and_no_value() -> None:
    job = run(None, [manifest("Secret", "s", "there", stringData={"password": "geheim"})], check=True)
    assert job.changes == ["Secret there/s (no API answers yet)"]
    assert "geheim" not in repr(job.differences)


def test_kinds_are_served_before_their_objects_are_applied() -> None:
    store = Store(slow=3)
    job = run(store, [manifest(applying.DEFINITION, "c"), manifest("ClusterIssuer", "i")])
    assert [label for _what, label in store.written] == [f"{applying.DEFINITION} c", "ClusterIssuer i"]
    assert store.slow < 0
    assert job.differences[0]["after"] == "the schema of this version\n"


def test_bad_input_a_kind_that_is_never_served_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.time, "monotonic", iter(range(0, 10**6, 40)).__next__)
    with pytest.raises(kube.KubeError, match="does not serve c"):
        run(Store(slow=10**9), [manifest(applying.DEFINITION, "c"), manifest("ClusterIssuer", "i")])


def test_a_webhook_that_comes_up_is_waited_for_and_a_refusal_is_not() -> None:
    store = Store()
    store.refusals = [kube.KubeError("failed calling webhook: connection refused", 500)] * 2
    assert run(store, [manifest("ClusterIssuer", "i")], timeout=10).changes == ["ClusterIssuer i"]
    store.refusals = [kube.KubeError("denied the request: spec.acme.email: Invalid value", 400)] * 9
    with pytest.raises(kube.KubeError, match=r"ClusterIssuer j cannot be applied.*spec\.acme\.email"):
        run(store, [manifest("ClusterIssuer", "j")], timeout=10)
    assert len(store.refusals) == 8


def test_what_is_not_wanted_is_removed_first_and_only_where_it_is() -> None:
    store = Store(NAMES[0], manifest("Namespace", "there"))
    absent = [*NAMES[:2], manifest("Middleware", "unknown kind", "there")]
    assert run(store, [NAMES[2]], absent, check=True).changes == ["ConfigMap there/one", "ConfigMap there/three"]
    assert store.written == [("dry run", "ConfigMap there/three")]
    assert run(store, [NAMES[2]], absent, timeout=1).changes == ["ConfigMap there/one", "ConfigMap there/three"]
    # What is waited for goes after what it owns: a StatefulSet after its pods.
    assert store.written[1:] == [("delete, Foreground", "ConfigMap there/one"), ("apply", "ConfigMap there/three")]
    assert run(store, [NAMES[2]], absent).changes == []


def test_bad_input_what_helm_installed_is_not_taken_over() -> None:
    workload = manifest("Deployment", "cm", "there")
    theirs = {**workload, "metadata": {**workload["metadata"], "annotations": HELM}}
    store = Store(theirs)
    with pytest.raises(kube.KubeError, match="release cm in namespace infra"):
        run(store, [NAMES[0], workload])
    assert store.written == []


@pytest.mark.parametrize(
    ("now", "asked", "refused"),
    [
        (None, "2Gi", False),
        ("1Gi", "1Gi", False),
        ("1Gi", "1024Mi", False),
        ("1Gi", "2Gi", True),
        ("2Gi", "1Gi", True),
    ],
    ids=["no claim", "the same", "the same in other words", "more", "less"],
)
def test_a_claim_of_another_size_is_refused_before_anything_is_written(
    now: str | None, asked: str, refused: bool
) -> None:
    def claim(size: str) -> Object:
        spec = {"resources": {"requests": {"storage": size}}}
        return manifest("PersistentVolumeClaim", "redis-data", "abaci", spec=spec)

    store = Store(*([claim(now)] if now else []), kinds={"Namespace", "ConfigMap", "PersistentVolumeClaim"})
    job = applying.Apply(store, False)
    objects = [manifest("ConfigMap", "redis", "abaci"), claim(asked)]
    if not refused:
        server_side_apply.check_sizes(job, objects, "redis_storage_size")
        return
    with pytest.raises(kube.KubeError) as said:
        server_side_apply.check_sizes(job, objects, "redis_storage_size")
    assert f"redis_storage_size is {asked}" in str(said.value) and f"back to {now}" in str(said.value)
    assert store.written == []


def test_workloads_whose_pods_change_are_named() -> None:
    store = Store()
    old = manifest("Deployment", "d", "there", spec={"replicas": 1, "template": {"spec": {"x": 1}}})
    assert run(store, [old]).restarts == []
    scaled = manifest("Deployment", "d", "there", spec={"replicas": 2, "template": {"spec": {"x": 1}}})
    assert run(store, [scaled], check=True).restarts == []
    changed = manifest("Deployment", "d", "there", spec={"replicas": 1, "template": {"spec": {"x": 2}}})
    assert run(store, [changed], check=True).restarts == ["Deployment there/d"]


def test_what_is_no_text_is_shown_by_its_digest() -> None:
    store = Store()
    program = manifest("ConfigMap", "program", "there", binaryData={"a.pyz": "UEsDBA=="}, data={"a": "1"})
    first = run(store, [program]).differences
    second = run(store, [{**program, "binaryData": {"a.pyz": "UEsDBB=="}}]).differences
    shown = [second[0][side]["binaryData"]["a.pyz"] for side in ("before", "after")]
    assert "UEsDB" not in repr([first, second]) and shown[0] != shown[1] and shown[0].startswith("sha256 ")
    assert store.stored["ConfigMap there/program"]["binaryData"] == {"a.pyz": "UEsDBB=="}
