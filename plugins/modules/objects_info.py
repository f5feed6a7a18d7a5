#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: objects_info
short_description: Read some objects of the cluster at once
description:
  - Reads the objects by one request for each kind and namespace, in parallel.
  - One that is not there is no error, nor a kind that the API does not serve, nor in check mode an API that does not
    answer.
  - Use C(no_log) on the task where there are secrets among them.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  objects:
    description: The objects, each with C(apiVersion), C(kind) and C(metadata) (C(name), C(namespace)).
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: The module only reads.
    support: full
"""

EXAMPLES = r"""
- name: Read the settings
  abaci.infra.objects_info:
    kubeconfig: ~/.kube/k3s-config
    objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: abaci}}
  register: found
"""

RETURN = r"""
objects:
  description: The objects in the order of O(objects), C({}) for one that is not there.
  type: list
  elements: dict
  returned: success
reachable:
  description: Whether the API answered.
  type: bool
  returned: success
unknown:
  description: The kinds that the API does not serve.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, kube


def main() -> None:
    spec = {**arguments.KUBECONFIG, "objects": {"type": "list", "elements": "dict", "required": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    wanted = module.params["objects"]
    try:
        look = applying.Apply(applying.connect(module.params["kubeconfig"], module.check_mode), module.check_mode)
        look.observe(wanted)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=False,
        objects=[look.found(obj) or {} for obj in wanted],
        reachable=look.client is not None,
        unknown=sorted({kind for _version, kind, _namespace in look.unknown}),
    )


if __name__ == "__main__":
    main()
