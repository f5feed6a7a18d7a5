#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: dry_run_scope
short_description: Tell which objects the API can dry-run now, and which a real run would first make possible
description:
  - A server-side dry run refuses an object whose namespace or kind would only be created by the same run, and needs an
    API that answers. Those objects are named as "would be created", so that check mode is truthful on an empty cluster
    and on hosts that have no cluster yet. Where the kubeconfig is missing, or no API answers, that is all of them.
  - Changes nothing. RV(ignore:changed) is true where objects would be created.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  objects:
    description: The manifests, in the order in which they are to be applied.
    type: list
    elements: dict
    required: true
  namespace:
    description: A namespace that the run creates first where it is missing.
    type: str
    default: ""
attributes:
  check_mode:
    description: The module only reads.
    support: full
"""

EXAMPLES = r"""
- name: Ask what can be dry-run
  abaci.infra.dry_run_scope:
    kubeconfig: ~/.kube/k3s-config
    objects: "{{ manifests }}"
  register: scope
"""

RETURN = r"""
indices:
  description: Positions in O(objects) of those that the API can dry-run.
  type: list
  elements: int
  returned: success
would_create:
  description: The other objects, each as C(Kind namespace/name) with the reason.
  type: list
  elements: str
  returned: success
reachable:
  description: Whether the API answered.
  type: bool
  returned: success
namespace_missing:
  description: Whether O(namespace) is given and not there.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, kube


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "objects": {"type": "list", "elements": "dict", "required": True},
            "namespace": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    client, why = None, ""
    try:
        client = kube.connect(module.params["kubeconfig"])
        client.raw("/version")
    except kube.KubeError as exc:
        if exc.status is not None:  # it answers, and refuses
            module.fail_json(msg=str(exc))
        client, why = None, "no API answers yet"
    try:
        possible, others = applying.scope(client, module.params["objects"], why)
        namespace = module.params["namespace"]
        missing = bool(namespace) and (client is None or client.get("v1", "Namespace", namespace) is None)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    if client is None and namespace:
        others.insert(0, f"Namespace {namespace} ({why})")
    module.exit_json(
        changed=bool(others),
        indices=possible,
        would_create=others,
        reachable=client is not None,
        namespace_missing=missing,
        diff=applying.would_be_created(others),
    )


if __name__ == "__main__":
    main()
