"""What a rollout changes in the StatefulSet, and what it reads of its ControllerRevisions. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from .. import state
from ..objects import Object
from ..state_types import Revision

# On a ControllerRevision, whose data nobody can change.
BUILD = "abaci.infra/build"
LEFT = "abaci.infra/rolled-back"
# As `kubectl rollout restart` has it, so that site.yml lets it be.
RESTARTED = "kubectl.kubernetes.io/restartedAt"


@dataclass(frozen=True)
class Change:
    """``image`` "": the template's; ``restarted`` "": not anew; ``rolled_out`` and ``policy`` None: as they are, "":
    gone."""

    stamp: str
    image: str = ""
    restarted: str = ""
    rolled_out: str | None = None
    policy: str | None = None


def apply(found: Object, change: Change, template: Object | None = None) -> None:
    """Change the StatefulSet. Its controller replaces no pod: that is the rollout's, one pod after the other."""
    spec = found["spec"]
    if template is not None:
        spec["template"] = copy.deepcopy(template)
    if change.image:
        _name(spec["template"]["spec"], change.image)
    if change.restarted:
        metadata = spec["template"].setdefault("metadata", {})
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RESTARTED: change.restarted}
    spec["updateStrategy"] = {"type": "OnDelete"}
    annotations = found["metadata"].setdefault("annotations", {})
    annotations[state.ROLLOUT_STAMP] = change.stamp
    _set(annotations, state.ROLLED_OUT, change.rolled_out)
    if state.KEEL_POLICY in annotations:
        _set(annotations, state.KEEL_POLICY, change.policy)


def settle(found: Object) -> None:
    """Give rolling updates back to the StatefulSet's controller."""
    found["spec"]["updateStrategy"] = {"type": "RollingUpdate"}


def template_of(revision: Object) -> Object:
    """The template that a ControllerRevision keeps; ValueError where it keeps none."""
    kept = ((revision.get("data") or {}).get("spec") or {}).get("template")
    if not kept:
        raise ValueError("it keeps no template")
    return {key: value for key, value in kept.items() if key != "$patch"}


def revisions(found: Iterable[Object], uid: str | None) -> list[Revision]:
    """The StatefulSet's own, the newest first."""
    mine = [
        one for one in found if any(owner.get("uid") == uid for owner in one["metadata"].get("ownerReferences") or [])
    ]
    return sorted((_revision(one) for one in mine), key=lambda one: -one["number"])


def _revision(found: Object) -> Revision:
    annotations = found["metadata"].get("annotations") or {}
    containers = (((found.get("data") or {}).get("spec") or {}).get("template") or {}).get("spec", {}).get("containers")
    return {
        "name": found["metadata"]["name"],
        "number": int(found.get("revision") or 0),
        "image": str(_app(containers or [{}]).get("image", "")),
        "build": annotations.get(BUILD),
        "left": annotations.get(LEFT),
    }


def _app(containers: list[Object]) -> Object:
    return next((one for one in containers if one.get("name") == "app"), containers[0])


def _name(spec: Object, image: str) -> None:
    """Name the image in the containers that are of it; with a digest none has to pull it anew."""
    _app(spec["containers"])["image"] = image
    before = [one for one in spec.get("initContainers") or [] if one.get("name") != state.PULL or "@" not in image]
    for one in before:
        if one.get("name") == state.PULL:
            one["image"] = image
    if "initContainers" in spec:
        spec["initContainers"] = before


def _set(annotations: dict[str, str], key: str, value: str | None) -> None:
    if value:
        annotations[key] = value
    elif value is not None:
        annotations.pop(key, None)
