"""The site's certificate comes from the ACME server through our own edge, is renewed, and decides alone about HSTS."""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from sitebed import ROOT, Bed, Response, background, until

CERTIFICATE = ("certificate.cert-manager.io", "abaci-tls", "-n", "abaci")
DOMAIN = "abaci.localhost"


def served(bed: Bed, ca: Path) -> dict[str, Any]:
    """The certificate that a visitor gets who trusts `ca` and nothing else, with its fingerprint."""
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(("127.0.0.1", bed.https_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
    ):
        found: dict[str, Any] = dict(secure.getpeercert() or {})
        raw = secure.getpeercert(binary_form=True) or b""
    return found | {"fingerprint": hashlib.sha256(raw).hexdigest()}


def root(bed: Bed) -> Path:
    """The root of the ACME server, which is not that of the site's own CA."""
    path: Path = ROOT / ".bed" / bed.name / "acme-root.crt"
    return path


def hsts(answer: Response) -> str | None:
    value: str | None = answer.header("Strict-Transport-Security")
    return value


def make_due(bed: Bed) -> None:
    """What `cmctl renew` does."""
    found = bed.get(*CERTIFICATE)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    issuing = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "",
        "lastTransitionTime": now,
    }
    kept = [item for item in found["status"]["conditions"] if item["type"] != "Issuing"]
    status = json.dumps({"status": {"conditions": [*kept, issuing]}})
    bed.kubectl("patch", *CERTIFICATE, "--subresource=status", "--type=merge", "-p", status)


def test_the_certificate_is_the_acme_servers_and_its_root_trusts_it(bed: Bed) -> None:
    found = served(bed, root(bed))
    assert ("DNS", DOMAIN) in found["subjectAltName"]
    issuer = {key: value for part in found["issuer"] for key, value in part}
    assert issuer["commonName"].startswith("Pebble Intermediate CA")
    assert bed.get(*CERTIFICATE)["spec"].keys() & {"renewBefore", "duration"} == set(), "no fixed renewal time"
    assert (hsts(bed.edge("GET", "/")) or "").startswith("max-age=63072000")


def test_it_is_renewed_when_due_while_port_80_redirects_everything_else(bed: Bed) -> None:
    before = served(bed, root(bed))["fingerprint"]
    redirects: list[int] = []
    with background(lambda: redirects.append(bed.plain("GET", "/").status), every=0.5):
        make_due(bed)
        until(lambda: served(bed, root(bed))["fingerprint"] != before, 180, "another certificate")
    assert set(redirects) == {301}
    # No other way leads to the ACME server's yes: it has asked port 80 of the edge for the challenge.
    orders = bed.get("orders.acme.cert-manager.io", "-n", "abaci")["items"]
    newest = max(orders, key=lambda item: str(item["metadata"]["creationTimestamp"]))
    assert newest["status"]["state"] == "valid"
    assert hsts(bed.edge("GET", "/"))
    again = bed.playbook("--tags", "cert_manager,app")
    assert again.rc == 0 and again.total("changed") == 0, again.output[-6000:]


def test_hsts_hazard_a_staging_certificate_takes_it_away_at_once(bed: Bed) -> None:
    before = served(bed, root(bed))["fingerprint"]
    staging = bed.playbook("--tags", "app", "-e", "app_use_staging_certs=true")
    assert staging.rc == 0, staging.output[-4000:]
    assert hsts(bed.edge("GET", "/")) is None
    assert bed.get(*CERTIFICATE)["spec"]["issuerRef"]["name"] == "letsencrypt-staging"
    assert served(bed, root(bed))["fingerprint"] != before
    back = bed.playbook("--tags", "app")
    assert back.rc == 0, back.output[-4000:]
    assert hsts(bed.edge("GET", "/"))


def test_bad_input_an_issuer_that_is_not_there_is_named_within_the_wait_and_repaired_by_a_run(bed: Bed) -> None:
    started = time.monotonic()
    run = bed.playbook("--tags", "app", "-e", "app_tls_issuer=nobody", "-e", "app_tls_wait_timeout=20")
    assert run.rc != 0 and time.monotonic() - started < 150
    assert "There is no ClusterIssuer nobody" in " ".join(run.output.split())
    assert hsts(bed.edge("GET", "/")) is None, "the certificate in service is not one of the issuer that is asked for"
    back = bed.playbook("--tags", "app")
    assert back.rc == 0, back.output[-4000:]
    assert hsts(bed.edge("GET", "/"))


def test_bad_input_a_name_that_does_not_resolve_is_named_and_its_challenge_reaches_traefik_alone(bed: Bed) -> None:
    arguments = ("-e", '{"app_extra_domains": ["nowhere.abaci.invalid"], "app_tls_wait_timeout": 100}')
    run = bed.playbook("--tags", "app", *arguments)
    said = " ".join(run.output.split())
    assert run.rc != 0
    for words in ("challenge for nowhere.abaci.invalid is", "lookup nowhere.abaci.invalid"):
        assert words in said, run.output[-5000:]
    # The challenge is still there: it is answered beside the redirect, and by Traefik alone.
    (token,) = [
        item["spec"]["token"]
        for item in bed.get("challenges.acme.cert-manager.io", "-n", "abaci")["items"]
        if item["spec"]["dnsName"] == "nowhere.abaci.invalid"
    ]
    asked = f"/.well-known/acme-challenge/{token}"
    assert bed.plain("GET", asked, domain="nowhere.abaci.invalid").status == 200
    assert bed.plain("GET", "/", domain="nowhere.abaci.invalid").status == 301
    solvers = bed.get("pods", "-n", "abaci", "-l", "acme.cert-manager.io/http01-solver=true")["items"]
    program = f"import urllib.request as u;u.urlopen('http://{solvers[0]['status']['podIP']}:8089/',timeout=4)"
    assert "Error" in bed.in_pod("abaci-app-0", "python3", "-c", program, check=False)
    back = bed.playbook("--tags", "app")
    assert back.rc == 0, back.output[-4000:]
    assert served(bed, root(bed))["subjectAltName"] == (("DNS", DOMAIN),)


def test_bad_input_an_acme_server_that_does_not_answer_is_named_and_the_site_keeps_its_certificate(bed: Bed) -> None:
    silent = ("-e", "cert_manager_acme_directory=https://127.0.0.1:9/dir", "-e", "cert_manager_wait_timeout=30")
    run = bed.playbook("--tags", "cert_manager", *silent)
    said = " ".join(run.output.split())
    assert run.rc != 0
    assert (
        "ClusterIssuer letsencrypt-prod" in said and "https://127.0.0.1:9/dir" in said and "connection refused" in said
    )
    assert served(bed, root(bed))
    back = bed.playbook("--tags", "cert_manager")
    assert back.rc == 0, back.output[-4000:]


def test_bad_input_a_manifest_of_another_checksum_changes_nothing(bed: Bed) -> None:
    before = bed.get("deployment", "-n", "cert-manager")["items"]
    run = bed.playbook("--tags", "preflight,cert_manager", "-e", f"cert_manager_checksum={'0' * 64}")
    assert run.rc != 0 and "cert_manager_checksum" in run.output and run.total("changed") == 0
    assert bed.get("deployment", "-n", "cert-manager")["items"] == before


def test_the_namespace_of_cert_manager_enforces_restricted(bed: Bed) -> None:
    labels = bed.get("namespace", "cert-manager")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
