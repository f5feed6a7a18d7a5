"""The rules of the role cert_manager."""

from __future__ import annotations

import re

from ..values import domain_problems
from . import Look, Values, missing_files

_EMAIL = re.compile(r"[^@\s]+@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]*")
# Names that no mail reaches (RFC 2606, 6761), and that a CA refuses.
_EXAMPLE = re.compile(r"@(.*\.)?(example\.(com|net|org)|[^.@]+\.(example|test|invalid|localhost))$")
_FILES = ("cert_manager_acme_ca_file", "cert_manager_ca_certificate_file", "cert_manager_ca_private_key_file")


def errors(values: Values, look: Look) -> list[str]:
    """See the package."""
    found = _release(values)
    if values["cert_manager_state"] == "absent":
        return found
    return (
        found
        + (_acme(values) if values["cert_manager_acme_state"] == "present" else [])
        + _issuers(values)
        + missing_files(values, look, *_FILES)
        + domain_problems(values["cert_manager_hairpin_domains"], "cert_manager_hairpin_domains")
    )


def _number(values: Values) -> tuple[int, ...]:
    """The version as numbers, empty where it is none."""
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)", str(values["cert_manager_version"]))
    return tuple(int(part) for part in match.groups()) if match else ()


def _release(values: Values) -> list[str]:
    found = []
    version, source = values["cert_manager_version"], values["cert_manager_source"]
    number = _number(values)
    if not number:
        found.append(f"cert_manager_version is {version}, which is no release of cert-manager: write it as v1.21.1.")
    elif number < (1, 11, 0):
        found.append(f"cert_manager_version is {version}, whose issuers this role does not know: use v1.11.0 or newer.")
    if source == "mirror" and not values["cert_manager_mirror_url"]:
        found.append(
            "cert_manager_source is mirror, and cert_manager_mirror_url is empty: set it to the address that holds "
            "<version>/cert-manager.yaml."
        )
    if source == "folder" and not values["cert_manager_artifact_dir"]:
        found.append(
            "cert_manager_source is folder, and cert_manager_artifact_dir is empty: set it to the folder that holds "
            "cert-manager.yaml."
        )
    base = str(values["cert_manager_mirror_url" if source == "mirror" else "cert_manager_release_url"]).rstrip("/")
    show = f"curl -fsSL {base}/{version}/cert-manager.yaml | sha256sum"
    if source == "folder":
        show = f"sha256sum {values['cert_manager_artifact_dir']}/cert-manager.yaml"
    checksum = str(values.get("cert_manager_checksum") or "")
    if not checksum:
        found.append(
            f"cert_manager_checksum is not set: `{show}` shows the value; compare it with another source before you "
            "use it."
        )
    elif not re.fullmatch(r"[0-9a-f]{64}", checksum):
        found.append(
            f"cert_manager_checksum is no SHA-256: it has to be 64 digits from 0 to 9 and a to f; `{show}` shows it."
        )
    return found


def _acme(values: Values) -> list[str]:
    found = []
    email = str(values["cert_manager_email"])
    if not email:
        found.append("cert_manager_email is empty: set it to the address that the ACME account is to have.")
    elif not _EMAIL.fullmatch(email):
        found.append(f"cert_manager_email {email} is no e-mail address: write it as name@domain.")
    elif _EXAMPLE.search(email.lower()):
        found.append(
            f"cert_manager_email {email} is at a domain for examples, which certificate authorities refuse: set it to "
            "yours."
        )
    servers = (values["cert_manager_acme_directory"], values["cert_manager_acme_staging_directory"])
    if not all(re.fullmatch(r"https://[^/\s]+\S*", str(server).strip()) for server in servers):
        found.append("cert_manager_acme_directory and cert_manager_acme_staging_directory have to begin with https://.")
    return found


def _issuers(values: Values) -> list[str]:
    found = []
    certificate, key = values["cert_manager_ca_certificate_file"], values["cert_manager_ca_private_key_file"]
    if values["cert_manager_acme_state"] != "present" and not certificate:
        found.append(
            "cert_manager_acme_state is not present and there is no CA of your own (cert_manager_ca_certificate_file), "
            "so nothing could be issued: set one of them, or cert_manager_state to unmanaged."
        )
    if bool(certificate) != bool(key):
        found.append(
            "A CA of your own needs its certificate and its key: set cert_manager_ca_certificate_file and "
            "cert_manager_ca_private_key_file, or neither."
        )
    version, number = values["cert_manager_version"], _number(values)
    wait = str(values["cert_manager_self_check_wait"])
    if wait and not re.fullmatch(r"([0-9]+(h|m|s))+", wait):
        found.append(f"cert_manager_self_check_wait {wait} is no time: write it as 30s.")
    if wait and number and number < (1, 21, 0):
        found.append(
            f"cert_manager_self_check_wait needs v1.21.0, and cert_manager_version is {version}: use "
            "cert_manager_hairpin_domains, or a newer version."
        )
    if values["cert_manager_acme_profile"] and number and number < (1, 18, 0):
        found.append(
            f"cert_manager_acme_profile needs v1.18.0, and cert_manager_version is {version}: leave it empty, or use a "
            "newer version."
        )
    return found
