"""Where the application's TLS comes from, and what that means for routes, Secret and HSTS."""

from __future__ import annotations

from typing import Any

import pytest
from evaluating import evaluate, living
from rendering import Object, Rendered, Run, check_across, check_schema, from_templates, run_role
from test_app import ALL, GATHERED, PROVIDED, plan
from test_cert_manager import PINNED, RUN, check

DOMAIN = "abaci.localhost"


def certificate(status: str = "True", issuer: str = "letsencrypt-prod", names: list[str] | None = None) -> Object:
    """A Certificate as the API has it."""
    ready = {"type": "Ready", "status": status, "observedGeneration": 1}
    spec = {"issuerRef": {"kind": "ClusterIssuer", "name": issuer}, "dnsNames": names or [DOMAIN]}
    return {"metadata": {"generation": 1}, "spec": spec, "status": {"conditions": [ready]}}


def secret(source: str) -> Object:
    """The living Secret, with a certificate of that source."""
    metadata = {
        "name": "abaci-tls",
        "namespace": "abaci",
        "annotations": {"abaci.infra/certificate": source, "abaci.infra/domains": DOMAIN},
    }
    return {"metadata": metadata, "data": {}}


ACME: dict[str, Any] = {"app_tls": "acme"}
PROXY: dict[str, Any] = {"app_tls": "upstream", "traefik_trusted_proxies": ["192.0.2.1"]}
UPSTREAM: dict[str, Any] = {**PROXY, "app_edge_address": "192.0.2.11"}
# variant: variables, whether HSTS goes out, whether this role writes the Secret
VARIANTS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "acme_first": (ACME, False, False),
    "acme_ready": ({**ACME, **living(certificate=certificate())}, True, False),
    "acme_ready_but_hsts_off": (
        {**ACME, "app_hsts_seconds": 0, **living(certificate=certificate())},
        False,
        False,
    ),
    "acme_not_ready": ({**ACME, **living(certificate=certificate("False"))}, False, False),
    "acme_of_staging_before": (
        {**ACME, **living(certificate=certificate(issuer="letsencrypt-staging"))},
        False,
        False,
    ),
    "acme_of_other_names": ({**ACME, **living(certificate=certificate(names=["old.localhost"]))}, False, False),
    "acme_staging": (
        {**ACME, "app_use_staging_certs": True, **living(certificate=certificate(issuer="letsencrypt-staging"))},
        False,
        False,
    ),
    "acme_own_ca": (
        {**ACME, "app_tls_issuer": "own-ca", **living(certificate=certificate(issuer="own-ca"))},
        False,
        False,
    ),
    "acme_after_a_provided_one": ({**ACME, **living(tls=secret("provided"))}, False, False),
    "acme_beside_files": ({**ACME, **PROVIDED}, False, False),
    "provided_after_acme": ({**PROVIDED, **living(certificate=certificate())}, True, True),
    "nothing_after_acme": (
        living(certificate=certificate(), tls=secret("provided")),
        False,
        True,
    ),
    "kept": (living(tls=secret("provided")), True, False),
    "upstream": (UPSTREAM, False, False),
    "upstream_after_a_provided_one": ({**UPSTREAM, **living(tls=secret("provided"))}, False, False),
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "provided": ({"app_tls": "provided"}, "app_tls is provided, and no certificate is given"),
    "upstream": ({"app_tls": "upstream"}, "traefik_trusted_proxies is empty"),
    "upstream_without_an_address": (PROXY, "app_edge_address is empty, since the inventory has no group k3s_server"),
}


@pytest.fixture(scope="module")
def run() -> Run:
    variants = {name: {**GATHERED, "app_domain": DOMAIN, **plan(), **given} for name, (given, _, _) in VARIANTS.items()}
    variants |= {f"bad_{name}": {"app_domain": DOMAIN, **given} for name, (given, _) in BAD.items()}
    return run_role("app", ["validate.yml"], ALL, variants)


@pytest.fixture(scope="module")
def certificates() -> Run:
    given = {"app_domain": DOMAIN, "app_extra_domains": ["www.abaci.localhost"], **ACME}
    expression = from_templates("app", ["networkpolicy-acme-solver.yml.j2", "certificate-abaci-tls.yml.j2"])
    staging = {**given, "app_use_staging_certs": True}
    return run_role("app", ["validate.yml"], expression, {"prod": given, "staging": staging})


def hsts(rendered: Rendered) -> set[bool]:
    """For each route to the application, whether its first middleware is HSTS; the set of these."""
    found = {
        "hsts"
        in rendered.one("Ingress", "abaci-app")["metadata"]["annotations"][
            "traefik.ingress.kubernetes.io/router.middlewares"
        ]
    }
    for item in rendered.all("IngressRoute"):
        found |= {"hsts" in [used["name"] for used in route["middlewares"]] for route in item["spec"]["routes"]}
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_hsts_hazard_it_goes_out_only_with_a_certificate_that_browsers_trust(run: Run, name: str) -> None:
    assert hsts(run[name]) == {VARIANTS[name][1]}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_secret_is_written_by_one_owner(run: Run, name: str) -> None:
    assert ("abaci-tls" in run[name].names("Secret")) is VARIANTS[name][2]


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_rendered_is_valid_and_agrees(run: Run, name: str) -> None:
    for item in run[name].objects:
        check_schema(item)
    check_across(run[name], [("Secret", "abaci-tls"), ("ConfigMap", "abaci-app-litefs-identity")])


def test_the_redirect_leaves_the_challenge_alone(run: Run) -> None:
    redirect = run["acme_first"].one("Ingress", "abaci-app-http-redirect")
    assert "traefik.ingress.kubernetes.io/router.priority" not in redirect["metadata"]["annotations"], (
        "a challenge's path is longer, and by length it comes first"
    )
    assert [path["path"] for path in redirect["spec"]["rules"][0]["http"]["paths"]] == ["/"]


def test_upstream_serves_http_on_every_route_and_redirects_nobody_in_a_circle(run: Run) -> None:
    rendered = run["upstream"]
    assert rendered.names("Ingress") == ["abaci-app"]
    ingress = rendered.one("Ingress", "abaci-app")
    assert ingress["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.entrypoints"] == "web"
    assert "tls" not in ingress["spec"]
    for item in rendered.all("IngressRoute"):
        assert item["spec"]["entryPoints"] == ["web"] and "tls" not in item["spec"]


@pytest.mark.parametrize("version", [RUN, PINNED])
def test_the_certificate_is_valid_for_both_versions_and_fixes_no_time_of_renewal(
    certificates: Run, version: str
) -> None:
    for name, issuer in (("prod", "letsencrypt-prod"), ("staging", "letsencrypt-staging")):
        item = certificates[name].one("Certificate", "abaci-tls")
        check(version, item)
        assert item["spec"]["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": issuer}
        assert item["spec"]["dnsNames"] == [DOMAIN, "www.abaci.localhost"]
        assert not {"duration", "renewBefore", "renewBeforePercentage"} & set(item["spec"])


def test_only_traefik_reaches_the_pod_that_answers_a_challenge(certificates: Run) -> None:
    policy = certificates["prod"].one("NetworkPolicy")
    check_schema(policy)
    assert policy["spec"]["podSelector"] == {"matchLabels": {"acme.cert-manager.io/http01-solver": "true"}}
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8089, "protocol": "TCP"}]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "traefik"}}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (ACME, True),
        ({**ACME, "cert_manager_state": "present"}, True),
        ({**ACME, "ansible_check_mode": True}, True),
        ({**ACME, "ansible_check_mode": True, "cert_manager_state": "present"}, False),
        ({**ACME, **living()}, False),
        (UPSTREAM, False),
        ({}, False),
    ],
)
def test_acme_without_cert_manager_is_found_before_anything_is_applied(given: dict[str, Any], missing: bool) -> None:
    known = {**living(unknown=("Certificate",)), **given}
    assert evaluate("app", "__app_cert_manager_missing", **known) is missing


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(run: Run, name: str) -> None:
    assert BAD[name][1] in run.failures[f"bad_{name}"]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, DOMAIN),
        (PROXY, "192.0.2.11"),
        ({**PROXY, "hostvars": {"node-1": {}}}, "node-1"),
        ({**PROXY, "groups": {}}, ""),
    ],
)
def test_the_site_is_not_looked_at_through_the_proxy_in_front(given: dict[str, Any], address: str) -> None:
    inventory = {"groups": {"k3s_server": ["node-1"]}, "hostvars": {"node-1": {"ansible_host": "192.0.2.11"}}}
    assert evaluate("app", "app_edge_address", **{"app_domain": DOMAIN, **inventory, **given}) == address
