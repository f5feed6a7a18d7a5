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
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.known]
options:
  objects:
    description: The objects, each with C(apiVersion), C(kind) and C(metadata) (C(name), C(namespace)).
    type: list
    elements: dict
    default: []
  lists:
    description:
      - Kinds to read whole for tasks that come later, each with C(apiVersion) and C(kind), of one C(namespace) or of
        all. Only RV(known) has them.
    type: list
    elements: dict
    default: []
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
known:
  description: What was read, for the option O(known) of this and other modules.
  type: dict
  returned: success
ansible_facts:
  description: That what was read for later holds. What changes something, and the lock, take it back.
  returned: with O(lists)
  type: dict
  contains:
    abaci_known_holds:
      description: Whether it may be given to others as their O(known).
      returned: always
      type: bool
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
    several = {"type": "list", "elements": "dict", "default": []}
    spec = {**arguments.KUBECONFIG, **arguments.KNOWN, "objects": several, "lists": several}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    wanted, lists = module.params["objects"], module.params["lists"]
    try:
        client = applying.connect(module.params["kubeconfig"], module.check_mode)
        look = applying.Apply(client, module.check_mode, known=module.params["known"])
        look.observe(wanted)
        look.read_all(lists)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=False,
        known={"server": look.client.server, "reads": look.reads} if look.client else {},
        **({"ansible_facts": {arguments.KNOWN_HOLDS: True}} if lists else {}),
        objects=[look.found(obj) or {} for obj in wanted],
        reachable=look.client is not None,
        unknown=sorted({kind for _version, kind, _namespace in look.unknown}),
    )


if __name__ == "__main__":
    main()
