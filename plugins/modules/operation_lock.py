#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take or give back the lock of the operations, and write the audit line."""

from __future__ import annotations

DOCUMENTATION = r"""
module: operation_lock
short_description: One operation at a time on one application
description:
  - The lock is a Lease in the application's namespace. It is taken if nobody holds it, if its holder let its time
    pass, if its holder is a process of the same user, machine and boot that does not live any more, or if O(take_over)
    names it. The time is the API server's.
  - In a namespace that does not exist there is nothing to lock yet.
  - Each taking and giving back is a line of JSON in the ConfigMap C(<name>-audit), which keeps the last 100.
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.application]
options:
  state:
    description: Take the lock, renew it (and fail where it was taken away meanwhile), or give it back.
    type: str
    choices: [held, renewed, released]
    default: held
  holder:
    description: Who takes it, C(<user>@<host>+<machine>/<process>), as P(abaci.infra.run_id#lookup) gives it.
    type: str
    required: true
  operation:
    description: What it is taken for.
    type: str
    required: true
  parameters:
    description: What exactly; part of the audit line.
    type: dict
    default: {}
  result:
    description: With O(state=released), how it ended; part of the audit line.
    type: str
    default: ""
  audit:
    description: Whether a line is written. Not for what is run again and again.
    type: bool
    default: true
  seconds:
    description: After so many seconds without a step the lock ends by itself; at least 240.
    type: int
    default: 900
  take_over:
    description: The holder whose lock is taken away, because its run is dead.
    type: str
    default: ""
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode it is only said whether the lock could be taken.
    support: full
"""

EXAMPLES = r"""
- name: Acquire the lock
  abaci.infra.operation_lock:
    kubeconfig: ~/.kube/k3s-config
    holder: "{{ lookup('abaci.infra.run_id') }}"
    operation: scale
    parameters:
      replicas: 5
"""

RETURN = r"""
ansible_facts:
  description: That nothing which was read before the lock was acquired is taken under it.
  returned: with O(state=held)
  type: dict
  contains:
    abaci_known_holds:
      description: Whether what M(abaci.infra.objects_info) read by O(abaci.infra.objects_info#module:lists) holds.
      returned: always
      type: bool
note:
  description: What was found, where a run had died.
  returned: success
  type: str
holder:
  description: Who holds it now, empty for nobody.
  returned: success
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, holding, lock


def alive(holder: str) -> bool:
    """Whether the process of a holder on this host lives; its user and machine are compared by lock.take()."""
    process = holder.rpartition("/")[2]
    return process.isdigit() and os.path.exists(f"/proc/{process}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "state": {"type": "str", "choices": ["held", "renewed", "released"], "default": "held"},
            "holder": {"type": "str", "required": True},
            "operation": {"type": "str", "required": True},
            "parameters": {"type": "dict", "default": {}},
            "result": {"type": "str", "default": ""},
            "audit": {"type": "bool", "default": True},
            "seconds": {"type": "int", "default": 900},
            "take_over": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["state"] == "held" and options["seconds"] < holding.LEAST_SECONDS:
        module.fail_json(
            msg=f"operation_lock_seconds is {options['seconds']}, and has to be at least {holding.LEAST_SECONDS}: the "
            f"lock is renewed every {holding.PAUSE:g} s, and another one could take it in between."
        )
    # The lock is bookkeeping, no change of the system that a run reports.
    answer: dict[str, Any] = {"changed": False, "note": None, "holder": options["holder"]}
    try:
        api = kube.connect(options["kubeconfig"])
        site = act.Site(api, options["namespace"], options["name"], "", "", 0)
        if options["state"] == "held":
            # From here on all is read again.
            answer |= _take(module, site, options) | {"ansible_facts": {arguments.KNOWN_HOLDS: False}}
        elif options["state"] == "renewed" and not module.check_mode:
            holding.Holding(site, options["holder"]).renew()
        elif options["state"] == "released":
            answer["holder"] = _release(module, site, options)
    except act.NotDone as exc:
        module.fail_json(msg=str(exc))
    except kube.KubeError as exc:
        if module.check_mode and exc.status is None:
            # A check run on clean hosts comes here before there is a cluster.
            module.exit_json(**answer | {"holder": ""})
        if exc.status == 409:
            module.fail_json(
                msg="Somebody else took the lock at this very moment: look what is going on, and run again."
            )
        module.fail_json(msg=str(exc))
    module.exit_json(**answer)


def _take(module: AnsibleModule, site: act.Site, options: arguments.Options) -> dict[str, Any]:
    lease = holding.lease_of(site)
    now = site.api.server_time()
    taken, note, refusal = lock.take(
        lease or lock.render(site.namespace, site.name),
        options["holder"],
        options["operation"],
        options["seconds"],
        now,
        alive=alive(lock.holder_of(lease or {})),
        take_over=options["take_over"],
    )
    if refusal or taken is None:
        module.fail_json(msg=refusal)
    if module.check_mode:
        return {"note": note}
    try:
        if lease is None:
            site.api.create(taken)
        else:
            site.put_lease(taken)
    except kube.KubeError as exc:
        if exc.status != 404:
            raise
        return {"holder": ""}
    _audit(site, options, now, "begun", note or "")
    return {"note": note}


def _release(module: AnsibleModule, site: act.Site, options: arguments.Options) -> str:
    """Give back what is ours; who holds it afterwards."""
    lease = holding.lease_of(site)
    held: str = lock.holder_of(lease or {})
    if module.check_mode or lease is None or held != options["holder"]:
        return held
    _audit(site, options, site.api.server_time(), "ended", options["result"])
    site.put_lease(lock.free(lease))
    return ""


def _audit(site: act.Site, options: arguments.Options, now: str, event: str, result: str) -> None:
    if options["audit"]:
        line = {key: options[key] for key in ("holder", "operation", "parameters")}
        site.audit({"time": now, **line, "event": event, "result": result})


if __name__ == "__main__":
    main()
