"""Render a role's templates as Ansible does (undefined variables are errors) and check what comes out.

One playbook run renders all variants of a role: each variant is a host of its inventory, with its variables.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.36"
BUILT_IN = {"v1"} | {
    f"{group}/{version}"
    for group, version in (
        ("apps", "v1"),
        ("batch", "v1"),
        ("policy", "v1"),
        ("networking.k8s.io", "v1"),
        ("rbac.authorization.k8s.io", "v1"),
        ("storage.k8s.io", "v1"),
        ("admissionregistration.k8s.io", "v1"),
    )
}

Object = dict[str, Any]


class Rendered:
    """What one variant renders to."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def all(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def names(self, kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.all(kind)]

    def one(self, kind: str, name: str | None = None) -> Object:
        found = [item for item in self.all(kind) if name in (None, item["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} objects are {kind} {name}; there are {self.names(kind)}"
        return found[0]


@dataclass(frozen=True)
class Run:
    """A playbook run: objects by variant, and the message of each variant that failed."""

    objects: dict[str, Rendered]
    failures: dict[str, str]

    def __getitem__(self, variant: str) -> Rendered:
        assert variant not in self.failures, self.failures[variant]
        return self.objects[variant]


def run_role(role: str, steps: Iterable[str], expression: str, variants: Mapping[str, Mapping[str, Any]]) -> Run:
    """Include the task files ``steps`` of the role for each variant, then take ``expression`` (a list of objects)."""
    with tempfile.TemporaryDirectory(prefix="abaci-render-") as folder:
        out = Path(folder)
        # The expression is evaluated outside the role, and templates are searched for beside the playbook.
        for part in ("templates", "files"):
            (out / part).symlink_to(ROOT / "roles" / role / part)
        include = [
            {"ansible.builtin.include_role": {"name": f"abaci.infra.{role}", "tasks_from": step, "public": True}}
            for step in steps
        ]
        to = f"{out}/{{{{ inventory_hostname }}}}.json"
        save = {"write_json": {"value": {"objects": "{{ " + expression + " }}"}, "to": to}, "no_log": True}
        failed = {"write_json": {"value": {"failure": "{{ ansible_failed_result.msg | default('hidden') }}"}, "to": to}}
        play = [
            {
                "hosts": "all",
                "gather_facts": False,
                "connection": "local",
                "tasks": [{"block": [*include, save], "rescue": [failed]}],
            }
        ]
        (out / "play.yml").write_text(yaml.safe_dump(play))
        hosts = {name: dict(values) for name, values in variants.items()}
        inventory = {"all": {"vars": {"ansible_python_interpreter": sys.executable}, "hosts": hosts}}
        (out / "hosts.yml").write_text(yaml.safe_dump(inventory))
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                str(out / "hosts.yml"),
                str(out / "play.yml"),
            ],
            cwd=out,
            env={
                **os.environ,
                "ANSIBLE_FORKS": "2",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_ACTION_PLUGINS": str(ROOT / "tests/tools/actions"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        objects: dict[str, Rendered] = {}
        failures: dict[str, str] = {}
        for name in variants:
            path = out / f"{name}.json"
            assert path.exists(), done.stdout[-4000:] + done.stderr[-2000:]
            data = json.loads(path.read_text())
            if "failure" in data:
                failures[name] = data["failure"]
            else:
                objects[name] = Rendered(data["objects"])
        return Run(objects, failures)


def from_templates(role: str, names: Iterable[str]) -> str:
    """An expression that renders these templates of the role, one object each."""
    paths = [str(ROOT / "roles" / role / "templates" / name) for name in names]
    return f"query('ansible.builtin.template', *{json.dumps(paths)}) | map('from_yaml') | list"


def check_schema(item: Object) -> None:
    """Raise where the object is not what its API version allows; an unknown field is an error, too."""
    if item["apiVersion"] in BUILT_IN:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    else:
        jsonschema.Draft7Validator(crd_schema(item["apiVersion"], item["kind"])).validate(item)


@functools.cache
def crd_schema(version: str, kind: str) -> dict[str, Any]:
    """The strict schema of a custom kind, from the CRDs of the Traefik that the bed runs."""
    sys.path.insert(0, str(ROOT / "testbed"))
    try:
        import build  # type: ignore[import-not-found, unused-ignore]
    finally:
        sys.path.remove(str(ROOT / "testbed"))
    group, _, number = version.partition("/")
    folder: Path = build.artifact("traefik")
    for path in sorted((folder / "crds").glob("*.yml")):
        for document in yaml.safe_load_all(path.read_text()):
            if not document or document["kind"] != "CustomResourceDefinition":
                continue
            if document["spec"]["group"] == group and document["spec"]["names"]["kind"] == kind:
                for served in document["spec"]["versions"]:
                    if served["name"] == number:
                        schema: dict[str, Any] = strict(served["schema"]["openAPIV3Schema"])
                        schema["properties"]["metadata"] = {"type": "object"}
                        return schema
    raise AssertionError(f"no CRD for {version} {kind}")


def strict(schema: Any) -> Any:
    """Turn a CRD's schema into JSON schema that refuses fields which the API server would drop."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made.pop("pattern", None)
    open_ended = made.pop("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(schema.get("properties"), dict) and "type" in schema and not open_ended:
        made.setdefault("additionalProperties", False)
    return made


def pod_templates(rendered: Rendered) -> list[Object]:
    """All pod templates of the workloads."""
    return [
        item["spec"]["template"]
        for item in rendered.objects
        if item["kind"] in ("StatefulSet", "Deployment", "DaemonSet")
    ]


def containers(template: Object) -> list[Object]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def check_across(rendered: Rendered, elsewhere: Iterable[tuple[str, str]] = ()) -> None:
    """Check that the objects agree: selectors, ports, volumes, references.

    ``elsewhere`` are (kind, name) that other roles or the cluster provide.
    """
    there = {(item["kind"], item["metadata"]["name"]) for item in rendered.objects} | set(elsewhere)
    assert len({(item["kind"], item["metadata"]["name"]) for item in rendered.objects}) == len(rendered.objects)
    templates = pod_templates(rendered)
    for item in rendered.objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "abaci.infra", item["metadata"]
        if item["kind"] in ("StatefulSet", "Deployment", "DaemonSet"):
            _selects(item["spec"]["selector"]["matchLabels"], [item["spec"]["template"]], item)
        if item["kind"] == "PodDisruptionBudget":
            _selects(item["spec"]["selector"]["matchLabels"], templates, item)
        if item["kind"] == "Service":
            _service(item, templates)
        if item["kind"] == "StatefulSet":
            assert ("Service", item["spec"]["serviceName"]) in there
        if item["kind"] == "Ingress":
            _ingress(item, rendered, there)
        if item["kind"] == "IngressRoute":
            _ingress_route(item, rendered, there)
        if item["kind"] == "MutatingAdmissionPolicyBinding":
            assert ("MutatingAdmissionPolicy", item["spec"]["policyName"]) in there
    for workload in rendered.objects:
        if workload["kind"] in ("StatefulSet", "Deployment", "DaemonSet"):
            _volumes(workload, there)


def _selects(selector: Mapping[str, str], templates: list[Object], item: Object) -> list[Object]:
    # The controller adds this one to each pod of a StatefulSet.
    wanted = {key: value for key, value in selector.items() if key != "statefulset.kubernetes.io/pod-name"}
    found = [made for made in templates if wanted.items() <= made["metadata"]["labels"].items()]
    assert found, f"{item['kind']} {item['metadata']['name']} selects nothing: {selector}"
    return found


def _service(item: Object, templates: list[Object]) -> None:
    for template in _selects(item["spec"]["selector"], templates, item):
        ports = {
            port.get("name"): port["containerPort"] for found in containers(template) for port in found.get("ports", [])
        }
        for port in item["spec"]["ports"]:
            target = port["targetPort"]
            assert target in ports or target in ports.values(), (
                f"{item['metadata']['name']}: no port {target} in the pod"
            )
            if item["spec"].get("clusterIP") == "None":
                # DNS answers with the pods' addresses, so there is nothing that could translate a port.
                assert port["port"] == ports.get(target, target)
    names = [port["name"] for port in item["spec"]["ports"]]
    assert len(set(names)) == len(names)


def _backend(rendered: Rendered, name: str, port: str | int) -> None:
    service = rendered.one("Service", name)
    assert any(port in (known["name"], known["port"]) for known in service["spec"]["ports"]), (
        f"{name} has no port {port}"
    )


def _ingress(item: Object, rendered: Rendered, there: set[tuple[str, str]]) -> None:
    for rule in item["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            _backend(rendered, service["name"], service["port"].get("name") or service["port"]["number"])
    hosts = [rule["host"] for rule in item["spec"]["rules"]]
    for tls in item["spec"].get("tls", []):
        assert ("Secret", tls["secretName"]) in there
        assert tls["hosts"] == hosts
    namespace = item["metadata"]["namespace"]
    listed = item["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"].split(",")
    for reference in listed:
        name = reference.removeprefix(f"{namespace}-").removesuffix("@kubernetescrd")
        assert reference == f"{namespace}-{name}@kubernetescrd"
        assert ("Middleware", name) in there, f"{item['metadata']['name']} names the middleware {name}"


def _ingress_route(item: Object, rendered: Rendered, there: set[tuple[str, str]]) -> None:
    if item["spec"]["entryPoints"] != ["web"]:
        assert ("Secret", item["spec"]["tls"]["secretName"]) in there
    for route in item["spec"]["routes"]:
        for service in route["services"]:
            if service.get("kind") == "TraefikService":
                assert service["name"] == "noop@internal"
                continue
            _backend(rendered, service["name"], service["port"])
        for middleware in route["middlewares"]:
            assert ("Middleware", middleware["name"]) in there
            assert "namespace" not in middleware


def _volumes(workload: Object, there: set[tuple[str, str]]) -> None:
    template = workload["spec"]["template"]
    volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    mounted = {mount["name"] for found in containers(template) for mount in found.get("volumeMounts", [])}
    assert mounted == set(volumes) | claims, "volumes and mounts differ"
    for volume in volumes.values():
        for source, kind, key in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if source in volume and not volume[source].get("optional"):
                assert (kind, volume[source][key]) in there
    for found in containers(template):
        for source in found.get("envFrom", []):
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            assert (kind, (source.get("configMapRef") or source["secretRef"])["name"]) in there
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = found.get(probe, {}).get("httpGet", {}).get("port")
            assert port is None or port in {known["name"] for known in found["ports"]}
    account = template["spec"].get("serviceAccountName")
    assert account is None or ("ServiceAccount", account) in there
