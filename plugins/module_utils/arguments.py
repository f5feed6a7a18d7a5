"""Arguments that several modules take, each set with the one before it; documented in plugins/doc_fragments."""

from __future__ import annotations

from typing import Any

KUBECONFIG: dict[str, dict[str, Any]] = {"kubeconfig": {"type": "path", "required": True}}
APPLICATION = KUBECONFIG | {
    "namespace": {"type": "str", "default": "abaci"},
    "name": {"type": "str", "default": "abaci-app"},
}
DATABASE = APPLICATION | {
    "database": {"type": "str", "default": "sqlite.db"},
    "claim_template": {"type": "str", "default": "litefs-data"},
    "port": {"type": "int", "default": 20202},
}
