"""Which nodes a pod may run on: what the scheduler does with node selectors, taints and tolerations."""

from __future__ import annotations

from collections.abc import Iterable

from .app_types import Desired
from .objects import Part
from .state_types import Node, Taint

# Taints of a node's present state (cordoned, not ready, full): the control plane sets and removes them.
PASSING = "node.kubernetes.io/"


def may_run(node: Node, desired: Desired, *, some_day: bool = False) -> bool:
    """Whether a node of the state document may run pods with these node_selector and tolerations.

    ``some_day``: count a node that takes no new pods now and will again, one that is cordoned or not ready.
    """
    selector = desired.get("node_selector") or {}
    if not (some_day or node["schedulable"]):
        return False
    if any(node["labels"].get(key) != value for key, value in selector.items()):
        return False
    repelling = [
        taint
        for taint in node["taints"]
        if taint["effect"] in ("NoSchedule", "NoExecute") and not (some_day and taint["key"].startswith(PASSING))
    ]
    return all(any(_tolerates(item, taint) for item in desired.get("tolerations") or []) for taint in repelling)


def architectures(nodes: Iterable[Node], desired: Desired) -> list[str]:
    """The processors of the nodes that may run the pods now."""
    return sorted({node["labels"].get("kubernetes.io/arch", "") for node in nodes if may_run(node, desired)})


def local_claims(desired: Desired) -> set[str]:
    """The claims that are directories of each host: the role storage's own, where it makes them of those."""
    storage = desired.get("storage")
    here = storage is not None and storage["state"] == "present" and storage["kind"] == "host_path"
    return {str(volume["claim"]) for volume in storage["volumes"]} if storage is not None and here else set()


def _tolerates(toleration: Part, taint: Taint) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint["value"] or "")
