"""Cluster tokens: K10<SHA-256 of the server's CA>::<user>:<password>, or the password alone (docs.k3s.io/cli/token)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_LONG = re.compile(r"K10([0-9a-f]{64})::(?:([^:]+):)?(.+)")


class TokenError(Exception):
    """One sentence about a token, never with its secret part."""


@dataclass(frozen=True)
class Token:
    """ca_hash is '' for the short form."""

    password: str
    ca_hash: str = ""
    user: str = "server"


def parse(text: str) -> Token:
    """Read either form.

    Raises:
        TokenError: empty, or K10 with something else behind it.
    """
    text = text.strip()
    if not text:
        raise TokenError("The token is empty: give the content of the server's node-token file.")
    if text.startswith("K10"):
        found = _LONG.fullmatch(text)
        if not found:
            raise TokenError("The token starts with K10 but is not of the form K10<hash>::<user>:<password>.")
        return Token(password=found[3], ca_hash=found[1], user=found[2] or "server")
    return Token(password=text)


def ca_hash(ca_pem: bytes) -> str:
    return hashlib.sha256(ca_pem).hexdigest()


def long_form(password: str, ca_pem: bytes, user: str = "server") -> str:
    return f"K10{ca_hash(ca_pem)}::{user}:{password}"


def check_ca(token: Token, ca_pem: bytes) -> None:
    """Raise TokenError if the token names another cluster's CA; a short token names none."""
    found = ca_hash(ca_pem)
    if token.ca_hash and token.ca_hash != found:
        raise TokenError(
            f"token CA hash does not match the Cluster CA certificate hash: {token.ca_hash} != {found}: "
            "the token belongs to another cluster."
        )
