"""What LiteFS (v0.5) says over its HTTP API, as typed values, and what two such answers mean together.

Pure functions: no I/O, no Ansible. A body that does not have the expected shape raises ValueError with a sentence.

Positions compare only within one lineage: the same cluster id, and equal checksums at equal TXIDs. LiteFS numbers
transactions from 1 in every new cluster, so a TXID alone says nothing about whose data is newer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import wording
from .state_types import LiteFS, Pod, State

CLUSTER_ID = re.compile(r"LFSC.{16}", re.ASCII)
UNHEARD_SECONDS = 15
NO_PAGE = "8000000000000000"  # the checksum of a database that was removed

_HEX16 = re.compile(r"[0-9a-f]{16}")
_SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*", re.ASCII)
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"', re.ASCII)

Order = Literal["equal", "behind", "ahead", "diverged", "incomparable"]


@dataclass(frozen=True)
class Position:
    """Where a database stands: the number of its last transaction and the checksum of the whole after it."""

    txid: int
    checksum: str  # 16 hex digits, lower case

    @classmethod
    def parse(cls, txid: str, checksum: str) -> Position:
        """Read both as LiteFS writes them: 16 hex digits each."""
        for label, value in (("TXID", txid), ("checksum", checksum)):
            if not isinstance(value, str) or not _HEX16.fullmatch(value.lower()):
                raise ValueError(f"The {label} {value!r} is not the 16 hex digits that LiteFS writes.")
        return cls(int(txid, 16), checksum.lower())

    @property
    def known(self) -> bool:
        """False while the node knows no transaction of the database (all zeros)."""
        return self.txid > 0

    @property
    def has_content(self) -> bool:
        """False also where the database was removed: its position goes on, with the checksum of no page."""
        return self.known and self.checksum != NO_PAGE

    def __str__(self) -> str:
        return f"{self.txid:016x}/{self.checksum}"


def compare(mine: Position, other: Position, my_cluster: str | None, other_cluster: str | None) -> Order:
    """Say where ``mine`` is, seen from ``other``.

    ``diverged`` is the same TXID with another checksum; ``incomparable`` is another cluster, or one that is not known.
    """
    if not my_cluster or not other_cluster or my_cluster != other_cluster:
        return "incomparable"
    if mine.txid != other.txid:
        return "behind" if mine.txid < other.txid else "ahead"
    return "equal" if mine.checksum == other.checksum else "diverged"


@dataclass(frozen=True)
class Info:
    """GET /info."""

    cluster_id: str | None
    is_primary: bool
    primary_hostname: str | None  # None: this node sees no primary at this moment


@dataclass(frozen=True)
class Database:
    """One entry of /debug/vars .store.dbs."""

    position: Position
    locks: Mapping[str, str]  # lock name -> unlocked | shared | exclusive


@dataclass(frozen=True)
class Metrics:
    """GET /metrics, as far as it is used. Seconds, bytes, counts."""

    lag_seconds: float | None
    databases: Mapping[str, Mapping[str, float]]  # database -> metric without its prefix litefs_db_ -> value


def parse_info(body: str | bytes) -> Info:
    """Read GET /info."""
    data = _json_object(body, "/info")
    for key in ("isPrimary", "candidate"):
        if not isinstance(data.get(key), bool):
            raise ValueError(f"The answer to /info has no {key}: is this LiteFS 0.5 on this port?")
    cluster_id = data.get("clusterID") or None
    if cluster_id is not None and not is_cluster_id(cluster_id):
        raise ValueError(f"The answer to /info holds {cluster_id!r}, which is no LiteFS cluster id.")
    primary = data.get("primary")
    hostname = primary.get("hostname") if isinstance(primary, dict) else None
    return Info(cluster_id, data["isPrimary"], hostname or None)


def parse_vars(body: str | bytes) -> dict[str, Database]:
    """Read the databases from GET /debug/vars."""
    store = _json_object(body, "/debug/vars").get("store")
    if not isinstance(store, dict):
        raise ValueError("The answer to /debug/vars has no store: LiteFS has not opened its data yet.")
    databases: dict[str, Database] = {}
    for name, entry in (store.get("dbs") or {}).items():
        if not isinstance(entry, dict):
            raise ValueError(f"The answer to /debug/vars describes the database {name} as {entry!r}.")
        locks = {str(lock): str(value) for lock, value in (entry.get("locks") or {}).items()}
        databases[name] = Database(Position.parse(entry.get("txid", ""), entry.get("checksum", "")), locks)
    return databases


def parse_metrics(body: str | bytes) -> Metrics:
    """Read GET /metrics (Prometheus text format); metrics that are not LiteFS's are passed over."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    plain: dict[str, float] = {}
    databases: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if line.startswith("#") or not match or not match["name"].startswith("litefs_"):
            continue
        value = float(match["value"])
        labels = {name: _unescape(raw) for name, raw in _LABEL.findall(match["labels"] or "")}
        if "db" in labels:
            databases.setdefault(labels["db"], {})[match["name"].removeprefix("litefs_db_")] = value
        else:
            plain[match["name"]] = value
    if "litefs_is_primary" not in plain:
        raise ValueError("The answer to /metrics has no litefs_is_primary: is this LiteFS 0.5 on this port?")
    return Metrics(
        plain.get("litefs_lag_seconds"),
        databases,
    )


def is_cluster_id(value: object) -> bool:
    """Whether LiteFS would accept it: LFSC and 16 more characters."""
    return isinstance(value, str) and CLUSTER_ID.fullmatch(value) is not None


def never_synced(is_primary: bool, lag_samples: Sequence[float | None]) -> bool | None:
    """Tell a replica that has never been in sync since its start from one without lag; None: cannot be told.

    LiteFS reports exactly 0 for the former; a synced replica's lag is the age of the last frame, which is exactly 0 ms
    only by luck. So it takes two samples, some milliseconds apart, that are both 0.
    """
    if is_primary:
        return False
    samples = [sample for sample in lag_samples if sample is not None]
    if any(sample != 0 for sample in samples):
        return False
    return True if len(samples) > 1 else None


def node(info: Info, databases: Mapping[str, Database], samples: Sequence[Metrics]) -> LiteFS:
    """Put the answers of one node together: the ``litefs`` part of a pod in the state document (see state_types.py)."""
    last = samples[-1] if samples else None
    never = never_synced(info.is_primary, [sample.lag_seconds for sample in samples])
    lag = None if last is None or never is not False or last.lag_seconds is None else round(last.lag_seconds * 1000)
    return {
        **unreachable(None),
        "reachable": True,
        "cluster_id": info.cluster_id,
        "is_primary": info.is_primary,
        "primary_hostname": info.primary_hostname,
        "lag_ms": lag,
        "never_synced": never,
        "databases": {
            name: {
                "txid": f"{database.position.txid:016x}",
                "checksum": database.position.checksum,
                "ltx_bytes": _count((last.databases.get(name, {}) if last else {}).get("ltx_bytes")),
            }
            for name, database in databases.items()
        },
    }


def unreachable(error: str | None) -> LiteFS:
    """The ``litefs`` part of a pod that gave no answer."""
    return {
        "reachable": False,
        "error": error,
        "cluster_id": None,
        "is_primary": None,
        "primary_hostname": None,
        "lag_ms": None,
        "never_synced": None,
        "databases": {},
    }


# --- questions to the state document ----------------------------------------------------------------------------


def reachable(state: State) -> list[Pod]:
    """The pods whose LiteFS answered."""
    return [pod for pod in state["pods"] if pod["litefs"]["reachable"]]


def primaries(state: State) -> list[Pod]:
    """The pods that say they are primary: LiteFS is asked, the ordinal is not. Exactly one is healthy."""
    return [pod for pod in reachable(state) if pod["litefs"]["is_primary"]]


def position(pod: Pod, database: str) -> Position | None:
    """The pod's position in the database; None where it does not answer, or does not have it."""
    entry = pod["litefs"]["databases"].get(database)
    return None if entry is None else Position.parse(entry["txid"], entry["checksum"])


def has_content(pod: Pod, database: str) -> bool:
    """Whether the pod answers with this database, and it was not removed there."""
    where = position(pod, database)
    return where is not None and where.has_content


def primary_position(state: State, database: str) -> dict[str, str] | None:
    """What replicated() takes: {pod, cluster_id, txid, checksum} of the only primary, None while there is none."""
    found = primaries(state)
    if len(found) != 1:
        return None
    pod = found[0]
    where = position(pod, database)
    if where is None or not where.known or not pod["litefs"]["cluster_id"]:
        return None
    return {
        "pod": pod["name"],
        "cluster_id": pod["litefs"]["cluster_id"],
        "txid": f"{where.txid:016x}",
        "checksum": where.checksum,
    }


def fenced(state: State) -> list[int]:
    """Ordinals that the record fences: old primaries, and copies given up, that nobody has exported yet."""
    record = state["record"]
    return sorted({int(word) for word in re.findall(r"\d+", record["fenced_ordinals"] if record else "")})


def away(state: State, name: str) -> bool:
    """Whether a node does not answer the API, or is no part of the cluster any more."""
    node = next((item for item in state["nodes"] if item["name"] == name), None)
    return node is None or not node["ready"]


def unheard(state: State, name: str) -> bool:
    """Whether nothing was heard from a node just now, though the API may call it Ready for 40 s more.

    Its Lease, which its kubelet renews every 10 s, is older than 15 s, or its kubelet does not answer the API. What
    runs there may run on, and write.
    """
    node = next((item for item in state["nodes"] if item["name"] == name), None)
    if node is None or not node["ready"] or (node["silent_seconds"] or 0) > UNHEARD_SECONDS:
        return True
    return node["error"] is not None and "forbidden" not in str(node["error"]).lower()


def last_node(state: State, ordinal: int) -> str | None:
    """The node of an ordinal's pod; of its volume where no node has it: a pod deleted by force may still run."""
    pod = next((pod for pod in state["pods"] if pod["ordinal"] == ordinal), None)
    if pod is not None and pod["node"]:
        return str(pod["node"])
    volumes = {claim["volume"] for claim in state["claims"] if claim["ordinal"] == ordinal}
    return next((volume["node"] for volume in state["volumes"] if volume["name"] in volumes), None)


def absent(state: State) -> dict[int, str]:
    """Ordinals that cannot run because their node, or that of their volume, is away; with that node. Nobody waits."""
    answering = {pod["ordinal"] for pod in reachable(state)}
    nodes = {n: last_node(state, n) for n in range(state["statefulset"]["replicas"] or 0) if n not in answering}
    return {ordinal: node for ordinal, node in nodes.items() if node and away(state, node)}


def left_out(state: State) -> list[str]:
    """A sentence for each replica that nobody waits for because its node is away."""
    name, record = state["statefulset"]["name"], state["record"]
    primary = record["primary_ordinal"] if record else ""
    return [
        f"Nobody waits for {name}-{ordinal}: its node {node} is away. It catches up when the node is back. If the node "
        "does not come back, switch it off, and run playbooks/replica_reset.yml -e "
        f"'{json.dumps({'replica_reset_targets': [ordinal], 'replica_reset_node_off': node})}'."
        for ordinal, node in absent(state).items()
        if str(ordinal) != primary
    ]


def divergent(state: State, database: str) -> list[tuple[str, str, str]]:
    """Pairs of pods of one cluster with the same TXID and another checksum: (pod, pod, txid)."""
    seen: dict[tuple[str, int], tuple[str, str]] = {}
    pairs: list[tuple[str, str, str]] = []
    for pod in reachable(state):
        where, cluster = position(pod, database), pod["litefs"]["cluster_id"]
        if where is None or not where.known or not cluster:
            continue
        name, checksum = seen.setdefault((cluster, where.txid), (pod["name"], where.checksum))
        if checksum != where.checksum:
            pairs.append((name, pod["name"], f"{where.txid:016x}"))
    return pairs


def replicated(state: State, at_position: Mapping[str, str], database: str) -> dict[str, Any]:
    """Whether every replica has reached the position that the primary had when it was asked.

    ``at_position`` is from primary_position(). Returns {"done": bool, "problems": [one sentence per pod that is not
    there]}. Every ordinal below the StatefulSet's replica count that the record does not fence, and whose node is
    not away, has to be there, of the same cluster, at or past the TXID; checksums must agree with the position asked
    for and between any two pods at one TXID.
    """
    target = Position.parse(at_position["txid"], at_position["checksum"])
    cluster = at_position["cluster_id"]
    pods = {pod["name"]: pod for pod in state["pods"]}
    name = state["statefulset"]["name"]
    out = {*fenced(state), *absent(state)}
    expected = [f"{name}-{ordinal}" for ordinal in range(state["statefulset"]["replicas"] or 0) if ordinal not in out]
    problems: list[str] = []
    if not expected:
        exists = "wants no pod" if state["statefulset"]["exists"] else "does not exist"
        problems.append(f"StatefulSet {state['namespace']}/{name} {exists}, so nothing replicates.")
    for pod_name in expected:
        problem = not_there(pod_name, pods.get(pod_name), database, target, cluster)
        if problem:
            problems.append(problem)
    problems += [
        f"Pods {one} and {other} have the same TXID {txid} of {database} with different checksums."
        for one, other, txid in divergent(state, database)
    ]
    leaders = primaries(state)
    if len(leaders) != 1:
        who = f"{len(leaders)} say so: {names(leaders)}" if leaders else "none says so"
        problems.append(f"Exactly one pod has to be primary, but {who}.")
    return {"done": not problems, "problems": problems}


def not_there(name: str, pod: Pod | None, database: str, target: Position, cluster: str) -> str | None:
    """Why a pod (None: there is none) has not reached a position of this cluster, or None where it has."""
    if pod is None:
        return f"Pod {name} does not exist yet."
    litefs = pod["litefs"]
    if not litefs["reachable"]:
        why = f"stopped in its init container: {pod['init']['message']}" if pod["init"]["message"] else litefs["error"]
        return f"LiteFS on pod {name} does not answer ({why})."
    if not litefs["cluster_id"]:
        return f"Pod {name} has not joined the cluster {cluster} yet."
    if litefs["cluster_id"] != cluster and litefs["is_primary"]:
        return (
            f"The primary {name} held the LiteFS cluster {cluster} when it was asked, and {litefs['cluster_id']} now."
        )
    if litefs["cluster_id"] != cluster:
        return (
            f"Pod {name} holds the LiteFS cluster {litefs['cluster_id']}, not the primary's {cluster}: "
            "it will never replicate from it."
        )
    if litefs["never_synced"]:
        return f"Pod {name} has never been in sync with the primary since it started."
    where = position(pod, database)
    if where is None:
        return f"Pod {name} does not have the database {database} yet."
    order = compare(where, target, litefs["cluster_id"], cluster)
    if order == "behind":
        return f"Pod {name} is at TXID {where.txid:016x} of {database}, behind the primary's {target.txid:016x}."
    if order == "diverged":
        return (
            f"Pod {name} has checksum {where.checksum} of {database} at TXID {where.txid:016x}, "
            f"where the primary had {target.checksum}."
        )
    return None


def _json_object(body: str | bytes, path: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as exc:
        raise ValueError(f"The answer to {path} is not JSON: is this LiteFS on this port?") from exc
    if not isinstance(data, dict):
        raise ValueError(f"The answer to {path} is not a JSON object: is this LiteFS on this port?")
    return data


def _unescape(raw: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], raw)


def _count(value: float | None) -> int | None:
    return None if value is None else int(value)


def names(pods: Iterable[Pod]) -> str:
    """Pod names for a sentence: a, b and c."""
    return wording.listed(str(pod["name"]) for pod in pods)
