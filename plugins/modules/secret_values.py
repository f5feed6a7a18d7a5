#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: secret_values
short_description: Settle the values of a Secret, from the variable, else what the cluster holds, else made once
description:
  - For each key the given value is taken; where it is V(null), what the Secret in the cluster holds (also an empty
    value); where it holds nothing, a new random one.
  - Reads only. The values are final once the caller has applied the Secret; use C(no_log) on the task.
  - In check mode a cluster that does not answer counts as one without the Secret.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  namespace:
    description: Namespace of the Secret.
    type: str
    required: true
  name:
    description: Name of the Secret.
    type: str
    required: true
  desired:
    description: The keys with their values, or with V(null) to keep or make one.
    type: dict
    required: true
  length:
    description: Random bytes of a value that is made; they are written in URL-safe base64.
    type: int
    default: 32
attributes:
  check_mode:
    description: The module only reads.
    support: full
"""

EXAMPLES = r"""
- name: Settle the password
  abaci.infra.secret_values:
    kubeconfig: ~/.kube/k3s-config
    namespace: abaci
    name: redis
    desired:
      password: "{{ redis_password | default(none) }}"
  register: settled
  no_log: true
"""

RETURN = r"""
values:
  description: One value for each key of O(desired).
  type: dict
  returned: success
made:
  description: The keys whose value is new and stands nowhere yet.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.values import secret_values


def settle(desired: dict[str, Any], held: dict[str, str], length: int) -> tuple[dict[str, str], list[str]]:
    """Return the values and the keys of those that are new. ``held``: the Secret's data, base64 as the API has it.

    Unlike the filter of this name it takes an empty value for a value, given or in the Secret.
    """
    values = {key: str(value) for key, value in desired.items() if value is not None}
    values.update({key: "" for key in desired.keys() - values.keys() if held.get(key) == ""})
    open_keys = [key for key in desired if key not in values]
    values.update(secret_values(dict.fromkeys(open_keys), held, length))
    return values, [key for key in open_keys if key not in held]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "namespace": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            # The task hides everything; no_log here would also mask the answer, which the caller needs.
            "desired": {"type": "dict", "required": True, "no_log": False},
            "length": {"type": "int", "default": 32},
        },
        supports_check_mode=True,
    )
    asked = module.params
    held: dict[str, str] = {}
    try:
        secret = kube.connect(asked["kubeconfig"]).get("v1", "Secret", asked["name"], asked["namespace"])
        held = (secret or {}).get("data") or {}
    except kube.KubeError as exc:
        if exc.status is not None or not module.check_mode:
            module.fail_json(msg=str(exc))
    try:
        values, made = settle(asked["desired"], held, asked["length"])
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, values=values, made=made)


if __name__ == "__main__":
    main()
