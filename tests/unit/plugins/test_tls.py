"""Where the certificate comes from, and when HSTS goes out."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import tls

Object = dict[str, Any]
NAMES = ["a.test", "www.a.test"]


def secret(source: str | None, names: list[str] = NAMES) -> Object:
    annotations = {} if source is None else {tls.SOURCE: source, tls.DOMAINS: ",".join(names)}
    return {"metadata": {"annotations": annotations}, "data": {}}


def certificate(status: str = "True", issuer: str = tls.TRUSTED_ISSUER, names: list[str] = NAMES) -> Object:
    ready = {"type": "Ready", "status": status, "observedGeneration": 1}
    spec = {"issuerRef": {"kind": "ClusterIssuer", "name": issuer}, "dnsNames": names}
    return {"metadata": {"generation": 1}, "spec": spec, "status": {"conditions": [ready]}}


def decide(source: str, found: Object | None = None, issued: Object | None = None, **more: Any) -> tls.Tls:
    asked = {"given": False, "domains": NAMES, "issuer": tls.TRUSTED_ISSUER, "hsts_seconds": 1, "secret_name": "s"}
    return tls.decide(tls.Desired(source=source, **(asked | more)), found, issued)


@pytest.mark.parametrize(
    ("asked", "found", "issued", "source", "kept"),
    [
        ({"source": "provided", "given": True}, None, None, "provided", False),
        ({"source": "provided", "given": True}, secret("self-signed"), None, "provided", False),
        ({"source": "provided", "given": True}, secret(None), certificate(), "provided", False),
        ({"source": "self_signed"}, None, None, "self-signed", False),
        ({"source": "self_signed"}, secret("self-signed"), None, "self-signed", True),
        ({"source": "self_signed"}, secret("self-signed", ["a.test"]), None, "self-signed", False),
        ({"source": "self_signed"}, secret("provided"), None, "provided", True),
        ({"source": "self_signed", "given": True}, secret("provided"), None, "self-signed", False),
        ({"source": "self_signed"}, secret(None), None, "unknown", True),
        ({"source": "self_signed"}, secret(None), certificate(), "self-signed", False),
        ({"source": "acme"}, secret("provided"), None, "acme", True),
        ({"source": "acme", "given": True}, None, certificate(), "acme", True),
        ({"source": "upstream"}, secret("provided"), None, "upstream", True),
    ],
)
def test_source_and_whether_the_secret_stays(
    asked: Object, found: Object | None, issued: Object | None, source: str, kept: bool
) -> None:
    decided = decide(**asked, found=found, issued=issued)
    assert (decided.source, decided.kept) == (source, kept)
    assert decided.provided is (asked["source"] == "provided")


@pytest.mark.parametrize(
    ("asked", "found", "issued", "hsts"),
    [
        ({"source": "provided", "given": True}, None, None, True),
        ({"source": "provided", "given": True, "hsts_seconds": 0}, None, None, False),
        ({"source": "self_signed"}, secret("provided"), None, True),
        ({"source": "self_signed"}, secret("self-signed"), None, False),
        ({"source": "self_signed"}, secret(None), None, False),
        ({"source": "self_signed"}, secret(None), certificate(), False),
        ({"source": "upstream"}, secret("provided"), certificate(), False),
        ({"source": "acme"}, None, None, False),
        ({"source": "acme"}, secret("provided"), None, False),
        ({"source": "acme"}, None, certificate(), True),
        ({"source": "acme", "hsts_seconds": 0}, None, certificate(), False),
        ({"source": "acme"}, None, certificate("False"), False),
        ({"source": "acme"}, None, certificate(names=["old.test"]), False),
        ({"source": "acme"}, None, certificate(issuer="letsencrypt-staging"), False),
        ({"source": "acme", "issuer": "own-ca"}, None, certificate(issuer="own-ca"), False),
    ],
)
def test_hazard_hsts_goes_out_only_with_a_certificate_that_browsers_trust(
    asked: Object, found: Object | None, issued: Object | None, hsts: bool
) -> None:
    assert decide(**asked, found=found, issued=issued).hsts is hsts


@pytest.mark.parametrize(
    ("asked", "verify"),
    [
        ({"source": "provided", "given": True}, True),
        ({"source": "acme"}, True),
        ({"source": "acme", "issuer": "own-ca"}, False),
        ({"source": "acme", "issuer": "own-ca", "ca_file": "/ca"}, True),
        ({"source": "self_signed"}, False),
        ({"source": "upstream"}, False),
    ],
)
def test_what_the_look_from_outside_verifies(asked: Object, verify: bool) -> None:
    assert decide(**asked).verify is verify


@pytest.mark.parametrize("source", ["provided", "acme", "upstream", "self_signed"])
def test_there_is_a_sentence_for_each(source: str) -> None:
    assert decide(source, secret(None)).note.startswith("TLS")
