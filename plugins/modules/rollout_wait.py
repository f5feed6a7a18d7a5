#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_wait
short_description: Wait until a workload runs what its spec asks for, or say why it does not
description:
  - Waits until the controller of a StatefulSet, Deployment or DaemonSet has seen the last change and all pods are
    updated and ready. A StatefulSet's O(ignore:partition) and C(OnDelete) are respected. A DaemonSet's pods on nodes
    that are not ready are not waited for, nor are a StatefulSet's; a warning names them.
  - Fails in one sentence with the cause (an image that cannot be pulled, a crash loop, what an init container
    said when it ended, no node that takes the pod) as soon as that cause lasts, and at the latest after O(timeout).
    Of a container in a crash loop the last lines of its log are in the sentence.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  kind:
    description: What is waited for.
    type: str
    required: true
    choices: [StatefulSet, Deployment, DaemonSet]
  name:
    description: Name of the workload.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    required: true
  annotations:
    description:
      - Annotations that the workload's pod template has to carry before its state counts.
      - For workloads that something else applies later, as k3s's Helm job does.
    type: dict
    default: {}
  node_resource:
    description:
      - A resource that every node that is ready has to offer besides, such as C(squat.ai/fuse).
      - For device plugins, whose nodes offer it some seconds after the pods are ready.
    type: str
    default: ""
  without:
    description:
      - Ordinals of a StatefulSet's pods that are not waited for, such as those that the identity record holds back.
      - Pods of lower ordinals, which are updated after them only, may keep their template; a warning names those.
    type: list
    elements: int
    default: []
  replace:
    description:
      - Delete the pods of a StatefulSet that have an older template, one at a time, as its controller does not with
        C(OnDelete). Pods on nodes that are not ready, and those of O(without), are left alone.
      - The pod of O(primary) is the last; where its container C(app) does not run it is the first, since the others
        wait for it. Nothing is deleted while the node of O(primary) is not ready.
    type: bool
    default: false
    version_added: 0.2.0
  primary:
    description: With O(replace), the primary's ordinal.
    type: int
    default: 0
    version_added: 0.2.0
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 300
attributes:
  check_mode:
    description: In check mode nothing is waited for, since nothing was changed.
    support: full
"""

EXAMPLES = r"""
- name: Wait for Redis
  abaci.infra.rollout_wait:
    kubeconfig: ~/.kube/k3s-config
    kind: Deployment
    name: redis
    namespace: abaci
    timeout: 120
"""

RETURN = r"""
waited:
  description: Seconds that it took. V(0) in check mode.
  type: int
  returned: success
replaced:
  description: Names of the pods that were deleted so that they come back with the new template, in their order.
  type: list
  elements: str
  returned: always
"""

import dataclasses
import time
from collections.abc import Collection
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, identity, kube, rollout

POLL = 2.0
LOG_LINES, LOG_LENGTH = 10, 1000


def wait(
    client: kube.Client,
    kind: str,
    name: str,
    namespace: str,
    annotations: dict[str, str],
    timeout: int,
    node_resource: str = "",
    without: Collection[int] = (),
    primary: int | None = None,
) -> tuple[rollout.Status, list[str]]:
    """(``done`` once it is rolled out, or the last status, whose sentence says why it is not; names of pods replaced).

    With ``primary`` old pods are replaced here.
    """
    replaced: list[str] = []
    deadline = time.monotonic() + timeout
    failing_since: float | None = None
    while True:
        try:
            status = _look(client, kind, name, namespace, annotations, without, primary, replaced)
            if status.state == "done" and node_resource:
                offered = rollout.judge_nodes(client.list("v1", "Node"), node_resource)
                status = dataclasses.replace(offered, warning=status.warning)
        except kube.KubeError as exc:  # an API server that restarts is part of life
            status = rollout.Status("waiting", str(exc))
        if status.state == "done":
            return status, replaced
        now = time.monotonic()
        if status.state == "failed":
            failing_since = now if failing_since is None else failing_since
            if now - failing_since >= status.patience:
                return _with_log(client, namespace, status), replaced
        else:
            failing_since = None
        if now >= deadline:
            status = _with_log(client, namespace, status)
            return dataclasses.replace(status, sentence=f"After {timeout} s: {status.sentence}"), replaced
        time.sleep(POLL)


def _with_log(client: kube.Client, namespace: str, status: rollout.Status) -> rollout.Status:
    """The status, with the last lines of the log that it names."""
    if status.log is None:
        return status
    pod, container = status.log
    query = f"container={container}&previous=true&tailLines={LOG_LINES}"
    try:
        log = client.raw(f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{query}").decode(errors="replace")
    except kube.KubeError:
        return status  # the kubelet has removed it, or does not answer
    lines = " | ".join(line.strip() for line in log.splitlines()[-LOG_LINES:] if line.strip())[-LOG_LENGTH:]
    return dataclasses.replace(status, sentence=f"{status.sentence} Its last lines: {lines}") if lines else status


def _look(
    client: kube.Client,
    kind: str,
    name: str,
    namespace: str,
    annotations: dict[str, str],
    without: Collection[int],
    primary: int | None,
    replaced: list[str],
) -> rollout.Status:
    workload = client.get("apps/v1", kind, name, namespace)
    if workload is None:
        return rollout.Status("waiting", f"There is no {kind} {namespace}/{name}.")
    carried = workload["spec"]["template"]["metadata"].get("annotations") or {}
    for key, value in annotations.items():
        if carried.get(key) != value:
            sentence = (
                f"{kind} {namespace}/{name} does not have the new settings yet (annotation {key} is not {value})."
            )
            return rollout.Status("waiting", sentence)
    if primary is not None:
        # Ours to roll out: done is when all have the new template, whatever the strategy says.
        workload["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    status = rollout.judge(workload, [], [])
    if status.state == "done":
        return status
    pods = client.list("v1", "Pod", namespace, rollout.selector(workload))
    nodes = client.list("v1", "Node")
    if primary is not None:
        out = {*without, *rollout.on_dead_nodes(pods, nodes)}
        if primary in out:
            return rollout.Status(
                "failed",
                f"{name}-{primary} is the primary, and its node is not Ready or it is fenced: no pod is restarted "
                f"without it. Bring the node back, or move the role with {identity.PROMOTE}.",
            )
        old = rollout.next_to_replace(workload, pods, primary, out)
        if old is not None:
            meta = old["metadata"]
            # A pod that changed since was perhaps started meanwhile: it is looked at again.
            if client.delete("v1", "Pod", meta["name"], namespace, uid=meta["uid"], version=meta["resourceVersion"]):
                replaced.append(meta["name"])
            return rollout.Status("waiting", f"{kind} {namespace}/{name}: pod {meta['name']} is being replaced.")
    events = client.list("v1", "Event", namespace)
    return rollout.judge(workload, pods, events, nodes, without, in_order=primary is None)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "kind": {"type": "str", "required": True, "choices": ["StatefulSet", "Deployment", "DaemonSet"]},
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "annotations": {"type": "dict", "default": {}},
            "node_resource": {"type": "str", "default": ""},
            "without": {"type": "list", "elements": "int", "default": []},
            "replace": {"type": "bool", "default": False},
            "primary": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0, replaced=[])
    asked: dict[str, Any] = module.params
    begin = time.monotonic()
    try:
        client = kube.connect(asked["kubeconfig"])
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    primary = asked["primary"] if asked["replace"] else None
    plain = {key: asked[key] for key in asked if key not in ("kubeconfig", "replace", "primary")}
    status, replaced = wait(client, **plain, primary=primary)
    if status.state != "done":
        module.fail_json(msg=status.sentence, changed=bool(replaced), replaced=replaced)
    if status.warning:
        module.warn(status.warning)
    module.exit_json(changed=bool(replaced), replaced=replaced, waited=round(time.monotonic() - begin))


if __name__ == "__main__":
    main()
