"""The cluster's own certificate authorities and certificates, made with the openssl command."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Sequence

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_SECONDS = 120 * 86400


class PkiError(Exception):
    """openssl failed; the message is its last line."""


def openssl(*arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    if done.returncode:
        raise PkiError(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def write_private(path: pathlib.Path, data: bytes, mode: int = 0o600) -> None:
    """Write through a file of its own: a reader sees the old content or the new, and never with a wider mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(name, mode)
    os.replace(name, path)


def make_key(path: pathlib.Path) -> None:
    if not path.exists():
        write_private(path, openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))


def make_ca(folder: pathlib.Path, name: str, common_name: str) -> None:
    """Make <name>.crt and <name>.key unless they exist."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if certificate.exists() and key.exists():
        return
    make_key(key)
    write_private(
        certificate,
        openssl(
            *("req", "-x509", "-new", "-key", str(key), "-subj", f"/CN={common_name}", "-days", str(CA_DAYS)),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign"),
        ),
        0o644,
    )


def san(names: Sequence[str]) -> str:
    """openssl's subjectAltName value: addresses as IP, everything else as DNS, each once, sorted."""

    def entry(name: str) -> str:
        try:
            return f"IP:{ipaddress.ip_address(name)}"
        except ValueError:
            return f"DNS:{name}"

    return ",".join(sorted({entry(name) for name in names}))


def same_names(printed: str, names: Sequence[str]) -> bool:
    """Whether openssl's print of a subjectAltName holds exactly these names."""
    found = {
        word.strip().replace("IP Address:", "IP:") for line in printed.splitlines()[1:] for word in line.split(",")
    } - {""}
    return found == set(san(names).split(",")) - {""}


def valid(certificate: pathlib.Path, authority: pathlib.Path) -> bool:
    """Whether a certificate exists, was signed by that CA and is not about to end."""
    if not certificate.exists():
        return False
    try:
        openssl("x509", "-in", str(certificate), "-noout", "-checkend", str(RENEW_SECONDS))
        openssl("verify", "-CAfile", str(authority), str(certificate))
    except PkiError:
        return False
    return True


def subject(common_name: str, organizations: Sequence[str]) -> str:
    return "".join(f"/O={name}" for name in organizations) + f"/CN={common_name}"


def make_leaf(
    target: pathlib.Path,
    folder: pathlib.Path,
    authority: str,
    common_name: str,
    organizations: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Make <target>.crt (leaf and its CA) and <target>.key; kept while valid, signed by this CA and of these names.

    Names make it a server's certificate, no names a client's.
    """
    certificate, key = target.with_suffix(".crt"), target.with_suffix(".key")
    ca, ca_key = folder / f"{authority}.crt", folder / f"{authority}.key"
    if key.exists() and valid(certificate, ca):
        if not names:
            return
        if same_names(openssl("x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName").decode(), names):
            return
    make_key(key)
    request = openssl("req", "-new", "-key", str(key), "-subj", subject(common_name, organizations))
    usage = "serverAuth,clientAuth" if names else "clientAuth"
    extensions = (
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
        f"extendedKeyUsage={usage}\n"
    )
    if names:
        extensions += f"subjectAltName={san(names)}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".ext") as file:
        file.write(extensions)
        file.flush()
        leaf = openssl(
            *("x509", "-req", "-CA", str(ca), "-CAkey", str(ca_key), "-days", str(LEAF_DAYS), "-extfile", file.name),
            *("-set_serial", str(int.from_bytes(os.urandom(15), "big"))),
            data=request,
        )
    write_private(certificate, leaf + ca.read_bytes(), 0o644)


def make_request(key: pathlib.Path, common_name: str, organizations: Sequence[str], names: Sequence[str]) -> bytes:
    """A certificate request (PEM) for a key that is made where it is missing."""
    make_key(key)
    extra = ("-addext", f"subjectAltName={san(names)}") if names else ()
    return openssl("req", "-new", "-key", str(key), "-subj", subject(common_name, organizations), *extra)


def request_subject(request: bytes) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of a certificate request (PEM)."""
    printed = openssl("req", "-noout", "-subject", "-nameopt", "sep_multiline,utf8", data=request).decode()
    fields = re.findall(r"^\s*(CN|O)\s*=\s*(.+?)\s*$", printed, re.MULTILINE)
    return next((v for k, v in fields if k == "CN"), ""), tuple(v for k, v in fields if k == "O")


def fetch_ca(host: str, port: int) -> bytes:
    """The CA that a server shows in its TLS handshake, as normalised PEM; nothing is trusted by fetching it.

    Raises:
        PkiError: no answer, or a chain without a self-signed end.
    """
    try:
        done = subprocess.run(
            ["openssl", "s_client", "-showcerts", "-connect", f"{host}:{port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=10,
        )
    except subprocess.TimeoutExpired:
        raise PkiError(f"no answer from {host}:{port} within 10 s") from None
    chain = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", done.stdout, re.DOTALL)
    if not chain:
        raise PkiError(f"no certificate from {host}:{port}: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return openssl("x509", "-outform", "PEM", data=chain[-1])
