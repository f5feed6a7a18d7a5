#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: server_side_apply
short_description: Apply manifests server-side as one field manager, and show object by object what changes
description:
  - Applies the manifests in their order with the field manager C(abaci.infra). Fields that it sets are taken back from
    others; fields that others set stay.
  - One process for all objects, and a difference for each that changes.
  - In check mode the API dry-runs what it can; what it cannot (no API, no namespace, no such kind yet) is named as what
    would be created.
version_added: 0.1.0
author: The abaci.infra authors
options:
  kubeconfig:
    description: Path of the kubeconfig file.
    type: path
    required: true
  objects:
    description: The manifests. Use C(no_log) on the task where they hold secrets.
    type: list
    elements: dict
    required: true
  namespace:
    description: A namespace to create first where it is missing; one that exists is left as it is.
    type: str
    default: ""
attributes:
  check_mode:
    description: Nothing is stored.
    support: full
  diff_mode:
    description: The objects that change, before and after, without their status.
    support: full
"""

EXAMPLES = r"""
- name: Apply the settings
  abaci.infra.server_side_apply:
    kubeconfig: ~/.kube/k3s-config
    namespace: abaci
    objects:
      - apiVersion: v1
        kind: ConfigMap
        metadata:
          name: settings
          namespace: abaci
        data:
          colour: green
"""

RETURN = r"""
changes:
  description: The objects that were (in check mode, would be) created or changed, each as C(Kind namespace/name).
  type: list
  elements: str
  returned: success
"""

from typing import Any

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, kube

Object = dict[str, Any]


def namespace_object(name: str) -> Object:
    """What is created where the namespace is missing."""
    labels = {"app.kubernetes.io/managed-by": applying.FIELD_MANAGER}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def run(
    client: kube.Client | None, objects: list[Object], namespace: str, check: bool
) -> tuple[list[str], list[Object]]:
    """Return the names of what changes, and the differences. ``client`` may be None in check mode only."""
    wanted = list(objects)
    # Not applied where it exists: its owner sets more with this field manager, which would then be taken away.
    if namespace and (client is None or client.get("v1", "Namespace", namespace) is None):
        wanted.insert(0, namespace_object(namespace))
    changes: list[str] = []
    differences: list[Object] = []
    possible = list(range(len(wanted)))
    if check:
        possible, others = applying.scope(client, wanted, "no API answers yet")
        changes += others
        if others:
            lines = "".join(f"{line}\n" for line in others)
            differences.append({"before": "", "after": lines, "after_header": "would be created"})
    for position in possible if client is not None else []:
        obj = wanted[position]
        before, after = applying.apply(client, obj, check)
        if before != after:
            name = applying.label(obj)
            changes.append(name)
            texts = {"before": _text(before), "after": _text(after)}
            differences.append({"before_header": name, "after_header": name, **texts})
    return changes, differences


def _text(obj: Object) -> str:
    return yaml.safe_dump(obj, sort_keys=False) if obj else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "objects": {"type": "list", "elements": "dict", "required": True},
            "namespace": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    client: kube.Client | None = None
    try:
        client = kube.connect(module.params["kubeconfig"])
        client.raw("/version")
    except kube.KubeError as exc:
        if exc.status is not None or not module.check_mode:
            module.fail_json(msg=str(exc))
        client = None
    try:
        changes, differences = run(client, module.params["objects"], module.params["namespace"], module.check_mode)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=bool(changes), changes=changes, diff=differences)


if __name__ == "__main__":
    main()
