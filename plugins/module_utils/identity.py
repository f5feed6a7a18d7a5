"""The identity of the data: which LiteFS cluster it is, and which ordinal is its primary.

It stands in a record outside the volumes (ConfigMap <name>-litefs-identity), because an empty primary with a static
lease makes a new cluster without a word, and the record is what the guard in front of it compares with. Pure functions
over the state document (see state_types.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from . import litefs, values
from .state_types import Pod, State

RESTORE = "playbooks/restore.yml"
RUNBOOK = "docs/runbooks/primary-refused.md"
PROMOTE = "playbooks/promote.yml"
# The keys of the record that site.yml decides; hold is its own as well (see roles/app/tasks/retain.yml).
LOW_WATER, LOW_WATER_TIME = "lowWaterTXID", "lowWaterTime"
# When it was decided to go on without what the archive had more: the guard takes the archive's word only once that has
# followed a primary under the same value. It is compared with nothing else, so that no two clocks have to agree.
GIVEN_UP = "archiveGivenUpTime"
DECIDED = frozenset({"state", "clusterID", "primaryOrdinal", "desiredPrimaryOrdinal", "hold"})


@dataclass(frozen=True)
class Record:
    """The record, read. ``desired_ordinal`` is app_primary_ordinal of the last apply, None where it was not kept.

    ``carried`` are the keys that site.yml does not decide, as they stand there: which pods are fenced, what an
    operation has done, the low-water mark.
    """

    state: Literal["bootstrap", "recorded"]
    cluster_id: str | None
    primary_ordinal: int
    desired_ordinal: int | None
    carried: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What to do with the record: its data (None: leave it), or the sentence why nothing may be done."""

    ordinal: int
    data: dict[str, str] | None = None
    refusal: str | None = None
    notes: tuple[str, ...] = ()


def name_of(state: State) -> str:
    """The record's object, for a sentence."""
    return f"ConfigMap {state['namespace']}/{state['statefulset']['name']}-litefs-identity"


def raw(state: State) -> Mapping[str, str]:
    """The record's whole data; empty where there is none."""
    record = state["record"]
    return record["raw"] if record else {}


def parse(state: State) -> Record | None:
    """Read the record of the state document; None where there is none, ValueError with a sentence where it is bad."""
    record = state["record"]
    if record is None:
        return None
    where = name_of(state)
    if record["state"] == "restore":
        raise ValueError(f"{where} says that a restore is under way: let {RESTORE} finish by running it again.")
    if record["state"] not in ("bootstrap", "recorded"):
        raise ValueError(
            f"{where} has state {record['state']!r}, which is neither bootstrap nor recorded: see {RUNBOOK}, write the "
            "value that belongs to the data, and run again."
        )
    if record["state"] == "recorded" and not litefs.is_cluster_id(record["cluster_id"]):
        raise ValueError(
            f"{where} has clusterID {record['cluster_id']!r}, which is no LiteFS cluster id (LFSC and 16 characters): "
            f"see {RUNBOOK} for how to find the id of the data, and run again."
        )
    ordinal = values.whole(record["primary_ordinal"])
    if ordinal is None:
        raise ValueError(
            f"{where} has primaryOrdinal {record['primary_ordinal']!r}, which is not the number of a pod: write the "
            f"primary's ordinal there (see {RUNBOOK}) and run again."
        )
    settled = record["state"] == "recorded"
    cluster_id = record["cluster_id"] if settled else None
    desired = values.whole(record["desired_primary_ordinal"])
    carried = {key: value for key, value in record["raw"].items() if key not in DECIDED}
    return Record("recorded" if settled else "bootstrap", cluster_id, ordinal, desired, carried)


def decide(state: State, desired_ordinal: int) -> Decision:
    """Decide on the record and the primary's ordinal in force.

    ``desired_ordinal`` (app_primary_ordinal) counts only while nothing of the application exists. The record is written
    as ``bootstrap`` only then, because bootstrap is what lets a primary start on an empty volume.
    """
    try:
        record = parse(state)
    except ValueError as exc:
        return Decision(desired_ordinal, refusal=str(exc))
    leaders = litefs.primaries(state)
    if len(leaders) > 1:
        return Decision(
            record.primary_ordinal if record else desired_ordinal,
            refusal=f"Pods {litefs.names(leaders)} each say that they are primary: stop all writes and see {RUNBOOK} "
            "before anything else, because what was written to one of them will be thrown away.",
        )
    leader = leaders[0] if leaders else None
    if record is None:
        return _without_record(state, leader, desired_ordinal)
    if nothing_exists(state) and record.state == "bootstrap":
        # A first run that died before it made anything: the value may still change.
        return _write(record, "bootstrap", None, desired_ordinal, desired_ordinal)
    refusal = _moved(record, leader, desired_ordinal)
    if refusal:
        return Decision(record.primary_ordinal, refusal=refusal)
    if record.state == "bootstrap":
        return _under_bootstrap(state, record, leader, desired_ordinal)
    return _recorded(state, record, leader, desired_ordinal)


def raised(data: Mapping[str, str], state: State, now: str) -> dict[str, str]:
    """What to write of the low-water mark into the record, which holds ``data``; nothing where it does not rise.

    The mark is a TXID that this cluster was seen at: below it the guard lets no primary start, whoever answers. It is
    the lowest position of the running primary and the replicas of its cluster that answer, so that each of them could
    still take the role, and goes only up. ``now``: RFC 3339, UTC.
    """
    leaders = litefs.primaries(state)
    cluster_id = data.get("clusterID")
    if data.get("state") != "recorded" or len(leaders) != 1 or leaders[0]["litefs"]["cluster_id"] != cluster_id:
        return {}
    found = [
        litefs.position(pod, state["database"])
        for pod in litefs.reachable(state)
        if pod["litefs"]["cluster_id"] == cluster_id
    ]
    primary = litefs.position(leaders[0], state["database"])
    if primary is None or not primary.known:
        return {}
    mark = f"{min(where.txid for where in found if where is not None and where.known):016x}"
    return {LOW_WATER: mark, LOW_WATER_TIME: now} if mark > data.get(LOW_WATER, "") else {}


def lowered(data: Mapping[str, str], txid: int, now: str) -> dict[str, str]:
    """What to write of the mark where the role goes to a copy that ends at ``txid``: what is above was given up."""
    mark = f"{txid:016x}"
    return {LOW_WATER: mark, LOW_WATER_TIME: now} if mark < data.get(LOW_WATER, "") else {}


def nothing_exists(state: State) -> bool:
    """Whether no trace of the application's data exists: no StatefulSet, no pod, no claim and no volume."""
    return not (state["statefulset"]["exists"] or state["pods"] or state["claims"] or state["volumes"])


def _without_record(state: State, leader: Pod | None, desired: int) -> Decision:
    if nothing_exists(state):
        return _write(None, "bootstrap", None, desired, desired)
    if leader is None:
        return Decision(
            desired,
            refusal=f"{_what_exists(state)} of {state['statefulset']['name']} exist in namespace {state['namespace']}, "
            f"but no record ({name_of(state)}) says whose data it is, and no running primary can be asked: see "
            f"{RUNBOOK}.",
        )
    if leader["ordinal"] != desired:
        return Decision(
            leader["ordinal"],
            refusal=f"app_primary_ordinal is {desired}, but the running primary is {leader['name']}: set it to "
            f"{leader['ordinal']} to adopt this cluster, and move the primary afterwards with {PROMOTE}.",
        )
    refusal = _foreign(state, leader, None) or _without_database(state, leader)
    if refusal:
        return Decision(leader["ordinal"], refusal=refusal)
    return _write(None, "recorded", leader["litefs"]["cluster_id"], leader["ordinal"], desired, _unasked(state))


def _under_bootstrap(state: State, record: Record, leader: Pod | None, desired: int) -> Decision:
    if leader is not None:
        refusal = _foreign(state, leader, None)
        if refusal:
            return Decision(record.primary_ordinal, refusal=refusal)
        missing = _without_database(state, leader)
        if missing:
            # A record with an id makes the guard ask for the database, which the first migration may not have made yet.
            return _write(record, "bootstrap", None, record.primary_ordinal, desired, [missing])
        cluster_id = leader["litefs"]["cluster_id"]
        return _write(record, "recorded", cluster_id, record.primary_ordinal, desired, _unasked(state))
    kept = [volume for volume in state["volumes"] if volume["kept"]]
    if kept:
        # Bootstrap lets the primary start empty, and here are data that it might be hiding from.
        return Decision(
            record.primary_ordinal,
            refusal=f"{name_of(state)} still says bootstrap, which starts an empty database, but kept volumes of this "
            f"application exist ({', '.join(volume['name'] for volume in kept)}): see {RUNBOOK} for how to use or "
            "remove them, and run again.",
        )
    return _write(record, "bootstrap", None, record.primary_ordinal, desired)


def _recorded(state: State, record: Record, leader: Pod | None, desired: int) -> Decision:
    cluster_id = record.cluster_id or ""
    if leader is not None and leader["litefs"]["cluster_id"] not in (None, cluster_id):
        return Decision(record.primary_ordinal, refusal=_foreign(state, leader, cluster_id))
    if leader is not None and leader["litefs"]["databases"] and state["database"] not in leader["litefs"]["databases"]:
        return Decision(record.primary_ordinal, refusal=_without_database(state, leader))
    refusal = _outrun(state, leader) if leader is not None else None
    if refusal:
        return Decision(record.primary_ordinal, refusal=refusal)
    notes: list[str] = []
    if leader is None and state["statefulset"]["exists"]:
        name = f"{state['statefulset']['name']}-{record.primary_ordinal}"
        why = next((pod["init"]["message"] for pod in state["pods"] if pod["name"] == name), None)
        notes.append(f"No pod says that it is primary{f'; {name} does not start: {why}' if why else ''}.")
    if nothing_exists(state):
        notes.append(
            f"{name_of(state)} records the cluster {cluster_id}, but none of its volumes exists: the primary will be "
            f"stopped by its guard until its data is brought back ({RUNBOOK})."
        )
    notes += [
        f"Pod {pod['name']} holds the LiteFS cluster {pod['litefs']['cluster_id']}, not the recorded {cluster_id}: it "
        "cannot follow the primary."
        for pod in litefs.reachable(state)
        if pod is not leader and pod["litefs"]["cluster_id"] not in (None, cluster_id)
    ]
    return _write(record, "recorded", cluster_id, record.primary_ordinal, desired, notes)


def _moved(record: Record, leader: Pod | None, desired: int) -> str | None:
    if leader is not None and leader["ordinal"] != record.primary_ordinal:
        return (
            f"The record says that the primary has ordinal {record.primary_ordinal}, but {leader['name']} says that it "
            f"is primary: let {PROMOTE} finish moving it, or write {leader['ordinal']} as the record's primaryOrdinal."
        )
    # After a promote the inventory still holds the old value; only a value that was changed since is a request to move.
    if desired not in (record.primary_ordinal, record.desired_ordinal):
        return (
            f"app_primary_ordinal is {desired}, but the primary of the living cluster has ordinal "
            f"{record.primary_ordinal}: site.yml never moves it, so set the variable back to {record.primary_ordinal}, "
            f"or move the primary with {PROMOTE}."
        )
    return None


def _foreign(state: State, leader: Pod, recorded: str | None) -> str | None:
    """The refusal where the running primary's id is not the recorded one, or, with no recorded id, not everyone's."""
    mine = leader["litefs"]["cluster_id"]
    if not mine:
        return f"Pod {leader['name']} says that it is primary but names no cluster id: run again when it has started."
    if recorded is not None:
        return (
            f"The running primary {leader['name']} holds the LiteFS cluster {mine}, but {name_of(state)} records "
            f"{recorded}: it may be serving an empty or foreign database, so delete nothing and see {RUNBOOK}."
        )
    # A pod without an id holds no cluster at all: it is a new replica that will adopt the primary's.
    others = [pod for pod in litefs.reachable(state) if pod["litefs"]["cluster_id"] not in (None, mine)]
    if not others:
        return None
    held = ", ".join(f"{pod['name']} {pod['litefs']['cluster_id']}" for pod in others)
    return (
        f"The running primary {leader['name']} holds the LiteFS cluster {mine}, but other pods hold another one "
        f"({held}), and no record says which is right: delete nothing and see {RUNBOOK}."
    )


def _outrun(state: State, leader: Pod) -> str | None:
    """The refusal where a replica of the primary's cluster has what the primary lacks: a restart could end it."""
    mine = litefs.position(leader, state["database"])
    for pod in litefs.reachable(state):
        where = litefs.position(pod, state["database"])
        same = pod["litefs"]["cluster_id"] == leader["litefs"]["cluster_id"]
        if same and mine is not None and where is not None and where.txid > mine.txid:
            return (
                f"The primary {leader['name']} is at TXID {mine.txid:016x}, behind {pod['name']} at {where.txid:016x}: "
                "the replica has transactions that the primary lost, so export it "
                f"(playbooks/backup.yml -e backup_pod={pod['name']}) and see {RUNBOOK}; nothing was changed."
            )
    return None


def _without_database(state: State, leader: Pod) -> str | None:
    """The sentence where the running primary has no transaction of the database that the inventory names."""
    where = litefs.position(leader, state["database"])
    if where is not None and where.known:
        return None
    others = ", ".join(sorted(set(leader["litefs"]["databases"]) - {state["database"]}))
    if others:
        return f"The primary {leader['name']} has no database {state['database']}, but {others}: correct app_database."
    return (
        f"The primary {leader['name']} has no transaction of the database {state['database']} yet, so there is nothing "
        "that a recorded cluster id could protect: run again when the application has made it."
    )


def _unasked(state: State) -> list[str]:
    silent = [pod for pod in state["pods"] if not pod["litefs"]["reachable"]]
    if not silent:
        return []
    return [f"The cluster id was recorded without asking {litefs.names(silent)}, which did not answer."]


def _write(
    record: Record | None,
    state: Literal["bootstrap", "recorded"],
    cluster_id: str | None,
    ordinal: int,
    desired: int,
    notes: list[str] | tuple[str, ...] = (),
) -> Decision:
    """The decision to have the record say this; its data is None where it does so already."""
    if record is not None and ordinal != desired:
        notes = [
            *notes,
            f"The primary has ordinal {ordinal}, as recorded; app_primary_ordinal ({desired}) is not used.",
        ]
    # An apply that left fencedOrdinals out would let the old primary start; what an operation keeps there is as dear.
    carried = dict(record.carried) if record else {}
    if record is None or record.cluster_id != cluster_id:
        # TXIDs are those of a cluster.
        carried = {key: value for key, value in carried.items() if key not in (LOW_WATER, LOW_WATER_TIME)}
    data = carried | {"state": state, "primaryOrdinal": str(ordinal), "desiredPrimaryOrdinal": str(desired)}
    if cluster_id:
        data["clusterID"] = cluster_id
    same = record == Record(state, cluster_id, ordinal, desired, carried)
    return Decision(ordinal, None if same else data, notes=tuple(notes))


def _what_exists(state: State) -> str:
    parts = [
        label
        for label, there in (
            ("the StatefulSet", state["statefulset"]["exists"]),
            (f"pods ({litefs.names(state['pods'])})", state["pods"]),
            (f"claims ({', '.join(claim['name'] for claim in state['claims'])})", state["claims"]),
            (f"volumes ({', '.join(volume['name'] for volume in state['volumes'])})", state["volumes"]),
        )
        if there
    ]
    text = ", ".join(parts)
    return text[0].upper() + text[1:]
