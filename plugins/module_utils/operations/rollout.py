"""Another image, or the same anew, one pod after the other: paused at the first that does not come up. Pure.

The template is changed with the update strategy OnDelete, so that nothing but this operation replaces a pod, whatever
Keel does to the template meanwhile; at its end the StatefulSet's controller has rolling updates back. An image that is
not the tag of the inventory is named by its digest, Keel is frozen, and the StatefulSet says that it was rolled out by
hand (app_image.RolledOut), so that site.yml keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .. import app_image, identity, litefs
from ..app_types import Desired
from ..placement import may_run
from . import backup, planning, replacing
from . import progress as unfinished
from . import situation as sit
from .planning import Plan, Request, Step

ADVICE = (
    "Nothing more is replaced: playbooks/rollback.yml goes back; where the cause is mended (a node, a registry), run "
    "playbooks/rollout.yml again as before."
)
prove = replacing.prove


@dataclass(frozen=True)
class _Target:
    """``again``: the template is made anew, though its image keeps its name; ``pull`` "": nothing has to be tried."""

    pull: str
    again: bool = False
    pinned: bool = False


def decide(request: Request) -> Plan:
    """What is left to do until all pods have the image.

    Parameters: image, "" for the newest behind app_image; restart: the image stays; order: primary_first or
    primary_last; backup: whether one is made first.
    """
    state, order = request.state, request.parameters.get("order")
    if order not in replacing.ORDERS:
        return _refused(f"rollout_order is {order}: set it to {' or '.join(replacing.ORDERS)}.")
    if problem := _asked_otherwise(request):
        return _refused(problem)
    if not replacing.is_set(state, request.checkpoint):
        return _begin(request, order)
    found = sit.look(state)
    record = identity.parse(state)
    primary = found.leader["ordinal"] if isinstance(found, sit.Situation) else record.primary_ordinal if record else 0
    if not replacing.observed(state):
        return planning.plan(steps=[planning.step("wait_observed", "")])
    steps = replacing.left(state, primary, order, ADVICE)
    return planning.plan(None, steps + replacing.settle(state, primary), [*replacing.notes(state), *_moved(request)])


def progress(request: Request) -> planning.Checkpoint:
    """What the record keeps: what the template is to be. It is decided once, by the run that begins."""
    if request.checkpoint.get("stamp"):
        return request.checkpoint
    target = _target(request)
    digest = _digest(request, target.pull) if isinstance(target, _Target) and target.pull else ""
    if isinstance(target, str) or digest is None:
        return {}
    image, over = target.pull or str(request.state["statefulset"]["image"]), _over(request)
    made: planning.Checkpoint = {
        "stamp": request.time(),
        "asked": _asked(request),
        "image": image,
        "digest": digest,
        "again": target.again,
        "rolled_out": None,
        "policy": None,
    }
    if target.pinned:
        made["image"] = f"{image.partition('@')[0]}@{digest}"
        kept = app_image.rolled_out(request.state)
        living = kept.keel_policy if kept else request.state["statefulset"]["keel_policy"] or ""
        made["rolled_out"] = app_image.RolledOut(made["image"], over, living).text()
        made["policy"] = "never"
    return made


def _refused(sentence: str, cause: planning.Cause | None = None) -> Plan:
    return planning.plan(f"Nothing was rolled out. {sentence}", cause=cause)


def _asked(request: Request) -> str:
    return "a restart" if request.parameters.get("restart") else str(request.parameters.get("image") or "").strip()


def _asked_otherwise(request: Request) -> str | None:
    """Why a run that is not finished comes first."""
    try:
        known = unfinished.read(request.state)
    except ValueError as exc:
        return str(exc)
    if "rollback" in known:
        return "A rollback is not finished: run playbooks/rollback.yml again first."
    begun = known.get("rollout") or {}
    if begun.get("stamp") and begun.get("asked") != _asked(request):
        return (
            f"The rollout of {begun.get('asked') or 'the newest image'} is not finished: run it again as it was run, "
            "or go back first with playbooks/rollback.yml."
        )
    return None


def _begin(request: Request, order: replacing.Order) -> Plan:
    """The gate, what is tried and kept first, and then everything."""
    state, found = request.state, sit.look(request.state)
    if isinstance(found, sit.Problem):
        return _refused(found.sentence, found.cause)
    target = _target(request)
    problem = target if isinstance(target, str) else _not_level(state, found)
    if problem or isinstance(target, str):
        return _refused(str(problem))
    able = nodes(request)
    tried = [one for one in request.pulled if one["image"] == target.pull]
    missing = [name for name in able if name not in {one["node"] for one in tried}] if target.pull else []
    if missing:
        return planning.plan(None, _steps(request, found, order), pull=[_pull(target.pull, name) for name in missing])
    if target.pull and (wrong := _wrong(tried, able)):
        return _refused(wrong)
    if not request.parameters.get("restart") and _runs(request):
        return planning.plan(notes=[f"All pods run {request.checkpoint['image']} already."])
    export = list[str]()
    if request.parameters.get("backup") and not sit.fresh_export(request, found.cluster_id, sit.ANY_TXID):
        choice, _problem = backup.choose(state)
        export = [choice["pod"] if choice else found.leader["name"]]
    return planning.plan(None, _steps(request, found, order), replacing.notes(state), export=export)


def _steps(request: Request, found: sit.Situation, order: replacing.Order) -> list[Step]:
    state, mine, primary = request.state, request.checkpoint, found.leader["ordinal"]
    image = mine.get("image") or _asked(request) or _over(request)
    say = f"restart the pods of {image}" if mine.get("again") else f"name {image} in the StatefulSet's template"
    template = planning.step(
        "template",
        say,
        stamp=mine.get("stamp", ""),
        image=mine.get("image", ""),
        restarted=mine.get("stamp", "") if mine.get("again") else "",
        rolled_out=mine.get("rolled_out"),
        policy=mine.get("policy"),
        revision="",
        leaves="",
        digest=replacing.build(state, state["statefulset"]["update_revision"], primary),
    )
    level = planning.step("wait_replicated", "wait until every replica has what the primary has")
    level["without"] = replacing.out(state)
    return [level, template, *replacing.left(state, primary, order, ADVICE, current=())]


def _target(request: Request) -> _Target | str:
    """What is rolled out, or why it cannot be."""
    given, living = str(request.parameters.get("image") or "").strip(), str(request.state["statefulset"]["image"] or "")
    over = _over(request)
    if request.parameters.get("restart"):
        if given:
            return "rollout_image and rollout_restart are both set: a restart keeps the image; leave one of them out."
        return _Target("" if "@" in living else living, again=True)
    if given:
        if re.search(r"\s", given) or ("@" in given and not re.search(r"(^|@)sha256:[0-9a-f]{64}$", given)):
            return f"rollout_image is {given!r}: name an image with its tag, or with @sha256: and 64 digits."
        if given.startswith("sha256:"):
            given = f"{living.partition('@')[0]}@{given}"
        return _Target(given, pinned=True) if given != living or "@" in given else _Target(given, again=True)
    if "@" in over:
        return f"app_image names the digest {over.partition('@')[2]}, behind which nothing newer is: set rollout_image."
    if living == over:
        return _Target(over, again=True)
    if not living.startswith(f"{over}@") and app_image.rolled_out(request.state) is None:
        return f"The pods run {living}, and app_image is {over}: site.yml applies that, or name it in rollout_image."
    return _Target(over, pinned=True)


def _over(request: Request) -> str:
    """The inventory's image; where it has the default one, what the StatefulSet says of it."""
    kept = app_image.rolled_out(request.state)
    living = str(request.state["statefulset"]["image"] or "")
    return request.inventory.get("image") or (kept.over if kept else living.partition("@")[0])


def nodes(request: Request) -> list[str]:
    """The nodes that may get a pod and answer, by the label that the scheduler goes by."""
    desired = request.inventory
    where: Desired = {
        "node_selector": desired.get("node_selector") or {},
        "tolerations": desired.get("tolerations") or [],
    }
    able = [node for node in request.state["nodes"] if node["ready"] and may_run(node, where)]
    return [node["labels"].get("kubernetes.io/hostname", node["name"]) for node in able]


def _pull(image: str, node: str) -> planning.Pull:
    return {"image": image, "node": node}


def _digest(request: Request, image: str) -> str | None:
    """What the nodes have got under the name; None where that is not known, or not one."""
    found = {one["digest"] for one in request.pulled if one["image"] == image and one["node"] in nodes(request)}
    return found.pop() if len(found) == 1 else None


def _wrong(tried: list[planning.Pulled], able: list[str]) -> str | None:
    for one in tried:
        if one["error"]:
            return str(one["error"])
    found = {one["node"]: one["digest"] for one in tried if one["node"] in able}
    if not found:
        return "No node that may run the pods answers: see kubectl get nodes."
    if len(set(found.values())) > 1 or None in found.values():
        each = ", ".join(f"{node}: {digest or 'none is named'}" for node, digest in found.items())
        return f"The nodes got different builds under the tag, which moved meanwhile ({each}): run again."
    return None


def _runs(request: Request) -> bool:
    """Whether all pods run it already."""
    state, mine = request.state, request.checkpoint
    pods = [pod for pod in state["pods"] if pod["ordinal"] not in replacing.out(state)]
    builds = {replacing.running(pod) for pod in pods}
    settled = state["statefulset"]["update_strategy"] != "OnDelete"
    return settled and state["statefulset"]["image"] == mine.get("image") and builds == {mine.get("digest")}


def _not_level(state: sit.State, found: sit.Situation) -> str | None:
    """Why nothing begins: a replica that would not be whole afterwards, or another rollout."""
    if unwell := replacing.unwell(state, found):
        return unwell
    leaving = replacing.out(state)
    living = state["statefulset"]
    old = replacing.to_replace(state, found.leader["ordinal"], "primary_last", {living["update_revision"]})
    if living["update_strategy"] != "OnDelete" and sit.rolling(state) and old:
        return "The StatefulSet is being rolled out at this moment: wait until it is done, or playbooks/rollback.yml."
    ill = [pod for pod in state["pods"] if pod["ordinal"] not in leaving and not pod["ready"]]
    if ill:
        return f"{litefs.names(ill)} is not ready: wait for it, or heal it; a rollout begins with a site that is whole."
    return None


def _moved(request: Request) -> list[str]:
    """That a pod got another build under a tag than the one that was tried."""
    state, mine = request.state, request.checkpoint
    newest = state["statefulset"]["update_revision"]
    other = [
        pod
        for pod in state["pods"]
        if pod["revision"] == newest and mine.get("digest") and replacing.running(pod) not in ("", mine["digest"])
    ]
    if not other or "@" in mine.get("image", ""):
        return []
    return [f"{litefs.names(other)} runs another build than the one that was tried: {mine['image']} moved meanwhile."]
