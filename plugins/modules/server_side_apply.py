#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: server_side_apply
short_description: Apply manifests server-side as one field manager, and show object by object what changes
description:
  - Applies the manifests in their order with the field manager C(abaci.infra). Fields that it sets are taken back from
    others; fields that others set stay.
  - M(kubernetes.core.k8s) does the work, once for all objects; what is added is a difference for each that changes.
  - In check mode the API dry-runs what it can; what it cannot (no API, no namespace, no such kind yet) is named as what
    would be created.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
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

# An action plugin: plugins/action/server_side_apply.py.
