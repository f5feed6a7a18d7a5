"""Whether a cluster is the one of the inventory's hosts, and whether the site would be a second one in it. Pure.

What was seen comes from the module site_check. Where site.yml has asked the hosts, the hash of the CA on the server
says which cluster is theirs; at all other times the StatefulSet's annotation says from which hosts the site was applied
last.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .objects import Part

# On the StatefulSet: {inventory host: its address} of the last apply, as JSON.
INVENTORY_HOSTS = "abaci.infra/inventory-hosts"
MANAGED_BY = ("app.kubernetes.io/managed-by", "abaci.infra")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_HOST = re.compile(r"\bHost\(([^)]*)\)")
_QUOTED = re.compile(r"[`\"']([^`\"']+)[`\"']")
_PATH = re.compile(r"\bPath(?:Prefix|Regexp)?\(\s*[`\"']([^`\"']*)[`\"']")


@dataclass(frozen=True)
class Desired:
    """What the inventory says.

    ``hosts``: inventory name -> address (ansible_host, else the name); empty: the inventory has none, nothing is bound.
    ``aliases``: other names that its nodes may have. ``ca_hash``: sha256 of the CA file on ``server``, "" where the
    host was not asked. ``domains`` are looked for only with ``apply``: the run would make or change the site.
    """

    namespace: str
    name: str
    kubeconfig: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    aliases: Iterable[str] = ()
    server: str = ""
    ca_hash: str = ""
    apply: bool = False
    domains: Iterable[str] = ()
    config_name: str = ""
    secret_name: str = ""


@dataclass(frozen=True)
class Seen:
    """What the cluster has: plain objects of the API, of all namespaces."""

    nodes: Iterable[Part] = ()
    ca: str = ""  # the PEM text of ConfigMap kube-system/kube-root-ca.crt
    statefulsets: Iterable[Part] = ()
    ingresses: Iterable[Part] = ()
    ingress_routes: Iterable[Part] = ()


@dataclass(frozen=True)
class Claim:
    """One host name that a route serves, and the Services behind it."""

    host: str
    where: str
    namespace: str
    services: frozenset[str]
    whole: bool  # all paths of the host, not a part of them
    ours: bool  # made by this collection


def refusal(seen: Seen, desired: Desired) -> str:
    """Why nothing may be applied, in one sentence; "" where all is well."""
    living = next((item for item in seen.statefulsets if _key(item) == (desired.namespace, desired.name)), None)
    other = foreign_cluster(seen, desired, living) if desired.hosts else ""
    if other or not desired.apply:
        return other
    return second_site(seen, desired, living is not None)


def foreign_cluster(seen: Seen, desired: Desired, living: Part | None) -> str:
    """The sentence where the kubeconfig leads to another cluster than that of the inventory's hosts."""
    if desired.ca_hash and seen.ca:
        if desired.ca_hash in ca_hashes(seen.ca):
            return ""
        return (
            f"{desired.kubeconfig} leads to another cluster than the one on {desired.server}: take this inventory's "
            "kubeconfig (abaci_kubeconfig, app_kubeconfig), or the inventory that belongs to the cluster (-i)."
        )
    nodes = [_names_and_addresses(node) for node in seen.nodes]
    bound = inventory_hosts(living)
    if bound:
        known = any(bound.get(name) == address for name, address in desired.hosts.items())
        known = known or any(
            name.lower() in names and address in addresses
            for name, address in desired.hosts.items()
            for names, addresses in nodes
        )
    else:
        theirs = {text for names, addresses in nodes for text in (*names, *addresses)}
        mine = {*desired.hosts, *desired.hosts.values(), *desired.aliases}
        known = bool({text.lower() for text in mine if text} & theirs)
    if known:
        return ""
    site = f"its site {desired.namespace}/{desired.name} was applied from {_listed(bound)}" if bound else ""
    found = f"nodes {', '.join(sorted(node['metadata']['name'] for node in seen.nodes)) or 'none'}"
    return (
        f"The cluster of {desired.kubeconfig} has none of this inventory's hosts ({_listed(desired.hosts)}): "
        f"{site or found}; take the inventory that belongs to the cluster (-i) or this one's kubeconfig "
        "(abaci_kubeconfig), or, where hosts got new names or addresses, run site.yml once without --tags, which asks "
        "the hosts themselves."
    )


def ca_hashes(pem: str) -> set[str]:
    """What k3s may call the hash of this CA: of the file where it is one certificate, else of the root's DER bytes."""
    found = {hashlib.sha256(pem.encode()).hexdigest()}
    for body in _PEM.findall(pem):
        found.add(hashlib.sha256(base64.b64decode("".join(body.split()))).hexdigest())
    return found


def second_site(seen: Seen, desired: Desired, lives: bool) -> str:
    """The sentence where another site has this one's domain or objects."""
    mine = {desired.name, f"{desired.name}-primary", f"{desired.name}-headless"}
    asked = set(desired.domains)
    for claim in sorted([*_ingress_claims(seen), *_route_claims(seen)], key=lambda one: (not one.ours, one.where)):
        if claim.host not in asked or not (claim.ours or claim.whole):
            continue
        if claim.namespace == desired.namespace and claim.services <= mine:
            continue
        start = f"{claim.host} is served by {claim.where} for {_sites(claim)} already"
        if lives:
            return (
                f"{start}: take the domain from one of the two (app_domain, app_extra_domains), or take the other site "
                "away (site.yml with app_state: absent under its names)."
            )
        return f"{start}, and {desired.namespace}/{desired.name} would be a second, empty site: {_ways(desired)}"
    for item in seen.statefulsets:
        namespace, name = _key(item)
        if namespace != desired.namespace or name == desired.name:
            continue
        shared = sorted(_sources(item) & {("ConfigMap", desired.config_name), ("Secret", desired.secret_name)})
        if shared:
            kind, what = shared[0]
            return (
                f"StatefulSet {namespace}/{name} lives on {kind} {what}, which {desired.namespace}/{desired.name} "
                f"would overwrite (a second site needs an app_namespace of its own): {_ways(desired)}"
            )
    return ""


def _ways(desired: Desired) -> str:
    return (
        "set app_name and app_namespace to the names of the site that lives, or move it by playbooks/backup.yml and "
        "site.yml with app_state: absent under its present names, then site.yml under the new ones and "
        "playbooks/restore.yml there with the new site's id as restore_overwrite_cluster_id (clusterID in ConfigMap "
        f"{desired.name}-litefs-identity)."
    )


def inventory_hosts(statefulset: Part | None) -> dict[str, str]:
    """The hosts from which a StatefulSet was applied last; none where that is not written down."""
    text = ((statefulset or {}).get("metadata", {}).get("annotations") or {}).get(INVENTORY_HOSTS, "")
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return {str(name): str(address) for name, address in found.items()} if isinstance(found, dict) else {}


def _key(item: Part) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _listed(hosts: Mapping[str, str]) -> str:
    return ", ".join(name if address == name else f"{name} {address}" for name, address in sorted(hosts.items()))


def _names_and_addresses(node: Part) -> tuple[set[str], set[str]]:
    listed = (node.get("status") or {}).get("addresses") or []
    names = {node["metadata"]["name"]} | {
        item["address"] for item in listed if item["type"] in ("Hostname", "InternalDNS")
    }
    return {name.lower() for name in names}, {item["address"].lower() for item in listed}


def _sites(claim: Claim) -> str:
    return " and ".join(f"{claim.namespace}/{service}" for service in sorted(claim.services))


def _is_ours(item: Part) -> bool:
    return (item["metadata"].get("labels") or {}).get(MANAGED_BY[0]) == MANAGED_BY[1]


def _ingress_claims(seen: Seen) -> Iterator[Claim]:
    for item in seen.ingresses:
        namespace, name = _key(item)
        for rule in item.get("spec", {}).get("rules") or []:
            paths = (rule.get("http") or {}).get("paths") or []
            named = [((path.get("backend") or {}).get("service") or {}).get("name") for path in paths]
            services = {str(service) for service in named if service}
            if services and rule.get("host"):
                whole = any(path.get("path", "/") == "/" and path.get("pathType") != "Exact" for path in paths)
                where = f"Ingress {namespace}/{name}"
                yield Claim(rule["host"], where, namespace, frozenset(services), whole, _is_ours(item))


def _route_claims(seen: Seen) -> Iterator[Claim]:
    for item in seen.ingress_routes:
        namespace, name = _key(item)
        for route in item.get("spec", {}).get("routes") or []:
            match = str(route.get("match", ""))
            services = frozenset(
                one["name"]
                for one in route.get("services") or []
                if one.get("name") and one.get("kind", "Service") == "Service"
            )
            whole = all(path == "/" for path in _PATH.findall(match))
            for group in _HOST.findall(match) if services else []:
                for host in _QUOTED.findall(group):
                    yield Claim(host, f"IngressRoute {namespace}/{name}", namespace, services, whole, _is_ours(item))


def _sources(statefulset: Part) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets from which its containers take their environment."""
    containers = statefulset.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    found = set()
    for source in (source for container in containers for source in container.get("envFrom") or []):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if source.get(key):
                found.add((kind, str(source[key].get("name", ""))))
    return found
