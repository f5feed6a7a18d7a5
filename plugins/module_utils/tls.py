"""Where the site's certificate comes from, and what follows: HSTS, and what is verified from outside. Pure.

HSTS cannot be taken back for years, so it goes out only with a certificate that browsers trust.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from . import certificates
from .objects import Part

# Only this issuer's certificates are known to be trusted by browsers.
TRUSTED_ISSUER = "letsencrypt-prod"
# Annotations of the Secret: who made it (provided or self-signed), and for which names.
SOURCE, DOMAINS = "abaci.infra/certificate", "abaci.infra/domains"


@dataclasses.dataclass(frozen=True)
class Desired:
    """What the inventory says. ``given``: it gives a certificate; ``source`` is app_tls."""

    source: str
    given: bool
    domains: Sequence[str]
    issuer: str
    hsts_seconds: int
    secret_name: str
    ca_file: str = ""


@dataclasses.dataclass(frozen=True)
class Tls:
    """The decision.

    ``source``: acme (cert-manager's), upstream (none here), provided (given, now or by an earlier run), self-signed
    (ours) or unknown (in the cluster, from elsewhere). ``kept``: the Secret is left as it is. ``provided``: the given
    one is used now. ``verify``: whether the look from outside checks the certificate. ``note``: a sentence for the
    summary.
    """

    source: str
    provided: bool
    kept: bool
    hsts: bool
    verify: bool
    note: str
    errors: Sequence[str] = ()


def decide(
    desired: Desired,
    secret: Part | None,
    certificate: Part | None,
    info: Part | None = None,
    key: Part | None = None,
) -> Tls:
    """``secret`` and ``certificate`` (cert-manager's) as they are in the cluster; empty where there is none.

    ``info`` and ``key`` are what community.crypto says of the given certificate and its key, where it was asked.
    """
    elsewhere = desired.source in ("acme", "upstream")
    provided = desired.source == "provided" and desired.given
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    made_by = str(annotations.get(SOURCE, "unknown"))
    # A provided one of an earlier run is kept where nothing is given now; self_signed beside a certificate means that
    # it is not wanted. What cert-manager wrote is not kept: it would write it again.
    kept = elsewhere or (
        not provided
        and bool(secret)
        and not certificate
        and not (desired.source == "self_signed" and desired.given and made_by == "provided")
        and (made_by != "self-signed" or annotations.get(DOMAINS, "") == ",".join(desired.domains))
    )
    source = desired.source if elsewhere else "provided" if provided else made_by if kept else "self-signed"
    trusted = source == "acme" and desired.issuer == TRUSTED_ISSUER
    issuer = {"kind": "ClusterIssuer", "name": desired.issuer}
    ready = trusted and certificates.usable(dict(certificate or {}), issuer, desired.domains)
    hsts = (source == "provided" or ready) and desired.hsts_seconds > 0
    verify = source == "provided" or trusted or (source == "acme" and bool(desired.ca_file))
    found = errors(info, key or {}, desired.domains) if provided and info else []
    return Tls(source, provided, kept, hsts, verify, _note(desired, source, hsts, trusted), found)


def errors(info: Part, key: Part, domains: Sequence[str]) -> list[str]:
    """Why visitors could not use the given certificate, in sentences."""
    given = "The certificate in app_tls_certificate_file (or app_tls_certificate)"
    found = []
    if info["expired"]:
        found.append(f"{given} ended at {info['not_after']}: renew it.")
    elif not info["valid_at"]["now"]:
        found.append(f"{given} is not valid before {info['not_before']}: check the clock.")
    if info["public_key"] != key.get("public_key"):
        found.append("The key in app_tls_private_key_file (or app_tls_private_key) does not belong to the certificate.")
    names = [name.removeprefix("DNS:") for name in info.get("subject_alt_name") or []]
    # A wildcard covers one label.
    missing = [name for name in domains if not {name, f"*.{name.partition('.')[2]}"} & set(names)]
    if missing:
        found.append(
            f"{given} is not for {', '.join(missing)} but for {', '.join(names) or 'no name'}: get one that covers "
            "app_domain and app_extra_domains."
        )
    return found


def _note(desired: Desired, source: str, hsts: bool, trusted: bool) -> str:
    if source == "provided":
        return f"TLS: your own certificate, with{'' if hsts else 'out'} HSTS."
    if source == "acme" and trusted:
        return f"TLS: a certificate that cert-manager gets and renews from {desired.issuer}."
    if source == "acme":
        return (
            f"TLS: the certificate comes from the issuer {desired.issuer}, which browsers are not known to trust, so "
            "HSTS is off."
        )
    if source == "upstream":
        return "TLS ends at the proxy in front, so the site speaks http here, and HSTS is for that proxy to send."
    if source == "self-signed":
        return (
            "TLS: the certificate is self-signed, so browsers will warn and HSTS is off: set app_tls_certificate_file "
            "and app_tls_private_key_file."
        )
    return (
        f"TLS: the certificate in Secret {desired.secret_name} is not from this role, so it was left alone and HSTS is "
        "off."
    )
