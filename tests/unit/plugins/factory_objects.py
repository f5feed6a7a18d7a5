"""Kubernetes objects and LiteFS answers as the API and v0.5.14 return them, cut to what the plugins read."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import guard, litefs, state

A = "LFSCAAAAAAAAAAAAAAAA"
B = "LFSCBBBBBBBBBBBBBBBB"
NAMESPACE, NAME, DATABASE = "abaci", "abaci-app", "sqlite.db"
IMAGE = "ghcr.io/antialias/soroban-abacus-flashcards:latest"
SYSCTL = "net.ipv4.tcp_syn_retries"


def info_body(
    cluster: str | None = A, primary: bool = False, candidate: bool = False, host: str = "abaci-app-0"
) -> str:
    body: dict[str, Any] = {
        "clusterID": cluster,
        "isPrimary": primary,
        "candidate": candidate,
        "path": "/var/lib/litefs",
    }
    if cluster is None:
        del body["clusterID"]
    return json.dumps(body | {"primary": {"hostname": host}}, indent=2) + "\n"


def vars_body(txid: int = 5, checksum: str = "c0ffee0000000005", name: str = DATABASE, **locks: str) -> str:
    names = ["pending", "shared", "reserved", "write", "ckpt", "recover", *(f"read{n}" for n in range(5)), "dms"]
    return json.dumps(
        {
            "cmdline": ["litefs", "mount"],
            "store": {
                "isPrimary": False,
                "candidate": False,
                "dbs": {
                    name: {
                        "name": name,
                        "txid": f"{txid:016x}",
                        "checksum": checksum,
                        "locks": {lock: locks.get(lock, "unlocked") for lock in names},
                    }
                },
            },
        }
    )


def metrics_body(primary: int = 0, lag: float | str = 0.25, streams: int = 0) -> str:
    return f"""# HELP go_goroutines Number of goroutines that currently exist.
# TYPE go_goroutines gauge
go_goroutines 21
# TYPE litefs_db_txid gauge
litefs_db_txid{{db="sqlite.db"}} 5
litefs_db_ltx_bytes{{db="sqlite.db"}} 4.096e+03
litefs_http_stream_count {streams}
litefs_is_primary {primary}
litefs_lag_seconds {lag}
litefs_subscriber_count {streams}
"""


def node(
    cluster: str | None = A,
    txid: int = 5,
    checksum: str | None = None,
    primary: bool = False,
    never_synced: bool = False,
    database: str | None = DATABASE,
) -> dict[str, Any]:
    """The answers of one LiteFS node, through the parsers."""
    checksum = checksum or f"c0ffee{txid:010x}"
    databases = litefs.parse_vars(vars_body(txid, checksum, database)) if database else {}
    lag = 0 if primary or never_synced else 0.25
    samples = [litefs.parse_metrics(metrics_body(int(primary), lag))] * 2
    answer: dict[str, Any] = litefs.node(
        litefs.parse_info(info_body(cluster, primary, primary, "" if never_synced else "abaci-app-0")),
        databases,
        samples,
    )
    return answer


def statefulset(replicas: int = 3, desired: int | str | None = 3, **spec: Any) -> dict[str, Any]:
    annotations = {} if desired is None else {state.LAST_APPLIED_REPLICAS: str(desired)}
    return {
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "sts", "generation": 4, "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "serviceName": "abaci-app-headless",
            "podManagementPolicy": "Parallel",
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "securityContext": {"sysctls": [{"name": SYSCTL, "value": "2"}]},
                    "containers": [
                        {
                            "name": "app",
                            "image": IMAGE,
                            "ports": [
                                {"name": "proxy", "containerPort": 8080},
                                {"name": "litefs", "containerPort": 20202},
                            ],
                        }
                    ],
                },
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "litefs-data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": "local-path",
                        "resources": {"requests": {"storage": "5Gi"}},
                    },
                }
            ],
            **spec,
        },
        "status": {"observedGeneration": 4, "readyReplicas": replicas, "currentRevision": "r1", "updateRevision": "r1"},
    }


def pod(
    ordinal: int, owned: bool = True, name: str = NAME, created: str = "2026-01-01T06:00:00Z", **status: Any
) -> dict[str, Any]:
    owner = [{"kind": "StatefulSet", "name": name, "uid": "sts"}] if owned else []
    return {
        "metadata": {
            "name": f"{name}-{ordinal}",
            "namespace": NAMESPACE,
            "uid": f"pod-{ordinal}",
            "creationTimestamp": created,
            "labels": {"app": name, "controller-revision-hash": "r1"},
            "ownerReferences": owner,
        },
        "spec": {"nodeName": f"node-{ordinal}", "containers": [{"name": "app", "image": "app:1"}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.42.0.{ordinal + 5}",
            "conditions": [{"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{"name": "guard", "state": {"terminated": {"exitCode": 0}}, "restartCount": 0}],
            "containerStatuses": [
                {
                    "name": "app",
                    "image": "app:1",
                    "imageID": "app@sha256:" + "0" * 64,
                    "restartCount": 1,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
            **status,
        },
    }


class Said(str):
    """What a guard says, with the exit code by which programs know it."""

    code: int

    def __new__(cls, words: str, code: guard.Exit) -> Said:
        made = super().__new__(cls, words)
        made.code = int(code)
        return made


def stopped(ordinal: int, message: str) -> dict[str, Any]:
    """A pod between two tries of its guard."""
    code = message.code if isinstance(message, Said) else 1
    ended = {
        "name": "guard",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": code, "reason": "Error", "message": str(message)}},
    }
    waiting = {"name": "app", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
    return pod(
        ordinal,
        phase="Pending",
        conditions=[{"type": "Ready", "status": "False"}],
        initContainerStatuses=[ended],
        containerStatuses=[waiting],
    )


def claim(ordinal: int, uid: str | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"litefs-data-abaci-app-{ordinal}", "uid": uid or f"claim-{ordinal}", **metadata},
        "spec": {
            "volumeName": f"pvc-{ordinal}",
            "storageClassName": "local-path",
            "resources": {"requests": {"storage": "5Gi"}},
        },
        "status": {"phase": "Bound"},
    }


def volume(
    ordinal: int,
    claim_uid: str | None = "",
    phase: str = "Bound",
    policy: str = "Retain",
    name: str | None = None,
    namespace: str = NAMESPACE,
    claim_name: str | None = None,
) -> dict[str, Any]:
    """``claim_uid`` "" is that of claim(ordinal); None removes the whole claimRef."""
    uid = f"claim-{ordinal}" if claim_uid == "" else claim_uid
    claim_name = claim_name or f"litefs-data-abaci-app-{ordinal}"
    spec: dict[str, Any] = {
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": "local-path",
        "capacity": {"storage": "5Gi"},
        "hostPath": {"path": f"/var/lib/rancher/k3s/storage/pvc-{ordinal}_{namespace}_{claim_name}"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "kubernetes.io/hostname", "operator": "In", "values": [f"node-{ordinal}"]}
                        ]
                    }
                ]
            }
        },
    }
    if uid is not None:
        spec["claimRef"] = {"namespace": namespace, "name": claim_name, "uid": uid}
    metadata = {"name": name or f"pvc-{ordinal}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def kube_node(
    name: str,
    ready: bool = True,
    kernel: str = "6.12.0",
    user_namespaces: bool | None = True,
    fuse: int = 110,
    **spec: Any,
) -> dict[str, Any]:
    """A node as the API shows it; ``user_namespaces`` None: its kubelet says nothing of its runtime's features."""
    handlers = [
        {"name": "", "features": {"recursiveReadOnlyMounts": True, "userNamespaces": user_namespaces}},
        {"name": "other", "features": {"userNamespaces": not user_namespaces}},
    ]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "nodeInfo": {
                "kernelVersion": kernel,
                "containerRuntimeVersion": "containerd://2.1.5",
                "kubeletVersion": "v1.36.3+k3s1",
            },
            "runtimeHandlers": [] if user_namespaces is None else handlers,
            "allocatable": {"cpu": "2", "squat.ai/fuse": str(fuse)} if fuse else {"cpu": "2"},
        },
    }


def record(
    where: str, cluster: str = "", ordinal: int | str = 0, desired: int | str = 0, fenced: str = ""
) -> dict[str, Any]:
    data = {"state": where, "primaryOrdinal": str(ordinal), "desiredPrimaryOrdinal": str(desired)}
    if cluster:
        data["clusterID"] = cluster
    if fenced:
        data["fencedOrdinals"] = fenced
    return {"metadata": {"name": f"{NAME}-litefs-identity", "uid": "r", "resourceVersion": "7"}, "data": data}


def document(**parts: Any) -> dict[str, Any]:
    """A state document from objects; nothing exists but what is given."""
    parts.setdefault("version", {"gitVersion": "v1.36.3+k3s1", "major": "1", "minor": "36"})
    made: dict[str, Any] = state.document(NAMESPACE, NAME, DATABASE, "litefs-data", **parts)
    return made


def living(answers: dict[int, dict[str, Any]] | None = None, **parts: Any) -> dict[str, Any]:
    """A site of three pods that runs: pod 0 is primary of cluster A. ``answers`` replaces single pods' answers."""
    nodes = {0: node(primary=True), 1: node(), 2: node()} | (answers or {})
    parts.setdefault("statefulset", statefulset())
    parts.setdefault("record", record("recorded", A))
    parts.setdefault("pods", [pod(ordinal) for ordinal in range(3)])
    parts.setdefault("claims", [claim(ordinal) for ordinal in range(3)])
    parts.setdefault("volumes", [volume(ordinal) for ordinal in range(3)])
    parts.setdefault("nodes", [kube_node(f"node-{ordinal}") for ordinal in range(3)])
    parts.setdefault("kubelets", {f"node-{ordinal}": [SYSCTL] for ordinal in range(3)})
    return document(answers={f"{NAME}-{ordinal}": answer for ordinal, answer in nodes.items()}, **parts)


def on_hosts(*claims: str) -> dict[str, Any]:
    """The role storage, where its claims are directories of the hosts."""
    return {"state": "present", "kind": "host_path", "volumes": [{"claim": name} for name in claims]}


def desired(**changed: Any) -> dict[str, Any]:
    return {"replicas": 3, "primary_ordinal": 0, "sysctls": [SYSCTL], **changed}
