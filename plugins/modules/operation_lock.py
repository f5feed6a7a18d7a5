#!/usr/bin/python
"""Take or give back the lock of the operations, and write the audit line."""

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_lock
short_description: One operation at a time on one application
description:
  - The lock is a Lease in the application's namespace. It is taken if nobody holds it, if its holder let its time
    pass, if its holder is a process of the same user, machine and boot that does not live any more, or if O(take_over)
    names it.
  - The memo of a run that died is kept for the same operation with the same wishes, so that it is continued.
  - Each taking and giving back is a line of JSON in the ConfigMap C(<name>-audit), which keeps the last 100.
extends_documentation_fragment: [abaci.infra.arguments.application]
options:
  state:
    description: Take the lock, give it back, or (V(free)) fail while another holder has it and change nothing.
    type: str
    choices: [held, released, free]
    default: held
  holder:
    description: Who takes it, C(<user>@<host>+<machine>/<process>), as P(abaci.infra.operator#lookup) gives it.
    type: str
    required: true
  operation:
    description: What it is taken for.
    type: str
    required: true
  wishes:
    description: What exactly; part of the audit line.
    type: dict
    default: {}
  result:
    description: With O(state=released), how it ended; part of the audit line.
    type: str
    default: ""
  failed:
    description: With O(state=released), that it did not come to its end, so that what it had begun is remembered.
    type: bool
    default: false
  passing:
    description: That it is over in one go. What another operation had begun stays to be continued by that one.
    type: bool
    default: false
  seconds:
    description: After so many seconds without a step the lock ends by itself.
    type: int
    default: 900
  take_over:
    description: The holder whose lock is taken away, because its run is dead.
    type: str
    default: ""
author: The abaci.infra authors
attributes:
  check_mode:
    description: In check mode it is only said whether the lock could be taken.
    support: full
"""

EXAMPLES = r"""
- name: Take the lock
  abaci.infra.operation_lock:
    kubeconfig: ~/.kube/k3s-config
    holder: "{{ lookup('abaci.infra.operator') }}"
    operation: scale
    wishes:
      replicas: 5
"""

RETURN = r"""
note:
  description: What was found, where a run had died.
  returned: success
  type: str
holder:
  description: Who holds it now.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, lock, runner


def alive(holder: str) -> bool:
    """Whether the process of a holder on this host lives; its user and machine are compared by lock.take()."""
    process = holder.rpartition("/")[2]
    return process.isdigit() and os.path.exists(f"/proc/{process}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "state": {"type": "str", "choices": ["held", "released", "free"], "default": "held"},
            "holder": {"type": "str", "required": True},
            "operation": {"type": "str", "required": True},
            "wishes": {"type": "dict", "default": {}},
            "result": {"type": "str", "default": ""},
            "failed": {"type": "bool", "default": False},
            "passing": {"type": "bool", "default": False},
            "seconds": {"type": "int", "default": 900},
            "take_over": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    holder, operation, wishes = options["holder"], options["operation"], options["wishes"]
    line = {"time": runner.now(), "holder": holder, "operation": operation, "wishes": wishes}
    try:
        api = kube.connect(options["kubeconfig"])
        site = act.Site(api, options["namespace"], options["name"], "", "", 0)
        name = lock.name_of(options["name"])
        lease = api.get("coordination.k8s.io/v1", "Lease", name, options["namespace"])
        if options["state"] == "free":
            refusal = lock.refusal(lease, holder, runner.now(), alive=alive(lock.holder_of(lease or {})))
            if refusal:
                module.fail_json(msg=refusal)
            module.exit_json(changed=False, note=None, holder=lock.holder_of(lease or {}))
        if options["state"] == "released":
            if module.check_mode or lease is None or lock.holder_of(lease) != holder:
                module.exit_json(changed=False, note=None, holder=lock.holder_of(lease or {}))
            site.audit({**line, "event": "ended", "result": options["result"]})
            site.put_lease(lock.free(lease, ended=not (options["failed"] or options["passing"])))
            module.exit_json(changed=False, note=None, holder="")
        held = lock.holder_of(lease or {})
        taken, _memo, note, refusal = lock.take(
            lease or lock.render(options["namespace"], options["name"]),
            holder,
            operation,
            wishes,
            options["seconds"],
            runner.now(),
            alive=alive(held),
            take_over=options["take_over"],
            passing=options["passing"],
        )
        if refusal or taken is None:
            module.fail_json(msg=refusal)
        if not module.check_mode:
            if lease is None:
                api.create(taken)
            else:
                site.put_lease(taken)
            site.audit({**line, "event": "begun", "result": note or ""})
    except kube.KubeError as exc:
        if exc.status == 409:
            module.fail_json(
                msg="Somebody else took the lock at this very moment: look what is going on, and run again."
            )
        module.fail_json(msg=str(exc))
    # The lock is bookkeeping, no change of the system that a run reports.
    module.exit_json(changed=False, note=note, holder=holder)


if __name__ == "__main__":
    main()
