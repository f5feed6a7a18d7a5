"""Whether applying a manifest again would change anything, told from the object alone. Pure.

The API writes into metadata.managedFields which fields a manager set with its last apply, with the keys by which lists
are merged. Where these are just the fields of the manifest, and the object has their values, an apply does nothing.
Everything else (a value that the API writes in another form, a default inside a list that is replaced as a whole) says
no here, and the API is asked by an apply.
"""

from __future__ import annotations

import json
from typing import Any

from .objects import Object

# A StatefulSet's own: the API completes them in ways of its own, and lets nobody change them afterwards.
_FIXED = "volumeClaimTemplates"


def unchanged(manifest: Object, found: Object, manager: str) -> bool:
    """Whether this manager applied just this manifest last, and the object still has all its values."""
    entry = next(
        (
            item
            for item in found["metadata"].get("managedFields") or []
            if (item.get("manager"), item.get("operation")) == (manager, "Apply") and not item.get("subresource")
        ),
        None,
    )
    if entry is None or entry.get("apiVersion") != manifest["apiVersion"]:
        return False
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in ("name", "namespace")}
    if metadata:
        body["metadata"] = metadata
    return _same(body, found, entry.get("fieldsV1") or {})


def _same(wanted: Any, has: Any, owned: Object, name: str = "") -> bool:
    """The same for one node; ``owned``: what of it the manager set, in the form of fieldsV1 ({}: the whole)."""
    children = {key: value for key, value in owned.items() if key != "."}
    if not children:
        return _covers(wanted, has) if name == _FIXED else type(wanted) is type(has) and bool(_complete(wanted) == has)
    if isinstance(wanted, dict) and isinstance(has, dict):
        return children.keys() == {f"f:{key}" for key in wanted} and all(
            has.get(key) is None if value is None else key in has and _same(value, has[key], children[f"f:{key}"], key)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(has, list) and len(wanted) == len(children):
        places = [_place(item, has, children) for item in wanted]
        return None not in places and places == sorted(set(places))  # type: ignore[type-var]
    return False


def _place(item: Any, has: list[Any], children: Object) -> int | None:
    """Where in a list that is merged this item is, as it is wanted; None where it is not."""
    if not isinstance(item, dict):
        return has.index(item) if f"v:{json.dumps(item)}" in children and item in has else None
    for key, owned in children.items():
        identity = json.loads(key[2:]) if key.startswith("k:") else {}
        # What the manifest leaves out of the key has its default.
        if not identity or any(item.get(name, value) != value for name, value in identity.items()):
            continue
        for place, other in enumerate(has):
            if all(other.get(name) == value for name, value in identity.items()):
                return place if _same(item, other, owned) else None
    return None


def _complete(value: Any) -> Any:
    """A value that is replaced as a whole, with what the API fills in and without what it leaves out there."""
    if isinstance(value, list):
        return [_complete(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _complete(item) for key, item in value.items() if item is not None}
    if made.get("apiGroup") == "":  # of an RBAC subject
        del made["apiGroup"]
    if "fieldPath" in made:
        made.setdefault("apiVersion", "v1")
    if {"operations", "resources"} <= made.keys():  # a rule of a webhook
        made.setdefault("scope", "*")
    return made


def _covers(wanted: Any, has: Any) -> bool:
    """Whether all that is wanted is there, beside more."""
    if isinstance(wanted, dict):
        return isinstance(has, dict) and all(key in has and _covers(value, has[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(has, list)
            and len(wanted) == len(has)
            and all(_covers(one, other) for one, other in zip(wanted, has, strict=True))
        )
    return bool(wanted == has)
