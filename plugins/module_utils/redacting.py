"""What a support bundle must not have: values of Secrets, and what tells who a visitor is. Pure.

Values are replaced in the strings of a document, never in its text, so that JSON stays JSON. Where one visitor comes
several times the replacement is the same, so that a story can still be followed.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .objects import Object

SECRET, COOKIE, TOKEN = "<secret>", "<cookie>", "<token>"
# A shorter value stands for itself only as a whole word, or nothing would be left of a log.
ANYWHERE, WORD = 6, 3
ALWAYS_OURS = [
    ipaddress.ip_network(one)
    for one in ("127.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16", "0.0.0.0/32", "::/128", "::1/128")
]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_NAMED = re.compile(r"passw|secret|token|credential|private|api_?key|_key$|auth$|session|dsn", re.IGNORECASE)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+(?:@|%40)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_IPV6 = r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.\d{1,3}){0,3}"
_ADDRESS = re.compile(rf"(?<![\w.:])(?:{_IPV4}|{_IPV6})(?![\w.]*\w)")
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"""(?i)((?:set-)?cookies?\\?["']?\s*[:=]\s*)(?!<)[^\r\n]+"""), rf"\1{COOKIE}"),
    (re.compile(r"""(?i)(authorization\\?["']?\s*[:=]\s*\[?\\?["']?)(?!<)[^\r\n"'\]]+"""), rf"\1{TOKEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {TOKEN}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), TOKEN),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+(?=@)"), rf"\1{SECRET}"),
    (
        re.compile(r"(?i)([?&;](?:[\w-]*(?:token|secret|passw|session|signature|key)[\w-]*|code|state)=)[^&\s\"']+"),
        rf"\1{TOKEN}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), SECRET),
)


class Redactor:
    """Replaces what is secret, and who a visitor is; ``ours``: addresses of the cluster itself, which stay."""

    def __init__(self, secrets: Iterable[str], ours: Iterable[str] = ()) -> None:
        known = sorted({form for value in secrets for form in forms(value)}, key=len, reverse=True)
        anywhere = [re.escape(value) for value in known if len(value) >= ANYWHERE]
        words = [rf"(?<!\w){re.escape(value)}(?!\w)" for value in known if WORD <= len(value) < ANYWHERE]
        self._secrets = re.compile("|".join([*anywhere, *words])) if known else None
        self._ours = {_plain(one) for one in ours}
        self._visitors: dict[str, str] = {}

    def text(self, text: str, addresses: bool = True) -> str:
        """The text without them; ``addresses``: of visitors, too."""
        text = self._secrets.sub(SECRET, text) if self._secrets else text
        for pattern, instead in _RULES:
            text = pattern.sub(instead, text)
        text = _EMAIL.sub(lambda match: self._visitor("e-mail", match[0].lower()), text)
        return _ADDRESS.sub(self._address, text) if addresses else text

    def document(self, value: Any) -> Any:
        """A document of JSON without them; addresses stay, for they are those of hosts and pods."""
        if isinstance(value, str):
            return self.text(value, addresses=False)
        if isinstance(value, list):
            return [self.document(one) for one in value]
        if isinstance(value, dict):
            return {self.text(str(key), False): self.document(one) for key, one in value.items()}
        return value

    def _address(self, match: re.Match[str]) -> str:
        plain = _plain(match[0])
        try:
            address = ipaddress.ip_address(plain)
        except ValueError:
            return match[0]
        if plain in self._ours or any(address in net for net in ALWAYS_OURS if net.version == address.version):
            return match[0]
        return self._visitor("client", plain)

    def _visitor(self, kind: str, value: str) -> str:
        number = sum(one.startswith(f"<{kind}") for one in self._visitors.values()) + 1
        return self._visitors.setdefault(f"{kind} {value}", f"<{kind}-{number}>")


def _plain(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def forms(value: str) -> Iterator[str]:
    """The value, and as what it may stand elsewhere: its lines, in base64, in a URL, in JSON."""
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= ANYWHERE]
    for one in {value.strip(), *lines} - {""}:
        yield one
        yield urllib.parse.quote(one, safe="")
        yield json.dumps(one)[1:-1]
        if len(one) >= ANYWHERE:
            yield base64.b64encode(one.encode()).decode().rstrip("=")
            yield base64.urlsafe_b64encode(one.encode()).decode().rstrip("=")
    if value.strip() != value and len(value) >= ANYWHERE:
        yield base64.b64encode(value.encode()).decode().rstrip("=")


def values(secrets: Iterable[Object]) -> Iterator[str]:
    """What Secrets hold; of JSON in them (a registry's login) each string, too."""
    for secret in secrets:
        for encoded in (secret.get("data") or {}).values():
            try:
                plain = base64.b64decode(encoded, validate=True).decode(errors="ignore")
            except (binascii.Error, ValueError):
                plain = str(encoded)
            yield plain
            yield str(encoded)
            yield from _within(plain)
        yield from (str(plain) for plain in (secret.get("stringData") or {}).values())
        # A key of checksums stands there.
        yield from (str(one) for one in (secret["metadata"].get("annotations") or {}).values() if len(str(one)) >= 16)


def _within(text: str) -> Iterator[str]:
    """The passwords in a document of JSON, and in an address."""
    try:
        found = json.loads(text)
    except ValueError:
        password = re.search(r"://[^\s/:@]*:([^\s/@]+)@", text)
        if password:
            yield password[1]
            yield urllib.parse.unquote(password[1])
        return
    if isinstance(found, dict | list):
        yield from _strings(found)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(one)


def bare(found: Object) -> Object:
    """An object without what nobody reads, and without what is secret by its place or its name."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    if "annotations" in metadata:
        metadata["annotations"] = kept
    made = {**found, "metadata": metadata}
    if found.get("kind") == "Secret":
        metadata["annotations"] = dict.fromkeys(kept, SECRET)
        for part in ("data", "stringData"):
            if part in made:
                made[part] = dict.fromkeys(made[part] or {}, SECRET)
        return made
    cleaned: Object = _walk(made, _of_env)
    return cleaned


def _walk(value: Any, change: Callable[[Any], Any]) -> Any:
    value = change(value)
    if isinstance(value, dict):
        return {key: _walk(one, change) for key, one in value.items()}
    return [_walk(one, change) for one in value] if isinstance(value, list) else value


def _of_env(value: Any) -> Any:
    """An environment variable whose name says that it is secret, without its value."""
    if isinstance(value, dict) and isinstance(value.get("value"), str) and _NAMED.search(str(value.get("name", ""))):
        return {**value, "value": SECRET}
    return value
