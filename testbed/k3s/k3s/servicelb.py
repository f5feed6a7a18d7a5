"""Which nodes serve a Service of type LoadBalancer (docs.k3s.io/networking/networking-services). Pure.

k3s starts a DaemonSet of small pods per Service that forward host ports; kube-proxy forwards traffic to the addresses
in status.loadBalancer.ingress by itself, so this stand-in decides the same addresses and starts no pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ENABLE = "svccontroller.k3s.cattle.io/enablelb"
POOL = "svccontroller.k3s.cattle.io/lbpool"


def is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def address(node: Mapping[str, Any]) -> str:
    """ExternalIP before InternalIP, as k3s publishes it; '' if there is neither."""
    found = {a["type"]: a["address"] for a in node.get("status", {}).get("addresses", [])}
    return str(found.get("ExternalIP") or found.get("InternalIP") or "")


def candidates(service: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Nodes whose labels let them serve: once any node carries enablelb, only those with it; a pool only its own."""
    nodes = list(nodes)
    labelled = any(ENABLE in n["metadata"].get("labels", {}) for n in nodes)
    pool = service["metadata"].get("labels", {}).get(POOL)
    chosen = []
    for node in nodes:
        labels = node["metadata"].get("labels", {})
        if labelled and labels.get(ENABLE) != "true":
            continue
        if pool and labels.get(POOL) != pool:
            continue
        chosen.append(node)
    return chosen


def endpoint_nodes(slices: Iterable[Mapping[str, Any]], service: Mapping[str, Any]) -> set[str]:
    """Names of the nodes with a ready endpoint of the Service."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    return {
        endpoint["nodeName"]
        for entry in slices
        if entry["metadata"]["namespace"] == namespace
        and entry["metadata"].get("labels", {}).get("kubernetes.io/service-name") == name
        for endpoint in entry.get("endpoints") or []
        if endpoint.get("nodeName") and endpoint.get("conditions", {}).get("ready")
    }


def decide(
    services: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]], slices: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str], list[str]]:
    """{(namespace, name): sorted addresses} of every Service of type LoadBalancer without a class of its own.

    A host port belongs to the Service that asked first; with externalTrafficPolicy Local only nodes that have a ready
    endpoint count.
    """
    nodes, slices = list(nodes), list(slices)
    taken: set[tuple[str, int, str]] = set()
    result: dict[tuple[str, str], list[str]] = {}
    balanced = [
        s for s in services if s["spec"].get("type") == "LoadBalancer" and not s["spec"].get("loadBalancerClass")
    ]
    order = lambda s: (s["metadata"].get("creationTimestamp", ""), s["metadata"]["namespace"], s["metadata"]["name"])  # noqa: E731
    for service in sorted(balanced, key=order):
        ports = [(int(p["port"]), str(p.get("protocol", "TCP"))) for p in service["spec"].get("ports", [])]
        local = service["spec"].get("externalTrafficPolicy") == "Local"
        ready = endpoint_nodes(slices, service) if local else set()
        addresses = []
        for node in candidates(service, nodes):
            name = node["metadata"]["name"]
            claims = {(name, port, protocol) for port, protocol in ports}
            if claims & taken:
                continue
            taken |= claims
            if is_ready(node) and address(node) and (not local or name in ready):
                addresses.append(address(node))
        result[service["metadata"]["namespace"], service["metadata"]["name"]] = sorted(addresses)
    return result
