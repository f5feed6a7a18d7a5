"""Which text the pods name their image by, and when it is pulled. Pure, over the state document (state.py).

A digest is one build for ever: a node that has it asks no registry. A tag may move: each new pod pulls it anew,
whatever it is called, by an init container of the same image, and a container that is restarted in its pod starts what
the pod has pulled, also while the registry is away. Frozen means the digest that runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from .objects import Part
from .state_types import State


@dataclass(frozen=True)
class Choice:
    """``text`` for the pods; ``pull``: each new pod pulls it; ``pin``: frozen, but only a pull shows the digest."""

    text: str
    pull: bool
    pin: bool = False
    running: bool = False  # the pods run this very digest already
    note: str = ""


@dataclass(frozen=True)
class RolledOut:
    """What playbooks/rollout.yml or rollback.yml wrote on the StatefulSet: the image that they set, and over which
    app_image. ``keel_policy``: keel.sh/policy before that, which a thaw brings back."""

    image: str
    over: str
    keel_policy: str

    def text(self) -> str:
        """The annotation's value."""
        return json.dumps(asdict(self), sort_keys=True)


def rolled_out(state: State) -> RolledOut | None:
    """The image that was rolled out by hand, if the StatefulSet still names it."""
    try:
        found = json.loads(state["statefulset"]["rolled_out"] or "{}")
        made = RolledOut(**{key: str(found[key]) for key in ("image", "over", "keel_policy")})
    except (ValueError, TypeError, KeyError):
        return None
    return made if made.image == state["statefulset"]["image"] else None


class Pull(TypedDict, total=False):
    """Pulled before the pods change: ``command`` has to run in it; ``kept``: not where a node has it.

    ``architecture``: on a node with this processor.
    """

    variable: str
    image: str
    command: list[str]
    kept: bool
    architecture: str


def choose(
    state: State, image: str, frozen: bool, ordinal: int, pulled: Iterable[Part] = (), *, kept: bool = False
) -> Choice:
    """``image`` is app_image, ``frozen`` whether keel.sh/policy is never, ``ordinal`` the primary's.

    ``pulled``: what was pulled of pulls() in this run, each with ``__app_pull`` and ``digest``. ``kept``: what a node
    has under the tag is the image, by app_image_pull_policy; it may know no digest of it.
    """
    by_hand = rolled_out(state)
    if by_hand is not None and by_hand.over == image:
        note = (
            f"The pods keep the image {by_hand.image}, which was rolled out by hand; app_image ({image}) did not "
            "change: set it to what is to run, or go back with playbooks/keel.yml -e keel_action=thaw and site.yml."
        )
        return Choice(by_hand.image, "@" not in by_hand.image, running=True, note=note)
    if kept or "@" in image:
        return Choice(image, False)
    if not frozen:
        return Choice(image, True)
    living = str(state["statefulset"]["image"] or "")
    if living.startswith(f"{image}@"):
        # Never looked up again while it is frozen, or a pod that got another build would move the others.
        digest = living.partition("@")[2]
    else:
        digest = running_digest(state, image, ordinal) if living == image else ""
    if not digest:
        # From the first start on, or with a new app_image.
        own = (one.get("digest") for one in pulled if one["__app_pull"].get("variable") == "app_image")
        found = next((str(one) for one in own if str(one).startswith("sha256:")), "")
        return Choice(f"{image}@{found}", False) if found else Choice(image, True, pin=True)
    note = (
        f"The image is frozen at {digest}, which the pods run, until keel.sh/policy is force again and site.yml runs."
    )
    return Choice(f"{image}@{digest}", False, running=True, note=note)


def pulls(
    choice: Choice, image: str, guard_image: str, architectures: Sequence[str] = (), *, kept: bool = False
) -> list[Pull]:
    """The images of the pods that are pulled before the pods change, with the variable that names each.

    Not a digest that they run already, since the registry may be away. Where the nodes have several processors, on
    one of each: an image for one of them is no image for the others. ``kept``: see choose().
    """
    guard: Pull = {"variable": "app_guard_image", "image": guard_image, "kept": True}
    own: Pull = {"variable": "app_image", "image": image, "command": ["litefs", "version"]}
    if kept:
        own["kept"] = True
    wanted = [guard] if choice.running else [own, guard]
    if len(architectures) < 2:
        return wanted
    return [{**one, "architecture": processor} for one in wanted for processor in architectures]


def running_digest(state: State, image: str, ordinal: int) -> str:
    """The digest that the primary runs, else most of the ready pods; "" where none is known of this repository."""
    found = {
        pod["ordinal"]: running.partition("@")[2]
        for pod in state["pods"]
        if pod["ready"]
        and "@sha256:" in (running := pod["image_id"] or "")
        and _repository(running) == _repository(image)
    }
    if ordinal in found:
        return str(found[ordinal])
    ((digest, _count),) = Counter(found[key] for key in sorted(found)).most_common(1) or [("", 0)]
    return str(digest)


def _repository(image: str) -> str:
    """The repository of an image, with what a container runtime leaves out of Docker's own names."""
    name = image.partition("@")[0].removeprefix("docker-pullable://")
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    first = name.partition("/")[0]
    if "/" not in name:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
