"""Makes the state document (state_types.py) from what the API and LiteFS answered. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from . import clock, conditions, litefs, wording
from .objects import Part
from .state_types import (
    BackupJob,
    Claim,
    ClaimTemplate,
    Init,
    LiteFS,
    Node,
    Pod,
    Recorded,
    State,
    StatefulSet,
    Volume,
    Waiting,
)

SCHEMA = 1
LAST_APPLIED_REPLICAS = "abaci.infra/last-applied-replicas"
KEEL_POLICY = "keel.sh/policy"
LAST_APPLIED_KEEL_POLICY = "abaci.infra/last-applied-keel-policy"
# What playbooks/rollout.yml and rollback.yml set: app_image.RolledOut, and which run of them set the template last.
ROLLED_OUT = "abaci.infra/rolled-out"
ROLLOUT_STAMP = "abaci.infra/rollout-stamp"
FUSE_RESOURCE = "squat.ai/fuse"
# The init container that pulls a tag anew. It is the application's image, so its trouble is not the guard's.
PULL = "pull"


def empty(
    namespace: str, name: str, database: str, claim_template: str = "litefs-data", error: str | None = None
) -> State:
    """The document where nothing exists, or of an API that cannot be asked (``error``: why)."""
    result = document(namespace, name, database, claim_template, namespace_exists=False)
    result["api"]["error"] = error
    return result


def document(
    namespace: str,
    name: str,
    database: str,
    claim_template: str,
    *,
    namespace_exists: bool = True,
    version: Part | None = None,
    statefulset: Part | None = None,
    record: Part | None = None,
    pods: Iterable[Part] = (),
    claims: Iterable[Part] = (),
    volumes: Iterable[Part] = (),
    nodes: Iterable[Part] = (),
    backup_job: Part | None = None,
    kubelets: Mapping[str, list[str] | str] | None = None,
    silences: Mapping[str, float] | None = None,
    answers: Mapping[str, LiteFS] | None = None,
    gathered_at: str | None = None,
) -> State:
    """Make the document from objects as the API returns them.

    ``version`` is the answer to /version. ``pods``, ``claims`` and ``volumes`` may hold others' objects: those are left
    out. ``kubelets``: node name -> allowedUnsafeSysctls, or the sentence why they are not known. ``silences``: node
    name -> seconds since its Lease was renewed, by the API server's clock. ``answers``: pod name
    -> litefs.node() or litefs.unreachable().
    """
    living = [_claim(claim, ordinal) for claim, ordinal in _ours(claims, f"{claim_template}-{name}")]
    return {
        "schema": SCHEMA,
        "gathered_at": gathered_at or clock.now(),
        "namespace": namespace,
        "namespace_exists": namespace_exists,
        "database": database,
        "api": {"version": str((version or {}).get("gitVersion", "")), "minor": _minor(version), "error": None},
        "statefulset": _statefulset(name, statefulset),
        "record": _record(record),
        "backup_job": _backup_job(backup_job),
        "pods": [_pod(pod, ordinal, answers or {}) for pod, ordinal in our_pods(pods, name)],
        "claims": living,
        "volumes": _volumes(volumes, namespace, f"{claim_template}-{name}", {claim["uid"] for claim in living}),
        "nodes": sorted(
            (_node(item, kubelets or {}, silences or {}) for item in nodes), key=lambda item: str(item["name"])
        ),
    }


def our_pods(pods: Iterable[Part], name: str) -> list[tuple[Part, int]]:
    """The StatefulSet's pods with their ordinals: those it owns, and those left behind that still carry its label."""
    found: list[tuple[Part, int]] = []
    for pod, ordinal in _ours(pods, name):
        owners = pod["metadata"].get("ownerReferences") or []
        owned = any(owner.get("kind") == "StatefulSet" and owner.get("name") == name for owner in owners)
        labelled = (pod["metadata"].get("labels") or {}).get("app") == name
        if owned or (labelled and not owners):
            found.append((pod, ordinal))
    return found


def claim_of(volume: Part) -> tuple[str | None, str | None]:
    """(namespace, name) of the claim that a volume has or had.

    A volume that was freed by removing its whole claimRef is still known by its directory: the local-path provisioner
    names it pvc-<uid>_<namespace>_<claim>.
    """
    spec = volume.get("spec", {})
    reference = spec.get("claimRef")
    if reference:
        return reference.get("namespace"), reference.get("name")
    parts = (_path(spec) or "").rstrip("/").rsplit("/", 1)[-1].split("_")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0].startswith("pvc-") else (None, None)


def _ours(objects: Iterable[Part], prefix: str) -> list[tuple[Part, int]]:
    pattern = re.compile(re.escape(prefix) + r"-(0|[1-9]\d*)")
    found = []
    for item in objects:
        match = pattern.fullmatch(item["metadata"]["name"])
        if match:
            found.append((item, int(match[1])))
    return sorted(found, key=lambda pair: pair[1])


def _minor(version: Part | None) -> int | None:
    digits = re.match(r"\d+", str((version or {}).get("minor", "")))  # some builds say "36+"
    return int(digits[0]) if digits else None


def _integer(value: object) -> int | None:
    text = str(value)
    return int(text) if re.fullmatch(r"\d+", text) else None


def _statefulset(name: str, item: Part | None) -> StatefulSet:
    metadata = (item or {}).get("metadata", {})
    spec = (item or {}).get("spec", {})
    status = (item or {}).get("status", {})
    template = spec.get("template", {}).get("spec", {})
    containers = template.get("containers") or [{}]
    app = next((container for container in containers if container.get("name") == "app"), containers[0])
    sysctls = (template.get("securityContext") or {}).get("sysctls") or []
    return {
        "name": name,
        "exists": item is not None,
        "uid": metadata.get("uid"),
        "generation": metadata.get("generation"),
        "observed_generation": status.get("observedGeneration"),
        "deleting": bool(metadata.get("deletionTimestamp")),
        # The API's default where the field is left out is 1, and it always shows it.
        "replicas": spec.get("replicas", 1) if item is not None else None,
        "ready_replicas": status.get("readyReplicas", 0) if item is not None else None,
        "updated_replicas": status.get("updatedReplicas", 0) if item is not None else None,
        "image": app.get("image"),
        "pulls_anew": any(one.get("name") == PULL for one in template.get("initContainers") or []),
        "last_applied_replicas": _integer((metadata.get("annotations") or {}).get(LAST_APPLIED_REPLICAS)),
        "keel_policy": (metadata.get("annotations") or {}).get(KEEL_POLICY),
        "last_applied_keel_policy": (metadata.get("annotations") or {}).get(LAST_APPLIED_KEEL_POLICY),
        "rolled_out": (metadata.get("annotations") or {}).get(ROLLED_OUT),
        "rollout_stamp": (metadata.get("annotations") or {}).get(ROLLOUT_STAMP),
        "update_strategy": (spec.get("updateStrategy") or {}).get("type"),
        "current_revision": status.get("currentRevision"),
        "update_revision": status.get("updateRevision"),
        "service_name": spec.get("serviceName"),
        "pod_management_policy": spec.get("podManagementPolicy"),
        "claim_templates": [_claim_template(claim) for claim in spec.get("volumeClaimTemplates") or []],
        "sysctls": [sysctl["name"] for sysctl in sysctls],
        "ports": {port["name"]: port["containerPort"] for port in app.get("ports") or [] if port.get("name")},
    }


def _claim_template(claim: Part) -> ClaimTemplate:
    spec = claim.get("spec", {})
    return {
        "name": claim["metadata"]["name"],
        "storage": _requested(spec),
        "storage_class": spec.get("storageClassName"),
    }


def _requested(spec: Part) -> str | None:
    value = (spec.get("resources") or {}).get("requests", {}).get("storage")
    return None if value is None else str(value)


def _record(item: Part | None) -> Recorded | None:
    if item is None:
        return None
    data = item.get("data") or {}
    return {
        "state": data.get("state", ""),
        "cluster_id": data.get("clusterID", ""),
        "primary_ordinal": data.get("primaryOrdinal", ""),
        "desired_primary_ordinal": data.get("desiredPrimaryOrdinal", ""),
        "fenced_ordinals": data.get("fencedOrdinals", ""),
        "raw": dict(data),
        "uid": item["metadata"].get("uid"),
    }


def _backup_job(item: Part | None) -> BackupJob | None:
    if item is None:
        return None
    status = item.get("status") or {}
    return {
        "schedule": item["spec"]["schedule"],
        "suspended": bool(item["spec"].get("suspend", False)),
        "last_scheduled": status.get("lastScheduleTime"),
        "last_successful": status.get("lastSuccessfulTime"),
    }


def _pod(pod: Part, ordinal: int, answers: Mapping[str, LiteFS]) -> Pod:
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    statuses = status.get("containerStatuses") or []
    app = next((item for item in statuses if item.get("name") == "app"), statuses[0] if statuses else {})
    inits = status.get("initContainerStatuses") or []
    scheduled = conditions.condition(pod, "PodScheduled")
    return {
        "name": metadata["name"],
        "ordinal": ordinal,
        "uid": metadata.get("uid"),
        "node": spec.get("nodeName"),
        "phase": status.get("phase", "Unknown"),
        "ready": conditions.is_ready(pod),
        "deleting": bool(metadata.get("deletionTimestamp")),
        "revision": (metadata.get("labels") or {}).get("controller-revision-hash"),
        "image": app.get("image") or next((item["image"] for item in spec.get("containers") or []), None),
        "image_id": app.get("imageID") or None,
        "restarts": app.get("restartCount", 0),
        "created_at": metadata.get("creationTimestamp"),
        "started_at": (app.get("state") or {}).get("running", {}).get("startedAt"),
        "waiting": _why(next((item for item in inits if item.get("name") == PULL and not _ended_well(item)), app)),
        "init": _init([item for item in inits if item.get("name") != PULL]),
        "unschedulable": scheduled.get("message") if scheduled.get("status") == "False" else None,
        "litefs": answers.get(metadata["name"]) or litefs.unreachable("it was not asked"),
    }


def _why(container: Part) -> Waiting:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    waiting = state.get("waiting") or {}
    if "running" in state:
        return {"reason": None, "message": None}
    return {
        "reason": waiting.get("reason") or ended.get("reason"),
        "message": wording.one_line(ended.get("message") or waiting.get("message")) or None,
    }


def _ended_well(container: Part) -> bool:
    ended = (container.get("state") or {}).get("terminated")
    return ended is not None and ended.get("exitCode") == 0


def _init(statuses: list[Part]) -> Init:
    for item in statuses:
        if _ended_well(item):
            continue
        state = item.get("state") or {}
        ended = state.get("terminated") or {}
        # Between two tries the container waits (CrashLoopBackOff), and what it said stands in its last state.
        last = (item.get("lastState") or {}).get("terminated") or {}
        said = ended.get("message") or last.get("message")
        failed = "terminated" in state or ("waiting" in state and bool(last))
        waiting = state.get("waiting") or {}
        return {
            "name": item.get("name"),
            "state": "failed" if failed else "running" if "running" in state else "waiting",
            "message": wording.one_line(said or waiting.get("message") or waiting.get("reason")) or None,
            "exit_code": ended.get("exitCode", last.get("exitCode")),
            "restarts": item.get("restartCount", 0),
        }
    return {
        "name": None,
        "state": "done" if statuses else "none",
        "message": None,
        "exit_code": None,
        "restarts": sum(item.get("restartCount", 0) for item in statuses),
    }


def _claim(claim: Part, ordinal: int) -> Claim:
    metadata, spec = claim["metadata"], claim.get("spec", {})
    return {
        "name": metadata["name"],
        "ordinal": ordinal,
        "uid": metadata.get("uid"),
        "phase": claim.get("status", {}).get("phase", "Pending"),
        "volume": spec.get("volumeName") or None,
        "storage": _requested(spec),
        "storage_class": spec.get("storageClassName"),
        "deleting": bool(metadata.get("deletionTimestamp")),
    }


def _volumes(items: Iterable[Part], namespace: str, prefix: str, living: set[str | None]) -> list[Volume]:
    pattern = re.compile(re.escape(prefix) + r"-(0|[1-9]\d*)")
    found: list[Volume] = []
    for item in items:
        claim_namespace, claim = claim_of(item)
        match = pattern.fullmatch(claim or "")
        if claim is None or claim_namespace != namespace or not match:
            continue
        metadata, spec = item["metadata"], item["spec"]
        uid = (spec.get("claimRef") or {}).get("uid")
        found.append(
            {
                "name": metadata["name"],
                "phase": item.get("status", {}).get("phase", "Pending"),
                "claim": claim,
                "claim_uid": uid,
                "ordinal": int(match[1]),
                "reclaim_policy": spec.get("persistentVolumeReclaimPolicy", "Retain"),
                "storage": (spec.get("capacity") or {}).get("storage"),
                "storage_class": spec.get("storageClassName"),
                "node": _pinned_to(spec),
                "path": _path(spec),
                "created_at": metadata.get("creationTimestamp"),
                "deleting": bool(metadata.get("deletionTimestamp")),
                "kept": uid is None or uid not in living,
            }
        )
    return sorted(found, key=lambda volume: (volume["ordinal"], volume["name"]))


def _path(spec: Part) -> str | None:
    for kind in ("hostPath", "local"):
        if spec.get(kind):
            path: str | None = spec[kind].get("path")
            return path
    return None


def _pinned_to(spec: Part) -> str | None:
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or []
    for term in terms:
        for expression in term.get("matchExpressions") or []:
            if expression.get("key") == "kubernetes.io/hostname" and expression.get("operator") == "In":
                return next(iter(expression.get("values") or []), None)
    return None


def _node(item: Part, kubelets: Mapping[str, list[str] | str], silences: Mapping[str, float]) -> Node:
    name, spec, status = item["metadata"]["name"], item.get("spec", {}), item.get("status", {})
    information = status.get("nodeInfo") or {}
    allowed = kubelets.get(name, "its kubelet was not asked")
    return {
        "name": name,
        "ready": conditions.is_ready(item),
        "silent_seconds": silences.get(name),
        "schedulable": not spec.get("unschedulable", False),
        "labels": dict(item["metadata"].get("labels") or {}),
        "taints": [
            {"key": taint["key"], "value": taint.get("value"), "effect": taint["effect"]}
            for taint in spec.get("taints") or []
        ],
        "allowed_unsafe_sysctls": None if isinstance(allowed, str) else list(allowed),
        "error": allowed if isinstance(allowed, str) else None,
        "kernel": information.get("kernelVersion", ""),
        "runtime": information.get("containerRuntimeVersion", ""),
        "kubelet": information.get("kubeletVersion", ""),
        "user_namespaces": _user_namespaces(status),
        "fuse_devices": int((status.get("allocatable") or {}).get(FUSE_RESOURCE, 0)),
    }


def _user_namespaces(status: Part) -> bool | None:
    """What the kubelet says of its default runtime handler, which is the one without a name."""
    for handler in status.get("runtimeHandlers") or []:
        if not handler.get("name"):
            return bool((handler.get("features") or {}).get("userNamespaces", False))
    return None
