"""Secret values, domain names and numbers from the inventory: pure, but for the random numbers of a new secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def secret_values(
    desired: Mapping[str, Any], existing: Mapping[str, Any] | None, length: int = 32, empty_is_value: bool = False
) -> dict[str, str]:
    """Return a value for each desired key: the variable's, else what the Secret holds, else a new one.

    Null asks for "what it has", and so does an empty string, unless ``empty_is_value``: then it is a value, desired or
    held. ``existing`` is the Secret's data (base64), or null. A new value has ``length`` random bytes in URL-safe
    base64. Raises ValueError, without the value, where the Secret's is not text.
    """
    values: dict[str, str] = {}

    def lacks(key: str) -> bool:
        return not (values.get(key) or (key in values and empty_is_value))

    for key, value in desired.items():
        held = (existing or {}).get(key)
        if value is not None:
            values[key] = str(value)
        if held is not None and lacks(key):
            try:
                values[key] = base64.b64decode(held, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as exc:
                # Raised anew without its cause, which would carry the value into the log.
                kind = type(exc).__name__
                raise ValueError(
                    f"The Secret's value of {key} is not text ({kind}): set a value for {key} in the inventory."
                ) from None
        if lacks(key):
            values[key] = secrets.token_urlsafe(length)
    return values


def keyed_hash(text: str, key: str) -> str:
    """HMAC-SHA-256 in hexadecimal digits: says whether a secret changed, and nothing to who guesses it."""
    if not key:
        raise ValueError("A keyed hash needs a key.")
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def domain_problems(domains: str | Sequence[Any], variable: str = "app_domain") -> list[str]:
    """Return one sentence for each domain that an Ingress and a certificate cannot carry, none where all are good."""
    listed = [domains] if isinstance(domains, str) else list(domains)
    problems: list[str] = []
    for index, domain in enumerate(listed):
        problem = _domain_problem(domain)
        if problem is None and domain in listed[:index]:
            problem = "it is given twice"
        if problem:
            problems.append(f"{variable} {domain!r} is no domain name that can be served: {problem}.")
    return problems


def _domain_problem(domain: Any) -> str | None:
    if not isinstance(domain, str):
        return f"it is a {type(domain).__name__}, so quote it"
    if not domain:
        return "it is empty, so set it to the site's name, e.g. abaci.example.com"
    if domain != domain.strip() or re.search(r"\s", domain):
        return "it has a space in it"
    if "://" in domain:
        return f"leave out the scheme, as in {domain.split('://', 1)[1].split('/')[0] or 'abaci.example.com'}"
    if _is_address(domain):
        return "it is an address, and an Ingress takes names only"
    if "/" in domain:
        return "leave out the path"
    if ":" in domain:
        return "leave out the port, which has a variable of its own (app_https_port)"
    if "*" in domain:
        return "a wildcard is not supported, so list every name"
    if domain.endswith("."):
        return "leave out the dot at its end"
    if not domain.isascii():
        return "write it in its ASCII form (xn--...)"
    if len(domain) > 253:
        return f"it has {len(domain)} characters, and 253 is the limit"
    if domain != domain.lower():
        return f"write it in lower case ({domain.lower()})"
    for label in domain.split("."):
        if not label:
            return "it has an empty part between two dots"
        if len(label) > 63:
            return f"its part {label!r} has {len(label)} characters, and 63 is the limit"
        if not _LABEL.fullmatch(label):
            return f"its part {label!r} may hold letters, digits and inner hyphens only"
    if domain.rsplit(".", 1)[-1].isdigit():
        return "its last part is a number"
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def whole(value: object) -> int | None:
    """A number that is given as one, or as its digits (ansible -e gives text); None for anything else."""
    if isinstance(value, bool):
        return None
    text = str(value)
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None
