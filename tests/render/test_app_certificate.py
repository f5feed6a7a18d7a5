"""Where the site's certificate comes from: the operator's is checked, one in the cluster is kept, else one is made."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from evaluating import living as there
from rendering import Object, Run, run_role

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(private: ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def certificate(
    private: ec.EllipticCurvePrivateKey,
    *names: str,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + DAY,
) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def given(*names: str, other_key: bool = False, **dates: datetime.datetime) -> dict[str, Any]:
    private = key()
    return {
        "app_tls_certificate": certificate(private, *names, **dates),
        "app_tls_private_key": pem(key() if other_key else private),
    }


def living(annotations: dict[str, str] | None, data: str = "cluster") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "abaci-tls", "namespace": "abaci"}
    if annotations is not None:
        metadata["annotations"] = annotations
    encoded = base64.b64encode(data.encode()).decode()
    return there(tls={"metadata": metadata, "data": {"tls.crt": encoded}})


GOOD: dict[str, dict[str, Any]] = {
    "provided": given("abaci.localhost", "www.abaci.localhost"),
    "wildcard": {**given("*.abaci.localhost", "abaci.localhost"), "app_extra_domains": ["www.abaci.localhost"]},
    "made": {"app_extra_domains": ["www.abaci.localhost"]},
    "kept_ours": living({"abaci.infra/certificate": "self-signed", "abaci.infra/domains": "abaci.localhost"}),
    "kept_provided": living({"abaci.infra/certificate": "provided", "abaci.infra/domains": "other.localhost"}),
    "kept_unknown": living(None),
    "names_changed": living({"abaci.infra/certificate": "self-signed", "abaci.infra/domains": "old.localhost"}),
    "not_wanted": {**given("abaci.localhost"), "app_tls": "self_signed"},
    "not_wanted_again": {
        **given("abaci.localhost"),
        **living({"abaci.infra/certificate": "self-signed", "abaci.infra/domains": "abaci.localhost"}),
        "app_tls": "self_signed",
    },
    "not_wanted_any_more": {
        **given("abaci.localhost"),
        **living({"abaci.infra/certificate": "provided", "abaci.infra/domains": "abaci.localhost"}),
        "app_tls": "self_signed",
    },
    "provided_again": {**given("abaci.localhost"), **living({"abaci.infra/certificate": "self-signed"})},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "expired": (given("abaci.localhost", start=NOW - 3 * DAY, end=NOW - DAY), "ended at"),
    "early": (given("abaci.localhost", start=NOW + DAY, end=NOW + 2 * DAY), "is not valid before"),
    "other_key": (given("abaci.localhost", other_key=True), "does not belong to the certificate"),
    "other_name": (given("example.org"), "is not for abaci.localhost but for example.org"),
    "no_name": (given(), "is not for abaci.localhost but for no name"),
    "two_labels": (
        {**given("*.localhost"), "app_extra_domains": ["a.b.localhost"]},
        "is not for a.b.localhost but for *.localhost",
    ),
}
EXPRESSION = (
    "[{'kind': 'Outcome', 'metadata': {'name': 'outcome'}, 'source': __app_tls.source, 'hsts': __app_tls.hsts, "
    "'secrets': __app_wanted_secrets, 'certificate': __app_tls_certificate}]"
)


@pytest.fixture(scope="module")
def run() -> Run:
    variants = {f"good_{name}": values for name, values in GOOD.items()}
    variants |= {f"bad_{name}": values for name, (values, _) in BAD.items()}
    # An API that was not asked: nothing but the variables and the Secret decides here.
    nobody = {"state": {"api": {"error": "not asked"}, "statefulset": {}}}
    base = {"app_domain": "abaci.localhost", **there(), "__app_info": nobody}
    variants = {name: {**base, **values} for name, values in variants.items()}
    return run_role("app", ["validate.yml", "certificate.yml"], EXPRESSION, variants)


def outcome(run: Run, name: str) -> Object:
    return run[f"good_{name}"].one("Outcome")


@pytest.mark.parametrize("name", BAD)
def test_one_that_visitors_could_not_use_is_refused(run: Run, name: str) -> None:
    message = run.failures[f"bad_{name}"]
    assert BAD[name][1] in message
    assert "app_tls_" in message


@pytest.mark.parametrize(
    ("name", "source", "hsts", "applied"),
    [
        ("provided", "provided", True, True),
        ("wildcard", "provided", True, True),
        ("provided_again", "provided", True, True),
        ("made", "self-signed", False, True),
        ("not_wanted", "self-signed", False, True),
        ("not_wanted_again", "self-signed", False, False),
        ("not_wanted_any_more", "self-signed", False, True),
        ("names_changed", "self-signed", False, True),
        ("kept_ours", "self-signed", False, False),
        ("kept_provided", "provided", True, False),
        ("kept_unknown", "unknown", False, False),
    ],
)
def test_source_hsts_and_what_is_applied(run: Run, name: str, source: str, hsts: bool, applied: bool) -> None:
    found = outcome(run, name)
    assert (found["source"], found["hsts"]) == (source, hsts)
    assert ("secret-abaci-tls.yml.j2" in found["secrets"]) == applied


def test_the_operators_certificate_is_not_served_as_self_signed(run: Run) -> None:
    for name in ("not_wanted", "not_wanted_any_more"):
        assert outcome(run, name)["certificate"] != GOOD[name]["app_tls_certificate"]


def test_the_one_that_is_made_is_for_all_names(run: Run) -> None:
    made = x509.load_pem_x509_certificate(outcome(run, "made")["certificate"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["abaci.localhost", "www.abaci.localhost"]
    assert made.not_valid_after_utc > NOW + 3000 * DAY
