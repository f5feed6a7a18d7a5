"""The rules of the role traefik."""

from __future__ import annotations

import ipaddress
import re

from . import Look, Values


def errors(values: Values, _look: Look) -> list[str]:
    """See the package."""
    found = []
    bad = [str(entry) for entry in values["traefik_trusted_proxies"] if not _network(str(entry))]
    if bad:
        found.append(
            f"traefik_trusted_proxies names {', '.join(bad)}, which is no address or network such as 192.0.2.1 or "
            "2001:db8::/64: write the addresses of your proxies, neither names nor everybody's (/0)."
        )
    timeout = str(values["traefik_read_timeout"])
    if not re.fullmatch(r"[0-9]+|([0-9]+(\.[0-9]+)?(ms|s|m|h))+", timeout):
        found.append(
            f"traefik_read_timeout {timeout} is no duration, and Traefik would not start with it: write it as 90s, "
            "10m or 1h30m."
        )
    if values["traefik_kind"] != "DaemonSet" and values["traefik_external_traffic_policy"] != "Cluster":
        found.append(
            "With traefik_external_traffic_policy Local a node without a Traefik drops what reaches it, and "
            "traefik_kind Deployment runs one on one node: set traefik_kind to DaemonSet, or the policy to Cluster "
            "(all clients then share one rate limit)."
        )
    return found


def _network(text: str) -> bool:
    """Whether it is an address or a network, and not everybody's."""
    try:
        return ipaddress.ip_network(text, strict=False).prefixlen > 0
    except ValueError:
        return False
