"""Moving the primary's role: because the primary's node or volume is gone, or planned, while it runs. Pure.

The order of the steps is the safety: the record names the successor and fences the old primary, then the old
primary is stopped, then the configuration is rendered from the record, then the successor restarts as primary, and only
then the others. A run that died anywhere is continued: what is done shows in the document.

A planned move (desired ``to``) is the same with a proof in between: once the old primary is stopped its volume is
looked into, and the successor starts only if it has the very last transaction. So nothing is lost, and the old primary
follows again at the end. Until the successor was primary either kind can be called off.

Where the archive proves that it has transactions which the successor lacks, the successor follows the archive before it
is primary, as it would follow a primary: LiteFS applies them itself, and nobody can write meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast

from .. import clock, identity, litefs, values, wording
from . import backup, planning, pulling
from . import situation as sit
from .planning import Plan, Request, Step

if TYPE_CHECKING:
    from typing import Unpack

KEY = "promote"  # of the record: what was there before, as JSON, see Before
RESET = "playbooks/replica_reset.yml"
START_SECONDS = 300  # within which a pod that is made anew is primary, also where its guard waits for others


class Parameters(TypedDict, total=False):
    """What the person gave, as it came."""

    successor: object
    accept_loss_after: object
    node_off: object
    lost_replicas: object
    give_up_volume: object
    call_off: object
    to: object
    from_archive: object


# What was there before the promote that the record tells of; "from": the old primary's ordinal. "archive": the TXID
# that the archive had, for as long as what it has more is to be brought back, else "": only then guard.sh lets somebody
# be primary; "also": those of other databases.
Before = TypedDict(
    "Before",
    {"from": int, "fenced": list[int], "planned": bool, "equal": bool, "archive": str, "also": dict[str, str]},
)


@dataclass(frozen=True)
class Tail:
    """What the archive proves to have more than a pod, by database; ``problem``: whether it cannot prove it has none.

    ``said``: one sentence about it, "" where there is no archive of this cluster. ``refused``: whether it has more of
    another database that it never can give to the pod.
    """

    more: Mapping[str, planning.More]
    said: str
    problem: bool = False
    refused: bool = False

    def end(self, database: str, have: int) -> int:
        """The TXID of the database once it was brought back."""
        one = self.more.get(database)
        return int(one["last"], 16) if one else have


def decide(request: Request) -> Plan:
    """What is left to do to make the replica with the highest position primary, or the one that is asked for.

    ``state`` has, beside the document, ``rendered_ordinal``: whom the rendered litefs.yml names as primary.
    Parameters: successor (ordinal; else the lowest of the best), accept_loss_after (the TXID after which everything
    may be lost, as shown), node_off (name of the old primary's node, which a person has made sure is off),
    lost_replicas (ordinals of pods that cannot be asked, or not be exported, and are given up until they are
    exported), give_up_volume (names of volumes that hold, or may hold, more than the successor and are left behind),
    call_off (bool: give the role back), to (ordinal: a planned move), from_archive (bool, default true: bring back
    what the archive has more).
    """
    state, parameters = request.state, cast("Parameters", request.parameters)
    if not state["statefulset"]["exists"]:
        return _refuse(f"There is no StatefulSet {state['statefulset']['name']} in namespace {state['namespace']}.")
    try:
        record = identity.parse(state)
    except ValueError as exc:
        return _refuse(str(exc))
    if record is None or record.cluster_id is None:
        return _refuse(
            f"{identity.name_of(state)} records no cluster, so nothing says which copies are the right ones: see "
            f"{sit.RUNBOOK}."
        )
    leaders = litefs.primaries(state)
    if len(leaders) > 1:
        return _refuse(
            f"Pods {litefs.names(leaders)} each say that they are primary: stop the wrong one first (see "
            f"{sit.RUNBOOK}).",
            "two-primaries",
        )
    if parameters.get("call_off"):
        return _call_off(state, record, leaders)
    before = _before(state)
    if before and before["planned"]:
        return _continue_planned(state, record, before, request.volumes)
    if _begun(state, record) or _starts(request, record):
        return _continue(request, record)
    if parameters.get("to") not in (None, ""):
        return _planned(request, record, parameters["to"])
    return _choose(request, record, leaders)


def prove(plan: Plan, state: sit.Looked) -> list[Step]:
    """Every replica of this cluster follows; one of another is left as it was."""
    if plan["unproven"]:
        return []
    return [planning.step("wait_replicated", "", without=[*sit.fenced(state), *sit.strangers(state)])]


def _refuse(sentence: str, cause: planning.Cause | None = None, **more: Unpack[planning.Outcome]) -> Plan:
    """No end of a rolling update helps here: it may be what made the primary go."""
    made = planning.plan(f"Nothing was promoted. {sentence}", cause=cause, **more)
    made["final"] = True
    return made


def _choose(request: Request, record: identity.Record, leaders: list[sit.Pod]) -> Plan:
    top = _candidates(request.state, record, leaders, cast("Parameters", request.parameters))
    return top if isinstance(top, dict) else _begin(request, record, top)


def _candidates(
    state: sit.Looked, record: identity.Record, leaders: list[sit.Pod], parameters: Parameters
) -> list[sit.Pod] | Plan:
    """The pods that may be primary, no primary of the recorded cluster runs, and nothing has begun; or a refusal."""
    given_up = _numbers(parameters.get("lost_replicas"))
    old = sit.pod_of(state, record.primary_ordinal)
    if leaders and leaders[0]["litefs"]["cluster_id"] == record.cluster_id:
        return _refuse(
            f"The primary {leaders[0]['name']} runs and holds the recorded cluster {record.cluster_id}: there is "
            "nothing to promote; a planned restart loses nothing and needs no other primary, and -e "
            "promote_to=<ordinal> moves the role while it runs."
        )
    if leaders and leaders[0]["ordinal"] != record.primary_ordinal:
        return _refuse(
            f"{leaders[0]['name']} says that it is primary, of the cluster {leaders[0]['litefs']['cluster_id']}, and "
            f"is neither the recorded primary nor of the recorded cluster {record.cluster_id}: see {sit.RUNBOOK}.",
            "two-primaries",
        )
    candidates = [
        pod
        for pod in sit.holders(state, record.cluster_id or "")
        if pod["ordinal"] not in (record.primary_ordinal, *given_up)
    ]
    if not candidates:
        return _refuse(
            f"No replica that answers holds the recorded cluster {record.cluster_id} with the database "
            f"{state['database']}: bring back the primary's kept volume ({sit.RUNBOOK}), or restore a backup with "
            f"{identity.RESTORE}, which looks into every volume first.",
            "no-copy-left",
        )
    hearing = _hearing(state, record, candidates)
    if hearing is not None:
        return _refuse(
            f"{hearing['name']} heard from {sit.pod_name(state, record.primary_ordinal)} {_lag(hearing)} s ago, so "
            "that primary runs and acknowledges writes, and only this machine cannot ask it: see to its node's "
            "kubelet; or switch that node off, wait 3 s, and run again.",
            "primary-node-gone",
        )
    top = sit.best(state, candidates)
    checksums = {where.checksum for pod in top if (where := litefs.position(pod, state["database"]))}
    if len(checksums) > 1:
        return _refuse(
            f"{litefs.names(top)} are at the same TXID {sit.txid(state, top[0]):016x} with different checksums, so "
            "they are two histories: export each (playbooks/backup.yml -e backup_pod=NAME), and give up the one that "
            "is wrong with -e '{\"promote_lost_replicas\": [<ordinal>]}'.",
            "two-primaries",
        )
    if old in sit.holders(state, record.cluster_id or "") and sit.txid(state, old) > sit.txid(state, top[0]):
        return _refuse(
            f"{old['name']} answers, though not as primary, and holds TXID {sit.txid(state, old):016x}, more than "
            f"{litefs.names(top)} at {sit.txid(state, top[0]):016x}: restart it (kubectl delete pod {old['name']}), or "
            f"see {sit.RUNBOOK}.",
            "older-volume",
        )
    silent = _silent(state, record, parameters)
    return _refuse(silent, "replica-away") if silent else top


def _begin(request: Request, record: identity.Record, top: list[sit.Pod]) -> Plan:
    """One of these is to be primary, once a person said what is lost by that."""
    state, parameters, seen = request.state, cast("Parameters", request.parameters), request.volumes
    old = sit.pod_of(state, record.primary_ordinal)
    successor, problem = _successor(state, top, parameters.get("successor"))
    if problem or successor is None:
        return _refuse(problem or "")
    tail = _tail(request, record, successor)
    back = tail.more if parameters.get("from_archive", True) else {}
    have = sit.txid(state, successor)
    figure = f"{tail.end(state['database'], have) if back else have:016x}"
    number = successor["ordinal"]
    loss: planning.Loss = {"after_txid": figure, "pod": successor["name"], "seconds": _lag(successor)}
    since = f", which heard from the old primary {_lag(successor)} s ago" if _lag(successor) is not None else ""
    stands = f"The best copy is {successor['name']} at TXID {have:016x}{since}."
    problem = _not_off(state, record, parameters.get("node_off"))
    if problem:
        return _refuse(problem, "primary-node-gone", successor=number, loss=loss)
    names = _left_behind(state, record, parameters)
    look = sit.unseen(names, seen)
    if look:
        return planning.plan(
            None,
            notes=[stands, "What is asked for depends on what the volumes hold."],
            look=look,
            successor=number,
            loss=loss,
        )
    problem, said = _weigh(state, record, {name: seen[name] for name in names}, successor)
    if problem:
        return _refuse(problem, _cause(state, old), successor=number, loss=loss)
    said += _archived(request, tail, successor, back=bool(back))
    short = {} if back else _short(state, _before(state), successor)
    if short and parameters.get("from_archive", True):
        return _refuse(_left_behind_there(state, successor, short, tail), successor=number, loss=loss)
    if str(parameters.get("accept_loss_after") or "").lower() != figure:
        given = (
            f" (promote_accept_loss_after is {parameters['accept_loss_after']})"
            if parameters.get("accept_loss_after")
            else ""
        )
        return _refuse(
            f"{stands} What the old primary acknowledged after {'TXID ' + figure if back else 'that transaction'} is "
            "lost, unless its volume comes back. "
            f"{' '.join([*said, ''])}To accept that, give the figure back: -e promote_accept_loss_after={figure}"
            f"{given}.",
            _cause(state, old),
            successor=number,
            loss=loss,
        )
    export = _exports(request)
    for name, problem in backup.failed(request.exports).items():
        if name in export:
            ordinal = name.rpartition("-")[2]
            return _refuse(
                f"{name} could not be exported ({problem.rstrip('.')}): see to that, or, where its database is "
                f"damaged, give it up with -e '{{\"promote_lost_replicas\": [{ordinal}]}}'; its volume is kept.",
                successor=number,
                loss=loss,
            )
    # Site.yml, which would freeze it, changes no pods while there is no primary.
    if unpulled := pulling.problem(request, "see to that first"):
        return _refuse(unpulled, _cause(state, old), successor=number, loss=loss)
    steps, problem = _begin_steps(state, record, successor, parameters, back, figure)
    if problem:
        return _refuse(problem, "primary-node-gone", successor=number, loss=loss)
    notes = [*said, *_order(state, successor["ordinal"])]
    pull = pulling.untried(request, [successor])
    return planning.plan(None, steps, notes, _cause(state, old), export=export, pull=pull, successor=number, loss=loss)


def _exports(request: Request) -> list[str]:
    """The pods to export first: whatever happens, what they have is kept."""
    state, given_up = request.state, _numbers(request.parameters.get("lost_replicas"))
    return [
        pod["name"]
        for pod in litefs.reachable(state)
        if pod["ordinal"] not in given_up
        and sit.txid(state, pod)
        and not sit.fresh_export(request, pod["litefs"]["cluster_id"], _least(state, pod))
    ]


def _begin_steps(
    state: sit.Looked,
    record: identity.Record,
    successor: sit.Pod,
    parameters: Parameters,
    back: Mapping[str, planning.More],
    figure: str,
) -> tuple[list[Step], str | None]:
    fenced = sit.fenced(state)
    given_up = _numbers(parameters.get("lost_replicas"))
    fence = sorted({record.primary_ordinal, *fenced, *given_up} - {successor["ordinal"]})
    before: Before = {
        "from": record.primary_ordinal,
        "fenced": fenced,
        "planned": False,
        "equal": False,
        "archive": figure if back else "",
        "also": {name: one["last"] for name, one in back.items() if name != state["database"]},
    }
    first = planning.step(
        "record",
        f"record ordinal {successor['ordinal']} as primary and fence "
        f"{wording.listed(sit.pod_name(state, ordinal) for ordinal in fence)}",
        primary_ordinal=successor["ordinal"],
        fenced=fence,
        promote=json.dumps(before),
        given_up=not back,
    )
    bring = _bring_back(record, successor, back, before, fence) if back else []
    rest, problem = _rest(state, record, successor["ordinal"], fence, parameters, fresh=True, bring=bring)
    return [first, *rest], problem


def _before(state: sit.State) -> Before | None:
    """What was there before the promote that the record tells of; None where there is none, or it was ended."""
    try:
        said = json.loads(identity.raw(state).get(KEY) or "null")
        before: Before = {
            "from": int(said["from"]),
            "fenced": [int(ordinal) for ordinal in said["fenced"]],
            "planned": bool(said["planned"]),
            "equal": bool(said["equal"]),
            "archive": str(said.get("archive") or ""),
            "also": {str(name): str(last) for name, last in (said.get("also") or {}).items()},
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        fenced = sit.fenced(state)
        if len(fenced) != 1:
            return None
        return {"from": fenced[0], "fenced": [], "planned": False, "equal": False, "archive": "", "also": {}}
    return before if before["from"] in sit.fenced(state) else None


def unproven(state: sit.State) -> bool:
    """Whether a promote has begun and its successor may lack what it is to have before it is primary.

    Not where there are no pods: nothing is to be ended there, and the guard sees to those that come.
    """
    before = _before(state)
    if before is None or not state["statefulset"]["exists"]:
        return False
    return bool(before["archive"]) or (before["planned"] and not before["equal"])


def is_done(state: sit.State) -> bool:
    """Whether the recorded primary runs as such, whatever the record says of how it came to that."""
    record = state["record"]
    running = [str(pod["ordinal"]) for pod in litefs.primaries(state)]
    return record is not None and running == [record["primary_ordinal"]]


def began_with(state: sit.State) -> int | None:
    """The ordinal of the old primary of the promote that the record tells of."""
    before = _before(state)
    return before["from"] if before else None


def without_archive(state: sit.State) -> str | None:
    """The record's key without what is to be brought back: a restored file takes its place."""
    before = _before(state)
    if before is None or not before["archive"]:
        return identity.raw(state).get(KEY)
    return _settled_key(before)


def _settled_key(before: Before) -> str:
    return json.dumps({**before, "archive": "", "also": {}})


def _begun(state: sit.Looked, record: identity.Record) -> bool:
    """Whether a promote has begun: an old primary is fenced, and the recorded one is there with its data."""
    fenced = sit.fenced(state)
    pod = sit.pod_of(state, record.primary_ordinal)
    if not fenced or record.primary_ordinal in fenced:
        return False
    return pod in sit.holders(state, record.cluster_id or "") or _fed(state, pod)


def _fed(state: sit.Looked, pod: sit.Pod | None) -> bool:
    """Whether this pod does not answer only because it starts, to follow the archive, or to go on without it."""
    before = _before(state)
    if pod is None or pod["litefs"]["reachable"]:
        return False
    if pod["ordinal"] not in (state.get("fed_ordinal"), state.get("rendered_ordinal")):
        return False
    return bool(before and before["archive"]) and not (pod["node"] and sit.unheard(state, pod["node"]))


def _starts(request: Request, record: identity.Record) -> bool:
    """Whether the successor does not answer only because it was made anew just now, to be primary.

    To choose another one meanwhile would be a second promote, and what this one acknowledges once it runs would be on a
    volume that is fenced. A person gives it up as any pod that cannot be asked.
    """
    state, before, pod = request.state, _before(request.state), sit.pod_of(request.state, record.primary_ordinal)
    if before is None or before["archive"] or pod is None or pod["litefs"]["reachable"] or sit.is_stuck(pod):
        return False
    given_up = _numbers(request.parameters.get("lost_replicas"))
    if state.get("rendered_ordinal") != pod["ordinal"] or pod["ordinal"] in (*sit.fenced(state), *given_up):
        return False
    if pod["node"] and sit.unheard(state, pod["node"]):
        return False
    return pod["deleting"] or 0 <= clock.between(pod["created_at"], request.time()) < START_SECONDS


def _awaited(state: sit.Looked, pod: sit.Pod, steps: list[Step]) -> None:
    """Of a pod that starts nothing is to be ended, where it was made after the configuration that names it."""
    rendered, created = state.get("rendered_at"), pod["created_at"]
    for one in steps:
        if one["do"] == "restart" and one["ordinal"] == pod["ordinal"] and rendered and created and created > rendered:
            one["uid"], one["say"] = None, f"wait until {pod['name']}, which starts, is primary"


def _continue(request: Request, record: identity.Record) -> Plan:
    """The record names the successor already: what is left."""
    state, parameters, seen = request.state, cast("Parameters", request.parameters), request.volumes
    fenced = sit.fenced(state)
    bring: list[Step] = []
    successor = record.primary_ordinal
    steps: list[Step] = []
    notes: list[str] = []
    present, before, starts = sit.pod_of(state, successor), _before(state), _starts(request, record)
    if present is not None and before is not None and _fed(state, present):
        if not parameters.get("from_archive", True):
            return _without_answer(request, record, present, before)
        bring = _bring_back(record, present, {}, before, fenced)
    elif present is not None and before is not None and before["archive"] and present["litefs"]["is_primary"]:
        steps.append(_settled(present, before, fenced, f"{present['name']} is primary as it is", given_up=True))
    elif present is not None and not present["litefs"]["is_primary"] and not starts:
        # Until the old primary stopped, another replica may have received more.
        others = [pod for pod in sit.holders(state, record.cluster_id or "") if pod["ordinal"] not in fenced]
        top = sit.best(state, others)
        if sit.txid(state, top[0]) > sit.txid(state, present):
            successor = int(top[0]["ordinal"])
            steps.append(
                planning.step(
                    "record",
                    f"record ordinal {successor} as primary, which received more meanwhile",
                    primary_ordinal=successor,
                    fenced=fenced,
                    promote=identity.raw(state).get(KEY),
                )
            )
        # The old primary may have come back meanwhile, with all that it acknowledged.
        names = [name for name in _back(state, fenced) if name not in _names(parameters.get("give_up_volume"))]
        look = sit.unseen(names, seen)
        if look:
            return planning.plan(
                None, successor=successor, look=look, notes=["A pod that is fenced came back with a volume."]
            )
        problem, notes = _weigh(state, record, {name: seen[name] for name in names}, top[0], back=True)
        if problem:
            return _refuse(problem, "primary-node-gone", successor=successor)
        bring, left, problem = _still_lacking(request, record, top[0] if steps else present)
        if problem:
            return _refuse(problem, "primary-node-gone", successor=successor)
        steps += left
    rest, refusal = _rest(state, record, successor, fenced, parameters, fresh=bool(steps), bring=bring)
    if present is not None and starts:
        _awaited(state, present, rest)
        word = f"-e '{{\"promote_lost_replicas\": [{successor}]}}'"
        notes.append(f"If {present['name']} does not start at all, {word} chooses another one.")
    notes = [*notes, *_order(state, successor)]
    return planning.plan(refusal, [*steps, *rest], notes, successor=successor, final=True)


def _without_answer(request: Request, record: identity.Record, pod: sit.Pod, before: Before) -> Plan:
    """The successor was to follow the archive and never answered, and is to go on without: by what its volume holds.

    Where that is not known, or another copy has more, a successor is chosen anew.
    """
    state, parameters, seen = request.state, cast("Parameters", request.parameters), request.volumes
    fenced, name, successor = sit.fenced(state), pod["name"], pod["ordinal"]
    own = sit.volume_name(state, successor)
    back = [one for one in _back(state, fenced) if one not in _names(parameters.get("give_up_volume"))]
    look = sit.unseen([own, *back], seen)
    if look:
        note = f"{name} does not answer: its volume shows how far it is."
        return planning.plan(None, successor=successor, look=look, notes=[note])
    others = [one for one in sit.holders(state, record.cluster_id or "") if one["ordinal"] not in fenced]
    held = seen[own]
    have = int(str(held["txid"] or "0"), 16)
    known = not held["problem"] and held["cluster_id"] == record.cluster_id and have
    if not known or have < max((sit.txid(state, one) for one in others), default=0):
        return _choose(request, record, [])
    figure = f"{have:016x}"
    loss: planning.Loss = {"after_txid": figure, "pod": name, "seconds": None}
    problem, notes = _weigh(state, record, {one: seen[one] for one in back}, pod, back=True, have=have)
    if problem:
        return _refuse(problem, "primary-node-gone", successor=successor, loss=loss)
    if str(parameters.get("accept_loss_after") or "").lower() != figure:
        return _refuse(
            f"{name} does not answer, and its volume ends at TXID {figure}; the archive had transactions up to TXID "
            f"{before['archive']} when this began. What it has more is left there. To accept that, give the figure "
            f"back: -e promote_from_archive=false -e promote_accept_loss_after={figure}.",
            "primary-node-gone",
            successor=successor,
            loss=loss,
        )
    steps, refusal = _rest(state, record, successor, fenced, parameters, fresh=False)
    for one in steps:
        if one["do"] == "restart" and one["ordinal"] == successor:
            # In one: it does not answer, and once that is recorded nothing else tells that it only starts.
            one["say"] += f", and record that what the archive has after TXID {figure} is left there"
            one["primary_ordinal"], one["fenced"] = successor, fenced
            one["promote"], one["given_up"] = _settled_key(before), True
    notes = [*notes, *_order(state, successor)]
    return planning.plan(refusal, steps, notes, successor=successor, loss=loss, final=True)


def _still_lacking(
    request: Request, record: identity.Record, successor: sit.Pod
) -> tuple[list[Step], list[Step], str | None]:
    """(what brings back what the archive has more, what says in the record that it is left there, why neither)."""
    state, parameters = request.state, cast("Parameters", request.parameters)
    before = _before(state)
    if before is None or not before["archive"]:
        return [], [], None  # to lose it was accepted, or there was none
    tail, fenced = _tail(request, record, successor), sit.fenced(state)
    if tail.more and parameters.get("from_archive", True):
        return _bring_back(record, successor, tail.more, before, fenced), [], None
    figure = f"{sit.txid(state, successor):016x}"
    short = _short(state, before, successor)
    if not short and not tail.more:
        # Else the guard, which asks the archive as well, would refuse the successor for what nobody can give to it.
        return [], [_there(successor, before, fenced, given_up=tail.refused)], None
    # Where only another database lacks something, the figure is the one that was given for all of it.
    meant = state["database"] in short or not parameters.get("from_archive", True)
    if meant and str(parameters.get("accept_loss_after") or "").lower() == figure:
        say = f"what the archive has after TXID {figure} is left there"
        return [], [_settled(successor, before, fenced, say, given_up=True)], None
    return [], [], _left_behind_there(state, successor, short, tail)


def _short(state: sit.Looked, before: Before | None, pod: sit.Pod) -> dict[str, str]:
    """What the archive had when the promote began and this pod lacks, if it is to be brought back: database, TXID."""
    had = {state["database"]: before["archive"], **before["also"]} if before and before["archive"] else {}
    return {name: last for name, last in had.items() if _txid_of(pod, name) < int(last, 16)}


def _left_behind_there(state: sit.Looked, pod: sit.Pod, short: Mapping[str, str], tail: Tail) -> str:
    """Why a promote does not go on without the archive, and with which word it does."""
    figure = f"{sit.txid(state, pod):016x}"
    known = short.get(state["database"])
    had = f", and the archive had transactions up to TXID {known} when this began" if known else ""
    others = [f"of {name} up to TXID {last}" for name, last in short.items() if name != state["database"]]
    also = f" It lacks transactions {wording.listed(others)}." if others else ""
    why = tail.said or "The archive is not there any more."
    return (
        f"{pod['name']} is at TXID {figure}{had}.{also} {why} See to the archive and run ansible-playbook "
        f"{identity.PROMOTE} again, or leave them behind with -e promote_from_archive=false -e "
        f"promote_accept_loss_after={figure}."
    )


def _bring_back(
    record: identity.Record, pod: sit.Pod, more: Mapping[str, planning.More], before: Before, fenced: list[int]
) -> list[Step]:
    count = sum(one["count"] for one in more.values())
    what = f"{count} transaction{'s' if count > 1 else ''}" if count else "the transactions"
    feed = planning.step(
        "bring_back",
        f"bring back {what} from the archive, which {pod['name']} follows for that, before it is primary",
        ordinal=pod["ordinal"],
        pod=pod["name"],
        uid=pod["uid"],
        cluster_id=record.cluster_id,
    )
    return [feed, _there(pod, before, fenced)]


def _there(pod: sit.Pod, before: Before, fenced: list[int], *, given_up: bool = False) -> Step:
    return _settled(pod, before, fenced, f"{pod['name']} has what the archive had more", given_up=given_up)


def _settled(pod: sit.Pod, before: Before, fenced: list[int], say: str, *, given_up: bool) -> Step:
    """The step after which nothing of the archive is waited for any more."""
    return planning.step(
        "record",
        f"record that {say}",
        primary_ordinal=pod["ordinal"],
        fenced=fenced,
        promote=_settled_key(before),
        given_up=given_up,
    )


def _call_off(state: sit.Looked, record: identity.Record, leaders: list[sit.Pod]) -> Plan:
    """Give the role back while the successor was never primary. Safe to repeat."""
    before = _before(state)
    steps: list[Step] = []
    old = record.primary_ordinal
    if before is not None:
        problem = _was_primary(state, record, before, leaders)
        if problem:
            return _refuse(problem)
        old = before["from"]
    name, pod = sit.pod_name(state, old), sit.pod_of(state, old)
    if {state.get("rendered_ordinal"), state.get("routed_ordinal", old)} != {old}:
        # Before the record: it still fences the old primary, and whoever restarts meanwhile is a replica.
        steps.append(
            planning.step("render", f"render the configuration for primary {name} again", ordinal=old, quiet=False)
        )
    if before is not None:
        steps.append(
            planning.step(
                "record",
                f"record ordinal {old} as primary again, and lift its fence",
                primary_ordinal=old,
                fenced=before["fenced"],
                promote=None,
            )
        )
    node = sit.last_node(state, old)
    if node and sit.unheard(state, node):
        note = f"{name} starts as primary by itself when node {node} is back; until then there is none."
        return planning.plan(None, steps, notes=[note], successor=old, unproven=True)
    leads = [one["ordinal"] for one in leaders] == [old]
    if not leads and not steps and (pod is None or not sit.is_fenced(pod)):
        return planning.plan(None, notes=["No promote is under way."], successor=old, unproven=True)
    if not leads:
        steps.append(
            sit.restart(
                state, old, f"restart {name}, whose guard lets it start", primary=True, cluster_id=record.cluster_id
            )
        )
    for one in state["pods"]:
        lost = one["litefs"]["reachable"] and one["litefs"]["primary_hostname"] not in (None, name)
        if one["ordinal"] != old and (lost or (leads and one["litefs"]["never_synced"])):
            steps.append(
                sit.restart(state, one["ordinal"], f"restart {one['name']} as a replica of {name}", primary=False)
            )
    return planning.plan(None, [*steps, _all_follow(name)] if steps else [], successor=old)


def _was_primary(state: sit.Looked, record: identity.Record, before: Before, leaders: list[sit.Pod]) -> str | None:
    """Why the promote cannot be called off: the successor is, or may have been, primary."""
    successor, old = record.primary_ordinal, before["from"]
    name = sit.pod_name(state, successor)
    then = (
        f"{RESET} -e '{{\"replica_reset_targets\": [{old}]}}' exports what only {sit.pod_name(state, old)} has and "
        f"makes it a replica, and {identity.PROMOTE} -e promote_to={old} gives it the role back"
    )
    if leaders and leaders[0]["ordinal"] != old:
        return f"{leaders[0]['name']} is primary already and may have acknowledged writes: {then}."
    pod = sit.pod_of(state, successor)
    # A process reads who is primary once, at its start: one that runs and is none was none since it was rendered.
    if state.get("rendered_ordinal") == successor and (pod is None or not pod["litefs"]["reachable"]):
        return (
            f"{name} may have been primary, since litefs.yml names it, and it does not answer: run {identity.PROMOTE} "
            f"again, which brings it to its end; then {then}."
        )
    return None


def _planned(request: Request, record: identity.Record, desired: object) -> Plan:
    """The primary runs, and its role is to move to an ordinal: the beginning."""
    state = request.state
    found = sit.look(state)
    target = values.whole(desired)
    if isinstance(found, sit.Problem):
        return _refuse(f"{found.sentence} promote_to moves the role of a primary that runs.", found.cause)
    leader = found.leader
    pod = sit.pod_of(state, target) if target is not None else None
    if target is None or pod is None or target in sit.fenced(state):
        return _refuse(
            f"promote_to is {desired!r}, which is not the ordinal of a pod that may be primary: it is one of "
            f"{', '.join(str(one['ordinal']) for one in state['pods'] if one['ordinal'] not in sit.fenced(state))}."
        )
    name = pod["name"]
    if pod is leader:
        free = [
            one["ordinal"] for one in state["pods"] if sit.is_fenced(one) and one["ordinal"] not in sit.fenced(state)
        ]
        steps = _let_go(state, name, free)
        return planning.plan(
            None, [*steps, _all_follow(name)] if steps else [], notes=[f"{name} is the primary."], successor=target
        )
    better = sit.ahead(state, found)
    if better:
        return _refuse(
            f"{litefs.names(better)} has transactions that the primary {leader['name']} does not have: see "
            f"{sit.RUNBOOK}.",
            "older-volume",
        )
    if not sit.in_sync(state, found, pod):
        return _refuse(f"{name} does not follow {leader['name']} now: wait until it does ({RESET} if it never will).")
    if sit.rolling(state):
        return _refuse(f"StatefulSet {state['statefulset']['name']} is being rolled out: run again when that is done.")
    if sit.unheard(state, str(leader["node"])):
        return _refuse(
            f"Nothing was heard from node {leader['node']} of the primary {leader['name']} just now: run again when it "
            "is back, or without promote_to.",
            "primary-node-gone",
        )
    if unpulled := pulling.problem(request):
        return _refuse(unpulled)
    fenced = sit.fenced(state)
    before: Before = {
        "from": leader["ordinal"],
        "fenced": fenced,
        "planned": True,
        "equal": False,
        "archive": "",
        "also": {},
    }
    fence = sorted({*fenced, leader["ordinal"]})
    steps = [
        planning.step(
            "record",
            f"record ordinal {target} as primary, and {leader['name']} as the one that is to be fenced",
            primary_ordinal=target,
            fenced=fence,
            promote=json.dumps(before),
        ),
        *_quiesce(state, leader, target),
        *_hand_over(state, record, target, before),
    ]
    pull = pulling.untried(request, state["pods"])
    return planning.plan(None, steps, successor=target, notes=_order(state, target), pull=pull)


def _quiesce(state: sit.Looked, old: sit.Pod, target: int) -> list[Step]:
    """Stop the old primary of a planned move when no more writes arrive and the successor has all of them.

    A LiteFS that is stopped under writes does not wait until its replicas have the last ones.
    """
    name = sit.pod_name(state, target)
    steps = []
    if state.get("routed_ordinal") != target:
        say = f"route writes to {name}, which answers 503 until it is primary, and wait for the last of them"
        steps.append(planning.step("divert", say, ordinal=target))
    if old["litefs"]["is_primary"]:
        steps.append(
            planning.step("wait_pod", f"wait until {name} has what {old['name']} has", ordinal=target, pod=name)
        )
    return [*steps, _stop(old, "; the guard then fences it")]


def _hand_over(state: sit.Looked, record: identity.Record, target: int, before: Before) -> list[Step]:
    """What comes after the old primary was stopped in a planned move."""
    old, name = before["from"], sit.pod_name(state, target)
    fenced = sorted({*sit.fenced(state), old})
    steps: list[Step] = []
    if not before["equal"]:
        steps.append(
            planning.step(
                "record",
                f"record that {name} has the last transaction of {sit.pod_name(state, old)}",
                primary_ordinal=target,
                fenced=fenced,
                promote=json.dumps({**before, "equal": True}),
            )
        )
    rest, _problem = _rest(state, record, target, fenced, Parameters(), fresh=not before["equal"])
    steps += [one for one in rest if one["do"] in ("render", "restart")]
    steps.append(
        planning.step(
            "record",
            f"lift the fence of {sit.pod_name(state, old)}: it has nothing that {name} does not have",
            primary_ordinal=target,
            fenced=before["fenced"],
            promote=None,
        )
    )
    return [*steps, *_let_go(state, name, [old]), _all_follow(name)]


def _let_go(state: sit.Looked, leader: str, ordinals: Iterable[int]) -> list[Step]:
    """Restart pods that are fenced no longer: their guard would try again by itself only after minutes."""
    pods = [pod for ordinal in ordinals if (pod := sit.pod_of(state, ordinal)) is not None]
    return [
        sit.restart(state, pod["ordinal"], f"restart {pod['name']} as a replica of {leader}", primary=False)
        for pod in pods
    ]


def _all_follow(leader: str) -> Step:
    return planning.step("wait_followers", f"wait until every replica that runs has what {leader} has")


def _continue_planned(
    state: sit.Looked,
    record: identity.Record,
    before: Before,
    seen: sit.Seen,
) -> Plan:
    """A planned move has begun: what is left."""
    target, old = record.primary_ordinal, before["from"]
    name, pod = sit.pod_name(state, old), sit.pod_of(state, old)
    if before["equal"]:
        return planning.plan(
            None, _hand_over(state, record, target, before), successor=target, notes=_order(state, target)
        )
    node = sit.last_node(state, old)
    if node and sit.unheard(state, node):
        return _refuse(
            f"Nothing is heard from node {node} since {name} was to hand its role over, so nothing proves that its "
            f"last transaction arrived: bring the node back and run again, or call it off with -e "
            f"promote_call_off=true and run {identity.PROMOTE} without promote_to.",
            "primary-node-gone",
        )
    if pod is None or not sit.is_fenced(pod):
        stop = _quiesce(state, pod, target) if pod is not None else []
        wait = planning.step("wait_guard", f"wait until the guard holds {name}", ordinal=old, pod=name)
        return planning.plan(
            None, [*stop, *([] if stop else [wait]), *_hand_over(state, record, target, before)], successor=target
        )
    volume = sit.volume_name(state, old)
    if volume not in seen:
        return planning.plan(None, successor=target, look=[volume], notes=[f"{name} has to have nothing more."])
    has, last = seen[volume], sit.pod_of(state, target)
    where = litefs.position(last, state["database"]) if last is not None else None
    off = "-e promote_call_off=true gives the role back, and nothing is lost"
    if has["problem"]:
        return _refuse(f"{has['problem'].rstrip('.')}, so nothing proves that {name} has nothing more: {off}.")
    if where is None or last not in sit.holders(state, record.cluster_id or ""):
        return _refuse(f"{sit.pod_name(state, target)} does not answer: {off}.")
    same = has["cluster_id"] == record.cluster_id and int(str(has["txid"] or "0"), 16) == where.txid
    if not same or has.get("checksum") != where.checksum:
        return _refuse(
            f"{name} stopped at TXID {has['txid'] or 'unknown'} (checksum {has.get('checksum') or 'unknown'}), and "
            f"{sit.pod_name(state, target)} is at {where.txid:016x} ({where.checksum}): {off}. Then try again when "
            "fewer writes arrive."
        )
    return planning.plan(None, _hand_over(state, record, target, before), successor=target, notes=_order(state, target))


def _stop(pod: sit.Pod, why: str, *, force: bool = False, wait: bool = True) -> Step:
    return planning.step(
        "stop",
        f"stop {pod['name']}{why}",
        pod=pod["name"],
        uid=pod["uid"],
        ordinal=pod["ordinal"],
        force=force,
        wait=wait,
    )


def _rest(
    state: sit.Looked,
    record: identity.Record,
    successor: int,
    fenced: list[int],
    parameters: Parameters,
    *,
    fresh: bool,
    bring: Iterable[Step] = (),
) -> tuple[list[Step], str | None]:
    """(what is left, None), or ([], why an old primary cannot be taken for stopped)."""
    steps: list[Step] = []
    name = sit.pod_name(state, successor)
    leaders = litefs.primaries(state)
    done = [pod for pod in leaders if pod["ordinal"] == successor and pod["litefs"]["cluster_id"] == record.cluster_id]
    before = _before(state)
    given_up = set(_numbers(parameters.get("lost_replicas"))) - {
        record.primary_ordinal,
        before["from"] if before else None,
    }
    for ordinal in fenced:
        pod = sit.pod_of(state, ordinal)
        if pod is None or sit.is_fenced(pod) or pod["unschedulable"]:
            continue
        off = pod["node"] is not None and sit.unheard(state, pod["node"])
        if not off:
            steps.append(_stop(pod, "; the guard then fences it"))
        elif parameters.get("node_off") == pod["node"]:
            steps.append(_stop(pod, f", whose node {pod['node']} is off", force=True))
        elif ordinal not in given_up:
            return [], _switch_off(pod["name"], pod["node"])
        elif not pod["deleting"]:
            # A replica: it cannot write, and its node ends it when it is back.
            steps.append(_stop(pod, f" when its node {pod['node']} is back; nobody waits for that", wait=False))
    steps += bring
    if fresh or state.get("rendered_ordinal") != successor:
        say = f"name {name} as primary in litefs.yml and in the Service of the primary"
        steps.append(planning.step("render", say, ordinal=successor, quiet=False))
    if not done:
        steps.append(
            sit.restart(state, successor, f"restart {name} as primary", primary=True, cluster_id=record.cluster_id)
        )
    living = state["statefulset"]
    for pod in state["pods"]:
        if pod["ordinal"] in (successor, *fenced) or (pod["node"] and sit.away(state, pod["node"])):
            continue
        foreign = pod["litefs"]["cluster_id"] not in (None, record.cluster_id)
        if foreign and done:
            continue  # it can only be re-seeded, which is another operation
        follows = bool(done) and pod["litefs"]["primary_hostname"] == name and pod["litefs"]["never_synced"] is False
        if follows and pod["revision"] == living["update_revision"]:
            continue
        say = f"restart {pod['name']} as a replica of {name}"
        steps.append(sit.restart(state, pod["ordinal"], say, primary=False))
    return [*steps, _all_follow(name)] if steps else [], None


def _hearing(state: sit.Looked, record: identity.Record, candidates: Iterable[sit.Pod]) -> sit.Pod | None:
    """A replica that hears the recorded primary now: a heartbeat comes every second."""
    name = sit.pod_name(state, record.primary_ordinal)
    return next(
        (
            pod
            for pod in candidates
            if pod["litefs"]["primary_hostname"] == name
            and pod["litefs"]["never_synced"] is False
            and pod["litefs"]["lag_ms"] is not None
            and pod["litefs"]["lag_ms"] < sit.IN_SYNC_LAG_MS
        ),
        None,
    )


def _left_behind(state: sit.Looked, record: identity.Record, parameters: Parameters) -> list[str]:
    """Volumes that may hold more than any replica: that of an old primary that does not answer, and kept ones."""
    old = sit.pod_of(state, record.primary_ordinal)
    claim = sit.claim_of(state, record.primary_ordinal)
    own = claim["volume"] if claim is not None and (old is None or not old["litefs"]["reachable"]) else None
    given_up = _names(parameters.get("give_up_volume"))
    return [
        volume["name"]
        for volume in state["volumes"]
        if (volume["name"] == own or volume["kept"]) and volume["name"] not in given_up
    ]


def _back(state: sit.Looked, fenced: Iterable[int]) -> list[str]:
    """The volumes of pods that are fenced on a node that answers."""
    found = []
    for ordinal in fenced:
        pod, claim = sit.pod_of(state, ordinal), sit.claim_of(state, ordinal)
        if pod is None or claim is None or not claim["volume"] or not sit.is_fenced(pod):
            continue
        if pod["node"] and not sit.unheard(state, pod["node"]):
            found.append(str(claim["volume"]))
    return found


def _weigh(
    state: sit.Looked,
    record: identity.Record,
    seen: sit.Seen,
    best: sit.Pod,
    *,
    back: bool = False,
    have: int | None = None,
) -> tuple[str | None, list[str]]:
    """(why one of the volumes must not be left behind, what the others hold). ``have``: the best's TXID, if known."""
    said: list[str] = []
    have = sit.txid(state, best) if have is None else have
    nodes = {volume["name"]: volume["node"] for volume in state["volumes"]}
    for name, held in seen.items():
        word = f'-e \'{{"promote_give_up_volume": ["{name}"]}}\''
        if held["problem"]:
            if (node := nodes.get(name)) and sit.away(state, node):
                said.append(f"{_capital(held['problem'])} What it holds comes back with that node.")
                continue
            return f"{_capital(held['problem'])} It may hold more: see to that, or leave it behind with {word}.", []
        txid = int(str(held["txid"] or "0"), 16)
        if held["cluster_id"] not in (None, record.cluster_id):
            said.append(f"Volume {name} holds another cluster, {held['cluster_id']}, up to TXID {held['txid']}.")
        elif txid > have:
            what = "" if held["cluster_id"] else "a database without a cluster id that may be "
            way = (
                "-e promote_call_off=true gives the role back, and nothing is lost"
                if back
                else f"bring it back first ({sit.RUNBOOK}, section First), and nothing is lost"
                if held["cluster_id"]
                else f"write that id back into its file clusterid first ({sit.RUNBOOK}), and nothing is lost"
            )
            return (
                f"Volume {name} is readable and holds {what}the recorded cluster {record.cluster_id} up to TXID "
                f"{held['txid']}, {txid - have} transactions more than {best['name']}: {way}; or leave them behind "
                f"with {word}.",
                [],
            )
        else:
            said.append(f"Volume {name} holds nothing more ({'TXID ' + str(held['txid']) if txid else 'no database'}).")
    return None, said


def _tail(request: Request, record: identity.Record, pod: sit.Pod) -> Tail:
    """What the archive has more than a pod."""
    archive, state = request.archive, request.state
    if archive.get("problem"):
        return Tail({}, f"The archive was not asked whether it has more: {_capital(archive['problem'])}", problem=True)
    if archive.get("cluster_id") != record.cluster_id:
        return Tail({}, "")
    asked = archive["more"].get(pod["name"])
    if asked is None:
        return Tail({}, f"The archive was not asked whether it has more than {pod['name']}: run again.", problem=True)
    problem = asked.get(state["database"], {}).get("problem")
    if problem:
        return Tail({}, f"The archive cannot give {pod['name']} what it has: {_capital(problem)}", problem=True)
    wrong = [
        f" It cannot give it {name}: {_capital(one['problem'])}" for name, one in asked.items() if "problem" in one
    ]
    # It was asked once, and what it had is there by now where the pod is as far.
    more = {name: one for name, one in asked.items() if one.get("count") and int(one["last"], 16) > _txid_of(pod, name)}
    if not more:
        none = f"The archive, which followed the old primary until {archive['followed']}, has nothing more either."
        return Tail({}, "".join([none, *wrong]), refused=any(one.get("refused") for one in asked.values()))
    listed = wording.listed(_range(name, one, plain=name == state["database"]) for name, one in sorted(more.items()))
    return Tail(more, f"The archive has {listed}, which {pod['name']} lacks.{''.join(wrong)}")


def _txid_of(pod: sit.Pod, database: str) -> int:
    where = litefs.position(pod, database)
    return where.txid if where is not None else 0


def _range(name: str, one: planning.More, *, plain: bool) -> str:
    """Which transactions, and of when."""
    of = "" if plain else f" of {name}"
    if one["count"] == 1:
        return f"1 acknowledged transaction{of} (TXID {one['last']} of {one['time']})"
    return (
        f"{one['count']} acknowledged transactions{of} (TXID {one['first']} to {one['last']}, of {one['first_time']} "
        f"to {one['time']})"
    )


def _archived(request: Request, tail: Tail, best: sit.Pod, *, back: bool) -> list[str]:
    """What the archive has that the best copy lacks, and what becomes of it; one sentence or two, or none."""
    archive = request.archive
    if not tail.said:
        return []
    if back:
        return [tail.said, f"They are brought back, before {best['name']} takes writes."]
    if tail.more or (tail.problem and archive.get("txid", "") > f"{sit.txid(request.state, best):016x}"):
        moment = f"-e restore_at={archive['txid']} -e restore_history={archive['history']}"
        word = f"ansible-playbook {identity.RESTORE} {moment}"
        what = "With promote_from_archive false they stay there" if tail.more else "What it has can still be had"
        return [
            tail.said,
            f"{what}: after the promote {word} brings it back, over what is written until then, so keep writes away "
            "for that long.",
        ]
    return [tail.said]


def _order(state: sit.Looked, successor: int) -> list[str]:
    """What the successor means for rolling updates."""
    if not successor:
        return []
    return [
        f"From then on a rolling update, which goes from the highest ordinal down, reaches the primary "
        f"{sit.pod_name(state, successor)} before {sit.pod_name(state, 0)}; -e promote_to=0 moves the role back, once "
        "that one follows."
    ]


def _least(state: sit.Looked, pod: sit.Pod) -> int:
    """What an export of the pod has to hold. A wrong primary is written to meanwhile; it is fenced afterwards."""
    return sit.ANY_TXID if pod["litefs"]["is_primary"] else sit.txid(state, pod)


def _silent(state: sit.Looked, record: identity.Record, parameters: Parameters) -> str | None:
    given_up = _numbers(parameters.get("lost_replicas"))
    for ordinal in range(int(state["statefulset"]["replicas"] or 0)):
        pod = sit.pod_of(state, ordinal)
        if ordinal in (record.primary_ordinal, *given_up, *sit.fenced(state)) or (pod and pod["litefs"]["reachable"]):
            continue
        if pod is None and sit.claim_of(state, ordinal) is None:
            continue  # it never had data
        why = f"does not answer ({pod['litefs']['error']})" if pod else "is not there while its claim is"
        return (
            f"{sit.pod_name(state, ordinal)} {why}, and it may have more than the others: bring it back, or give it up "
            f"with -e '{{\"promote_lost_replicas\": [{ordinal}]}}' (it is then fenced until its database is "
            "exported)."
        )
    return None


def _successor(state: sit.Looked, top: list[sit.Pod], desired: object) -> tuple[sit.Pod | None, str | None]:
    if desired in (None, ""):
        return top[0], None
    number = values.whole(desired)
    chosen = next((pod for pod in top if pod["ordinal"] == number), None)
    if chosen is not None:
        return chosen, None
    return None, (
        f"promote_successor is {desired}, but the highest position, TXID {sit.txid(state, top[0]):016x}, is that of "
        f"{litefs.names(top)}: promoting another copy would throw transactions away, so leave the variable out."
    )


def _not_off(state: sit.Looked, record: identity.Record, node_off: object) -> str | None:
    """Why the old primary cannot be taken for stopped."""
    name, node = sit.pod_name(state, record.primary_ordinal), sit.last_node(state, record.primary_ordinal)
    if not node or not sit.unheard(state, node):
        if node_off and node_off != node:
            return f"promote_node_off is {node_off}, but the old primary is not on that node: leave the variable out."
        return None
    return None if node_off == node else _switch_off(name, node)


def _switch_off(name: str, node: object) -> str:
    return (
        f"{name} is on node {node}, which does not answer but may still run and write: switch that node off, make sure "
        f"that it is off, and say so with -e promote_node_off={node}."
    )


def _cause(state: sit.Looked, old: sit.Pod | None) -> planning.Cause:
    if old is None or (old["node"] and sit.unheard(state, old["node"])):
        return "primary-node-gone"
    return sit.sign(old) or "primary-volume-empty"


def _lag(pod: sit.Pod) -> float | None:
    lag = pod["litefs"]["lag_ms"]
    return None if lag is None else round(lag / 1000, 1)


def _numbers(value: object) -> list[int]:
    items = value if isinstance(value, list) else [] if value in (None, "") else [value]
    return [number for item in items if (number := values.whole(item)) is not None]


def _names(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value in (None, "") else [str(value)]


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}."
