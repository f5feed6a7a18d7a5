"""What the stand-in for k3s does only in a cluster: refusals at a join, network policies, ServiceLB, its own end."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from sitebed import Bed, until

NAMESPACE = "e2e-k3s"
IMAGE = "docker.io/library/busybox:1.36"
SERVER = "server-0"


def agent_of(bed: Bed) -> str:
    return next(node for node in bed.nodes() if node != SERVER)


def join(bed: Bed, token: str, *options: str) -> str:
    """Try to join under a data directory of its own and give what was said; it must end by itself with code 1."""
    url = f"https://{bed.node_address(SERVER)}:6443"
    script = (
        f"k3s agent --server {url} --data-dir /tmp/e2e-join --token '{token}' {' '.join(options)} 2>&1; echo code $?;"
        "rm -rf /tmp/e2e-join"
    )
    said = bed.node_exec(agent_of(bed), "timeout", "60", "env", "K3S_CONFIG_FILE=/none", "sh", "-c", script)
    assert "code 1" in said, said
    return said


def token_of(bed: Bed) -> str:
    return bed.node_exec(SERVER, "cat", "/var/lib/rancher/k3s/server/node-token").strip()


@pytest.fixture(scope="module")
def namespace(bed: Bed) -> Any:
    bed.kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    bed.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_token_of_another_cluster_is_refused_at_once(bed: Bed) -> None:
    foreign = f"K10{hashlib.sha256(b'another').hexdigest()}::server:x"
    assert "the token belongs to another cluster" in join(bed, foreign)


def test_a_wrong_password_is_refused_at_once(bed: Bed) -> None:
    head = token_of(bed).partition("::")[0]
    assert "refused it: not authorized" in join(bed, f"{head}::server:wrong")


def test_a_second_node_of_the_same_name_is_refused(bed: Bed) -> None:
    assert "duplicate hostname 'server-0'" in join(bed, token_of(bed), "--node-name", SERVER)


def test_an_option_that_is_not_there_is_refused_by_name(bed: Bed) -> None:
    assert "'docker', but this stand-in does not have it" in join(bed, "x", "--docker=true")


@pytest.mark.parametrize("url", ["https://127.0.0.1:6443/readyz", "https://127.0.0.1:10250/pods"])
def test_nobody_is_served_without_a_name(bed: Bed, url: str) -> None:
    assert bed.node_exec(SERVER, "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url) == "401"


def test_a_network_policy_is_enforced_across_nodes(bed: Bed, namespace: str) -> None:
    def pod(name: str, node: str, *command: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"role": name}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": IMAGE, "command": list(command)}],
            },
        }

    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-friends", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"role": "target"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}]}],
        },
    }
    target = pod("target", SERVER, "sh", "-c", "echo hello > index.html; exec httpd -f -p 8000")
    asker = pod("asker", agent_of(bed), "sleep", "3600")
    bed.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [target, asker]}))
    bed.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/target", "pod/asker", "--timeout=90s")
    address = bed.get("pod", "-n", namespace, "target")["status"]["podIP"]

    def ask() -> str:
        url = f"http://{address}:8000/"
        return bed.in_pod("asker", "wget", "-T", "2", "-qO-", url, namespace=namespace, check=False)

    until(lambda: "hello" in ask(), 30, "an answer without a policy")
    bed.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    until(lambda: "hello" not in ask(), 30, "no answer under the policy")
    bed.kubectl("label", "pod", "-n", namespace, "asker", "friend=yes")
    until(lambda: "hello" in ask(), 30, "an answer for a friend")


def addresses(bed: Bed, namespace: str, name: str) -> list[str]:
    status = bed.get("service", "-n", namespace, name)["status"]["loadBalancer"]
    return sorted(entry["ip"] for entry in status.get("ingress", []))


def test_servicelb_follows_the_pool_and_the_ready_endpoints(bed: Bed, namespace: str) -> None:
    label = "svccontroller.k3s.cattle.io/lbpool"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "lb", "namespace": namespace, "labels": {label: "e2e"}},
        "spec": {"type": "LoadBalancer", "selector": {"role": "target"}, "ports": [{"port": 8011, "targetPort": 8000}]},
    }
    node = agent_of(bed)
    bed.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    bed.kubectl("label", "node", node, f"{label}=e2e")
    try:
        until(lambda: addresses(bed, namespace, "lb") == [bed.node_address(node)], 20, "only the pool's node")
    finally:
        bed.kubectl("label", "node", node, f"{label}-")
    patch = {"metadata": {"labels": {label: None}}, "spec": {"externalTrafficPolicy": "Local"}}
    bed.kubectl("patch", "service", "-n", namespace, "lb", "--type=merge", "-p", json.dumps(patch))
    until(lambda: addresses(bed, namespace, "lb") == [bed.node_address(SERVER)], 20, "only the endpoint's node")


def test_a_value_that_traefik_does_not_get_is_refused_where_it_can_be_seen_and_changes_nothing(bed: Bed) -> None:
    path = ("helmchartconfig", "-n", "kube-system", "traefik")
    given = bed.get(*path)["spec"]["valuesContent"]
    daemonset = bed.get("daemonset", "-n", "kube-system", "traefik")["metadata"]["generation"]

    def patch(values: str) -> None:
        bed.kubectl("patch", *path, "--type=merge", "-p", json.dumps({"spec": {"valuesContent": values}}))

    def failed() -> str:
        chart = bed.get("helmchart", "-n", "kube-system", "traefik")
        return str(next(c for c in chart["status"]["conditions"] if c["type"] == "Failed")["message"])

    patch("hub: {token: x}\n")
    try:
        until(lambda: "'hub' is not honoured" in failed(), 20, "the condition that names the value")
        events = bed.get("events", "-n", "kube-system", "--field-selector=reason=ValuesRefused")["items"]
        assert any("'hub'" in event["message"] for event in events)
    finally:
        patch(given)
    until(lambda: failed() == "", 20, "the condition is taken back")
    assert bed.get("daemonset", "-n", "kube-system", "traefik")["metadata"]["generation"] == daemonset


def test_a_stopped_service_leaves_the_pods_and_a_lost_component_brings_the_service_back(bed: Bed) -> None:
    node = agent_of(bed)
    before = bed.node_exec(node, "pgrep", "-x", "containerd-shim").split()
    assert before
    bed.node_exec(node, "systemctl", "stop", "k3s-agent")
    try:
        assert bed.node_exec(node, "pgrep", "-x", "containerd-shim").split() == before
        assert bed.node_exec(node, "pgrep", "-x", "kubelet", check=False) == ""
    finally:
        bed.node_exec(node, "systemctl", "start", "k3s-agent")
    first = bed.node_exec(node, "pgrep", "-x", "kubelet").strip()
    bed.node_exec(node, "kill", "-9", first)

    def back() -> bool:
        current = bed.node_exec(node, "pgrep", "-x", "kubelet", check=False).strip()
        return (
            bool(current)
            and current != first
            and bed.node_exec(node, "systemctl", "is-active", "k3s-agent").strip() == "active"
        )

    until(back, 60, "the service started anew")
    assert bed.node_exec(node, "pgrep", "-x", "containerd-shim").split() == before
