#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan an operation on the application's data, or do its next step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: operation
short_description: Plan an operation on the application's data, or do the next step of it
description:
  - Looks at the application, decides (C(plugins/module_utils/operations)) and answers with what is left to do, or fails
    with the sentence that says which proof is missing, why, and what to do.
  - With O(act) it does the next act, waits until that has its effect, and returns; RV(done) says whether anything is
    left. It is called again until then. A run that died is continued by calling it again.
  - It never deletes or overwrites the primary's volume or the copy with the highest position.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  operation:
    description: What is to be done; one of P(abaci.infra.operations#lookup).
    type: str
    required: true
  parameters:
    description:
      - What the operation is given. The role of its name says which parameters there are
        (C(roles/<operation>/tasks/main.yml)), and what their variables mean.
    type: dict
    default: {}
  exports:
    description: Manifests of exports made during this run, as M(abaci.infra.litefs_backup) returns them.
    type: list
    elements: dict
    default: []
  volumes:
    description: What M(abaci.infra.volume_export) found in each volume. Left out, nobody looked.
    type: dict
  file:
    description: The file to restore, as M(abaci.infra.backup_file) describes it.
    type: dict
    default: {}
  archive:
    description: What the archive has last, as M(abaci.infra.archive_tail) says it.
    type: dict
    default: {}
  pulled:
    description: What trying images on nodes showed in this run, each with C(image), C(node), C(digest) and C(error).
    type: list
    elements: dict
    default: []
  inventory:
    description: What the inventory says of the application, C(image), C(node_selector), C(tolerations) and C(edge).
    type: dict
    default: {}
  act:
    description: Whether to do the next step. Needs the lock (M(abaci.infra.operation_lock)).
    type: bool
    default: false
  call_off:
    description:
      - Only remove the progress of the operation from the record, and show what that was. What it did stays done.
    type: bool
    default: false
  holder:
    description: Who has the lock.
    type: str
    default: ""
  timeout:
    description: Seconds that one step may take.
    type: int
    default: 600
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode nothing is done, and the plan is returned; changed says whether it has anything to do.
    support: full
"""

EXAMPLES = r"""
- name: Show what a scale to 5 would do
  abaci.infra.operation:
    kubeconfig: ~/.kube/k3s-config
    operation: scale
    parameters:
      replicas: 5
  register: __plan

- name: Call off a restore that died
  abaci.infra.operation:
    kubeconfig: ~/.kube/k3s-config
    operation: restore
    call_off: true
    holder: "{{ lookup('abaci.infra.run_id') }}"
"""

RETURN = r"""
plan:
  description: refusal, cause (a section of docs/failure-modes.md), steps, notes, and what the operation adds.
  returned: always
  type: dict
said:
  description: The plan in sentences.
  returned: when nothing is done
  type: list
  elements: str
done:
  description: Whether nothing is left to do. With O(act) also proven by looking.
  returned: success
  type: bool
did:
  description: What was done, in sentences.
  returned: success
  type: list
  elements: str
needs:
  description: What the caller has to do before the next step, one of export, look, pull and volume_export.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, act, planning, runner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "operation": {"type": "str", "required": True},
            "parameters": {"type": "dict", "default": {}},
            "exports": {"type": "list", "elements": "dict", "default": []},
            "volumes": {"type": "dict"},
            "file": {"type": "dict", "default": {}},
            "archive": {"type": "dict", "default": {}},
            "pulled": {"type": "list", "elements": "dict", "default": []},
            "inventory": {"type": "dict", "default": {}},
            "act": {"type": "bool", "default": False},
            "call_off": {"type": "bool", "default": False},
            "holder": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["operation"] not in OPERATIONS:
        module.fail_json(msg=f"operation is {options['operation']}: it has to be one of {', '.join(OPERATIONS)}.")
    file, archive = options["file"], options["archive"]
    given = options["parameters"], options["exports"], options["volumes"] or {}, file, archive, options["pulled"]
    request = planning.Request(*given, options["inventory"])
    try:
        site = act.connect(options)
        if options["call_off"] and not module.check_mode:
            changed, said = runner.call_off(site, options["operation"], options["holder"])
            module.exit_json(changed=changed, done=True, did=[said], said=[said], needs=None, quiet=False, plan=None)
        if module.check_mode or not options["act"]:
            plan = runner.plan(site, options["operation"], request)
            todo = bool(plan["steps"]) or any(plan.get(need) for need in runner.NEEDS)
            said = runner.said(plan)
            module.exit_json(
                changed=todo and module.check_mode, done=not todo, did=[], said=said, needs=None, plan=plan
            )
        answer = runner.step(site, options["holder"], options["operation"], request, options["timeout"])
    except runner.Refused as exc:
        module.fail_json(msg=str(exc), plan=dict(exc.plan))
    except (act.NotDone, kube.KubeError) as exc:
        module.fail_json(msg=str(exc), plan=None)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
