"""The one-file manifest of a release, such as cert-manager's: what it holds, and in which order. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from .conditions import holds
from .objects import Object

CRD = "CustomResourceDefinition"
VERSION_LABEL = "app.kubernetes.io/version"
LABELS = {"app.kubernetes.io/managed-by": "abaci.infra"}
# While these are there without what answers them, the API refuses every object they look at.
_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def version_error(documents: Iterable[Any], version: str, kinds: Iterable[str]) -> str:
    """Return why these documents are not the manifest of ``version`` that defines ``kinds``, in a sentence; else ""."""
    objects = [document for document in documents if document]
    if not objects or not all(
        isinstance(item, dict) and item.get("kind") and (item.get("metadata") or {}).get("name") for item in objects
    ):
        return "it holds something that is no Kubernetes object"
    defined = {item["spec"]["names"]["kind"] for item in objects if item["kind"] == CRD}
    missing = sorted(set(kinds) - defined)
    if missing:
        return f"it does not define {', '.join(missing)}"
    said = {
        str((item["metadata"].get("labels") or {}).get(VERSION_LABEL))
        for item in objects
        if item["kind"] == "Deployment"
    }
    if said != {version}:
        return f"it is of version {', '.join(sorted(said)) or 'unknown'} and not {version}"
    return ""


def prepared(documents: Iterable[Any], namespace_labels: Mapping[str, str]) -> list[Object]:
    """The objects as they are applied: with our label, and these labels on namespaces."""
    objects: list[Object] = []
    for document in documents:
        if not document:
            continue
        item = copy.deepcopy(document)
        extra = LABELS | (dict(namespace_labels) if item["kind"] == "Namespace" else {})
        item["metadata"]["labels"] = {**(item["metadata"].get("labels") or {}), **extra}
        objects.append(item)
    return objects


def ordered(objects: Iterable[Object]) -> list[Object]:
    """Namespaces and CRDs first: the API has to know them before it takes the rest."""
    return sorted(objects, key=lambda item: item["kind"] not in ("Namespace", CRD))


def removal(objects: Iterable[Object], with_data: bool) -> list[Object]:
    """What goes, in order: webhooks first. CRDs take all objects of their kinds along: they and namespaces are data."""
    listed = list(objects)
    webhooks = [item for item in listed if item["kind"] in _WEBHOOKS]
    rest = [item for item in listed if item["kind"] not in (*_WEBHOOKS, CRD, "Namespace")]
    data = [item for item in listed if item["kind"] == CRD] + [item for item in listed if item["kind"] == "Namespace"]
    return webhooks + rest[::-1] + (data if with_data else [])


def established(crd: Object | None) -> bool:
    """Whether the API serves the kinds of a CRD."""
    return holds(crd, "Established")
