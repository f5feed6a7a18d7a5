"""Whether the pods that an operation restarts would start again, as far as their image goes. Pure.

Where each new pod pulls its image anew, because a tag names it, that is tried on the pods' nodes before the first act.
"""

from __future__ import annotations

from collections.abc import Iterable

from .planning import Pull, Request
from .situation import Pod

FREEZE = "playbooks/keel.yml -e keel_action=freeze, then site.yml"


def untried(request: Request, pods: Iterable[Pod]) -> list[Pull]:
    """What to try next before these pods may be restarted; nothing where they start what their nodes have.

    One node after the other, so that a registry that is away is waited for once.
    """
    living = request.state["statefulset"]
    if not living["pulls_anew"] or not living["image"]:
        return []
    tried = {one["node"] for one in request.pulled if one["image"] == living["image"]}
    nodes = sorted({str(pod["node"]) for pod in pods if pod["node"]} - tried)
    return [{"image": living["image"], "node": node} for node in nodes[:1]]


def problem(request: Request, cure: str = f"see to that, or freeze what runs ({FREEZE})") -> str:
    """Why pods that are restarted would not come back, and what to do; "" where nothing that was tried says so."""
    image = request.state["statefulset"]["image"]
    failed = [one for one in request.pulled if one["error"] and one["image"] == image]
    if not failed:
        return ""
    return (
        f"Each new pod pulls {image} anew, and on {failed[0]['node']} that fails now, so that pods that are restarted "
        f"would stay down ({str(failed[0]['error']).rstrip('.')}): {cure}."
    )
