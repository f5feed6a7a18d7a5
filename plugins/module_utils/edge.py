"""HTTP requests as a visitor sends them: to one address, under the name of the URL. Standard library only."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any

BODY_READ = 1 << 20
BODY_KEPT = 4096


class BadRequest(Exception):
    """A request that cannot be sent, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One request. ``connect`` is the host and port to connect to; SNI, Host and the name to verify are the URL's."""

    method: str
    url: str
    connect: tuple[str, int]
    headers: Mapping[str, str]
    body: bytes | None
    ca_file: str
    verify: bool
    timeout: float


def parse(given: Mapping[str, Any]) -> Request:
    """Turn a dictionary with the keys of edge_status.requests() into a Request; raises BadRequest."""
    url = str(given.get("url") or "")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"{url!r} is not a URL that starts with http:// or https:// and names a host.")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connect = _address(str(given["connect"])) if given.get("connect") else (parts.hostname, port)
    except ValueError as exc:
        raise BadRequest(f"The request for {url} has no usable port or connect address ({exc}).") from exc
    ca_file = os.path.expanduser(str(given.get("ca_file") or ""))
    if ca_file and not os.path.isfile(ca_file):
        raise BadRequest(f"The request for {url} is to be verified with {ca_file}, but there is no such file.")
    body = given.get("body")
    verify = given.get("verify")
    return Request(
        method=str(given.get("method") or "GET").upper(),
        url=url,
        connect=connect,
        headers={str(name): str(value) for name, value in (given.get("headers") or {}).items()},
        body=None if body is None else str(body).encode(),
        ca_file=ca_file,
        verify=True if verify is None else bool(verify),
        timeout=float(given.get("timeout") or 10),
    )


def send(request: Request) -> dict[str, Any]:
    """Send the request on a connection of its own and return the answer; redirects are not followed.

    Keys: method, url, status (None without an answer), headers (pairs, as they came), body (the first 4096 bytes as
    text), length (of the whole body, up to 1 MiB), tls (None without TLS) and error ("" or one sentence).
    """
    parts = urllib.parse.urlsplit(request.url)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    answer: dict[str, Any] = {"method": request.method, "url": request.url, "status": None, "headers": [], "body": ""}
    answer |= {"length": 0, "tls": None, "error": ""}
    default_port = 443 if parts.scheme == "https" else 80
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or default_port, timeout=request.timeout)
    connection.default_port = default_port  # which Host leaves out
    try:
        plain = socket.create_connection(request.connect, timeout=request.timeout)
        connection.sock = plain
        if parts.scheme == "https":
            secure = _context(request).wrap_socket(plain, server_hostname=parts.hostname)
            connection.sock = secure
            answer["tls"] = _tls(secure)
        connection.request(request.method, target, request.body, dict(request.headers))
        response = connection.getresponse()
        answer["status"] = response.status
        answer["headers"] = [[name, value] for name, value in response.getheaders()]
        body = response.read(BODY_READ)
        answer["length"] = len(body)
        answer["body"] = body[:BODY_KEPT].decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as exc:
        answer["error"] = _sentence(request, exc)
    finally:
        connection.close()
    return answer


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _context(request: Request) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=request.ca_file or None)
    if not request.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _tls(secure: ssl.SSLSocket) -> dict[str, Any]:
    """What was negotiated. The names in the certificate are only known where it was verified."""
    certificate: dict[str, Any] = secure.getpeercert() or {}
    raw = secure.getpeercert(binary_form=True) or b""
    return {
        "version": secure.version(),
        "verified": bool(certificate),
        "fingerprint_sha256": hashlib.sha256(raw).hexdigest(),
        "subject": _name(certificate.get("subject")),
        "issuer": _name(certificate.get("issuer")),
        "names": [pair[1] for pair in certificate.get("subjectAltName", ())],
        "not_after": certificate.get("notAfter", ""),
    }


def _name(parts: Any) -> str:
    """A distinguished name as ssl gives it, on one line."""
    return ", ".join(f"{key}={value}" for group in parts or () for key, value in group)


def _sentence(request: Request, exc: Exception) -> str:
    host, port = request.connect
    where = f"{request.method} {request.url}" + ("" if host in request.url else f" at {host}:{port}")
    if isinstance(exc, ssl.SSLCertVerificationError):
        trusted = request.ca_file or "the system's authorities"
        return f"{where}: the certificate is not trusted by {trusted} ({exc.verify_message.rstrip('.')})."
    if isinstance(exc, TimeoutError):
        return f"{where} was not answered within {request.timeout:g} s."
    return f"{where} failed: {str(exc).rstrip('.') or type(exc).__name__}."
