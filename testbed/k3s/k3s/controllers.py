"""What k3s's server does beside Kubernetes: manifests folder, bundled Traefik, ServiceLB, joining nodes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import payload, pki, servicelb, traefik
from .agent import BOOTSTRAP_USER, CSR, certificates
from .kube import Api, ApiError
from .processes import log

TRAEFIK_IMAGE = "docker.io/rancher/mirrored-library-traefik:3.7.15"
BUNDLED = ("coredns", "local-storage", "traefik")
HELM = "/apis/helm.cattle.io/v1/namespaces/kube-system"
CHART = f"{HELM}/helmcharts/traefik"
CONFIG = f"{HELM}/helmchartconfigs/traefik"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


class Kubectl:
    """kubectl with the server's own rights."""

    def __init__(self, binary: pathlib.Path, kubeconfig: pathlib.Path) -> None:
        self._base = [str(binary), f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, data: str | None = None) -> str:
        """Raises RuntimeError with kubectl's own words."""
        done = subprocess.run([*self._base, *arguments], input=data, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.split()))
        return done.stdout

    def apply(self, manager: str, *arguments: str, data: str | None = None) -> str:
        common = ("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}")
        return self.run(*common, *arguments, data=data)


def write_bundled(
    folder: pathlib.Path, disabled: Sequence[str], values: Mapping[str, str], crds: Sequence[pathlib.Path]
) -> None:
    """Write the bundled manifests as k3s does at every start; those of disabled components are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: payload.bundled(f"manifests/{name}.yaml") for name in BUNDLED}
    texts["traefik"] += "".join(f"---\n{path.read_text()}" for path in crds)
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        if name in disabled:
            path.unlink(missing_ok=True)
            continue
        for key, value in values.items():
            text = text.replace(f"%{{{key}}}%", value)
        if not path.exists() or path.read_text() != text:
            pki.write_private(path, text.encode())


class Deploy:
    """Applies server/manifests at start and whenever a file changes; a file that is gone leaves its objects."""

    def __init__(self, kubectl: Kubectl, folder: pathlib.Path) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self._done: dict[pathlib.Path, tuple[int, int]] = {}

    def step(self) -> None:
        failures = []
        for path in manifests(self._folder):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            mark = (stat.st_mtime_ns, stat.st_size)
            if self._done.get(path) == mark or not stat.st_size:
                continue
            try:
                self._kubectl.apply("deploy@server", f"--filename={path}")
            except RuntimeError as error:
                failures.append(f"failed to process {path}: {error}")
                continue
            log(f"Applied manifest {path}")
            self._done[path] = mark
        if failures:
            raise RuntimeError("; ".join(failures))


def manifests(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files to apply: YAML and JSON below the folder that no .skip file stops, in name order."""
    found = (p for p in sorted(folder.rglob("*")) if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
    return [p for p in found if not p.with_name(p.name + ".skip").exists() and not p.name.startswith(".")]


def remove_disabled(kubectl: Kubectl, disabled: Sequence[str]) -> None:
    """Delete the objects of bundled components that were switched off after they had run."""
    for name in BUNDLED:
        if name in disabled:
            text = payload.bundled(f"manifests/{name}.yaml").replace("%{CLUSTER_DNS}%", "10.43.0.10")
            kubectl.run("delete", "--ignore-not-found", "--wait=false", "--filename=-", data=text)


def check_spec(spec: Mapping[str, Any]) -> None:
    """Refuse what a HelmChartConfig may say beside values and is not done here.

    A chart that cannot be rendered leaves what runs as it is: that is failurePolicy abort. k3s's default, reinstall,
    would take Traefik away and install it anew.
    """
    if spec.get("valuesSecrets"):
        raise traefik.ValuesError("spec.valuesSecrets is not honoured by this stand-in; remove it.")
    if spec.get("failurePolicy") not in (None, "", "abort"):
        raise traefik.ValuesError("spec.failurePolicy: only abort is honoured by this stand-in.")


class Helm:
    """Renders the bundled Traefik from the HelmChart and HelmChartConfig of that name, and keeps it so."""

    def __init__(self, api: Api, kubectl: Kubectl) -> None:
        self._api = api
        self._kubectl = kubectl
        self._last = ""
        self._told: set[str] = set()

    def step(self) -> None:
        for kind in ("helmcharts", "helmchartconfigs"):
            for item in self._api.items(f"/apis/helm.cattle.io/v1/{kind}"):
                name = f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}"
                if name.split()[1] != "kube-system/traefik" and name not in self._told:
                    log(f"{name}: only kube-system/traefik is in this stand-in; nothing acts on it", "error")
                    self._told.add(name)
        chart, config = self._api.find(CHART), self._api.find(CONFIG)
        state = json.dumps([bool(chart), (config or {}).get("spec")], sort_keys=True)
        if state == self._last:
            return
        if chart is None:
            self._prune([])
        else:
            self._deploy(config)
        self._last = state

    def _deploy(self, config: Mapping[str, Any] | None) -> None:
        import yaml

        spec = (config or {}).get("spec") or {}
        try:
            check_spec(spec)
            objects = traefik.render(yaml.safe_load(spec.get("valuesContent") or ""), TRAEFIK_IMAGE)
        except (traefik.ValuesError, yaml.YAMLError) as error:
            self._refuse(config, " ".join(str(error).split()))
            return
        document = {"apiVersion": "v1", "kind": "List", "items": objects}
        self._kubectl.apply("helm", "--filename=-", data=json.dumps(document))
        self._prune(objects)
        self._report("False", "")
        log("Traefik was rendered from its chart's values")

    def _prune(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Delete what an earlier rendering made and this one did not."""
        wanted = {(o["kind"], o["metadata"]["name"]) for o in objects}
        selector = ",".join(f"{key}={value}" for key, value in traefik.labels().items())
        kinds = (
            "configmaps,services,serviceaccounts,deployments,daemonsets,clusterroles,clusterrolebindings,ingressclasses"
        )
        found = json.loads(
            self._kubectl.run(
                "get", kinds, f"--namespace={traefik.NAMESPACE}", f"--selector={selector}", "--output=json"
            )
        )
        for item in found["items"]:
            key = (item["kind"], item["metadata"]["name"])
            if key not in wanted:
                self._kubectl.run("delete", f"--namespace={traefik.NAMESPACE}", "--wait=false", *key)

    def _refuse(self, config: Mapping[str, Any] | None, message: str) -> None:
        log(f"HelmChartConfig kube-system/traefik: {message}", "error")
        self._report("True", message)
        if config:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            event = {
                "metadata": {"generateName": "traefik.", "namespace": "kube-system"},
                "involvedObject": {
                    "apiVersion": "helm.cattle.io/v1",
                    "kind": "HelmChartConfig",
                    "name": "traefik",
                    "namespace": "kube-system",
                    "uid": config["metadata"]["uid"],
                },
                "type": "Warning",
                "reason": "ValuesRefused",
                "message": message,
                "source": {"component": "helm-controller"},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
            self._api.call("POST", "/api/v1/namespaces/kube-system/events", event)

    def _report(self, failed: str, message: str) -> None:
        condition = {
            "type": "Failed",
            "status": failed,
            "reason": "ValuesRefused" if message else "",
            "message": message,
        }
        self._api.merge(f"{CHART}/status", {"status": {"conditions": [condition]}})


class ServiceLB:
    """Writes the addresses of Services of type LoadBalancer."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def step(self) -> None:
        services = self._api.items("/api/v1/services")
        if not any(s["spec"].get("type") == "LoadBalancer" for s in services):
            return
        nodes = self._api.items("/api/v1/nodes")
        slices = self._api.items("/apis/discovery.k8s.io/v1/endpointslices")
        current = {
            (s["metadata"]["namespace"], s["metadata"]["name"]): sorted(
                entry.get("ip", "") for entry in s.get("status", {}).get("loadBalancer", {}).get("ingress") or []
            )
            for s in services
        }
        for key, addresses in servicelb.decide(services, nodes, slices).items():
            if current[key] != addresses:
                namespace, name = key
                ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
                self._api.merge(
                    f"/api/v1/namespaces/{namespace}/services/{name}/status",
                    {"status": {"loadBalancer": {"ingress": ingress or None}}},
                )
                log(f"Updated load balancer status of {namespace}/{name}: {', '.join(addresses) or 'no node'}")


def password_matches(stored: str, password: str) -> bool:
    """stored is <salt>:<hash>, both hexadecimal."""
    salt, _, digest = stored.partition(":")
    return hmac.compare_digest(digest, password_hash(password, salt).partition(":")[2])


def password_hash(password: str, salt: str = "") -> str:
    salt = salt or os.urandom(8).hex()
    return f"{salt}:{hashlib.sha256((salt + password).encode()).hexdigest()}"


def refusal(
    user: str, signer: str, subject: tuple[str, tuple[str, ...]], node: str, password: str, stored: str | None
) -> str:
    """Why a joining node's certificate request is denied, '' to sign it; ``stored`` is None for a node not seen yet."""
    if user != BOOTSTRAP_USER:
        return f"user {user!r} may not ask for a node's certificates"
    if not node or not password:
        return "the request names no node or no node password"
    allowed = {(c.signer, c.common_name, c.organizations) for c in certificates(node)}
    if (signer, subject[0], subject[1]) not in allowed:
        return f"subject {subject[0]!r} is none of node {node!r}"
    if stored is not None and not password_matches(stored, password):
        return (
            f"Node password rejected, duplicate hostname {node!r} or contents of '/etc/rancher/node/password' may not "
            "match server node-passwd entry, try enabling a unique node name with the --node-name flag"
        )
    return ""


class Joining:
    """Signs or denies the certificate requests of joining nodes, and labels the server's own node."""

    def __init__(self, api: Api, server_node: str) -> None:
        self._api = api
        self._server_node = server_node
        self._labelled = False

    def step(self) -> None:
        if not self._labelled:
            path = f"/api/v1/nodes/{self._server_node}"
            if self._api.find(path):
                self._api.merge(path, {"metadata": {"labels": {CONTROL_PLANE: "true"}}})
                self._labelled = True
        for request in self._api.items(CSR):
            if not request.get("status", {}).get("conditions") and request["spec"]["username"] == BOOTSTRAP_USER:
                self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        notes = request["metadata"].get("annotations", {})
        node = notes.get("k3s.cattle.io/node-name", "")
        password = notes.get("k3s.cattle.io/node-password", "")
        folder = "/api/v1/namespaces/kube-system/secrets"
        name = f"{node}.node-password.k3s"
        secret = self._api.find(f"{folder}/{name}") if node else None
        stored = base64.b64decode(secret["data"]["hash"]).decode() if secret else None
        subject = pki.request_subject(base64.b64decode(request["spec"]["request"]))
        reason = refusal(request["spec"]["username"], request["spec"]["signerName"], subject, node, password, stored)
        if not reason and stored is None:
            self.remember(node, password)
        # The password has done its work; it shall not stay in the cluster.
        path = f"{CSR}/{request['metadata']['name']}"
        self._api.merge(path, {"metadata": {"annotations": {"k3s.cattle.io/node-password": None}}})
        condition = {
            "type": "Denied" if reason else "Approved",
            "status": "True",
            "reason": "NodeJoin",
            "message": reason or f"node {node} joins",
        }
        fresh = self._api.get(path)
        fresh.setdefault("status", {})["conditions"] = [condition]
        self._api.call("PUT", f"{path}/approval", fresh)
        if reason:
            log(f"Certificate request of node {node!r} denied: {reason}", "error")

    def remember(self, node: str, password: str) -> None:
        """Tie a node's name to its password."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{node}.node-password.k3s", "namespace": "kube-system"},
            "immutable": True,
            "data": {"hash": base64.b64encode(password_hash(password).encode()).decode()},
        }
        try:
            self._api.call("POST", "/api/v1/namespaces/kube-system/secrets", body)
        except ApiError as error:
            if error.code != 409:
                raise
