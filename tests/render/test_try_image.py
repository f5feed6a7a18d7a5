"""What roles/try_image runs an image as: the application's pod without LiteFS, and nothing of the site in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import image_try, state
from rendering import Object, check_schema, run_role
from test_status import play

IMAGE = "ghcr.io/me/app:5"


# As before the first run of site.yml, where nothing speaks against a user namespace.
STATE = {"__try_image_info": {"state": state.empty("abaci", "abaci-app", "sqlite.db", "litefs-data", "there is none")}}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "device-plugin": {"app_user_namespace": False},
    "privileged": {"app_privileged": True},
    "bare": {"app_migrate_command": "", "app_use_redis": False, "app_listen_address": ""},
    "full": {
        "app_user_namespace": True,
        "app_env": {"PRICE": "$(HOME) $5", "NUMBER": 5},
        "try_image_env": {"REDIS_URL": "redis://elsewhere:6379"},
        "app_scratch_paths": ["/app/.next/cache"],
        "app_volumes": [{"name": "uploads", "persistentVolumeClaim": {"claimName": "uploads"}}],
        "app_volume_mounts": [{"name": "uploads", "mountPath": "/app/data"}],
        "app_node_selector": {"disk": "ssd"},
        "app_tolerations": [{"key": "web", "operator": "Exists"}],
        "app_extra_hosts": {"192.0.2.5": ["nas"]},
        "app_database_url_prefix": "file:",
    },
}


@pytest.fixture(scope="module")
def pods() -> dict[str, Object]:
    variants = {name: {"app_domain": "abaci.example.com", **STATE, **values} for name, values in VARIANTS.items()}
    parts = "{'try': __try_image_pod, 'secrets': __try_image_secrets}"
    run = run_role("try_image", ["values"], f"[{parts}]", variants)
    assert run.failures == {}
    return {name: run[name].objects[0] for name in variants}


def container(pod: Object, name: str) -> Object:
    (found,) = [
        one for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]] if one["name"] == name
    ]
    return dict(found)


def environment(one: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in one["env"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pod_is_what_kubernetes_takes(pods: dict[str, Object], variant: str) -> None:
    made = image_try.complete(pods[variant]["try"], "x", IMAGE, "node server.js", "node migrate.js", ["login"])
    check_schema(made)
    mine = {"primary", "replica", *({"migrate"} if variant != "bare" else ())}
    images = {
        one["name"]: one["image"] for one in [*made["spec"].get("initContainers", []), *made["spec"]["containers"]]
    }
    assert {name for name, image in images.items() if image == IMAGE} == mine
    volumes = {volume["name"] for volume in made["spec"]["volumes"]}
    assert {mount["name"] for name in images for mount in container(made, name).get("volumeMounts", [])} == volumes


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_of_the_site_is_in_it(pods: dict[str, Object], variant: str) -> None:
    pod = pods[variant]["try"]
    assert "app" not in pod["metadata"]["labels"], "a Service of the site would find it"
    assert {tuple(volume) for volume in pod["spec"]["volumes"]} == {("name", "emptyDir")}
    assert "abaci.svc" not in json.dumps(pod) and "serviceAccountName" not in pod["spec"]
    assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("variant", "users", "added", "dropped"),
    [
        ("default", False, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"], ["ALL"]),
        ("device-plugin", None, [], ["ALL"]),
        ("privileged", None, [], []),
    ],
)
def test_it_may_what_the_applications_pod_may_but_mount(
    pods: dict[str, Object], variant: str, users: bool | None, added: list[str], dropped: list[str]
) -> None:
    pod = pods[variant]["try"]
    assert pod["spec"].get("hostUsers") is users
    for name in ("migrate", "primary", "replica"):
        security = container(pod, name)["securityContext"]
        assert security["capabilities"] == {"add": added, "drop": dropped}
        assert (security["runAsUser"], "privileged" in security) == (0, False)


def test_only_the_first_may_write_to_the_database(pods: dict[str, Object]) -> None:
    made = image_try.complete(pods["default"]["try"], "x", IMAGE, "node server.js", "", [], "0.0.0.0")
    first, second = (container(made, name) for name in ("primary", "replica"))
    assert first["volumeMounts"] == [{"name": "data", "mountPath": "/litefs"}]
    assert {"name": "copy", "mountPath": "/litefs", "readOnly": True} in second["volumeMounts"]
    assert first["command"][-5:] == ["env", "HOSTNAME=0.0.0.0", "LITEFS_CANDIDATE=true", "node", "server.js"]
    assert second["command"][-3:] == ["LITEFS_CANDIDATE=false", "node", "server.js"]
    bare = image_try.complete(pods["bare"]["try"], "x", IMAGE, "run", "", [])
    assert container(bare, "primary")["command"][-3:] == ["env", "LITEFS_CANDIDATE=true", "run"]
    assert environment(first) == environment(second)


def test_the_environment_is_the_applications(pods: dict[str, Object]) -> None:
    said = environment(container(pods["default"]["try"], "primary"))
    assert (said["PORT"], said["KEEP_ALIVE_TIMEOUT"], said["DATABASE_URL"]) == ("3000", "95000", "/litefs/sqlite.db")
    assert (said["AUTH_URL"], said["REDIS_URL"]) == ("https://abaci.example.com", "redis://127.0.0.1:6379")
    full = environment(container(pods["full"]["try"], "primary"))
    # Here Kubernetes would put in other variables.
    assert (full["PRICE"], full["NUMBER"], full["REDIS_URL"]) == ("$$(HOME) $5", "5", "redis://elsewhere:6379")
    assert full["DATABASE_URL"] == "file:/litefs/sqlite.db"
    assert "REDIS_URL" not in environment(container(pods["bare"]["try"], "primary"))
    assert len(pods["default"]["secrets"]["AUTH_SECRET"]) > 30


def test_what_the_site_keeps_on_claims_is_empty_here(pods: dict[str, Object]) -> None:
    mounts = {one["mountPath"]: one for one in container(pods["full"]["try"], "primary")["volumeMounts"]}
    assert mounts["/app/.next/cache"] == {"name": "folders", "mountPath": "/app/.next/cache", "subPath": "folder-0"}
    assert mounts["/app/data"]["subPath"] == "folder-1"


def test_it_runs_where_the_application_may(pods: dict[str, Object]) -> None:
    spec = pods["full"]["try"]["spec"]
    assert (spec["nodeSelector"], spec["hostAliases"]) == ({"disk": "ssd"}, [{"ip": "192.0.2.5", "hostnames": ["nas"]}])
    assert spec["tolerations"] == [{"key": "web", "operator": "Exists"}]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["try_image_idle=92", "app_domain=a.example.com"], "The variable try_image_idle is not known here"),
        (["app_domain="], "app_domain '' is no domain name"),
        (["try_image_output=html", "app_domain=a.example.com"], "value of try_image_output must be one of"),
        (["app_domain=a.example.com"], "There is no kubeconfig at"),
    ],
)
def test_what_cannot_be_tried_ends_in_a_sentence(given: list[str], sentence: str, tmp_path: Path) -> None:
    code, said = play(tmp_path, *given, playbook="try_image")
    assert code == 2
    assert sentence in " ".join(said.split()), said
