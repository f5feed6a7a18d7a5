"""Whose cluster it is, and who has the domain already."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.abaci.infra.plugins.module_utils import kube, site
from ansible_collections.abaci.infra.plugins.modules import site_check

BODY = base64.b64encode(b"a certificate").decode()
CA = f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n"
HASH = hashlib.sha256(CA.encode()).hexdigest()
HOSTS = {"node-1": "192.0.2.11", "node-2": "192.0.2.12"}


def node(name: str, address: str) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {"metadata": {"name": name}, "status": {"addresses": listed}}


def statefulset(
    namespace: str = "abaci", name: str = "abaci-app", hosts: dict[str, str] | None = None, config: str = "app-config"
) -> dict[str, Any]:
    annotations = {site.INVENTORY_HOSTS: json.dumps(hosts)} if hosts else {}
    sources = [{"configMapRef": {"name": config}}, {"secretRef": {"name": f"{config}-secret"}}]
    return {
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        "spec": {"template": {"spec": {"containers": [{"name": "app", "envFrom": sources}]}}},
    }


def ingress(
    host: str, namespace: str = "abaci", service: str = "abaci-app", path: str = "/", ours: bool = True
) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"name": "http"}}}
    return {
        "metadata": {"namespace": namespace, "name": service, "labels": labels(ours)},
        "spec": {
            "rules": [{"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}]
        },
    }


def route(
    match: str, namespace: str = "abaci", service: str | None = "abaci-app-primary", ours: bool = True
) -> dict[str, Any]:
    services = [{"name": service}] if service else [{"name": "noop@internal", "kind": "TraefikService"}]
    return {
        "metadata": {"namespace": namespace, "name": "writes", "labels": labels(ours)},
        "spec": {"routes": [{"match": match, "services": services}]},
    }


def labels(ours: bool) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "abaci.infra"} if ours else {}


NODES = [node("node-1", "192.0.2.11"), node("node-2", "192.0.2.12")]


def said(
    *,
    nodes: list[dict[str, Any]] = NODES,
    statefulsets: list[dict[str, Any]] | None = None,
    ingresses: list[dict[str, Any]] | None = None,
    routes: list[dict[str, Any]] | None = None,
    **desired: Any,
) -> str:
    given = {
        "namespace": "abaci",
        "name": "abaci-app",
        "kubeconfig": "~/.kube/x",
        "hosts": HOSTS,
        "apply": True,
        "domains": ["www.example.org"],
        "config_name": "app-config",
        "secret_name": "app-env",
    }
    seen = site.Seen(nodes, CA, statefulsets or [], ingresses or [], routes or [])
    answer: str = site.refusal(seen, site.Desired(**(given | desired)))
    return answer


# --- the cluster -----------------------------------------------------------------------------------------------------


def test_the_ca_on_the_server_decides_where_it_was_read() -> None:
    assert said(ca_hash=HASH, nodes=[node("other", "10.0.0.1")]) == ""
    refused = said(ca_hash="0" * 64, server="node-1")
    assert refused.startswith("~/.kube/x leads to another cluster than the one on node-1: ")


def test_a_chain_of_certificates_is_known_by_its_root_as_k3s_does() -> None:
    assert hashlib.sha256(b"a certificate").hexdigest() in site.ca_hashes(CA + CA)


@pytest.mark.parametrize(
    ("hosts", "aliases"),
    [
        ({"node-1": "node-1"}, []),
        ({"NODE-2": "203.0.113.1"}, []),
        ({"web": "192.0.2.12"}, []),
        ({"web": "203.0.113.1"}, ["node-1"]),
        ({"gone": "192.0.2.99", "node-2": "192.0.2.12"}, []),
    ],
)
def test_one_host_by_name_address_or_node_name_is_enough_where_nothing_is_written_down(
    hosts: dict[str, str], aliases: list[str]
) -> None:
    assert said(hosts=hosts, aliases=aliases) == ""


def test_a_cluster_of_other_hosts_is_refused_in_one_sentence() -> None:
    refused = said(hosts={"stage-1": "198.51.100.1"}, apply=False)
    assert "has none of this inventory's hosts (stage-1 198.51.100.1): nodes node-1, node-2" in refused
    assert "abaci_kubeconfig" in refused and "-i" in refused and refused.count(". ") == 0


def test_the_same_host_names_at_other_addresses_are_another_inventory() -> None:
    living = [statefulset(hosts=HOSTS)]
    refused = said(statefulsets=living, hosts={"node-1": "198.51.100.1", "node-2": "198.51.100.2"})
    assert "its site abaci/abaci-app was applied from node-1 192.0.2.11, node-2 192.0.2.12" in refused


@pytest.mark.parametrize(
    "hosts",
    [
        {"node-1": "192.0.2.11"},  # the other one is dead or was taken away
        {"node-1": "198.51.100.1", "node-2": "192.0.2.12"},  # one has a new address
        {"node-2": "192.0.2.12", "node-3": "192.0.2.13"},
    ],
)
def test_one_host_as_written_down_is_enough(hosts: dict[str, str]) -> None:
    assert said(statefulsets=[statefulset(hosts=HOSTS)], hosts=hosts) == ""


def test_new_addresses_of_all_hosts_are_taken_from_the_nodes() -> None:
    living = [statefulset(hosts={"node-1": "10.0.0.1", "node-2": "10.0.0.2"})]
    assert said(statefulsets=living) == ""


def test_without_hosts_in_the_inventory_nothing_is_compared() -> None:
    assert said(hosts={}, nodes=[node("other", "10.0.0.1")]) == ""


# --- the site --------------------------------------------------------------------------------------------------------


def test_a_first_run_a_later_run_and_an_adopted_site_pass() -> None:
    mine = {"ingresses": [ingress("www.example.org")], "routes": [route("Host(`www.example.org`) && !Method(`GET`)")]}
    assert said() == ""
    assert said(statefulsets=[statefulset(hosts=HOSTS)], **mine) == ""
    adopted = [ingress("www.example.org", ours=False)]
    assert said(statefulsets=[statefulset()], ingresses=adopted) == ""


@pytest.mark.parametrize(
    ("namespace", "name"), [("abaci", "shop"), ("prod", "abaci-app"), ("abaci", "abaci"), ("abaci-2", "app")]
)
@pytest.mark.parametrize("ours", [True, False])
def test_another_name_for_a_site_that_lives_is_refused_with_both_ways_out(
    namespace: str, name: str, ours: bool
) -> None:
    refused = said(
        namespace=namespace,
        name=name,
        statefulsets=[statefulset(hosts=HOSTS)],
        ingresses=[ingress("www.example.org", ours=ours)],
    )
    assert refused.startswith("www.example.org is served by Ingress abaci/abaci-app for abaci/abaci-app already")
    assert f"{namespace}/{name} would be a second, empty site: set app_name and app_namespace" in refused
    assert "playbooks/backup.yml" in refused and "app_state: absent" in refused and "playbooks/restore.yml" in refused


def test_an_ingress_route_is_read_as_well_and_every_host_of_it() -> None:
    match = '(Host(`a.example.org`, "www.example.org") || Host(`b.example.org`)) && PathPrefix(`/api`)'
    assert "IngressRoute abaci/writes" in said(namespace="prod", routes=[route(match)])
    assert said(namespace="prod", routes=[route(match, ours=False)]) == ""
    assert said(namespace="prod", routes=[route("Host(`www.example.org`)", service=None, ours=False)]) == ""


def test_a_domain_of_another_site_is_no_extra_domain_of_this_one() -> None:
    living = [statefulset(hosts=HOSTS), statefulset("blog", "blog")]
    refused = said(statefulsets=living, ingresses=[ingress("www.example.org", "blog", "blog")])
    assert "take the domain from one of the two" in refused


def test_two_sites_with_domains_of_their_own_and_a_part_of_the_domain_are_possible() -> None:
    other = ingress("blog.example.org", "blog", "blog")
    assert said(statefulsets=[statefulset("blog", "blog")], ingresses=[other]) == ""
    assert said(ingresses=[ingress("www.example.org", "docs", "docs", path="/docs", ours=False)]) == ""


def test_two_sites_on_one_config_are_refused_also_with_other_domains() -> None:
    refused = said(name="shop", statefulsets=[statefulset()], domains=["shop.example.org"])
    assert "StatefulSet abaci/abaci-app lives on ConfigMap app-config, which abaci/shop would overwrite" in refused
    assert said(name="shop", statefulsets=[statefulset()], domains=["shop.example.org"], config_name="shop") == ""


def test_operations_ask_for_the_cluster_only() -> None:
    assert said(namespace="prod", ingresses=[ingress("www.example.org")], apply=False) == ""


# --- the module ------------------------------------------------------------------------------------------------------


class Api:
    server = "https://192.0.2.1:6443"

    def __init__(self, fails: kube.KubeError | None = None) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def get(self, _version: str, kind: str, *_where: str) -> dict[str, Any] | None:
        if self.fails:
            raise self.fails
        self.asked.append(kind)
        return {"data": {"ca.crt": CA}}

    def list(self, _version: str, kind: str) -> list[dict[str, Any]]:
        self.asked.append(kind)
        if kind == "IngressRoute":
            raise kube.KubeError("no such kind", 404, unknown_kind=True)
        return {"Node": NODES, "Ingress": [ingress("www.example.org")]}.get(kind, [])


def run(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, check: bool = False, **options: Any
) -> dict[str, Any]:
    monkeypatch.setattr(site_check.kube, "connect", lambda *_given, **_named: api)
    given = {"kubeconfig": "/x", "_ansible_check_mode": check, "hosts": {"node-1": ""}, **options}
    with patch_module_args(given), pytest.raises(SystemExit):
        site_check.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_module_refuses_without_traefiks_kinds_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run(Api(), capsys, monkeypatch, apply=True, name="shop", domains=["www.example.org"])
    assert answer["failed"] and "second, empty site" in answer["msg"]


def test_an_operation_asks_three_things(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    assert run(api, capsys, monkeypatch)["asked"] is True
    assert api.asked == ["ConfigMap", "Node", "StatefulSet"]


def test_hazard_an_api_that_is_away_counts_as_asked_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Api(kube.KubeError("no answer"))
    assert run(away, capsys, monkeypatch)["failed"] is True
    assert run(away, capsys, monkeypatch, required=False)["asked"] is False
    assert run(away, capsys, monkeypatch, check=True)["asked"] is False
    refused = Api(kube.KubeError("forbidden", 403))
    assert run(refused, capsys, monkeypatch, check=True)["failed"] is True
