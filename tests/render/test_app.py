"""What roles/app renders: valid for its Kubernetes version, in agreement with itself, and safe for LiteFS."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.abaci.infra.plugins.module_utils import isolation, state
from ansible_collections.abaci.infra.plugins.module_utils.operations import retarget
from evaluating import asked, evaluate, living
from rendering import ROOT, Object, Rendered, Run, check_across, check_schema, containers, run_role

GATHERED: dict[str, Any] = {
    "__app_info": {"state": {"api": {"error": None}}},
    "__app_found": {"objects": [{}] * 5, "unknown": []},
    "__app_secret_values": {"AUTH_SECRET": "s3cret"},
    "__app_checksum_key": "a-key",
    "__app_redis_password": "",
    "__app_self_signed": {"certificate": "-----BEGIN CERTIFICATE-----\n"},
    "__app_self_key": {"privatekey": "-----BEGIN PRIVATE KEY-----\n"},
    "__app_hold": False,
}


KEEL = {"keel.sh/policy": "force", "abaci.infra/last-applied-keel-policy": "force"}


def plan(replicas: int = 3, ordinal: int = 0, **changes: Any) -> dict[str, Any]:
    data = {"state": "bootstrap", "primaryOrdinal": str(ordinal), "desiredPrimaryOrdinal": str(ordinal)}
    made = {
        "replicas": replicas,
        "desired_replicas": replicas,
        "primary_ordinal": ordinal,
        "retain": {"admission_policy": True, "objects": []},
        "record": {"action": "create", "data": data},
        "bootstrap": True,
        "unfinished": True,
        "isolation": {"mode": "user-namespace", "reason": "", "without_device": []},
        "image": {"text": "app:latest", "pull": True, "pin": False, "running": False, "note": ""},
        "annotations": KEEL,
        "notes": [],
        **changes,
    }
    return {"__app_plan": made, "__app_decision": made}


PROVIDED = {
    "app_tls_certificate": "-----BEGIN CERTIFICATE-----\noperator\n",
    "app_tls_private_key": "-----BEGIN PRIVATE KEY-----\noperator\n",
}
SOCKETS = {"app_socket_paths": ["/api/socket", "/cable"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {"app_domain": "abaci.localhost", **plan()},
    "provided": {"app_domain": "abaci.localhost", "app_https_port": 8443, **SOCKETS, **PROVIDED, **plan()},
    "certificate": {"app_domain": "abaci.localhost", **PROVIDED, **plan()},
    "other": {
        "app_retry_reads": False,
        "app_unavailable_page": '<p class="x">Back at once: 100 %</p>\n',
        "app_pre_stop_seconds": 0,
        "app_name": "shop",
        "app_namespace": "market",
        "app_config_name": "shop-config",
        "app_secret_name": "shop-env",
        "app_tls_secret_name": "shop-tls",
        "app_middleware_prefix": "shop-",
        "app_domain": "shop.example.org",
        "app_extra_domains": ["www.shop.example.org"],
        "app_image": "registry.example.org/shop:1",
        "app_image_pull_secrets": ["registry-login"],
        "app_command": "sh -c 'exec ./shop \"two words\"'",
        "app_migrate_command": "",
        "app_database": "shop.sqlite3",
        "app_env": {"NODE_ENV": "staging", "FLAG": True, "COUNT": 3, "TEXT": 'with "quotes" and\nlines'},
        "app_port": 4000,
        "app_proxy_port": 4080,
        "app_litefs_port": 4202,
        "app_socket_paths": [],
        "app_forward_paths": [],
        "app_static_paths": [],
        "app_redirect_domains": ["www.shop.example.org"],
        "app_allow_other": True,
        "app_listen_address": "",
        "app_node_selector": {"disk": "fast"},
        "app_tolerations": [{"key": "shop", "operator": "Exists"}],
        "app_client_ip_depth": 1,
        **PROVIDED,
        **plan(replicas=5, ordinal=2),
    },
    "password": {"app_domain": "abaci.localhost", "__app_redis_password": "p/a:s@s #1", **plan()},
    "redis_elsewhere": {"app_domain": "abaci.localhost", "app_redis_namespace": "cache", **plan()},
    "no_redis": {
        "app_domain": "abaci.localhost",
        "app_use_redis": False,
        "app_env": {"REDIS_URL": "redis://cache.example.org"},
        **plan(),
    },
    "env_changed": {"app_domain": "abaci.localhost", "app_env": {"FLAG": "1"}, **plan()},
    "secret_changed": {"app_domain": "abaci.localhost", "__app_secret_values": {"AUTH_SECRET": "other"}, **plan()},
    "recorded": {
        "app_domain": "abaci.localhost",
        **plan(record={"action": "update", "data": {"state": "recorded", "clusterID": "LFSC" + "A" * 16}}),
    },
    "old_api": {
        "app_domain": "abaci.localhost",
        "__app_hold": True,
        **plan(retain={"admission_policy": False, "objects": []}),
    },
    "device": {
        "app_domain": "abaci.localhost",
        "app_ingress_from": [{"podSelector": {"matchLabels": {"job": "smoke"}}}],
        "app_scratch_paths": ["/app/.next/cache", "/app/tmp"],
        "app_database_url_prefix": "file:",
        "app_extra_hosts": {"192.0.2.5": ["nas", "nas.example.org"]},
        "app_https_port": 8443,
        "app_env": {"NEXTAUTH_URL": "https://abaci.localhost/shop"},
        "app_url_env": ["AUTH_URL", "NEXTAUTH_URL"],
        "app_egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 443}]}],
        **plan(isolation={"mode": "device-plugin", "reason": "", "without_device": []}),
    },
    "kept": {"app_domain": "abaci.localhost", **living(secret={"data": {"OLD": "b2xk"}}), **plan()},
    "digest": {
        "app_domain": "abaci.localhost",
        "app_termination_grace_seconds": 45,
        "app_startup_seconds": 1801,
        "__site_checked": {"hosts": {"node-1": "192.0.2.11"}},
        **plan(image={"text": "app@sha256:0", "pull": False, "pin": False, "running": True, "note": ""}),
    },
    "privileged": {
        "app_domain": "abaci.localhost",
        "app_privileged": True,
        **plan(isolation={"mode": "privileged", "reason": "", "without_device": []}),
    },
    "trusted_proxies": {"app_domain": "abaci.localhost", "traefik_trusted_proxies": ["192.0.2.1/32"], **plan()},
    "moved": {"app_domain": "abaci.localhost", **plan(ordinal=2)},
}
URLS = ("AUTH_URL", "NEXTAUTH_URL", "NEXT_PUBLIC_URL", "NEXT_PUBLIC_APP_URL")
RECORD = "lookup('ansible.builtin.template', '%s') | from_yaml" % (
    ROOT / "roles/app/templates/configmap-abaci-app-litefs-identity.yml.j2"
)
ALL = f"__app_objects + __app_secret_objects + [{RECORD}] + __app_routes + [__app_statefulset]"


@pytest.fixture(scope="session")
def run() -> Run:
    variants = {name: {**GATHERED, **values} for name, values in VARIANTS.items()}
    made = run_role("app", ["validate.yml"], ALL, variants)
    assert made.failures == {}
    return made


@pytest.fixture(params=VARIANTS)
def rendered(run: Run, request: pytest.FixtureRequest) -> Rendered:
    return run[request.param]


@pytest.fixture
def defaults(run: Run) -> Rendered:
    return run["defaults"]


@pytest.fixture
def other(run: Run) -> Rendered:
    return run["other"]


def name_of(rendered: Rendered) -> str:
    name: str = rendered.one("StatefulSet")["metadata"]["name"]
    return name


def pod(rendered: Rendered) -> Object:
    spec: Object = rendered.one("StatefulSet")["spec"]["template"]["spec"]
    return spec


def app(rendered: Rendered) -> Object:
    container: Object = pod(rendered)["containers"][0]
    return container


def guard(rendered: Rendered) -> Object:
    return next(found for found in pod(rendered)["initContainers"] if found["name"] == "guard")


def litefs_text(rendered: Rendered) -> str:
    text: str = rendered.one("ConfigMap", f"{name_of(rendered)}-litefs")["data"]["litefs.yml"]
    return text


def expand(text: str, pod_name: str) -> Any:
    """What LiteFS reads on a pod: comparisons of POD_NAME become true or false, anything else is an error here."""

    def value(match: re.Match[str]) -> str:
        same = re.fullmatch(r"POD_NAME\s*==\s*(['\"])(.*)\1", match[1])
        assert same, f"{match[0]} is not the comparison form"
        return "true" if same[2] == pod_name else "false"

    made = re.sub(r"\$\{([^}]*)\}", value, text)
    assert "$" not in made, "LiteFS would expand or swallow it"
    return yaml.safe_load(made)


def env(rendered: Rendered) -> dict[str, str]:
    """The application's environment from ConfigMap and Secret."""
    values: dict[str, str] = {}
    for source in app(rendered)["envFrom"]:
        if "configMapRef" in source:
            values |= rendered.one("ConfigMap", source["configMapRef"]["name"])["data"]
        else:
            data = rendered.one("Secret", source["secretRef"]["name"])["data"]
            values |= {key: base64.b64decode(value).decode() for key, value in data.items()}
    return values


# Of every variant


def test_each_object_is_valid_for_its_version(rendered: Rendered) -> None:
    for item in rendered.objects:
        check_schema(item)


def test_the_objects_agree(rendered: Rendered) -> None:
    check_across(rendered)


def test_each_object_is_in_the_namespace(run: Run) -> None:
    for variant, namespace in (("defaults", "abaci"), ("other", "market")):
        for item in run[variant].objects:
            if not item["kind"].startswith(("Namespace", "MutatingAdmissionPolicy")):
                assert item["metadata"]["namespace"] == namespace


def test_nothing_of_the_defaults_is_left_under_other_names(other: Rendered) -> None:
    text = json.dumps([item for item in other.objects if item["metadata"]["name"] != "shop-guard"])
    assert "abaci" not in text.replace("abaci.infra", "").replace("/var/lib/litefs", "")


def test_the_label_app_is_on_the_pods_and_on_no_other_pod(rendered: Rendered) -> None:
    labelled = [
        item["kind"]
        for item in rendered.objects
        if name_of(rendered)
        == item.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}).get("app")
    ]
    assert labelled == ["StatefulSet"]


def test_the_first_container_is_app(rendered: Rendered) -> None:
    assert app(rendered)["name"] == "app"


def test_hazard_hostname_is_never_set(rendered: Rendered) -> None:
    """A HOSTNAME of one's own makes every pod think that it is the same one, or none; only the application has one."""
    for item in rendered.objects:
        if item["kind"] in ("ConfigMap", "Secret"):
            assert "HOSTNAME" not in item.get("data", {})
    for container in containers(rendered.one("StatefulSet")["spec"]["template"]):
        assert "HOSTNAME" not in {variable["name"] for variable in container.get("env", [])}
    config = expand(litefs_text(rendered), "x")
    assert config["exec"].pop()["cmd"].startswith("env ")
    assert "HOSTNAME" not in json.dumps(config)


def test_hazard_candidate_is_a_comparison_without_quotes(rendered: Rendered) -> None:
    """An unset variable is YAML null, null keeps the default, and the default is a second primary."""
    line = next(line.strip() for line in litefs_text(rendered).splitlines() if line.strip().startswith("candidate:"))
    assert re.fullmatch(r'candidate: \$\{POD_NAME == "[a-z0-9-]+"\}', line)


def test_hazard_exactly_one_pod_is_candidate(rendered: Rendered) -> None:
    name = name_of(rendered)
    pods = [f"{name}-{ordinal}" for ordinal in range(rendered.one("StatefulSet")["spec"]["replicas"])]
    configs = {pod_name: expand(litefs_text(rendered), pod_name) for pod_name in pods}
    candidates = [pod_name for pod_name in pods if configs[pod_name]["lease"]["candidate"] is True]
    assert len(candidates) == 1
    for config in configs.values():
        assert config["lease"]["type"] == "static"
        assert config["lease"]["hostname"] == candidates[0]
        assert config["lease"]["advertise-url"].startswith(f"http://{candidates[0]}.{name}-headless.")
    selector = rendered.one("Service", f"{name}-primary")["spec"]["selector"]
    assert selector["statefulset.kubernetes.io/pod-name"] == candidates[0]


def test_hazard_litefs_knows_every_key(rendered: Rendered) -> None:
    """An unknown key stops LiteFS, so does one from another version."""
    known = {
        "fuse": {"dir", "allow-other"},
        "data": {"dir", "compress"},
        "http": {"addr"},
        "lease": {"type", "candidate", "hostname", "advertise-url"},
        "proxy": {"addr", "target", "db", "passthrough", "always-forward"},
    }
    config = expand(litefs_text(rendered), f"{name_of(rendered)}-0")
    assert set(config) == {*known, "exec"}
    for section, keys in known.items():
        assert set(config[section]) <= keys
    for entry in config["exec"]:
        assert set(entry) <= {"cmd", "if-candidate"}
    assert "if-candidate" not in config["exec"][-1], "replicas would run nothing"


def test_hazard_litefs_cloud_token_is_never_set(rendered: Rendered) -> None:
    assert not [key for key in env(rendered) if key.startswith("LITEFS_")]


def test_hazard_no_clusterid_file_comes_from_a_template(rendered: Rendered) -> None:
    for item in rendered.all("ConfigMap"):
        assert "clusterid" not in item.get("data", {})
    paths = [
        mount["mountPath"]
        for container in containers({"spec": pod(rendered)})
        for mount in container.get("volumeMounts", [])
    ]
    assert not [path for path in paths if "clusterid" in path]


def test_the_application_learns_whether_it_may_migrate(rendered: Rendered) -> None:
    """It comes through LiteFS's exec line, for the pods of one template differ in nothing else."""
    primary = expand(litefs_text(rendered), "x")["lease"]["hostname"]
    for pod_name, expected in ((primary, "true"), (f"{name_of(rendered)}-99", "false")):
        command = expand(litefs_text(rendered), pod_name)["exec"][-1]["cmd"]
        assert command.split()[0] == "env" and f" LITEFS_CANDIDATE={expected} " in command


def test_hazard_the_headless_service_lists_pods_that_are_not_ready(rendered: Rendered) -> None:
    service = rendered.one("Service", f"{name_of(rendered)}-headless")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["clusterIP"] == "None"


def test_hazard_the_visitors_services_do_not(rendered: Rendered) -> None:
    for name in (name_of(rendered), f"{name_of(rendered)}-primary"):
        assert "publishNotReadyAddresses" not in rendered.one("Service", name)["spec"]


def test_hazard_liveness_asks_litefs_and_not_the_application(rendered: Rendered) -> None:
    """A replica that waits for its primary has neither proxy nor application, and must not be killed for it."""
    for probe in ("startupProbe", "livenessProbe"):
        assert app(rendered)[probe]["httpGet"] == {"path": "/info", "port": "litefs"}
    assert app(rendered)["readinessProbe"]["httpGet"]["port"] == "proxy"
    assert app(rendered)["readinessProbe"]["httpGet"]["path"] != "/litefs/health"


def test_a_large_database_has_the_time_to_be_summed_up_that_the_inventory_gives(run: Run) -> None:
    """LiteFS does that at each start before it answers; killed for it, it would never come up."""
    for variant, seconds in (("defaults", 300), ("digest", 1801)):
        probe = app(run[variant])["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= seconds


def test_hazard_replicas_hang_on_the_old_address_of_the_primary(rendered: Rendered) -> None:
    sysctls = pod(rendered)["securityContext"]["sysctls"]
    assert {"name": "net.ipv4.tcp_syn_retries", "value": "2"} in sysctls


def test_hazard_volumes_outlive_the_statefulset(rendered: Rendered) -> None:
    assert rendered.one("StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }


def test_hazard_replicas_is_never_left_out(rendered: Rendered) -> None:
    """A server-side apply without it sets it to 1."""
    assert rendered.one("StatefulSet")["spec"]["replicas"] >= 1
    assert rendered.one("StatefulSet")["metadata"]["annotations"]["abaci.infra/last-applied-replicas"].isdigit()


def test_hazard_a_pod_that_dies_in_a_rollout_comes_back_as_it_was(rendered: Rendered) -> None:
    """With a partition, even 0, the API makes it anew with the template that may be broken."""
    assert rendered.one("StatefulSet")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}


@pytest.mark.parametrize(("by_hand", "first"), [(True, "OnDelete"), (False, "RollingUpdate")])
def test_hazard_the_controller_rolls_nothing_out_beside_a_rollout_by_hand(
    rendered: Rendered, by_hand: bool, first: str
) -> None:
    """It would restart the primary in its own order; it gets the rolling updates back at the end."""
    given = {"__app_statefulset": rendered.one("StatefulSet"), "__app_by_hand": by_hand}
    applied = asked("app", "statefulset.yml", "abaci.infra.server_side_apply", "objects", **given)
    assert [one["spec"]["updateStrategy"]["type"] for (one,) in applied] == ["RollingUpdate", first, "RollingUpdate"]
    assert {json.dumps(one["spec"]["template"], sort_keys=True) for (one,) in applied} == {
        json.dumps(rendered.one("StatefulSet")["spec"]["template"], sort_keys=True)
    }


def test_hazard_a_broken_image_does_not_block_its_repair(rendered: Rendered) -> None:
    assert rendered.one("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"


def test_no_annotation_is_ours_that_belongs_to_others(rendered: Rendered) -> None:
    """kubectl rollout restart and Keel write into the pod template: what we never name survives us."""
    template = rendered.one("StatefulSet")["spec"]["template"]
    assert set(template["metadata"]["annotations"]) == {"abaci.infra/config-checksum"}


def test_the_guard_may_write_to_the_volume_alone_and_has_no_rights(rendered: Rendered) -> None:
    mounts = {mount["mountPath"]: mount for mount in guard(rendered)["volumeMounts"]}
    data = next(item["value"] for item in guard(rendered)["env"] if item["name"] == "GUARD_DATA_DIR")
    assert [path for path, mount in mounts.items() if not mount.get("readOnly")] == [data]
    assert mounts[data]["name"] == rendered.one("StatefulSet")["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert data == expand(litefs_text(rendered), "x")["data"]["dir"]
    assert guard(rendered)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert guard(rendered)["securityContext"]["allowPrivilegeEscalation"] is False
    assert "envFrom" not in guard(rendered)


def test_the_guard_is_the_script(rendered: Rendered) -> None:
    script = rendered.one("ConfigMap", f"{name_of(rendered)}-guard")["data"]["guard.sh"]
    assert script == (ROOT / "roles/app/files/guard.sh").read_text()


def test_the_guard_has_all_that_the_script_demands(rendered: Rendered) -> None:
    script = (ROOT / "roles/app/files/guard.sh").read_text()
    optional = {"GUARD_PATIENCE", "GUARD_SETTLE", "GUARD_COLD", "GUARD_TERMINATION_LOG", "GUARD_BUSYBOX"}
    demanded = set(re.findall(r"\$\{?(GUARD_\w+|POD_\w+)", script)) - optional
    assert {item["name"] for item in guard(rendered)["env"]} == demanded


def test_the_guard_and_litefs_read_one_litefs_yml(rendered: Rendered) -> None:
    """By the record alone it would let through a pod that litefs.yml makes the primary."""
    (app,) = pod(rendered)["containers"]
    mounted = {mount["mountPath"]: mount["name"] for mount in guard(rendered)["volumeMounts"]}
    config = next(item["value"] for item in guard(rendered)["env"] if item["name"] == "GUARD_LITEFS_CONFIG")
    assert config == app["command"][-1]
    assert mounted[str(Path(config).parent)] == next(
        mount["name"] for mount in app["volumeMounts"] if mount["mountPath"] == str(Path(config).parent)
    )


def test_the_guard_finds_the_primary_in_the_litefs_yml_that_is_rendered(rendered: Rendered, tmp_path: Path) -> None:
    """The script's own words on the file as the role writes it: it waits for, and refuses, what it cannot read."""
    config = tmp_path / "litefs.yml"
    config.write_text(rendered.one("ConfigMap", f"{name_of(rendered)}-litefs")["data"]["litefs.yml"])
    script = (ROOT / "roles/app/files/guard.sh").read_text()
    function = re.search(r"^rendered\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)
    assert function
    said = subprocess.run(
        ["busybox", "sh", "-c", f"{function[0]}\nrendered"],
        env={"PATH": os.environ["PATH"], "GUARD_LITEFS_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name = rendered.one("Service", f"{name_of(rendered)}-primary")["spec"]["selector"]
    ordinal = name["statefulset.kubernetes.io/pod-name"].rpartition("-")[2]
    assert said == f"{ordinal} {ordinal} "
    assert "GUARD_PRIMARY_ORDINAL" not in [item["name"] for item in guard(rendered)["env"]], "one source says who it is"


def test_the_guard_reads_the_record_that_is_written(rendered: Rendered) -> None:
    volume = next(item for item in pod(rendered)["volumes"] if item["name"] == "identity")
    assert volume["configMap"]["optional"] is True
    record = rendered.one("ConfigMap", volume["configMap"]["name"])
    assert record["metadata"]["labels"]["app.kubernetes.io/component"] == "identity"
    assert (
        next(item["value"] for item in guard(rendered)["env"] if item["name"] == "GUARD_RECORD")
        == record["metadata"]["name"]
    )


def test_the_pods_get_no_token_and_no_service_variables(rendered: Rendered) -> None:
    """enableServiceLinks would give the application REDIS_PORT=tcp://... and the like."""
    assert pod(rendered)["automountServiceAccountToken"] is False
    assert pod(rendered)["enableServiceLinks"] is False


def test_hazard_sys_admin_without_the_device_cannot_mount(run: Run) -> None:
    files = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    for variant, host_users, more in (("defaults", False, files), ("device", None, [])):
        spec, container = pod(run[variant]), app(run[variant])
        assert spec.get("hostUsers") is host_users
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN", *more]}
        assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "privileged" not in container["securityContext"]
        assert container["resources"]["limits"]["squat.ai/fuse"] == "1"
        assert container["resources"]["limits"]["memory"] == "1Gi"


def test_hazard_apparmors_profile_for_containers_refuses_every_mount(run: Run) -> None:
    assert app(run["defaults"])["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}


def test_privileged_is_the_original_way_and_needs_no_device(run: Run) -> None:
    spec, container = pod(run["privileged"]), app(run["privileged"])
    assert container["securityContext"] == {"privileged": True, "runAsUser": 0, "runAsGroup": 0}
    assert "hostUsers" not in spec and "squat.ai/fuse" not in container["resources"]["limits"]


def ingress(rendered: Rendered, name: str) -> list[tuple[str, list[int]]]:
    """(who, which ports) of each rule of a policy."""
    rules = rendered.one("NetworkPolicy", name)["spec"].get("ingress") or []
    return [(json.dumps(rule["from"]), [port["port"] for port in rule["ports"]]) for rule in rules]


def test_hazard_litefs_port_is_open_to_its_own_pods_alone(rendered: Rendered) -> None:
    name = name_of(rendered)
    ports = {port["name"]: port["containerPort"] for port in app(rendered)["ports"]}
    (own, litefs), (traefik, served), *named = ingress(rendered, name)
    assert all(open_to == [ports["proxy"]] for _who, open_to in named)
    assert litefs == [ports["litefs"]] and json.loads(own) == [{"podSelector": {"matchLabels": {"app": name}}}]
    assert sorted(served) == sorted([ports["proxy"], ports["app"]])
    (peer,) = json.loads(traefik)
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "traefik"}


def test_nobody_else_comes_into_the_namespace(rendered: Rendered) -> None:
    policy = rendered.one("NetworkPolicy", f"{name_of(rendered)}-default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_egress_is_open_unless_targets_are_listed(run: Run) -> None:
    assert run["defaults"].one("NetworkPolicy", "abaci-app")["spec"]["egress"] == [{}]
    dns, litefs, archive, redis, listed = run["device"].one("NetworkPolicy", "abaci-app")["spec"]["egress"]
    assert [port["port"] for port in dns["ports"]] == [53, 53]
    assert [port["port"] for port in litefs["ports"] + archive["ports"] + redis["ports"]] == [20202, 9104, 6379]
    assert listed == VARIANTS["device"]["app_egress"][0]


def test_pods_are_spread_over_hosts_and_one_host_is_fine(rendered: Rendered) -> None:
    (spread,) = pod(rendered)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


def test_a_pod_that_is_not_ready_does_not_hold_up_a_drain(rendered: Rendered) -> None:
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_hazard_writes_are_all_but_get_and_head(rendered: Rendered) -> None:
    """Written as a list of methods it would forget OPTIONS, and a replica would answer an empty 200."""
    (route,) = rendered.one("IngressRoute", f"{name_of(rendered)}-writes")["spec"]["routes"]
    assert route["match"].endswith(" && !Method(`GET`) && !Method(`HEAD`)")
    assert route["services"][0]["name"] == f"{name_of(rendered)}-primary"


def test_hazard_a_write_hangs_for_30_s_on_the_old_address_of_the_primary(rendered: Rendered) -> None:
    name = name_of(rendered)
    transport = rendered.one("ServersTransport", name)
    assert transport["spec"]["forwardingTimeouts"]["dialTimeout"] == "1500ms"
    for route in rendered.all("IngressRoute"):
        reads = "-reads" if route["metadata"]["name"] == f"{name}-static" else ""
        if route["metadata"]["name"] == f"{name}-redirect":
            continue  # it has no pods behind it
        assert route["spec"]["routes"][0]["services"][0]["serversTransport"] == name + reads
    service = rendered.one("Service", name)["metadata"]
    reference = service["annotations"]["traefik.ingress.kubernetes.io/service.serverstransport"]
    assert reference == f"{service['namespace']}-{name}-reads@kubernetescrd"
    assert f"{name}-reads" in rendered.names("ServersTransport")


def test_hazard_a_write_on_a_kept_connection_that_the_pod_ends_at_that_moment(rendered: Rendered) -> None:
    """Node ends one after 5 s, LiteFS's proxy after 30 s; Go repeats a GET then, but no POST."""
    name = name_of(rendered)
    idle = {
        item["metadata"]["name"]: int(item["spec"]["forwardingTimeouts"]["idleConnTimeout"].removesuffix("s"))
        for item in rendered.all("ServersTransport")
    }
    assert idle[name] < 5 and idle[f"{name}-reads"] < 30


def test_every_route_has_the_sites_options_of_tls(rendered: Rendered) -> None:
    """Routes of one host with different ones get Traefik's default, and without any it takes CBC ciphers."""
    name = name_of(rendered)
    options = rendered.one("TLSOption", name)
    for route in rendered.all("IngressRoute"):
        assert route["spec"]["tls"]["options"] == {"name": name}
    annotations = rendered.one("Ingress", name)["metadata"]["annotations"]
    reference = annotations["traefik.ingress.kubernetes.io/router.tls.options"]
    assert reference == f"{options['metadata']['namespace']}-{name}@kubernetescrd"
    assert options["spec"]["minVersion"] == "VersionTLS12"
    assert not [cipher for cipher in options["spec"]["cipherSuites"] if "CBC" in cipher or "ECDHE" not in cipher]
    kinds = [item["kind"] for item in rendered.objects]
    assert kinds.index("TLSOption") < min(kinds.index(kind) for kind in ("IngressRoute", "Ingress"))


def test_a_transport_comes_before_what_names_it(rendered: Rendered) -> None:
    kinds = [item["kind"] for item in rendered.objects]
    first_route = min(kinds.index(kind) for kind in ("Service", "IngressRoute", "Ingress"))
    assert kinds.index("ServersTransport") < first_route


def test_the_routes_agree_on_the_hosts(rendered: Rendered) -> None:
    hosts = [rule["host"] for rule in rendered.one("Ingress", name_of(rendered))["spec"]["rules"]]
    assert hosts == [
        rule["host"] for rule in rendered.one("Ingress", f"{name_of(rendered)}-http-redirect")["spec"]["rules"]
    ]
    for route in rendered.all("IngressRoute"):
        if route["metadata"]["name"] == f"{name_of(rendered)}-redirect":
            continue
        assert re.findall(r"Host\(`([^`]+)`\)", route["spec"]["routes"][0]["match"]) == hosts


def middlewares(rendered: Rendered, route: str) -> list[str]:
    """Names of the middlewares on a route, without the prefix."""
    prefix = "shop-" if name_of(rendered) == "shop" else ""
    if route in ("", "-http-redirect"):
        item = rendered.one("Ingress", name_of(rendered) + route)
        references = item["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"].split(",")
        start = f"{item['metadata']['namespace']}-{prefix}"
        return [reference.removeprefix(start).removesuffix("@kubernetescrd") for reference in references]
    item = rendered.one("IngressRoute", name_of(rendered) + route)
    return [found["name"].removeprefix(prefix) for found in item["spec"]["routes"][0]["middlewares"]]


def test_the_same_middlewares_are_on_every_route(rendered: Rendered) -> None:
    reads = middlewares(rendered, "")
    assert reads[-1] == "fly-replay"
    assert middlewares(rendered, "-writes") == [*reads[:-1], "fly-replay-writes"]
    if f"{name_of(rendered)}-socket" in rendered.names("IngressRoute"):
        assert middlewares(rendered, "-socket") == [
            "in-flight-socket" if name == "in-flight-req" else name for name in reads if name != "fly-replay"
        ]


def test_routes_outrank_each_other_in_order(rendered: Rendered) -> None:
    """Traefik's own priority is the length of the rule, here below 600 for two names."""
    priorities = {
        item["metadata"]["name"]: item["spec"]["routes"][0]["priority"] for item in rendered.all("IngressRoute")
    }
    assert priorities[f"{name_of(rendered)}-writes"] > 600
    assert priorities.get(f"{name_of(rendered)}-socket", 2000) > priorities[f"{name_of(rendered)}-writes"]


def test_the_redirect_leaves_room_for_an_acme_solver(rendered: Rendered) -> None:
    redirect = rendered.one("Ingress", f"{name_of(rendered)}-http-redirect")
    assert not [key for key in redirect["metadata"]["annotations"] if "priority" in key]
    for rule in redirect["spec"]["rules"]:
        host = rule["host"]
        ours = f"Host(`{host}`) && PathPrefix(`/`)"
        token = "x" * 43
        assert len(ours) < len(f"Host(`{host}`) && Path(`/.well-known/acme-challenge/{token}`)")


def test_limits_count_clients_and_not_the_site(rendered: Rendered) -> None:
    """inFlightReq counts by host name where nothing is said: 100 for all visitors together."""
    prefix = "shop-" if name_of(rendered) == "shop" else ""
    limits = {
        item["metadata"]["name"].removeprefix(prefix): limit
        for item in rendered.all("Middleware")
        for kind, limit in item["spec"].items()
        if kind in ("rateLimit", "inFlightReq")
    }
    assert limits.keys() == {"rate-limit", "in-flight-req", "in-flight-socket", "in-flight-static"}
    for limit in limits.values():
        assert set(limit["sourceCriterion"]) == {"ipStrategy"}
        assert limit["sourceCriterion"]["ipStrategy"]["ipv6Subnet"] == 64


# Of single variants


def test_contract_of_the_original_system(defaults: Rendered) -> None:
    assert name_of(defaults) == "abaci-app"
    assert defaults.one("StatefulSet")["spec"]["replicas"] == 3
    assert set(defaults.names("Service")) == {"abaci-app", "abaci-app-headless", "abaci-app-primary"}
    assert {"hsts", "rate-limit", "in-flight-req", "redirect-https"} <= set(defaults.names("Middleware"))
    assert set(defaults.names("Secret")) == {"app-env", "abaci-tls"}
    assert env(defaults) == {
        "NODE_ENV": "production",
        "PORT": "3000",
        "NEXT_TELEMETRY_DISABLED": "1",
        "AUTH_TRUST_HOST": "true",
        "DATABASE_URL": "/litefs/sqlite.db",
        "KEEP_ALIVE_TIMEOUT": "95000",
        **dict.fromkeys(URLS, "https://abaci.localhost"),
        "REDIS_URL": "redis://redis:6379",
        "AUTH_SECRET": "s3cret",
    }
    assert defaults.one("ConfigMap", "app-config")["data"]["REDIS_URL"] == "redis://redis:6379"
    (claim,) = defaults.one("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "litefs-data"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local-path",
        "resources": {"requests": {"storage": "5Gi"}},
    }
    assert {port["name"]: port["containerPort"] for port in app(defaults)["ports"]} == {
        "proxy": 8080,
        "app": 3000,
        "litefs": 20202,
    }
    assert app(defaults)["resources"] == {
        "requests": {"cpu": "200m", "memory": "512Mi"},
        "limits": {"cpu": "2", "memory": "1Gi", "squat.ai/fuse": "1"},
    }
    live, ready = app(defaults)["livenessProbe"], app(defaults)["readinessProbe"]
    keys = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")
    assert [live[key] for key in keys] == [30, 15, 10, 5]
    # The contract's 50 s until a pod counts as not ready, asked five times as often: writes wait for it.
    assert ready["timeoutSeconds"] == 10 and ready["periodSeconds"] * ready["failureThreshold"] == 50
    assert pod(defaults)["securityContext"]["fsGroup"] == 1001
    limits = defaults.one("Middleware", "rate-limit")["spec"]["rateLimit"]
    assert (limits["average"], limits["burst"]) == (50, 100)
    assert defaults.one("Middleware", "in-flight-req")["spec"]["inFlightReq"]["amount"] == 100
    assert app(defaults)["lifecycle"] == {"preStop": {"sleep": {"seconds": 1}}}
    assert defaults.one("Middleware", "hsts")["spec"]["headers"] == {
        "stsSeconds": 63072000,
        "stsIncludeSubdomains": False,
        "stsPreload": False,
    }
    config = expand(litefs_text(defaults), "abaci-app-0")
    check = "sh /etc/litefs/check-database.sh sqlite.db /var/lib/litefs /identity"
    copy = "sh /etc/litefs/before-migration.sh sqlite.db /var/lib/litefs /litefs 20202 /var/lib/litefs/backups 2"
    migrated = "rm -f /var/lib/litefs/backups/sqlite.db.unfinished"
    steps = [check, copy, "node dist/db/migrate.js", migrated, check]
    assert config["exec"][:5] == [{"cmd": step, "if-candidate": True} for step in steps]
    assert config["proxy"]["target"] == "localhost:3000"
    assert config["proxy"]["always-forward"] == ["/api/auth/callback*"]
    assert config["proxy"]["passthrough"] == [
        f"*.{ending}" for ending in ["ico", "png", "jpg", "jpeg", "gif", "svg", "css", "js", "woff", "woff2"]
    ]
    assert config["lease"]["advertise-url"] == "http://abaci-app-0.abaci-app-headless.abaci.svc.cluster.local:20202"


def test_other_names_ports_and_ordinal(other: Rendered) -> None:
    config = expand(litefs_text(other), "shop-2")
    assert config["lease"]["candidate"] is True
    assert config["lease"]["advertise-url"] == "http://shop-2.shop-headless.market.svc.cluster.local:4202"
    assert config["http"]["addr"] == ":4202"
    assert config["proxy"]["addr"] == ":4080"
    assert config["proxy"]["target"] == "localhost:4000"
    assert config["proxy"]["db"] == "shop.sqlite3"
    assert config["exec"] == [
        {"cmd": "sh /etc/litefs/check-database.sh shop.sqlite3 /var/lib/litefs /identity", "if-candidate": True},
        {"cmd": "sh /etc/litefs/read-only-replica.sh true /litefs /var/lib/litefs"},
        {"cmd": "env LITEFS_CANDIDATE=true sh -c 'exec ./shop \"two words\"'"},
    ]
    replica = expand(litefs_text(other), "shop-1")["exec"][1]
    assert replica == {"cmd": "sh /etc/litefs/read-only-replica.sh false /litefs /var/lib/litefs"}
    assert env(other)["DATABASE_URL"] == "/litefs/shop.sqlite3"
    assert pod(other)["imagePullSecrets"] == [{"name": "registry-login"}]
    assert pod(other)["nodeSelector"] == {"disk": "fast"}
    assert "lifecycle" not in app(other)
    assert sorted(other.names("IngressRoute")) == ["shop-redirect", "shop-writes"]
    assert config["fuse"] == {"dir": "/litefs", "allow-other": True}
    for middleware in ("shop-fly-replay", "shop-fly-replay-writes"):
        plugin = other.one("Middleware", middleware)["spec"]["plugin"]["flyreplay"]
        assert plugin["service"] == "shop-headless.market.svc.cluster.local"
        assert (plugin["statefulSet"], plugin["port"]) == ("shop", 4080)
    policy = other.one("MutatingAdmissionPolicy")["spec"]["matchConditions"][0]["expression"]
    assert "'market'" in policy and "'^litefs-data-shop-[0-9]+$'" in policy


def test_links_and_the_database_have_the_form_that_the_application_asks_for(run: Run) -> None:
    values = env(run["device"])
    assert values["DATABASE_URL"] == "file:/litefs/sqlite.db"
    assert values["AUTH_URL"] == "https://abaci.localhost:8443"
    assert values["NEXTAUTH_URL"] == "https://abaci.localhost/shop"
    assert "NEXT_PUBLIC_URL" not in values


def test_the_application_alone_is_told_where_to_listen(run: Run) -> None:
    """LiteFS asks localhost, and Next.js would listen on the address of the pod's name alone."""
    *_before, start = expand(litefs_text(run["defaults"]), "abaci-app-1")["exec"]
    assert start == {"cmd": "env HOSTNAME=0.0.0.0 LITEFS_CANDIDATE=false node server.js"}
    assert "HOSTNAME" not in env(run["defaults"])


def test_names_of_ones_own_stand_in_the_pods_hosts(run: Run) -> None:
    assert pod(run["device"])["hostAliases"] == [{"ip": "192.0.2.5", "hostnames": ["nas", "nas.example.org"]}]
    assert "hostAliases" not in pod(run["defaults"])


def test_scratch_paths_are_each_pods_own_and_begin_empty(run: Run) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in app(run["device"])["volumeMounts"]}
    assert (mounts["scratch-0"], mounts["scratch-1"]) == ("/app/.next/cache", "/app/tmp")
    volumes = {volume["name"]: volume for volume in pod(run["device"])["volumes"]}
    assert volumes["scratch-0"]["emptyDir"] == volumes["scratch-1"]["emptyDir"] == {}


def test_who_is_named_may_ask_the_application_and_not_litefs(run: Run) -> None:
    *_own, (who, open_to) = ingress(run["device"], "abaci-app")
    assert json.loads(who) == VARIANTS["device"]["app_ingress_from"] and open_to == [8080]
    assert len(ingress(run["defaults"], "abaci-app")) == 2


def test_a_name_that_only_redirects_is_asked_before_all_others(run: Run) -> None:
    (route,) = run["other"].one("IngressRoute", "shop-redirect")["spec"]["routes"]
    assert route["match"] == "Host(`www.shop.example.org`)"
    assert route["priority"] > 2000 and route["services"] == [{"kind": "TraefikService", "name": "noop@internal"}]
    assert middlewares(run["other"], "-redirect") == ["hsts", "rate-limit", "redirect-head", "redirect-domain"]
    to = run["other"].one("Middleware", "shop-redirect-domain")["spec"]["redirectRegex"]
    asked = "https://www.shop.example.org/a/b?c=d"
    replaced = re.sub(to["regex"], to["replacement"].replace("${1}", r"\1"), asked)
    assert replaced == "https://shop.example.org/a/b?c=d"
    assert "abaci-app-redirect" not in run["defaults"].names("IngressRoute")


def test_the_kubelet_asks_as_a_visitor_of_the_site(rendered: Rendered) -> None:
    """Frameworks answer 400 to another name, and redirect what came by http."""
    headers = {item["name"]: item["value"] for item in app(rendered)["readinessProbe"]["httpGet"]["httpHeaders"]}
    assert headers["Host"] == rendered.one("Ingress", name_of(rendered))["spec"]["rules"][0]["host"]
    assert headers["X-Forwarded-Proto"] == "https"


def test_static_files_are_not_counted_with_the_pages(run: Run) -> None:
    (route,) = run["defaults"].one("IngressRoute", "abaci-app-static")["spec"]["routes"]
    assert route["match"] == "(Host(`abaci.localhost`)) && (PathPrefix(`/_next/static/`))"
    assert 600 < route["priority"] < 1000, "a write stays one"
    assert middlewares(run["defaults"], "-static") == ["in-flight-static", "fly-replay"]
    assert middlewares(run["provided"], "-static")[0] == "hsts"
    limit = run["defaults"].one("Middleware", "in-flight-static")["spec"]["inFlightReq"]
    assert limit["amount"] == 500
    assert "shop-static" not in run["other"].names("IngressRoute")


def test_values_of_the_environment_are_text_as_given(other: Rendered) -> None:
    values = env(other)
    assert values["NODE_ENV"] == "staging"
    assert values["COUNT"] == "3"
    assert values["TEXT"] == 'with "quotes" and\nlines'


def test_replay_is_on_for_reads_and_off_for_writes(defaults: Rendered) -> None:
    replay = {
        item["metadata"]["name"]: item["spec"]["plugin"]["flyreplay"]["replay"]
        for item in defaults.all("Middleware")
        if "plugin" in item["spec"]
    }
    assert replay == {"fly-replay": True, "fly-replay-writes": False, "redirect-head": False}


def test_reads_are_asked_again_of_the_primary_but_not_those_that_write(run: Run) -> None:
    def plugin(rendered: Rendered) -> dict[str, Any]:
        prefix = "shop-" if name_of(rendered) == "shop" else ""
        return dict(rendered.one("Middleware", f"{prefix}fly-replay")["spec"]["plugin"]["flyreplay"])

    found = plugin(run["defaults"])
    assert (found["primaryService"], found["primaryPort"]) == ("abaci-app-primary.abaci.svc.cluster.local", 80)
    assert found["primaryPod"] == "abaci-app-0" and found["cookiePath"] == "/api/health"
    assert found["forwardPaths"] == expand(litefs_text(run["defaults"]), "abaci-app-0")["proxy"]["always-forward"]
    (port,) = [p for p in run["defaults"].one("Service", "abaci-app-primary")["spec"]["ports"] if p["name"] == "http"]
    assert port["port"] == found["primaryPort"]
    # The prefixes of the route without a rate limit: what one pod lacks there is of another build.
    assert found["staticPaths"] == ["/_next/static/"]
    off = plugin(run["other"])
    assert not {"primaryService", "primaryPort", "staticPaths"} & set(off)
    assert {"primaryPod", "forwardPaths", "cookiePath"} <= set(off), "who signs in is known on the next page"
    assert off["unavailablePage"].startswith('<p class="x">Back at once') and off["unavailablePage"].endswith("</p>\n")
    assert "unavailablePage" not in found
    dial = {
        name: run[name].one("ServersTransport", f"{name_of(run[name])}-reads")["spec"]["forwardingTimeouts"][
            "dialTimeout"
        ]
        for name in ("defaults", "other")
    }
    assert dial == {"defaults": "500ms", "other": "1500ms"}


def test_hsts_comes_only_with_the_operators_certificate(run: Run) -> None:
    for route in ("", "-writes", "-socket"):
        assert middlewares(run["provided"], route)[0] == "hsts"
        assert "hsts" not in middlewares(run["defaults"], route)
    assert (
        run["provided"].one("Secret", "abaci-tls")["metadata"]["annotations"]["abaci.infra/certificate"] == "provided"
    )
    certificate = base64.b64decode(run["provided"].one("Secret", "abaci-tls")["data"]["tls.crt"]).decode()
    assert certificate == PROVIDED["app_tls_certificate"]


def test_the_redirect_names_the_port_unless_it_is_443(run: Run) -> None:
    assert run["defaults"].one("Middleware", "redirect-https")["spec"]["redirectScheme"] == {
        "scheme": "https",
        "permanent": True,
    }
    assert run["provided"].one("Middleware", "redirect-https")["spec"]["redirectScheme"]["port"] == "8443"


def test_a_redirect_shows_head_what_get_is_answered(rendered: Rendered) -> None:
    """Traefik says 308 to HEAD; the plugin before it makes that a 301."""
    assert middlewares(rendered, "-http-redirect") == ["redirect-head", "redirect-https"]
    prefix = "shop-" if name_of(rendered) == "shop" else ""
    assert rendered.one("Middleware", f"{prefix}redirect-head")["spec"]["plugin"]["flyreplay"]["headRedirect"] is True


def test_sockets_go_past_litefs(defaults: Rendered) -> None:
    (route,) = defaults.one("IngressRoute", "abaci-app-socket")["spec"]["routes"]
    assert route["services"] == [{"name": "abaci-app-primary", "port": "app", "serversTransport": "abaci-app"}]
    assert route["match"] == "(Host(`abaci.localhost`)) && (PathPrefix(`/api/socket`))"


def test_there_may_be_several_paths_of_sockets(run: Run) -> None:
    (route,) = run["provided"].one("IngressRoute", "abaci-app-socket")["spec"]["routes"]
    assert route["match"] == "(Host(`abaci.localhost`)) && (PathPrefix(`/api/socket`) || PathPrefix(`/cable`))"
    assert "shop-socket" not in run["other"].names("IngressRoute")


def test_a_tag_is_pulled_before_the_guard_looks_and_a_restart_needs_no_registry(run: Run) -> None:
    first, second = pod(run["defaults"])["initContainers"]
    assert (first["name"], first["image"], first["imagePullPolicy"]) == ("pull", "app:latest", "Always")
    assert first["command"] == ["litefs", "version"] and "volumeMounts" not in first
    assert second["name"] == "guard"
    assert (app(run["defaults"])["image"], app(run["defaults"])["imagePullPolicy"]) == ("app:latest", "IfNotPresent")
    assert [one["name"] for one in pod(run["digest"])["initContainers"]] == ["guard"]
    assert (app(run["digest"])["image"], app(run["digest"])["imagePullPolicy"]) == ("app@sha256:0", "IfNotPresent")
    # By this the operations that restart pods know that each would pull.
    for name, expected in (("defaults", True), ("digest", False)):
        document = state.document("abaci", "app", "db", "litefs-data", statefulset=run[name].one("StatefulSet"))
        assert document["statefulset"]["pulls_anew"] is expected


def test_the_pull_policy_is_never_left_to_the_tags_name(rendered: Rendered) -> None:
    policies = {
        one["name"]: one["imagePullPolicy"] for one in containers(rendered.one("StatefulSet")["spec"]["template"])
    }
    assert policies.pop("pull", "Always") == "Always"
    assert policies == {"guard": "IfNotPresent", "app": "IfNotPresent"}


def test_the_pods_have_the_time_to_end_that_the_inventory_gives(run: Run) -> None:
    assert pod(run["defaults"])["terminationGracePeriodSeconds"] == 30
    assert pod(run["digest"])["terminationGracePeriodSeconds"] == 45


def test_the_statefulset_says_from_which_hosts_it_was_applied(run: Run) -> None:
    annotations = run["digest"].one("StatefulSet")["metadata"]["annotations"]
    assert json.loads(annotations["abaci.infra/inventory-hosts"]) == {"node-1": "192.0.2.11"}
    assert "abaci.infra/inventory-hosts" not in run["defaults"].one("StatefulSet")["metadata"]["annotations"]


def test_what_the_secret_holds_besides_stays_in_it(run: Run) -> None:
    assert run["kept"].one("Secret", "app-env")["data"] == {
        "AUTH_SECRET": base64.b64encode(b"s3cret").decode(),
        "OLD": "b2xk",
    }
    assert run["defaults"].one("Secret", "app-env")["data"].keys() == {"AUTH_SECRET"}


def test_a_kept_secret_is_not_overridden_by_a_variable_without_a_word() -> None:
    """The Secret comes last in the environment and would win."""
    tasks = tasks_of("gather.yml")
    (refusal,) = (task for task in tasks if "__app_secret_overrides" in str(task.get("ansible.builtin.assert")))
    assert refusal["ansible.builtin.assert"]["that"] == "__app_secret_overrides | length == 0" and "when" not in refusal
    given = {"app_env": {"A": "1", "B": "2"}, "__app_secret_kept": {"A": "eA=="}}
    assert evaluate("app", "__app_secret_overrides", **given) == ["A"]


def test_what_a_secret_holds_stays_unless_it_is_named_for_removal() -> None:
    def kept(secret: Any, **variables: Any) -> Any:
        return evaluate("app", "__app_secret_kept", **living(secret=secret), **variables)

    held = {"data": {"AUTH_SECRET": "b2xk", "OLD": "eA==", "REDIS_URL": "eQ=="}}
    assert kept(held, app_secrets={"EXTRA": ""}) == {"AUTH_SECRET": "b2xk", "OLD": "eA=="}
    assert kept(held, app_secrets={"AUTH_SECRET": ""}, app_secrets_removed=["OLD"]) == {}
    assert kept(None) == kept({"data": None}) == {}


def test_the_checksum_on_the_pods_is_no_hash_of_the_secrets_alone(run: Run) -> None:
    """Whoever may read pods, Keel for one, could try out weak values."""
    secret = run["defaults"].one("Secret", "app-env")
    key = secret["metadata"]["annotations"]["abaci.infra/checksum-key"]
    assert key == "a-key" and key not in repr([item for item in run["defaults"].objects if item is not secret])
    assert evaluate("app", "__app_checksum_key_living", __app_found={"objects": [{}]}) == ""
    assert evaluate("app", "__app_checksum_key_living", __app_found={"objects": [secret]}) == "a-key"


def test_two_sites_never_share_the_policy_for_their_volumes() -> None:
    names = {
        evaluate("app", "__app_policy_name", app_namespace=namespace, app_name=name)
        for namespace, name in (("a", "b-c"), ("a-b", "c"))
    }
    assert len(names) == 2 and all("." in name for name in names)


def tasks_of(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/app/tasks" / name).read_text())
    return loaded


def test_secrets_are_settled_and_rendered_without_a_word() -> None:
    """Their values would stand in the output of every run with -v."""
    hidden = {
        task["name"]
        for name in ("gather.yml", "present.yml", "objects.yml")
        for task in tasks_of(name)
        if "ecret" in task["name"] and "assert" not in str(task.keys())
    }
    assert len(hidden) == 4
    for name in ("gather.yml", "present.yml", "objects.yml"):
        for task in tasks_of(name):
            facts = task.get("ansible.builtin.set_fact", {})
            if task["name"] in hidden or any("secret" in fact or "password" in fact for fact in facts):
                assert task.get("no_log") is True, task["name"]


def test_the_cluster_is_recorded_after_pods_that_change_and_after_a_first_start() -> None:
    main = up()
    (identity,) = (task for task in main if task.get("ansible.builtin.include_tasks") == "identity.yml")
    called = [str(value) for task in main for key, value in task.items() if key.endswith("_tasks")]
    assert called.index("statefulset.yml") < called.index("identity.yml")
    state = {"api": {"error": None}, "statefulset": {"exists": True}}
    plans = {
        "bootstrap": plan()["__app_plan"],
        "recorded": plan(bootstrap=False)["__app_plan"],
        "volumes": plan(bootstrap=False, retain={"admission_policy": True, "objects": ["v"]})["__app_plan"],
    }
    for change, name, wanted in (
        (True, "recorded", True),
        (False, "bootstrap", True),
        (False, "volumes", True),
        (False, "recorded", False),
    ):
        retained = plans[name]["retain"]["objects"]
        given = {"__app_info": {"state": state}, "__app_pods_change": change, "__app_plan": plans[name]}
        assert condition(identity["when"], **given, __app_retained=retained) is wanted, (change, name)


def test_what_is_decided_on_the_running_site_is_recorded_unless_it_stands_there_already() -> None:
    _read, planned = tasks_of("identity.yml")
    found = planned["block"]
    (record,) = (task for task in found if task.get("ansible.builtin.include_tasks") == "record.yml")
    (refusal,) = (task for task in found if "ansible.builtin.assert" in task)
    assert found.index(refusal) < found.index(record) and "when" not in refusal
    assert planned["vars"]["__app_decision"] == "{{ __app_plan_running }}" and planned["vars"]["__app_hold"] is False
    for action, wanted in (("create", True), ("update", True), ("none", False)):
        plan_running = {"record": {"action": action}}
        assert condition(record["when"], __app_plan_running=plan_running) is wanted, action
    assert all("when" not in task for task in tasks_of("record.yml"))


def test_the_lock_is_taken_where_something_differs_or_pods_wait_for_us() -> None:
    """The controller alone would never replace a pod with an old template while another's node is away."""
    same = {"__app_compared": {"changed": False, "ready": True}, "__app_secrets_compared": {"changed": False}}

    def differs(unfinished: bool = False, **given: Any) -> bool:
        return bool(evaluate("app", "__app_differs", **{**same, **plan(unfinished=unfinished), **given}))

    assert not differs() and differs(unfinished=True)
    assert differs(__app_compared={"changed": False, "ready": False})
    assert differs(__app_secrets_compared={"changed": True})


def up() -> list[dict[str, Any]]:
    """The tasks that change the application, in their order."""
    (locked,) = tasks_of("change.yml")
    return list(locked["block"])


def condition(when: str | list[str], **variables: Any) -> bool:
    """What a task's when comes to."""
    text = " and ".join(f"({part})" for part in ([when] if isinstance(when, str) else when))
    return bool(Templar(loader=DataLoader(), variables=variables).evaluate_conditional(trust_as_template(text)))


def test_a_redis_password_moves_the_url_into_the_secret(run: Run) -> None:
    assert "REDIS_URL" not in run["password"].one("ConfigMap", "app-config")["data"]
    assert env(run["password"])["REDIS_URL"] == "redis://:p%2Fa%3As%40s%20%231@redis:6379"
    assert "REDIS_URL" not in run["defaults"].one("Secret", "app-env")["data"]
    assert env(run["redis_elsewhere"])["REDIS_URL"] == "redis://redis.cache:6379"
    assert env(run["no_redis"])["REDIS_URL"] == "redis://cache.example.org"


def checksum(rendered: Rendered) -> str:
    text: str = rendered.one("StatefulSet")["spec"]["template"]["metadata"]["annotations"][
        "abaci.infra/config-checksum"
    ]
    return text


def test_the_checksum_follows_the_configuration_and_nothing_else(run: Run) -> None:
    base = checksum(run["defaults"])
    assert re.fullmatch(r"[0-9a-f]{64}", base)
    for variant in ("env_changed", "secret_changed", "password", "no_redis"):
        assert checksum(run[variant]) != base
    for variant in ("recorded", "old_api", "certificate", "trusted_proxies", "moved"):
        assert checksum(run[variant]) == base


@pytest.mark.parametrize("there", ["defaults", "other"])
@pytest.mark.parametrize(("back", "archive"), [(False, False), (True, False), (False, True)])
def test_an_operation_makes_of_the_living_objects_what_site_yml_renders_for_the_new_primary(
    run: Run, there: str, back: bool, archive: bool
) -> None:
    """Or the next run of site.yml would restart every pod. A restore takes the commands out and brings them back."""
    moved = {"defaults": run["moved"], "other": None}[there]
    app = name_of(run[there])
    living, service = (
        copy.deepcopy(run[there].one(kind, name))
        for kind, name in (("ConfigMap", f"{app}-litefs"), ("Service", f"{app}-primary"))
    )
    wanted = 2 if moved else 0
    before = copy.deepcopy((living, service))
    if back:
        retarget.config_map(living, app, wanted, True)
        text = living["data"]["litefs.yml"]
        assert retarget.is_quiet(text) and "exec" not in expand(text, f"{app}-0")
    if archive:
        retarget.config_map(living, app, wanted, False, archive=True)
        text = living["data"]["litefs.yml"]
        assert retarget.feeds(text, app) == wanted and retarget.primary_of(text, app) is None
        for ordinal in range(3):
            lease = expand(text, f"{app}-{ordinal}")["lease"]
            assert lease["candidate"] is False and lease["hostname"] == f"{app}-archive-{wanted}"
            assert lease["advertise-url"].startswith(f"http://{app}-archive.") and "headless" not in str(lease)
    retarget.config_map(living, app, wanted, False)
    retarget.service(service, app, wanted)
    assert retarget.primary_of(living["data"]["litefs.yml"], app) == wanted
    if moved:
        assert living["data"] == moved.one("ConfigMap", f"{app}-litefs")["data"]
        assert service["spec"] == moved.one("Service", f"{app}-primary")["spec"]
        assert run[there].one("StatefulSet", app) == moved.one("StatefulSet", app), "no pod is restarted for it"
    retarget.config_map(living, app, 0 if moved else 2, False)
    retarget.service(service, app, 0 if moved else 2)
    assert (living["data"], service) == (before[0]["data"], before[1])
    assert not living["metadata"].get("annotations")


def test_commands_that_are_not_kept_are_not_made_up() -> None:
    found = {"metadata": {}, "data": {"litefs.yml": "lease:\n  hostname: abaci-app-0\n"}}
    with pytest.raises(ValueError, match="none are kept"):
        retarget.config_map(found, "abaci-app", 0, False)


def test_the_record_is_what_was_decided(run: Run) -> None:
    name = "abaci-app-litefs-identity"
    assert run["defaults"].one("ConfigMap", name)["data"] == {
        "state": "bootstrap",
        "primaryOrdinal": "0",
        "desiredPrimaryOrdinal": "0",
    }
    assert run["recorded"].one("ConfigMap", name)["data"]["clusterID"] == "LFSC" + "A" * 16


def test_volumes_are_retained_from_their_creation(defaults: Rendered) -> None:
    policy = defaults.one("MutatingAdmissionPolicy")["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["persistentvolumes"] and rule["operations"] == ["CREATE"]
    assert "persistentVolumeReclaimPolicy: 'Retain'" in policy["mutations"][0]["applyConfiguration"]["expression"]
    assert policy["failurePolicy"] == "Fail"


def test_an_older_api_gets_no_policy_and_holds_the_primary(run: Run) -> None:
    assert run["old_api"].all("MutatingAdmissionPolicy") == []
    assert run["old_api"].one("ConfigMap", "abaci-app-litefs-identity")["data"]["hold"] == "true"


def test_behind_a_trusted_proxy_the_client_is_the_one_before_it(run: Run) -> None:
    for variant, depth in (("defaults", 0), ("trusted_proxies", 1)):
        for name in ("rate-limit", "in-flight-req", "in-flight-socket", "in-flight-static"):
            (limits,) = run[variant].one("Middleware", name)["spec"].values()
            assert limits["sourceCriterion"]["ipStrategy"] == {"depth": depth, "ipv6Subnet": 64}


def test_a_route_comes_after_the_middlewares_that_it_names(rendered: Rendered) -> None:
    """Traefik drops a route whose middleware is not there."""
    kinds = [item["kind"] for item in rendered.objects]
    last = max(index for index, kind in enumerate(kinds) if kind == "Middleware")
    assert all(index > last for index, kind in enumerate(kinds) if kind in ("Ingress", "IngressRoute"))
    assert kinds[0] == "Namespace"


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "user-namespace"),
        ({"storage_state": "present"}, "device-plugin"),
        ({"storage_state": "present", "storage_kind": "class"}, "device-plugin"),
        ({"storage_state": "present", "storage_kind": "class", "app_user_namespace": True}, "user-namespace"),
        ({"storage_state": "present", "storage_kind": "host_path"}, "user-namespace"),
        ({"storage_state": "present", "storage_kind": "host_path", "app_user_namespace": "false"}, "device-plugin"),
    ],
)
def test_pods_with_shared_files_that_may_be_on_nfs_get_no_user_namespace(given: dict[str, Any], mode: str) -> None:
    """Linux cannot id-map NFS: such a pod never starts."""
    desired = evaluate("app", "__app_desired", **given)
    assert isolation.decide({"api": {"error": "no node was asked"}}, desired).mode == mode


@pytest.mark.parametrize("given", [{}, {"app_tls": "acme"}, {"app_tls": "upstream"}, {"app_registry_token": "t0ken"}])
def test_absent_takes_no_secret_and_leaves_litefs_guarded_until_its_pods_are_gone(given: dict[str, Any]) -> None:
    """Another's certificate may be in the Secret, and LiteFS asks nobody for a password."""
    kinds = [item["kind"] for item in evaluate("app", "__app_removed", **given)]
    assert "Secret" not in kinds
    assert kinds.count("NetworkPolicy") == 3 and kinds.index("NetworkPolicy") > kinds.index("StatefulSet")


def test_absent_keeps_what_belongs_to_the_data() -> None:
    template = (ROOT / "roles/app/templates/removed.yml.j2").read_text()
    for kept in ("identity", "PersistentVolume", "Namespace", "app_secret_name"):
        assert kept not in template


def test_volumes_are_kept_before_anything_is_applied_and_the_record_is_written_before_the_replicas_are_waited_for() -> (
    None
):
    """A node that cannot run its pod, and a claim that is deleted meanwhile, cost neither record nor volume."""
    names = [task["name"] for task in up()]
    assert names.index("change | Ensure volumes outlive their claims") < names.index("change | Apply the objects")
    tasks = {task["name"]: task for task in tasks_of("statefulset.yml")}
    order = list(tasks)
    first, last = tasks["statefulset | Record the first data"], tasks["statefulset | Wait for the pods"]
    assert order.index(first["name"]) < order.index(last["name"])
    assert first["when"] == "__app_plan.bootstrap"
    wait, identity = first["block"]
    assert wait["abaci.infra.rollout_wait"]["without"] == (
        "{{ range(__app_plan.replicas) | difference([__app_plan.primary_ordinal]) }}"
    )
    assert identity["ansible.builtin.include_tasks"] == "identity.yml"
    assert last["abaci.infra.rollout_wait"]["without"] == "{{ __app_plan.fenced + __app_plan.away }}"
