"""Traefik as k3s bundles it: the chart's values in a HelmChartConfig become Kubernetes objects. Pure.

Only the values that this project sets are honoured. Any other is refused by name: a value that is silently ignored here
would be a test that proves nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

NAMESPACE = "kube-system"
NAME = "traefik"
PORTS = ("web", "websecure")
PLUGINS = "/plugins-local/src/"


class ValuesError(Exception):
    """One sentence that names the value."""


# A tree of what is honoured: a dict holds keys, '*' stands for any key, a type ends it.
Schema = Mapping[str, Any]
_PORT: Schema = {
    "forwardedHeaders": {"trustedIPs": list},
    "transport": {
        "lifeCycle": {"requestAcceptGraceTimeout": (int, str), "graceTimeOut": (int, str)},
        "respondingTimeouts": {"readTimeout": (int, str)},
    },
}
SCHEMA: Schema = {
    "deployment": {"kind": str, "podAnnotations": {"*": str}},
    "updateStrategy": {"type": str, "rollingUpdate": {"maxUnavailable": (int, str), "maxSurge": (int, str)}},
    "service": {"spec": {"externalTrafficPolicy": str}},
    "providers": {"kubernetesCRD": {"allowEmptyServices": bool}, "kubernetesIngress": {"allowEmptyServices": bool}},
    "ports": {name: _PORT for name in PORTS},
    "experimental": {"localPlugins": {"*": {"moduleName": str, "mountPath": str, "type": str, "source": {"*": str}}}},
    "logs": {"access": {"enabled": bool, "format": str}},
    "additionalArguments": list,
    "nodeSelector": {"*": str},
    "tolerations": list,
}
DEFAULTS: Mapping[str, Any] = {
    "deployment": {"kind": "Deployment"},
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    "providers": {"kubernetesCRD": {"allowEmptyServices": True}, "kubernetesIngress": {"allowEmptyServices": True}},
    "logs": {"access": {"enabled": False, "format": "common"}},
    # As k3s sets them for its bundled chart.
    "tolerations": [
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
    ],
}


def check(values: Any, schema: Schema = SCHEMA, path: str = "") -> None:
    """Raise ValuesError for the first value that is not honoured, or whose type is wrong."""
    if not isinstance(values, Mapping):
        raise ValuesError(f"{path or 'valuesContent'}: expected a mapping.")
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        allowed = schema.get(str(key), schema.get("*"))
        if allowed is None:
            raise ValuesError(f"value {where!r} is not honoured by this stand-in's Traefik; remove it.")
        if value is None:
            continue
        if isinstance(allowed, Mapping):
            check(value, allowed, where)
        elif not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not bool):
            raise ValuesError(f"value {where!r} has the wrong type: {value!r}.")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Helm's merge: mappings are merged, everything else replaces, null removes the default."""
    result: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = copy.deepcopy(value)
    return result


def labels() -> dict[str, str]:
    return {
        "app.kubernetes.io/instance": f"{NAME}-{NAMESPACE}",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/name": NAME,
    }


def selector() -> dict[str, str]:
    return {key: value for key, value in labels().items() if not key.endswith("managed-by")}


def meta(name: str, namespaced: bool = True, **extra: Any) -> dict[str, Any]:
    return {"name": name, **({"namespace": NAMESPACE} if namespaced else {}), "labels": labels(), **extra}


def plugin_map(name: str) -> str:
    return f"{NAME}-local-plugin-{name}"


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Traefik's static configuration, in the chart's order."""
    result = [
        "--entryPoints.metrics.address=:9100/tcp",
        "--entryPoints.traefik.address=:8080/tcp",
        "--entryPoints.web.address=:8000/tcp",
        "--entryPoints.websecure.address=:8443/tcp",
        "--api.dashboard=true",
        "--ping=true",
        "--metrics.prometheus=true",
        "--metrics.prometheus.entrypoint=metrics",
        "--providers.kubernetescrd",
    ]

    def flag(value: Any) -> str:
        return "true" if value else "false"

    providers = values["providers"]
    result += [
        f"--providers.kubernetescrd.allowEmptyServices={flag(providers['kubernetesCRD'].get('allowEmptyServices'))}",
        "--providers.kubernetesingress",
        f"--providers.kubernetesingress.allowEmptyServices={flag(providers['kubernetesIngress'].get('allowEmptyServices'))}",
        f"--providers.kubernetesingress.ingressendpoint.publishedservice={NAMESPACE}/{NAME}",
        "--entryPoints.websecure.http.tls=true",
    ]
    for port in PORTS:
        settings = (values.get("ports") or {}).get(port) or {}
        life = (settings.get("transport") or {}).get("lifeCycle") or {}
        for key, value in sorted(life.items()):
            if value is not None:
                result.append(f"--entryPoints.{port}.transport.lifeCycle.{key}={value}")
        read = ((settings.get("transport") or {}).get("respondingTimeouts") or {}).get("readTimeout")
        if read is not None:
            result.append(f"--entryPoints.{port}.transport.respondingTimeouts.readTimeout={read}")
        trusted = (settings.get("forwardedHeaders") or {}).get("trustedIPs")
        if trusted:
            result.append(f"--entryPoints.{port}.forwardedHeaders.trustedIPs={','.join(trusted)}")
    for name, plugin in sorted(plugins(values).items()):
        result.append(f"--experimental.localPlugins.{name}.moduleName={plugin['moduleName']}")
    result.append("--log.level=INFO")
    access = values["logs"]["access"]
    if access.get("enabled"):
        result += ["--accesslog=true", f"--accesslog.format={access.get('format') or 'common'}"]
    return [*result, *(values.get("additionalArguments") or [])]


def plugins(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return dict((values.get("experimental") or {}).get("localPlugins") or {})


def check_meaning(values: Mapping[str, Any]) -> None:
    """Refuse values of the right type that mean nothing."""
    kind = values["deployment"]["kind"]
    if kind not in ("DaemonSet", "Deployment"):
        raise ValuesError(f"value 'deployment.kind' is {kind!r}: use DaemonSet or Deployment.")
    for name, plugin in plugins(values).items():
        where = f"experimental.localPlugins.{name}"
        for key in ("moduleName", "mountPath", "source"):
            if not plugin.get(key):
                raise ValuesError(f"value '{where}.{key}' is missing.")
        if plugin.get("type") != "inlinePlugin":
            raise ValuesError(f"value '{where}.type' is {plugin.get('type')!r}: only inlinePlugin is honoured.")
        if plugin["mountPath"] != PLUGINS + plugin["moduleName"]:
            raise ValuesError(
                f"value '{where}.mountPath' must be {PLUGINS}{plugin['moduleName']}: Traefik looks there."
            )


def pod_template(values: Mapping[str, Any], image: str) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[dict[str, Any]] = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    for name, plugin in sorted(plugins(values).items()):
        mounts.append({"name": name, "mountPath": plugin["mountPath"], "readOnly": True})
        volumes.append({"name": name, "configMap": {"name": plugin_map(name)}})
    probe = {
        "httpGet": {"path": "/ping", "port": "traefik", "scheme": "HTTP"},
        "timeoutSeconds": 2,
        "periodSeconds": 10,
    }
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments(values),
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "ports": [
            {"name": "metrics", "containerPort": 9100, "protocol": "TCP"},
            {"name": "traefik", "containerPort": 8080, "protocol": "TCP"},
            {"name": "web", "containerPort": 8000, "protocol": "TCP"},
            {"name": "websecure", "containerPort": 8443, "protocol": "TCP"},
        ],
        "readinessProbe": {**probe, "failureThreshold": 1, "successThreshold": 1, "initialDelaySeconds": 2},
        "livenessProbe": {**probe, "failureThreshold": 3, "successThreshold": 1, "initialDelaySeconds": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    spec: dict[str, Any] = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": 60,
        "hostNetwork": False,
        "priorityClassName": "system-cluster-critical",
        "securityContext": {"runAsGroup": 65532, "runAsNonRoot": True, "runAsUser": 65532},
        "containers": [container],
        "volumes": volumes,
        "tolerations": values.get("tolerations") or [],
    }
    if values.get("nodeSelector"):
        spec["nodeSelector"] = values["nodeSelector"]
    annotations = {"prometheus.io/path": "/metrics", "prometheus.io/port": "9100", "prometheus.io/scrape": "true"}
    annotations |= values["deployment"].get("podAnnotations") or {}
    return {"metadata": {"labels": labels(), "annotations": annotations}, "spec": spec}


def cluster_rules() -> list[dict[str, Any]]:
    read = ["get", "list", "watch"]
    return [
        {"apiGroups": [""], "resources": ["configmaps", "nodes", "secrets", "services"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": ["extensions", "networking.k8s.io"], "resources": ["ingressclasses", "ingresses"], "verbs": read},
        {"apiGroups": ["extensions", "networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"]},
        {
            "apiGroups": ["traefik.io"],
            "resources": [
                *("ingressroutes", "ingressroutetcps", "ingressrouteudps", "middlewares", "middlewaretcps"),
                *("serverstransports", "serverstransporttcps", "tlsoptions", "tlsstores", "traefikservices"),
            ],
            "verbs": read,
        },
    ]


def render(given: Any, image: str) -> list[dict[str, Any]]:
    """All objects of the release for a HelmChartConfig's values (None for none).

    Raises:
        ValuesError: names the value that is not honoured.
    """
    given = given or {}
    check(given)
    values = merged(DEFAULTS, given)
    check_meaning(values)
    kind = values["deployment"]["kind"]
    binding = f"{NAME}-{NAMESPACE}"
    strategy = values["updateStrategy"]
    workload: dict[str, Any] = {
        "selector": {"matchLabels": selector()},
        "template": pod_template(values, image),
        "minReadySeconds": 0,
    }
    if kind == "Deployment":
        workload |= {"replicas": 1, "strategy": strategy}
    else:
        workload["updateStrategy"] = strategy
    service = {"externalTrafficPolicy": "Cluster", **((values.get("service") or {}).get("spec") or {})}
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": meta(NAME),
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": meta(binding, namespaced=False),
            "rules": cluster_rules(),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta(binding, namespaced=False),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": binding},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": meta(
                NAME, namespaced=False, annotations={"ingressclass.kubernetes.io/is-default-class": "true"}
            ),
            "spec": {"controller": "traefik.io/ingress-controller"},
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": meta(plugin_map(name)),
                "data": dict(plugin["source"]),
            }
            for name, plugin in sorted(plugins(values).items())
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(NAME),
            "spec": {
                "type": "LoadBalancer",
                "ipFamilyPolicy": "PreferDualStack",
                "selector": selector(),
                "ports": [
                    {"name": "web", "port": 80, "targetPort": "web", "protocol": "TCP"},
                    {"name": "websecure", "port": 443, "targetPort": "websecure", "protocol": "TCP"},
                ],
                **service,
            },
        },
        {"apiVersion": "apps/v1", "kind": kind, "metadata": meta(NAME), "spec": workload},
    ]
    return objects
