"""What applying manifests changes, and what of it check mode can ask the API."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import kube

Object = dict[str, Any]

FIELD_MANAGER = "abaci.infra"
# What the API changes by itself with every write, or what controllers write.
_NOISE = ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp", "selfLink")


def label(obj: Object) -> str:
    """Kind and name of an object, as sentences name it."""
    namespace = obj["metadata"].get("namespace")
    return f"{obj['kind']} {namespace + '/' if namespace else ''}{obj['metadata']['name']}"


def comparable(obj: Object | None) -> Object:
    """What of an object its owners set: no status, and none of the metadata that changes by itself."""
    bare = copy.deepcopy(obj) or {}
    bare.pop("status", None)
    for key in _NOISE:
        bare.get("metadata", {}).pop(key, None)
    if not bare.get("metadata", True):
        del bare["metadata"]
    return bare


def scope(client: kube.Client | None, objects: list[Object], why: str) -> tuple[list[int], list[str]]:
    """Return the positions of the objects that the API can dry-run, and a line for each that would be created.

    A dry run refuses an object whose namespace or kind the same run would first create. ``client`` is None where
    there is no API, for the reason ``why``. Raises KubeError where the API fails midway.
    """
    possible: list[int] = []
    others: list[str] = []
    namespaces: dict[str, bool] = {}
    for position, obj in enumerate(objects):
        namespace = obj["metadata"].get("namespace")
        if client is None:
            others.append(f"{label(obj)} ({why})")
        elif not client.knows(obj["apiVersion"], obj["kind"]):
            others.append(f"{label(obj)} (the API does not know {obj['apiVersion']} {obj['kind']} yet)")
        elif namespace and not _there(client, namespace, namespaces):
            others.append(f"{label(obj)} (namespace {namespace} does not exist yet)")
        else:
            possible.append(position)
    return possible, others


def would_be_created(lines: list[str]) -> Object:
    """The difference that shows such lines."""
    return {"before": "", "after": "".join(f"{line}\n" for line in lines), "after_header": "would be created"}


def namespace_object(name: str) -> Object:
    """What is created where the namespace is missing."""
    labels = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def apply(client: kube.Client, obj: Object, dry_run: bool) -> tuple[Object, Object]:
    """Apply one manifest; return the object before ({} where there was none) and after, comparable.

    For the stages of a release manifest, between which the API has to be asked; all else goes through
    kubernetes.core.k8s.
    """
    try:
        before = client.get(obj["apiVersion"], obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        after = client.apply(obj, FIELD_MANAGER, force=True, dry_run=dry_run)
    except kube.KubeError as exc:
        raise kube.KubeError(f"{label(obj)} cannot be applied. {exc}", exc.status, exc.unknown_kind) from exc
    return comparable(before), comparable(after)


def _there(client: kube.Client, namespace: str, known: dict[str, bool]) -> bool:
    if namespace not in known:
        known[namespace] = client.get("v1", "Namespace", namespace) is not None
    return known[namespace]
