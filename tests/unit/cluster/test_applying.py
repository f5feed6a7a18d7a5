"""What an apply changes, what check mode can ask the API, and what it has to list as still to be created."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.action import server_side_apply
from ansible_collections.abaci.infra.plugins.module_utils import applying, kube


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


def test_what_would_be_created_is_shown_as_a_difference_of_one_line_each() -> None:
    assert applying.would_be_created(["Namespace abaci (why)", "Secret abaci/redis (why)"]) == {
        "before": "",
        "after": "Namespace abaci (why)\nSecret abaci/redis (why)\n",
        "after_header": "would be created",
    }


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


def test_a_release_stage_is_applied_as_our_manager_and_a_refused_object_is_named() -> None:
    store: Any = Store()
    before, after = applying.apply(store, manifest("ConfigMap", "new", "there"), False)
    assert before == {} and "status" not in after and "resourceVersion" not in after["metadata"]
    with pytest.raises(kube.KubeError, match="ConfigMap there/bad cannot be applied") as caught:
        applying.apply(store, manifest("ConfigMap", "bad", "there"), False)
    assert caught.value.status == 422


SAME, NEW = manifest("ConfigMap", "same", "there"), manifest("ConfigMap", "new", "there")
UNCHANGED = {"changed": False, "diff": {}, "result": {}}
CHANGED = {"changed": True, "diff": {"before": {"data": {"a": "1"}}, "after": {"data": {"a": "2"}}}, "result": {}}


def test_each_change_has_its_name_and_difference_and_the_rest_has_none() -> None:
    changes, differences = server_side_apply.lift([SAME, NEW], {"result": {"results": [UNCHANGED, CHANGED]}})
    assert changes == ["ConfigMap there/new"]
    assert differences == [
        {
            "before_header": "ConfigMap there/new",
            "after_header": "ConfigMap there/new",
            "before": {"data": {"a": "1"}},
            "after": {"data": {"a": "2"}},
        }
    ]


def test_a_single_object_has_its_result_at_the_top() -> None:
    assert server_side_apply.lift([NEW], CHANGED)[0] == ["ConfigMap there/new"]
    assert server_side_apply.lift([NEW], UNCHANGED) == ([], [])


@pytest.mark.parametrize(
    "diff",
    [
        {"before": {}, "after": {}},
        {
            "before": {"metadata": {"managedFields": [{"time": "2026-01-01T12:00:00Z"}]}},
            "after": {"metadata": {"managedFields": [{"time": "2026-01-01T12:01:00Z"}]}},
        },
        {"before": {"metadata": {"generation": 6}}, "after": {"metadata": {"generation": 7}}},
        {"before": {}, "after": {"metadata": {"resourceVersion": "7"}}},
        {"before": {"status": {"readyReplicas": 2}}, "after": {"status": {"readyReplicas": 3}}},
    ],
    ids=["nothing", "the time in managedFields", "the generation", "the version", "a status that moved meanwhile"],
)
def test_hazard_what_the_api_and_controllers_write_is_no_change_of_ours(diff: dict[str, Any]) -> None:
    """After kubectl scale the next apply has another time in managedFields, and kubernetes.core says changed."""
    assert server_side_apply.lift([NEW], {"changed": True, "diff": diff, "result": {}}) == ([], [])


def test_the_api_servers_own_sentence_is_what_the_operator_reads() -> None:
    raw = """Failed to apply object: b'{"kind":"Status","message":"ConfigMap \\"x\\" is invalid","code":422}\\n'"""
    assert server_side_apply.reason(raw) == 'The API server refuses: ConfigMap "x" is invalid'
    assert server_side_apply.reason("no route to host") == "no route to host"


class Plugin(server_side_apply.ActionModule):  # type: ignore[misc]
    """The action plugin with its modules replaced: each call is answered by the next of ``answers``."""

    def __init__(self, answers: list[dict[str, Any]], *, check: bool = False, diff: bool = False, **args: Any) -> None:
        self._task = SimpleNamespace(args=args, check_mode=check, diff=diff, async_val=0, action="x")
        self._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=""))
        self._load_name = "server_side_apply"
        self.answers = list(answers)
        self.calls: list[tuple[str, dict[str, Any], bool]] = []

    def _execute_module(self, module_name: str, module_args: dict[str, Any], **_options: Any) -> dict[str, Any]:
        self.calls.append((module_name.rpartition(".")[2], module_args, self._task.diff))
        return self.answers.pop(0)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.touch()
    return str(path)


SCOPE = {"indices": [0, 1], "would_create": [], "namespace_missing": False, "reachable": True}
REFUSED = {"failed": True, "msg": 'No. b\'{"message":"it is invalid"}\''}


@pytest.mark.parametrize("objects", [[NEW], [SAME, NEW]], ids=["one object", "several"])
def test_hazard_an_apply_that_failed_fails_the_task_with_the_apis_sentence(
    kubeconfig: str, objects: list[dict[str, Any]]
) -> None:
    plugin = Plugin([REFUSED], kubeconfig=kubeconfig, objects=objects)
    answer = plugin.run(None, {})
    assert answer["failed"] is True and answer["msg"] == "The API server refuses: it is invalid"
    assert not answer.get("changed")


def test_hazard_a_scope_that_could_not_be_asked_applies_nothing(kubeconfig: str) -> None:
    plugin = Plugin([{"failed": True, "msg": "away"}], kubeconfig=kubeconfig, objects=[NEW], namespace="there")
    answer = plugin.run(None, {})
    assert answer["failed"] is True and answer["msg"] == "away" and len(plugin.calls) == 1


def test_all_is_applied_as_our_manager_and_over_what_others_set_and_the_difference_is_shown_only_on_wish(
    kubeconfig: str,
) -> None:
    both = {"result": {"results": [UNCHANGED, CHANGED]}}
    for diff in (False, True):
        plugin = Plugin([both], diff=diff, kubeconfig=kubeconfig, objects=[SAME, NEW])
        answer = plugin.run(None, {})
        ((name, given, asked),) = plugin.calls
        assert (name, given["apply"], asked) == ("k8s", True, True) and given["resource_definition"] == [SAME, NEW]
        assert given["server_side_apply"] == {"field_manager": "abaci.infra", "force_conflicts": True}
        assert answer["changed"] is True and answer["changes"] == ["ConfigMap there/new"]
        assert ("diff" in answer) is diff is plugin._task.diff


def test_a_namespace_that_is_missing_comes_first_and_one_that_is_there_is_left_alone(kubeconfig: str) -> None:
    for missing in (True, False):
        answers = [{**SCOPE, "namespace_missing": missing}, UNCHANGED | {"result": {"results": [UNCHANGED] * 2}}]
        plugin = Plugin(answers, kubeconfig=kubeconfig, objects=[NEW], namespace="there")
        assert plugin.run(None, {})["changed"] is False
        kinds = [obj["kind"] for obj in plugin.calls[1][1]["resource_definition"]]
        assert kinds == (["Namespace", "ConfigMap"] if missing else ["ConfigMap"])


def test_a_check_run_asks_the_api_only_what_it_can_answer_and_needs_no_kubeconfig() -> None:
    scope = {**SCOPE, "indices": [1], "would_create": ["ConfigMap there/same (why)"]}
    plugin = Plugin([scope, UNCHANGED], check=True, kubeconfig="/nowhere", objects=[SAME, NEW])
    answer = plugin.run(None, {})
    assert answer["changed"] is True and answer["changes"] == ["ConfigMap there/same (why)"]
    assert plugin.calls[1][1]["resource_definition"] == [NEW]
    refused = Plugin([], kubeconfig="/nowhere", objects=[NEW]).run(None, {})
    assert refused["failed"] is True and "There is no kubeconfig /nowhere" in refused["msg"]
