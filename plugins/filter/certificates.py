"""Questions about cert-manager's objects as filters; the decisions live in module_utils/certificates.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import certificates


def certificate_ready(certificate: Mapping[str, Any] | None, issuer: Mapping[str, str], names: Sequence[str]) -> bool:
    """See usable() in module_utils/certificates.py."""
    ready: bool = certificates.usable(dict(certificate or {}), issuer, names)
    return ready


class FilterModule:
    """Filters about certificates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"certificate_ready": certificate_ready}
