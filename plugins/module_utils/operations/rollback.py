"""Back to an earlier template of the StatefulSet, also where no pod of the present one comes up. Pure.

A pod that hangs on a bad image is not healed by its StatefulSet: it is deleted by its uid once the template is back,
a primary that is down first of all. The data and its schema stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .. import app_image, identity
from ..state_types import Revision
from . import planning, replacing, rollout
from . import situation as sit
from .planning import Plan, Request, Step

ADVICE = (
    "Nothing more is replaced: run playbooks/rollback.yml again where the cause is mended, or call it off with -e "
    "operation_call_off=rollback and name another revision in rollback_to."
)
SCHEMA = (
    "The database and its schema stay as they are: where a migration ran that the older build cannot live with, go "
    "back to a moment before it (playbooks/restore.yml -e restore_at=10m, with the archive), or to the export from "
    "before the rollout (restore_from), or to the copy from before the migration in /var/lib/litefs/backups on the "
    "primary's volume."
)
# What no template heals.
OF_DATA: tuple[planning.Cause, ...] = (
    "primary-volume-empty",
    "cluster-id-missing",
    "older-volume",
    "no-copy-left",
    "primary-node-gone",
    "two-primaries",
)
prove = replacing.prove


@dataclass(frozen=True)
class _Target:
    """``pin``: the digest by which the image is named; ``build``: what ran under the revision, as far as is known."""

    revision: Revision | None
    image: str = ""
    pull: str = ""
    pin: str = ""


def decide(request: Request) -> Plan:
    """What is left to do until all pods have the earlier template.

    Parameters: to, "" for the last one that others were rolled out over, else the number or name of a revision, an
    image with its digest, or a digest.
    """
    state = request.state
    if not state["statefulset"]["exists"]:
        found = sit.look(state)
        return _refused(found.sentence if isinstance(found, sit.Problem) else "")
    try:
        record = identity.parse(state)
    except ValueError as exc:
        return _refused(str(exc))
    primary = record.primary_ordinal if record else 0
    mine = request.checkpoint
    if mine.get("stamp") and mine.get("asked") != _asked(request):
        return _refused(f"The rollback to {mine.get('asked') or 'the previous one'} is not finished: run that again.")
    if replacing.is_set(state, mine):
        if not replacing.observed(state):
            return planning.plan(steps=[planning.step("wait_observed", "")])
        steps = replacing.left(state, primary, "primary_last", ADVICE) + replacing.settle(state, primary)
        return planning.plan(None, steps, [*replacing.notes(state), SCHEMA])
    if not _asked(request) and _is_back(state):
        return planning.plan(notes=["The present template is one that was gone back to: to go further, name another."])
    found = sit.look(state)
    if isinstance(found, sit.Problem) and found.cause in OF_DATA:
        return planning.plan(f"Nothing was rolled back. {found.sentence}", cause=found.cause)
    target = _target(request, primary)
    if isinstance(target, str):
        return _refused(" ".join([target, *_otherwise(state, found)]))
    node = _node(request)
    if target.pull and node and _tried(request, target.pull) is None:
        steps = _steps(request, target, primary)
        return planning.plan(None, steps, [SCHEMA], pull=[{"image": target.pull, "node": node}])
    return planning.plan(None, _steps(request, target, primary), [*replacing.notes(state), SCHEMA])


def progress(request: Request) -> planning.Checkpoint:
    """What the record keeps: which template it is to be."""
    if request.checkpoint.get("stamp"):
        return request.checkpoint
    if not request.state["statefulset"]["exists"]:
        return {}
    record = request.state["record"]
    target = _target(request, int(record["primary_ordinal"] or 0) if record else 0)
    if isinstance(target, str):
        return {}
    living, kept = request.state["statefulset"], app_image.rolled_out(request.state)
    over = request.inventory.get("image") or (kept.over if kept else str(living["image"] or "").partition("@")[0])
    image = f"{target.image.partition('@')[0]}@{target.pin}" if target.pin else target.image
    before = kept.keel_policy if kept else living["keel_policy"] or ""
    by_hand = image != over
    return {
        # No rollout's, whatever the clock says.
        "stamp": f"rollback {request.time()}",
        "asked": _asked(request),
        "image": image if target.pin or target.revision is None else "",
        "revision": target.revision["name"] if target.revision else "",
        "leaves": living["update_revision"] or "",
        "rolled_out": app_image.RolledOut(image, over, before).text() if by_hand else "",
        # What Keel followed before is what runs again.
        "policy": "never" if by_hand and "@" in image else (kept.keel_policy or None) if kept else None,
    }


def _refused(sentence: str) -> Plan:
    return planning.plan(f"Nothing was rolled back. {sentence}")


def _asked(request: Request) -> str:
    return str(request.parameters.get("to") or "").strip()


def _steps(request: Request, target: _Target, primary: int) -> list[Step]:
    state, mine = request.state, request.checkpoint
    name = target.revision["name"] if target.revision else None
    exact = name is not None and not target.pin
    number = f"revision {target.revision['number']}, " if target.revision else ""
    template = planning.step(
        "template",
        f"give the StatefulSet its template of {number}image {mine.get('image') or target.image}",
        stamp=mine.get("stamp", ""),
        image=mine.get("image", ""),
        restarted="",
        rolled_out=mine.get("rolled_out"),
        policy=mine.get("policy"),
        revision=mine.get("revision", ""),
        leaves=mine.get("leaves", ""),
        digest=replacing.build(state, state["statefulset"]["update_revision"], primary),
    )
    current = {name} if exact else ()
    return [template, *replacing.left(state, primary, "primary_last", ADVICE, current=current)]


def _target(request: Request, primary: int) -> _Target | str:
    """What it is to be, or why that cannot be."""
    asked, state = _asked(request), request.state
    if "sha256:" in asked:
        living = str(state["statefulset"]["image"] or "").partition("@")[0]
        image = f"{living}@{asked}" if asked.startswith("sha256:") else asked
        if not re.search(r"\S@sha256:[0-9a-f]{64}$", image):
            return f"rollback_to is {asked}: a digest is sha256: and 64 digits."
        return _Target(None, image)
    found = _revision(request, asked)
    if isinstance(found, str):
        return found
    return _named(request, found, primary)


def _otherwise(state: sit.State, found: sit.Situation | sit.Problem) -> list[str]:
    """What else is wrong, where there is nothing to go back to."""
    if isinstance(found, sit.Problem):
        return [found.sentence]
    fenced = [
        f"{sit.pod_name(state, ordinal)} is fenced: playbooks/replica_reset.yml -e "
        f"'{{\"replica_reset_targets\": [{ordinal}]}}' makes it a replica."
        for ordinal in sit.fenced(state)
    ]
    unwell = replacing.unwell(state, found)
    return [*fenced, *([unwell] if unwell else [])]


def _is_back(state: sit.Looked) -> bool:
    """Whether the last change of the template was a rollback, and all pods have it."""
    living, gone = state["statefulset"], replacing.out(state)
    if living["rollout_stamp"] is None or living["rollout_stamp"] not in {one["left"] for one in state["revisions"]}:
        return False
    return replacing.observed(state) and all(
        pod["revision"] == living["update_revision"] for pod in state["pods"] if pod["ordinal"] not in gone
    )


def _revision(request: Request, asked: str) -> Revision | str:
    state = request.state
    known, newest = state["revisions"], state["statefulset"]["update_revision"]
    there = "; ".join(f"{one['number']} ({_image(one)})" for one in known if one["name"] != newest) or "none"
    if asked:
        found = next((one for one in known if asked in (one["name"], str(one["number"]))), None)
        return found or f"There is no revision {asked} (any more): there are {there}."
    older = [one for one in known if one["name"] != newest]
    # What pods still run was there before this rollout, whatever was tried in between.
    ran = {pod["revision"] for pod in state["pods"] if pod["ready"]}
    first = [one for one in older if one["name"] in ran] or [one for one in older if not one["left"]]
    return first[0] if first else f"There is no revision to go back to: there are {there}; name one in rollback_to."


def _image(revision: Revision) -> str:
    image = revision["image"]
    return image if "@" in image or not revision["build"] else f"{image}@{revision['build']}"


def _named(request: Request, found: Revision, primary: int) -> _Target | str:
    """A revision that names a tag says not which build that was: what ran under it does."""
    state, image = request.state, found["image"]
    if "@" in image or not image:
        return _Target(found, image)
    build = replacing.build(state, found["name"], primary) or found["build"] or ""
    tried = _tried(request, image)
    if not build:
        present = next(
            (one["image"] for one in state["revisions"] if one["name"] == state["statefulset"]["update_revision"]), ""
        )
        if present == image:
            return (
                f"Revision {found['number']} names {image}, as the present one does, and nobody noted which build that "
                "was: name it, -e rollback_to=sha256:..., as CI or the registry shows it."
            )
        return _Target(found, image)
    moved = tried is None or tried["digest"] != build
    return _Target(found, image, pull=image, pin=build if moved else "")


def _tried(request: Request, image: str) -> planning.Pulled | None:
    return next((one for one in request.pulled if one["image"] == image), None)


def _node(request: Request) -> str:
    """A node on which it is tried what is behind the tag now, "" where none answers: then the digest is named."""
    return next(iter(rollout.nodes(request)), "")
