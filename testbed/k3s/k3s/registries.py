"""registries.yaml (docs.k3s.io/installation/private-registry) as containerd's configuration. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class RegistriesError(Exception):
    """One sentence that names the key."""


def check(document: Any) -> dict[str, Any]:
    """Refuse what is not understood. Returns the document, {} for an empty file.

    Raises:
        RegistriesError: names the key that is unknown or not built here.
    """
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise RegistriesError("registries.yaml: expected a mapping with 'mirrors' and 'configs'.")
    allowed: dict[str, tuple[str, ...]] = {"mirrors": ("endpoint",), "configs": ("auth", "tls")}
    inner = {
        "auth": ("username", "password", "auth", "identity_token"),
        "tls": ("ca_file", "cert_file", "key_file", "insecure_skip_verify"),
    }
    for section, entries in document.items():
        if section not in allowed:
            raise RegistriesError(f"registries.yaml: unknown key {section!r}.")
        for host, entry in (entries or {}).items():
            for key, value in (entry or {}).items():
                if key == "rewrite":
                    raise RegistriesError(
                        f"registries.yaml: mirrors.{host}.rewrite is not in this stand-in; remove it."
                    )
                if key not in allowed[section]:
                    raise RegistriesError(f"registries.yaml: unknown key {section}.{host}.{key}.")
                for name in value or {} if key in inner else ():
                    if name not in inner[key]:
                        raise RegistriesError(f"registries.yaml: unknown key {section}.{host}.{key}.{name}.")
            if section == "mirrors" and not isinstance((entry or {}).get("endpoint", []), list):
                raise RegistriesError(f"registries.yaml: mirrors.{host}.endpoint must be a list of addresses.")
    return dict(document)


def folder(host: str) -> str:
    """The name of a registry's folder under certs.d."""
    return "_default" if host == "*" else host


def hosts_toml(document: Mapping[str, Any]) -> dict[str, str]:
    """{folder under certs.d: content of its hosts.toml}; the registry itself is the last resort, as in k3s."""
    mirrors, configs = document.get("mirrors") or {}, document.get("configs") or {}
    result: dict[str, str] = {}
    for host in sorted({*mirrors, *configs}):
        lines: list[str] = []
        if host != "*":
            upstream = "registry-1.docker.io" if host == "docker.io" else host
            lines.append(f"server = {json.dumps(f'https://{upstream}')}")
        endpoints = list((mirrors.get(host) or {}).get("endpoint") or [])
        own = f"https://{host}"
        if host in configs and host != "*" and own not in endpoints:
            endpoints.append(own)
        for endpoint in endpoints:
            address = endpoint if "://" in endpoint else f"https://{endpoint}"
            split = urlsplit(address)
            lines += ["", f"[host.{json.dumps(address)}]", '  capabilities = ["pull", "resolve"]']
            if split.path.strip("/"):
                lines.append("  override_path = true")
            tls = (configs.get(split.netloc) or {}).get("tls") or {}
            if tls.get("ca_file"):
                lines.append(f"  ca = [{json.dumps(tls['ca_file'])}]")
            if tls.get("cert_file") and tls.get("key_file"):
                lines.append(f"  client = [[{json.dumps(tls['cert_file'])}, {json.dumps(tls['key_file'])}]]")
            if tls.get("insecure_skip_verify"):
                lines.append("  skip_verify = true")
        result[folder(host)] = "\n".join(lines) + "\n"
    return result


def auth_toml(document: Mapping[str, Any]) -> str:
    """The part of containerd's config.toml that holds credentials."""
    lines: list[str] = []
    names = {"username": "username", "password": "password", "auth": "auth", "identity_token": "identitytoken"}
    for host, entry in sorted((document.get("configs") or {}).items()):
        auth = (entry or {}).get("auth") or {}
        if auth:
            lines.append(f"[plugins.'io.containerd.cri.v1.images'.registry.configs.{json.dumps(host)}.auth]")
            lines += [f"  {names[key]} = {json.dumps(str(value))}" for key, value in sorted(auth.items())]
    return "\n".join(lines) + "\n" if lines else ""
