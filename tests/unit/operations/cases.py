"""Sites in every state that an operator can meet, as state documents."""

from __future__ import annotations

from typing import Any

import factory_objects as make
from ansible_collections.abaci.infra.plugins.module_utils.guard import Exit
from factory_objects import A, B

REFUSES = "abaci-app-0 refuses to start as primary:"
LOST = make.Said(f"{REFUSES} its volume is empty, and the record says that this site has the data.", Exit.EMPTY)
NO_ID = make.Said(
    f"{REFUSES} its volume holds no cluster id, and the record says that this site's cluster is {A}.",
    Exit.NO_CLUSTER_ID,
)
OLDER = make.Said(f"{REFUSES} its volume ends at TXID 3 of sqlite.db, and the pod at 10.42.0.6 has TXID 5.", Exit.OLDER)
FENCED = make.Said("abaci-app-0 is fenced: ordinal 1 is the primary now.", Exit.FENCED)
NOW = "2026-01-01T12:00:00Z"


def site(answers: dict[int, dict[str, Any]] | None = None, **parts: Any) -> dict[str, Any]:
    """A healthy site of three (pod 0 is primary of cluster A at TXID 5), with what is different given."""
    own = ("fenced", "rendered_ordinal", "rendered_quiet", "rendered_at", "revisions")
    extra = {key: parts.pop(key) for key in own if key in parts}
    parts.setdefault("gathered_at", NOW)
    document: dict[str, Any] = make.living(answers, **parts)
    if document["record"] is not None:
        document["record"]["fenced_ordinals"] = extra.get("fenced", "")
        document["record"]["raw"] |= {"fencedOrdinals": extra["fenced"]} if extra.get("fenced") else {}
    document["rendered_ordinal"] = extra.get("rendered_ordinal", 0)
    document["routed_ordinal"] = document["rendered_ordinal"]
    document["rendered_quiet"] = extra.get("rendered_quiet", False)
    document["revisions"] = extra.get("revisions", [])
    document["rendered_at"] = extra.get("rendered_at", "2026-01-01T00:00:00Z")
    return document


def guarded(message: str = LOST, answers: dict[int, dict[str, Any]] | None = None, **parts: Any) -> dict[str, Any]:
    """The guard holds pod 0; the replicas run and see no primary."""
    pods = [make.stopped(0, message), make.pod(1), make.pod(2)]
    lonely = {n: alone(5) for n in (1, 2)} | (answers or {})
    return site({0: gone(), **lonely}, **{"pods": pods, **parts})


def gone(why: str = "its container is not running") -> dict[str, Any]:
    """A pod whose LiteFS does not answer."""
    answer: dict[str, Any] = make.litefs.unreachable(why)
    return answer


def alone(txid: int, cluster: str | None = A, **more: Any) -> dict[str, Any]:
    """A replica that sees no primary; it heard from one 40 s ago."""
    answer: dict[str, Any] = make.node(cluster, txid=txid, **more)
    return answer | {"primary_hostname": None, "lag_ms": 40000}


def export(cluster: str = A, txid: int = 5, **changed: Any) -> dict[str, Any]:
    """A manifest of an export made just now."""
    return {
        "schema": 1,
        "verified": True,
        "database": "sqlite.db",
        "cluster_id": cluster,
        "txid": f"{txid:016x}",
        "checksum": f"c0ffee{txid:010x}",
        "time": "2026-01-01T11:59:00Z",
        "page_size": 4096,
        "journal_mode": "wal",
        "reason": "before",
        **changed,
    }


def file(**changed: Any) -> dict[str, Any]:
    """A sound file to restore, a backup of cluster A."""
    return {
        "path": "/backups/one.sqlite",
        "verified": True,
        "problem": None,
        "page_size": 4096,
        "journal_mode": "wal",
        "pages": 7,
        "checksum": "c0ffee0000000003",
        "imported_checksum": "facade0000000003",
        "sha256": "ab" * 32,
        "cluster_id": A,
        "txid": f"{3:016x}",
        **changed,
    }


def homeless(ordinal: int) -> dict[str, Any]:
    """A pod that no node has: the one before it was deleted by force, and its volume's node is away."""
    pod = make.pod(ordinal, phase="Pending", conditions=[], initContainerStatuses=[], containerStatuses=[])
    del pod["spec"]["nodeName"]
    return pod


def dead_node(**parts: Any) -> dict[str, Any]:
    """Pod 0 is primary on a node that does not answer any more."""
    nodes = [make.kube_node("node-0", ready=False), make.kube_node("node-1"), make.kube_node("node-2")]
    answers = {0: gone("no answer within 10 s"), 1: alone(5), 2: alone(5)} | parts.pop("answers", {})
    return site(answers, **{"nodes": nodes, **parts})


def destructive(plan: dict[str, Any]) -> list[tuple[str, Any]]:
    """The steps of a plan that delete, stop or overwrite something, with the ordinal or object."""
    kinds = ("delete_claim", "delete_pod", "remove_volume", "scale", "stop", "restart", "import", "record_restore")
    return [
        (step["do"], step.get("ordinal", step.get("volume", step.get("replicas", step.get("pod")))))
        for step in plan["steps"]
        if step["do"] in kinds
    ]


__all__ = ["A", "B", "alone", "dead_node", "destructive", "export", "file", "gone", "guarded", "homeless", "site"]
