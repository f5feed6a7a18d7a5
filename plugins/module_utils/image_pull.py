"""The short-lived pod that shows whether a node can pull an image: its manifest, and what its status means. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .conditions import condition, youngest_warning
from .objects import Object, Part
from .wording import said

COMPONENT = "image-check"

# The kubelet says these before it has the image; every other reason to wait comes after the pull.
_BEFORE_PULL = {"ContainerCreating", "PodInitializing", ""}
_PULL_FAILED = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "ErrImageNeverPull"}
_FINAL_REASONS = {"InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed"}
# A registry that said one of these says it again: no reason to wait for the kubelet's next try.
_FINAL = re.compile(
    r"code = NotFound|not found$|manifest unknown|unauthorized|authorization failed|access denied|denied:|\b40[134]\b"
    r"|no basic auth credentials|invalid reference format|no match for platform",
    re.IGNORECASE,
)
_OTHER_PROCESSOR = re.compile("exec format error", re.IGNORECASE)
_NO_PROGRAM = re.compile(r"executable file .*not found", re.IGNORECASE)
# How a container ends whatever its image is: the runtime could not start it now, or the node ran out of something.
_NOT_EXECUTABLE = (126, 127)
_NOT_THE_IMAGE = {"StartError", "ContainerCannotRun", "OOMKilled", "Evicted", "ContainerStatusUnknown"}
_NOISE = re.compile(r"^(?:Back-off pulling image \"[^\"]*\": )?(?:ErrImagePull: )?(?:rpc error: code = (\w+) desc = )?")


@dataclass(frozen=True)
class Status:
    """``pulled``; else ``reason`` (what it hangs on now, the registry's words) and whether waiting is ``final``.

    ``fault`` is what an image that was pulled lacks: "processor", "program", "node" where that could not start it,
    or "" where the program failed otherwise.
    """

    pulled: bool = False
    digest: str | None = None
    reason: str | None = None
    final: bool = False
    fault: str | None = None


def selector(name: str) -> str:
    """The label selector of all such pods of one application."""
    return f"app.kubernetes.io/component={COMPONENT},app.kubernetes.io/instance={name}"


def pod(
    namespace: str,
    name: str,
    suffix: str,
    image: str,
    pull_secrets: Sequence[str],
    timeout: int,
    node_selector: Mapping[str, str] | None = None,
    tolerations: Sequence[Part] = (),
    command: Sequence[str] = (),
    kept: bool = False,
) -> Object:
    """The pod's manifest. It is nobody's endpoint, mounts nothing, and ends by itself should we die.

    ``kept``: what a node has under the tag is good enough, since the pods start it, too.
    """
    security: Object = {"allowPrivilegeEscalation": False}
    if command:
        # As the application's pods run it, whoever the image's own user is.
        security |= {"runAsUser": 0, "runAsGroup": 0}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-pull-{suffix}",
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/component": COMPONENT,
                "app.kubernetes.io/instance": name,
                "app.kubernetes.io/managed-by": "abaci.infra",
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": timeout + 30,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": secret} for secret in pull_secrets],
            "nodeSelector": dict(node_selector or {}),
            "tolerations": [dict(toleration) for toleration in tolerations],
            "containers": [
                {
                    "name": "pull",
                    "image": image,
                    # A tag may have moved since this node had it; a digest cannot.
                    "imagePullPolicy": "IfNotPresent" if kept or "@sha256:" in image else "Always",
                    # Whether the image has `true` does not matter: to find out, the node needs the image.
                    "command": list(command) or ["true"],
                    # What a program of another processor ends with stands in its log alone.
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "4Mi"},
                        "limits": {"cpu": "100m", "memory": "128Mi" if command else "32Mi"},
                    },
                    "securityContext": security,
                }
            ],
        },
    }


def login_secret(namespace: str, name: str, instance: str, login: Mapping[str, str]) -> Object:
    """The pull secret that holds a login (server, username, token) while it is tried."""
    password = f"{login['username']}:{login['token']}"
    entry = {
        "username": login["username"],
        "password": login["token"],
        "auth": base64.b64encode(password.encode()).decode(),
    }
    config = json.dumps({"auths": {login["server"]: entry}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/component": COMPONENT,
                "app.kubernetes.io/instance": instance,
                "app.kubernetes.io/managed-by": "abaci.infra",
            },
        },
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
    }


def judge(item: Part, command: Sequence[str] = ()) -> Status:
    """Read the pod's status. ``command`` is what has to end well in the image, if anything."""
    status = item.get("status", {})
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        image_id = container.get("imageID") or ""
        digest = image_id.rsplit("@", 1)[-1] or None
        reason = (state.get("waiting") or {}).get("reason") or ""
        started = bool(image_id) or "running" in state or "terminated" in state
        if started or ("waiting" in state and reason not in _BEFORE_PULL | _PULL_FAILED | _FINAL_REASONS):
            return _started(state, digest, command)
        if "waiting" in state and reason in _PULL_FAILED | _FINAL_REASONS:
            message = plain(state["waiting"].get("message") or reason)
            raw = str(state["waiting"].get("message") or "").rstrip(". ")
            return Status(reason=message, final=reason in _FINAL_REASONS or bool(_FINAL.search(raw)))
    scheduled = condition(item, "PodScheduled")
    if scheduled.get("status") == "False":
        return Status(reason=f"no node takes the pod: {plain(scheduled.get('message') or 'unschedulable')}")
    if status.get("phase") == "Failed":
        why = plain(status.get("message") or status.get("reason") or "it failed")
        return Status(reason=f"the node rejected the pod: {why}", final=True)
    return Status()


def _started(state: Part, digest: str | None, command: Sequence[str]) -> Status:
    """The image is on the node: whether it is one that the node can run, and whether ``command`` ended well in it."""
    ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    message = plain(ended.get("message") or waiting.get("message") or ended.get("reason") or waiting.get("reason"))
    if _OTHER_PROCESSOR.search(message):
        return Status(reason=message, final=True, fault="processor")
    if not command or ended.get("exitCode") == 0:
        return Status(pulled=True, digest=digest)
    if not ended:
        return Status(reason=f"{' '.join(command)} has not ended" if "running" in state else message)
    if _NO_PROGRAM.search(message):
        return Status(reason=message, final=True, fault="program")
    if ended.get("reason") in _NOT_THE_IMAGE and ended.get("exitCode") not in _NOT_EXECUTABLE:
        return Status(reason=message, final=True, fault="node")
    return Status(reason=f"exit code {ended.get('exitCode')}: {message}", final=True, fault="")


def last_warning(events: Iterable[Part], pod_name: str) -> str | None:
    """What the cluster said last about the pod, e.g. why its sandbox cannot be made; its status does not say that."""
    found = youngest_warning(events, {"name": pod_name})
    return plain(found.get("message") or found.get("reason")) if found else None


def plain(message: object) -> str:
    """The registry's own reason, in one line, without the kubelet's wrapping."""
    return _NOISE.sub("", said(message)).rstrip(". ")[:400] or "no reason was given"
