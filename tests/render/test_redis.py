"""The manifests of the role redis."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluating import errors, evaluate
from rendering import ROOT, Rendered, check_across, check_schema

Object = dict[str, Any]


def manifests(password: str = "geheim", **variables: Any) -> dict[str, Object]:
    settled = {"password": password, "checksum-key": variables.pop("key", "a-key")}
    variables = {"__redis_found": {"objects": [{}, {}, {}]}, **variables}
    objects = [
        evaluate("redis", "__redis_secret", __redis_settled=settled, **variables),
        evaluate("redis", "__redis_claim", **variables),
        *evaluate("redis", "__redis_objects", __redis_settled=settled, **variables),
    ]
    return {obj["kind"]: obj for obj in objects}


def container(objects: dict[str, Object]) -> Object:
    (found,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


VARIANTS: list[Object] = [
    {},
    {"password": ""},
    {
        "redis_namespace": "other",
        "redis_image": "registry.example/redis:7",
        "redis_storage_size": "2Gi",
        "redis_storage_class": "fast",
        "redis_maxmemory": "1gb",
        "redis_appendfsync": "always",
        "redis_resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}},
    },
]


@pytest.mark.parametrize("variant", VARIANTS, ids=["default", "no password", "alternative"])
def test_manifests_are_valid_and_agree(variant: Object) -> None:
    objects = manifests(**variant)
    for obj in objects.values():
        check_schema(obj)
        assert obj["metadata"]["namespace"] == variant.get("redis_namespace", "abaci")
    check_across(Rendered(list(objects.values())))
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"]["app"] != "abaci-app"
    assert objects["PersistentVolumeClaim"]["metadata"]["name"] == "redis-data"


def test_the_names_ports_and_sizes_are_the_contracts() -> None:
    objects = manifests()
    assert {objects[kind]["metadata"]["name"] for kind in ("Deployment", "Service", "Secret", "ConfigMap")} == {"redis"}
    assert objects["Service"]["spec"]["ports"][0]["port"] == 6379
    assert objects["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert container(objects)["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    }


def test_the_image_is_pulled_as_the_server_would_pull_it() -> None:
    tasks = yaml.safe_load((ROOT / "roles/redis/tasks/present.yml").read_text())
    (check,) = (task["abaci.infra.image_pull_check"] for task in tasks if "abaci.infra.image_pull_check" in task)
    assert check["kept"] is (container(manifests())["imagePullPolicy"] == "IfNotPresent")


def claimed(size: str = "1Gi", cls: str | None = "local-path") -> Object:
    spec: Object = {"resources": {"requests": {"storage": size}}} | ({"storageClassName": cls} if cls else {})
    place = {"name": "redis-data", "namespace": "abaci"}
    return {"__redis_found": {"objects": [{}, {}, {"kind": "PersistentVolumeClaim", "metadata": place, "spec": spec}]}}


@pytest.mark.parametrize(
    ("living", "asked", "cls"),
    [(claimed(), "longhorn", "local-path"), (claimed(cls=None), "longhorn", "longhorn"), ({}, "longhorn", "longhorn")],
    ids=["a claim keeps its own", "it has none", "no claim"],
)
def test_a_claim_that_exists_keeps_its_class(living: Object, asked: str, cls: str) -> None:
    claim = manifests(**living, redis_storage_class=asked)["PersistentVolumeClaim"]
    assert claim["spec"]["storageClassName"] == cls


def test_another_size_than_the_claims_stops_the_run_before_anything_changes() -> None:
    tasks = yaml.safe_load((ROOT / "roles/redis/tasks/present.yml").read_text())
    written = [task["abaci.infra.server_side_apply"] for task in tasks if "abaci.infra.server_side_apply" in task]
    assert (written[0]["objects"], written[0]["size_variable"]) == (["{{ __redis_claim }}"], "redis_storage_size")


def test_two_servers_never_share_the_append_only_file() -> None:
    assert manifests()["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_pod_may_do_nothing_but_serve() -> None:
    objects = manifests()
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (999, True)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_password_stands_in_the_secret_alone() -> None:
    objects = manifests("geheim")
    secret = {key: base64.b64decode(value).decode() for key, value in objects.pop("Secret")["data"].items()}
    assert secret["password"] == "geheim"
    digest = hashlib.sha256(b"geheim").hexdigest()
    assert secret["users.acl"] == f"user default on #{digest} ~* &* +@all -@admin\n"
    rest = repr(objects)
    assert "geheim" not in rest and digest not in rest and "Z2VoZWlt" not in rest


def test_without_a_password_every_client_may_come_but_none_administers() -> None:
    acl = base64.b64decode(manifests("")["Secret"]["data"]["users.acl"]).decode()
    assert acl == "user default on nopass ~* &* +@all -@admin\n"


def test_the_pod_restarts_when_its_configuration_or_password_changes_and_only_then() -> None:
    def checksum(password: str = "a", **variables: Any) -> str:
        template = manifests(password, **variables)["Deployment"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["abaci.infra/config-checksum"])

    assert checksum() == checksum(redis_storage_size="2Gi")
    # Whoever may read pods could try out weak passwords on a plain hash.
    assert checksum(key="other") != checksum()
    assert len({checksum(), checksum("b"), checksum(redis_maxmemory="1mb"), checksum("")}) == 4


@pytest.mark.parametrize(
    ("said", "ready", "alive"),
    [
        ("PONG", True, True),
        ("LOADING Redis is loading the dataset in memory", False, True),
        ("BUSY Redis is busy running a script.", False, True),
        ("NOAUTH Authentication required.", False, False),
        ("MISCONF Redis is configured to save RDB snapshots", False, False),
        ("Could not connect to Redis at 127.0.0.1:6379: Connection refused", False, False),
        ("", False, False),
    ],
)
@pytest.mark.parametrize("password", ["geheim", ""])
def test_redis_cli_ends_with_0_whatever_it_says_so_the_probes_compare(
    tmp_path: Path, password: str, said: str, ready: bool, alive: bool
) -> None:
    """Runs the probes' own shell lines with a redis-cli that says this and ends with 0, as the real one does."""
    cli = tmp_path / "redis-cli"
    cli.write_text(f'#!/bin/sh\n[ "${{REDISCLI_AUTH-}}" = "{password}" ] && echo "{said}"\nexit 0\n')
    cli.chmod(0o755)
    (tmp_path / "password").write_text(password)
    probes = container(manifests(password))
    shell = shutil.which("dash") or "sh"
    for probe, expected in (("readinessProbe", ready), ("livenessProbe", alive)):
        (_, _, script) = probes[probe]["exec"]["command"]
        script = script.replace("/auth/password", str(tmp_path / "password"))
        ended = subprocess.run([shell, "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=10)
        assert (ended.returncode == 0) is expected
    assert probes["livenessProbe"]["timeoutSeconds"] >= 3


def test_nothing_is_lost_on_a_restart_and_memory_is_bounded() -> None:
    lines = manifests()["ConfigMap"]["data"]["redis.conf"].splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert (settings["appendonly"], settings["appendfsync"], settings["dir"]) == ("yes", "everysec", "/data")
    assert (settings["maxmemory"], settings["maxmemory-policy"]) == ("160mb", "volatile-lru")
    assert errors("redis") == [] and errors("redis", redis_maxmemory="192mb") == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"redis_maxmemory": "193mb"}, "at most three quarters"),
        ({"redis_maxmemory": "lots"}, "as 160mb"),
        ({"redis_resources": {"limits": "256Mi"}}, "redis_resources.limits.memory (unset, as 256Mi)"),
        ({"redis_storage_size": "1 GB"}, "redis_storage_size 1 GB is no size: write it as 1Gi."),
        ({"redis_resources": {"limits": {"memory": "200M"}}}, "as 256Mi"),
        ({"redis_resources": {}}, "unset"),
        ({"redis_password": "a b"}, "holds white space"),
    ],
)
def test_bad_input_is_named_in_one_sentence(variables: Object, words: str) -> None:
    (sentence,) = errors("redis", **variables)
    assert words in sentence and "a b" not in sentence


@pytest.mark.parametrize("variant", [{}, {"app_name": "shop", "app_namespace": "market", "redis_namespace": "cache"}])
def test_only_the_application_comes_to_redis(variant: Object) -> None:
    policy = manifests(**variant)["NetworkPolicy"]["spec"]
    ((peer,),) = [rule["from"] for rule in policy["ingress"]]
    assert policy["podSelector"] == {"matchLabels": {"app": "redis"}} and policy["policyTypes"] == ["Ingress"]
    assert peer == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": variant.get("app_namespace", "abaci")}},
        "podSelector": {"matchLabels": {"app": variant.get("app_name", "abaci-app")}},
    }


def test_a_slip_of_the_pen_is_named_and_a_variable_of_others_is_theirs() -> None:
    assert errors("redis", redis_exporter_version="1.2") == []
    (sentence,) = errors("redis", redis_storage_clas="fast")
    assert "redis_storage_clas" in sentence and "not known" in sentence
