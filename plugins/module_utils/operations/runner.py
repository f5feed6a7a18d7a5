"""One step of an operation: look, decide again, do what the decision says is next. The I/O around the decisions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from .. import identity, litefs
from ..telling import tell
from . import OPERATIONS, act, backup, holding, planning, progress, promote, steps
from . import situation as sit
from .planning import WAITS, Plan, Request, Step
from .retention import Manifest

NEEDS: tuple[Literal["look", "pull", "export", "volume_export"], ...] = ("look", "pull", "export", "volume_export")
EXPORTS_OF_A_POD = 3
POLL = 2.0
RUN = ("begun", "holder", "given")  # what a checkpoint says of its run


class Refused(Exception):
    """The decision is no; ``plan`` is the whole of it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(str(plan["refusal"]))
        self.plan = plan


class Look:
    """What is decided on one look at the site."""

    def __init__(self, site: act.Site, operation: str, request: Request) -> None:
        state = site.look()
        self.known = _known(state)
        found: planning.Checkpoint = self.known.get(operation) or planning.Checkpoint()
        kept = found.copy()
        for key in RUN:
            kept.pop(key, None)  # type: ignore[misc]
        imported = self.known.get(progress.IMPORTED) or []
        now = site.api.server_time()
        self.request = replace(request, state=state, checkpoint=kept, imported=imported, now=now)
        # What the record is to keep from the first act on; None: the operation sees to that.
        keep = getattr(OPERATIONS[operation], "progress", None)
        self.checkpoint: planning.Checkpoint | None = keep(self.request) if keep else kept
        if self.checkpoint is not None:
            self.request = replace(self.request, checkpoint=self.checkpoint)
        self.plan = OPERATIONS[operation].decide(self.request)


def plan(site: act.Site, operation: str, request: Request) -> Plan:
    """What would be done now. Raises Refused."""
    look = Look(site, operation, request)
    if look.plan["refusal"]:
        raise Refused(look.plan)
    look.plan["notes"] += progress.others(look.known, operation)
    # What brings back, or moves to, a copy that was proven for one database alone.
    if operation in ("promote", "restore") and (note := backup.other_databases_note(look.request.state)):
        look.plan["notes"].append(note)
    return look.plan


def call_off(site: act.Site, operation: str, holder: str) -> tuple[bool, str]:
    """Remove the progress of an operation: (whether there was any, a sentence). What it did stays done."""
    document = site.look()
    holding.Holding(site, holder).renew()
    known = _known(document)
    mine = known.get(operation)
    if not mine:
        return False, f"There is no unfinished {operation}: nothing was called off."
    site.write_record({progress.KEY: progress.text(progress.ended(known, operation))})
    rest = ", ".join(f"{key} {value}" for key, value in mine.items() if key not in RUN)
    begun = f"begun {mine.get('begun')} by {mine.get('holder')}"
    said = f"The {operation} {begun} is called off ({rest or 'nothing more'})."
    if document["record"] and document["record"]["state"] == "restore":
        said += " The record still says that a restore is under way, and only playbooks/restore.yml ends that."
    if operation == "promote" and promote.began_with(document) is not None and not promote.is_done(document):
        said += (
            f" The record still says that a promote is under way: {identity.PROMOTE} goes on with it, and -e "
            f"{progress.call_off(operation)} gives the role back."
        )
    return True, said


class Answer(TypedDict):
    """What a step did; ``needs``: what the caller has to do before the next one, then nothing was done yet."""

    done: bool
    changed: bool
    did: list[str]
    needs: str | None
    plan: Plan


def step(site: act.Site, holder: str, operation: str, request: Request, seconds: int) -> Answer:
    """Do the next act, and wait until it has its effect. The lock is renewed meanwhile.

    With ``needs`` the caller has to make exports or look into volumes, and come again.
    Raises Refused, act.NotDone, kube.KubeError.
    """
    with holding.Holding(site, holder) as held:
        run = Run(site, held, holder, operation, request, seconds)
        look, waited = run.wait_first()
        answer: Answer = {"done": False, "changed": False, "did": [], "needs": _need(look.plan), "plan": look.plan}
        if answer["needs"] == "export":
            _check_restless(look.plan["export"], request.exports)
        if answer["needs"]:
            return answer
        if not look.plan["steps"]:
            run.end(look)
            return {**answer, "done": True, "did": site.left}
        did = run.act(look, waited)
        return {**answer, "changed": bool(did), "did": did}


@dataclass
class Run:
    """One step of an operation under the lock."""

    site: act.Site
    held: holding.Holding
    holder: str
    operation: str
    request: Request
    seconds: int

    def wait_first(self) -> tuple[Look, list[Step]]:
        """The look that the next act goes by, and the waits that are over: what comes first in a plan may be a wait."""
        waited: list[Step] = []
        patience = time.monotonic() + min(self.seconds, 120)
        while True:
            look = Look(self.site, self.operation, self.request)
            self.held.renew()
            listed = look.plan["steps"]
            if look.plan["refusal"]:
                # A rolling update, also one that only now gets to the primary, restarts it within seconds.
                if not look.plan["final"] and _restarts(look.request.state) and time.monotonic() < patience:
                    tell("The rolling update that is under way", deadline=patience)
                    time.sleep(POLL)
                    continue
                raise Refused(look.plan)
            waits = list(itertools.takewhile(lambda one: one["do"] in WAITS, listed))
            first = [one for one in waits if one not in waited]
            if not first or len(waits) == len(listed) or _need(look.plan):
                return look, waited
            # What this was decided on may be minutes old after a wait, and so may the lock: an act needs a new look.
            for one in first:
                self.do(one, look)
            waited += first

    def act(self, look: Look, waited: list[Step]) -> list[str]:
        """Do the first act of the plan, with the waits around it; what was done, in sentences."""
        did: list[str] = []
        for one in look.plan["steps"]:
            if one["do"] in WAITS:
                if did or one not in waited:
                    self.do(one, look)
                continue
            if did:
                break
            self._keep(look)
            did.append(one["say"])
            did += self.do(one, look)
        return did

    def end(self, look: Look) -> None:
        """The proof after: what the operation promised holds now. Then nothing has to be kept of it."""
        prove = getattr(OPERATIONS[self.operation], "prove", _prove)
        for one in prove(look.plan, look.request.state):
            self.do(one, look, min(self.seconds, 120))
        self.held.renew()
        self.site.raise_low_water()
        if self.operation in look.known:
            mine = self._begun(look, look.checkpoint or {})
            self._write(progress.ended(mine, self.operation, look.plan["targets"]))

    def do(self, one: Step, look: Look, seconds: int | None = None) -> list[str]:
        """Do one step; what more there is to say of it."""
        do = steps.DO.get(one["do"])
        if do is None:
            raise act.NotDone(f"The step {one['do']} is not known to this version.")
        left = self.seconds if seconds is None else seconds
        said = do(steps.Context(self.site, self.held, self.holder, look.request, look.known, left), one)
        return [said] if said else []

    def _keep(self, look: Look) -> None:
        if look.checkpoint is not None:
            look.known = self._begun(look, look.checkpoint)
        if loss := look.plan["loss"]:
            look.known = progress.rolled_back(look.known, int(loss["after_txid"], 16))
        kept = identity.raw(look.request.state).get(progress.KEY)
        if progress.text(look.known) != kept:
            self._write(look.known)

    def _begun(self, look: Look, checkpoint: planning.Checkpoint) -> progress.Progress:
        return progress.begun(
            look.known, self.operation, checkpoint, look.request.now, self.holder, self.request.parameters
        )

    def _write(self, known: progress.Progress) -> None:
        self.site.write_record({progress.KEY: progress.text(known)})


def _prove(_plan: Plan, state: sit.State) -> list[Step]:
    """Every replica that is not fenced has what the primary has."""
    return [planning.step("wait_replicated", "", without=sit.fenced(state))]


def _restarts(document: sit.State) -> bool:
    """Whether no primary runs because the StatefulSet is being rolled out."""
    return sit.rolling(document) and not litefs.primaries(document)


def said(found: Plan) -> list[str]:
    """The plan in sentences: what comes before the first step, the steps, and what is to be known of it."""
    first: tuple[tuple[str, Sequence[object]], ...] = (
        ("first, look into volumes", found["look"]),
        ("first, try", [f"{one['image']} on {one['node']}" for one in found["pull"]]),
        ("first, export from", found["export"]),
        ("first, export the volumes of ordinals", found["volume_export"]),
    )
    needs = [f"{words} {', '.join(map(str, needed))}" for words, needed in first if needed]
    return [*(needs + _sentences(found) or ["nothing is left to do"]), *found["notes"]]


def _sentences(found: Plan) -> list[str]:
    return [one["say"] for one in found["steps"] if one["say"]]


def _need(found: Plan) -> str | None:
    """What the caller has to do before the first step."""
    return next((need for need in NEEDS if found.get(need)), None)


def _check_restless(pods: list[str], exports: Sequence[Manifest]) -> None:
    """Raises act.NotDone where a pod cannot be exported, or was exported again and again and is never at rest."""
    failed = backup.failed(exports)
    for pod in pods:
        if pod in failed:
            raise act.NotDone(f"{pod} could not be exported, and without that it goes no further: {failed[pod]}")
        if sum(made.get("pod") == pod for made in exports) >= EXPORTS_OF_A_POD:
            raise act.NotDone(
                f"{pod} was exported {EXPORTS_OF_A_POD} times and had other transactions each time: stop what writes "
                "to it, and run again."
            )


def _known(document: sit.State) -> progress.Progress:
    try:
        return progress.read(document)
    except ValueError as exc:
        raise Refused(planning.plan(f"Nothing was done. {exc}")) from exc
