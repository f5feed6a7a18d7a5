#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
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
    Of a container in a crash loop the last lines of its log are in the sentence, of one that runs and does not become
    ready what it answers to its readiness probe.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
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

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, waiting


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
    plain = {key: asked[key] for key in ("kind", "name", "namespace", "annotations", "node_resource")}
    primary = asked["primary"] if asked["replace"] else None
    target = waiting.Target(**plain, without=tuple(asked["without"]), primary=primary)
    status = waiting.wait(client, target, asked["timeout"])
    replaced = target.replaced
    if status.state != "done":
        module.fail_json(msg=status.sentence, changed=bool(replaced), replaced=replaced)
    if status.warning:
        module.warn(status.warning)
    module.exit_json(changed=bool(replaced), replaced=replaced, waited=round(time.monotonic() - begin))


if __name__ == "__main__":
    main()
