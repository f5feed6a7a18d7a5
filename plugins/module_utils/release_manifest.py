"""The one-file manifest of a release, such as cert-manager's: what it holds, and in which order. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from .conditions import holds

Object = dict[str, Any]

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


def stages(objects: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """(namespaces and CRDs, everything else): the API has to know the first before it takes the second."""
    first: list[Object] = []
    second: list[Object] = []
    for item in objects:
        (first if item["kind"] in ("Namespace", CRD) else second).append(item)
    return first, second


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


def foreign(deployment: Object | None) -> str:
    """Who else installed the Deployment that the manifest would take over, in a sentence; "" where nobody did."""
    annotations = ((deployment or {}).get("metadata") or {}).get("annotations") or {}
    release = annotations.get("meta.helm.sh/release-name")
    if not release:
        return ""
    where = annotations.get("meta.helm.sh/release-namespace", "default")
    return (
        f"It was installed by Helm (release {release} in namespace {where}), and two owners would undo each other's "
        f"work: remove that release first, with its CRDs kept, or set cert_manager_enabled to false and keep it."
    )
