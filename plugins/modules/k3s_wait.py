#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until k3s's service runs, its API is ready and its nodes are; where they do not come, say why."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_wait
short_description: Wait for a service of k3s, and on a server for the API and the nodes
description:
  - Waits until the unit is active; on a server until C(/readyz) answers and the given nodes are Ready, too.
  - A node counts as Ready only by a report that its kubelet made after it was started, and a cordoned node counts, too.
  - Fails with one sentence that holds the likely cause from the unit's journal.
options:
  unit:
    description: The unit on this host.
    type: str
    choices: [k3s, k3s-agent]
    required: true
  nodes:
    description: Nodes to wait for, each with the time when its kubelet was started (epoch seconds, its clock).
    type: dict
    default: {}
  version:
    description: Version of k3s that the nodes have to run; empty accepts any.
    type: str
    default: ""
  kubeconfig:
    description: Path of the server's own kubeconfig on this host.
    type: path
    default: /etc/rancher/k3s/k3s.yaml
  timeout:
    description: Seconds for all of it.
    type: int
    default: 300
  cause_only:
    description: Wait for nothing, and return what the unit's journal says.
    type: bool
    default: false
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is ever changed; in check mode it does not wait.
    support: full
"""

EXAMPLES = r"""
- name: Wait for the API and the server's node
  abaci.infra.k3s_wait:
    unit: k3s
    nodes: {server-0: 0}
"""

RETURN = r"""
started:
  description: When the unit's main process was started, in seconds since the epoch.
  returned: success
  type: float
cause:
  description: The line of the unit's journal that tells most.
  returned: with O(cause_only)
  type: str
node_name:
  description: Name under which this host registers unless its configuration says otherwise.
  returned: success
  type: str
"""

import json
import platform
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import k3s
from ansible_collections.abaci.infra.plugins.module_utils.k3s_observe import started
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell

# Restarts of the unit after which waiting for it is in vain.
GIVE_UP_AFTER = 3


def run(*argv: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return 124, "", "no answer within 20 s"
    return done.returncode, done.stdout, done.stderr.strip()


def show(unit: str) -> dict[str, str]:
    names = "ActiveState,SubState,NRestarts,ExecMainPID,LoadState"
    return dict(line.split("=", 1) for line in run("systemctl", "show", unit, f"--property={names}")[1].splitlines())


def kubectl(kubeconfig: str, *argv: str) -> tuple[int, str, str]:
    return run("/usr/local/bin/k3s", "kubectl", f"--kubeconfig={kubeconfig}", *argv)


def cause(unit: str) -> str:
    journal = run("journalctl", f"--unit={unit}", "--lines=200", "--no-pager", "--output=cat")[1]
    return str(k3s.likely_cause(journal))


def missing(unit: str, nodes: dict[str, Any], version: str, kubeconfig: str) -> str:
    """Return what is not there yet; empty when all is."""
    state = show(unit)
    if state.get("ActiveState") != "active":
        return f"the service is {state.get('ActiveState', 'unknown')} ({state.get('SubState', 'unknown')})"
    if unit != "k3s":
        return ""
    code, out, err = kubectl(kubeconfig, "get", "--raw=/readyz")
    if code != 0:
        return f"the API is not ready ({(err or out)[:200]})"
    if not nodes:
        return ""
    code, out, err = kubectl(kubeconfig, "get", "nodes", "--output=json")
    if code != 0:
        return f"the API does not list the nodes ({err[:200]})"
    waiting = k3s.nodes_not_ready(json.loads(out)["items"], {name: float(at) for name, at in nodes.items()}, version)
    return "; ".join(f"{name}: {text}" for name, text in waiting.items())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "choices": ["k3s", "k3s-agent"], "required": True},
            "nodes": {"type": "dict", "default": {}},
            "version": {"type": "str", "default": ""},
            "kubeconfig": {"type": "path", "default": "/etc/rancher/k3s/k3s.yaml"},
            "timeout": {"type": "int", "default": 300},
            "cause_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    unit, timeout = module.params["unit"], module.params["timeout"]
    result = {"changed": False, "node_name": platform.node().lower()}
    if module.params["cause_only"]:
        module.exit_json(changed=False, cause=cause(unit))
    if module.check_mode:
        module.exit_json(**result, started=started(unit))
    begin = time.monotonic()
    restarts = int(show(unit).get("NRestarts") or 0)
    while True:
        waiting = missing(unit, module.params["nodes"], module.params["version"], module.params["kubeconfig"])
        if not waiting:
            module.exit_json(**result, started=started(unit))
        waited = time.monotonic() - begin
        restarted = int(show(unit).get("NRestarts") or 0) - restarts
        if waited > timeout or restarted >= GIVE_UP_AFTER:
            break
        tell(f"{unit} on {platform.node()}: {waiting}", deadline=begin + timeout)
        time.sleep(1)
    ended = f"{restarted} times in {waited:.0f} s" if restarted >= GIVE_UP_AFTER else ""
    module.fail_json(
        msg=(
            f"{unit} on {platform.node()} "
            + (f"ended {ended} right after its start" if ended else f"was not ready within {timeout} s")
            + f": {waiting}; its journal says: {cause(unit) or 'nothing'} "
            f"(journalctl -u {unit} shows the rest)."
        ),
        **result,
    )


if __name__ == "__main__":
    main()
