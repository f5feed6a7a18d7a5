"""What may be done with the claims and volumes that roles made before: pure decisions on objects of the API."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TypedDict

from .objects import Part

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([EPTGMk]i?|Ki|m)?")
_FACTORS = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(1000), "Ki": Decimal(1024)} | {
    letter + suffix: Decimal(base) ** power
    for power, letter in enumerate("MGTPE", start=2)
    for suffix, base in (("", 1000), ("i", 1024))
}


class StoragePlan(TypedDict):
    """What the role storage does before it applies."""

    errors: list[str]  # sentences: where there is one, nothing is applied
    released: list[str]  # volumes that are to bind again, since their claim was deleted


def same_quantity(one: object, other: object) -> bool:
    """Whether two Kubernetes quantities are the same amount (5Gi and 5120Mi are)."""
    first, second = _amount(one), _amount(other)
    return str(one) == str(other) if first is None or second is None else first == second


def _amount(value: object) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(value))
    return Decimal(match[1]) * _FACTORS[match[2] or ""] if match else None


def resize_error(claim: Part, size: str, variable: str) -> str:
    """Why the claim cannot have this size, in a sentence; "" where it has it.

    So it is for a claim that is not there (``{}``), and without a size. ``variable``: the variable that says so.
    """
    now = ((claim.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "")
    if not now or not size or same_quantity(now, size):
        return ""
    name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
    return (
        f"{variable} is {size}, but the claim {name} in namespace {namespace} has {now}, and only a class that can "
        f"expand lets it grow: set {variable} back to {now}, or enlarge the claim first (kubectl edit pvc {name} "
        f"-n {namespace})."
    )


def storage_plan(found: Iterable[Part], namespace: str, storage_class: str, claims: Iterable[str]) -> StoragePlan:
    """Decide about the role storage's claims and volumes that are there (``{}`` for one that is not).

    ``claims``: the names of the claims that are desired, of this namespace and class.
    """
    there = [item for item in found if item]
    ours = [item for item in there if item["kind"] == "PersistentVolumeClaim"]
    foreign = [item["metadata"]["name"] for item in ours if item["spec"].get("storageClassName") != storage_class]
    leaving = [item["metadata"]["name"] for item in ours if item["metadata"].get("deletionTimestamp")]
    errors = []
    if foreign:
        errors.append(
            f"The claims {', '.join(foreign)} in namespace {namespace} have another class than storage_class "
            f"({storage_class}), and the API lets nobody change it: set storage_class and storage_kind to what they "
            "have (kubectl get pvc), or copy the files away and remove the claims."
        )
    if leaving:
        errors.append(
            f"The claims {', '.join(leaving)} in namespace {namespace} are being deleted and wait for the pods that "
            "use them: restart those pods, and run again; the files stay."
        )
    return {"errors": errors, "released": _released(there, namespace, set(claims))}


def _released(there: Iterable[Part], namespace: str, claims: set[str]) -> list[str]:
    names = []
    for item in there:
        if item["kind"] == "PersistentVolume" and (item.get("status") or {}).get("phase") == "Released":
            of = item["spec"].get("claimRef") or {}
            if of.get("namespace") == namespace and of.get("name") in claims:
                names.append(item["metadata"]["name"])
    return names
