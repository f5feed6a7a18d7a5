#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: server_side_apply
short_description: Apply manifests server-side as one field manager, and show object by object what changes
description:
  - Applies the manifests in their order with the field manager C(abaci.infra). Fields that it sets are taken back from
    others; fields that others set stay.
  - What is there is read by one request for each kind (of ConfigMaps and Secrets, for each namespace). An object whose
    C(managedFields) say that this manifest was applied last, and that has its values, is not written; without a change
    there are only these requests.
  - O(known) only tells that nothing is to be done. As soon as an object differs, or something is waited for, all is
    read again before anything is written.
  - After CRDs it waits until the API serves them. A Deployment, StatefulSet or DaemonSet of a Helm release is refused.
  - In check mode the API dry-runs what it can; what it cannot (no API, no namespace, no such kind yet) is named as what
    would be created.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.known]
options:
  objects:
    description: The manifests. Use C(no_log) on the task where they hold secrets.
    type: list
    elements: dict
    default: []
  absent:
    description:
      - Objects that are not to be there, each with C(apiVersion), C(kind) and C(metadata). They are removed before
        O(objects) are applied, in their order; with O(timeout) each is waited for.
    type: list
    elements: dict
    default: []
  namespace:
    description: A namespace to create first where it is missing; one that exists is left as it is.
    type: str
    default: ""
  size_variable:
    description: >-
      The variable that says the size of the claims in O(objects). A claim that is there with another size is refused,
      before anything is written. Empty leaves that to the API.
    type: str
    default: ""
  wait_kinds:
    description:
      - Of which kinds all O(objects) have to be ready in the end. Not in check mode.
      - What ready means depends on the kind. Of a workload it is what its spec asks for, with all pods ready; where it
        is not, the reason is in the error as soon as that lasts.
    type: list
    elements: str
    choices: [StatefulSet, Deployment, DaemonSet, PersistentVolumeClaim, ClusterIssuer, Certificate]
    default: []
  wait:
    description: What else has to be ready in the end, or needs more said. It need not be among O(objects).
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Its kind.
        type: str
        required: true
        choices: [StatefulSet, Deployment, DaemonSet, PersistentVolumeClaim, ClusterIssuer, Certificate]
      name:
        description: Its name.
        type: str
        required: true
      namespace:
        description: Its namespace.
        type: str
      annotations:
        description: Annotations that the pod template has to carry first, where something else applies the workload.
        type: dict
        default: {}
      node_resource:
        description: A resource that every node that is ready has to offer, too, such as C(squat.ai/fuse).
        type: str
        default: ""
  timeout:
    description:
      - Seconds for each that is waited for, for a kind that the API does not serve yet, and for a webhook that does not
        answer yet. With V(0) nothing of that is waited for.
    type: int
    default: 0
attributes:
  check_mode:
    description: Nothing is stored.
    support: full
  diff_mode:
    description: The objects that change, before and after, without their status; of CRDs only the name.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the settings
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
  description: What was (in check mode, would be) created, changed or removed, each as C(Kind namespace/name).
  type: list
  elements: str
  returned: success
ansible_facts:
  description: After a change, or where what was known did not suffice.
  returned: when it is so
  type: dict
  contains:
    abaci_known_holds:
      description: Whether what M(abaci.infra.objects_info) read by O(abaci.infra.objects_info#module:lists) holds.
      returned: always
      type: bool
restarts:
  description: Of them, the workloads whose pods get another template.
  type: list
  elements: str
  returned: success
ready:
  description: Whether all of O(wait_kinds) and O(wait) is ready. In check mode that is not waited for.
  type: bool
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, claims, kube, waiting


def begin(module: AnsibleModule) -> applying.Apply:
    """Connect. What was read before is taken where it says that nothing is to be done, and else read again."""
    asked, check = module.params, module.check_mode
    client = applying.connect(asked["kubeconfig"], check)
    job = applying.Apply(client, check, asked["timeout"], asked["known"])
    if client is not None and client.knows and not job.is_settled(asked["objects"], asked["absent"]):
        client.forget()
        job = applying.Apply(client, check, asked["timeout"])
    return job


def check_sizes(job: applying.Apply, objects: list[applying.Object], variable: str) -> None:
    """Raises KubeError where a claim is there with another size than the variable says."""
    job.observe(objects)
    for obj in (obj for obj in objects if obj["kind"] == "PersistentVolumeClaim"):
        error = claims.resize_error(job.found(obj) or {}, obj["spec"]["resources"]["requests"]["storage"], variable)
        if error:
            raise kube.KubeError(error)


def ready(module: AnsibleModule, job: applying.Apply, targets: list[waiting.Target]) -> bool:
    """Wait for them; in check mode, only look. Raises KubeError with the reason."""
    for target in targets:
        reference = {
            "apiVersion": target.api_version,
            "kind": target.kind,
            "metadata": {"name": target.name, "namespace": target.namespace},
        }
        found = None if job.changes else job.found(reference)
        client = job.client
        if client is not None and client.knows:
            known = found or client.get(target.api_version, target.kind, target.name, target.namespace)
            if waiting.judge(client, target, known).state != "done":
                client.forget()
                found = client.get(target.api_version, target.kind, target.name, target.namespace)
        if module.check_mode:
            if client is None or waiting.judge(client, target, found).state != "done":
                return False
            continue
        status = waiting.wait(client, target, module.params["timeout"], found)
        if status.state != "done":
            raise kube.KubeError(status.sentence)
        if status.warning:
            module.warn(status.warning)
    return True


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.APPLY, supports_check_mode=True)
    asked: dict[str, Any] = module.params
    job = applying.Apply(None, module.check_mode)
    try:
        job = begin(module)
        objects = list(asked["objects"])
        if asked["size_variable"]:
            check_sizes(job, objects, asked["size_variable"])
        job.run(objects, asked["absent"], asked["namespace"])
        targets = [
            waiting.Target(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
            for obj in objects
            if obj["kind"] in asked["wait_kinds"]
        ]
        done = ready(module, job, targets + [waiting.Target(**options) for options in asked["wait"]])
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc), changed=bool(job.changes), changes=job.changes)
    facts = {}
    if job.changes or (job.client is not None and job.client.forgot):
        facts = {"ansible_facts": {arguments.KNOWN_HOLDS: False}}
    answer = {"changes": job.changes, "restarts": job.restarts, "ready": done, "diff": job.differences}
    module.exit_json(changed=bool(job.changes), **answer, **facts)


if __name__ == "__main__":
    main()
