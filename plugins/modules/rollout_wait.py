#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_wait
short_description: Wait until a workload runs what its spec asks for, or say why it does not
description:
  - Waits until the controller of a StatefulSet, Deployment or DaemonSet has seen the last change and all pods are
    updated and ready. A StatefulSet's O(ignore:partition) and C(OnDelete) are respected. A DaemonSet's pods on nodes
    that are not ready are not waited for, and a warning names the nodes.
  - Fails in one sentence with the cause (an image that cannot be pulled, a crash loop, what an init container
    said when it ended, no node that takes the pod, a StatefulSet's pod on a node that is not ready) as soon as that
    cause lasts, and at the latest after O(timeout).
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
"""

import dataclasses
import time
from collections.abc import Collection
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, rollout

POLL = 2.0


def wait(
    client: kube.Client,
    kind: str,
    name: str,
    namespace: str,
    annotations: dict[str, str],
    timeout: int,
    node_resource: str = "",
    without: Collection[int] = (),
) -> rollout.Verdict:
    """Return ``done`` once the workload is rolled out, or the last verdict, whose sentence says why it is not."""
    deadline = time.monotonic() + timeout
    failing_since: float | None = None
    while True:
        try:
            verdict = _look(client, kind, name, namespace, annotations, without)
            if verdict.state == "done" and node_resource:
                offered = rollout.judge_nodes(client.list("v1", "Node"), node_resource)
                verdict = dataclasses.replace(offered, warning=verdict.warning)
        except kube.KubeError as exc:  # an API server that restarts is part of life
            verdict = rollout.Verdict("waiting", str(exc))
        if verdict.state == "done":
            return verdict
        now = time.monotonic()
        if verdict.state == "failed":
            failing_since = now if failing_since is None else failing_since
            if now - failing_since >= verdict.patience:
                return verdict
        else:
            failing_since = None
        if now >= deadline:
            return dataclasses.replace(verdict, sentence=f"After {timeout} s: {verdict.sentence}")
        time.sleep(POLL)


def _look(
    client: kube.Client,
    kind: str,
    name: str,
    namespace: str,
    annotations: dict[str, str],
    without: Collection[int] = (),
) -> rollout.Verdict:
    workload = client.get("apps/v1", kind, name, namespace)
    if workload is None:
        return rollout.Verdict("waiting", f"There is no {kind} {namespace}/{name}.")
    carried = workload["spec"]["template"]["metadata"].get("annotations") or {}
    for key, value in annotations.items():
        if carried.get(key) != value:
            sentence = (
                f"{kind} {namespace}/{name} does not have the new settings yet (annotation {key} is not {value})."
            )
            return rollout.Verdict("waiting", sentence)
    verdict = rollout.judge(workload, [], [])
    if verdict.state == "done":
        return verdict
    pods = client.list("v1", "Pod", namespace, rollout.selector(workload))
    return rollout.judge(workload, pods, client.list("v1", "Event", namespace), client.list("v1", "Node"), without)


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
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0)
    asked: dict[str, Any] = module.params
    begin = time.monotonic()
    try:
        client = kube.connect(asked["kubeconfig"])
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    verdict = wait(client, **{key: asked[key] for key in asked if key != "kubeconfig"})
    if verdict.state != "done":
        module.fail_json(msg=verdict.sentence)
    if verdict.warning:
        module.warn(verdict.warning)
    module.exit_json(changed=False, waited=round(time.monotonic() - begin))


if __name__ == "__main__":
    main()
