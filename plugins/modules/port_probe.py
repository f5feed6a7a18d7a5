#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try the ports between hosts by a real connection, also before anything listens there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_probe
short_description: Try the ports between hosts by a real connection
description:
  - With O(state=listening) it listens for a moment on those of O(ports) that nobody has yet, in a process that ends by
    itself. With O(state=tried) it connects to what other hosts returned as RV(peer). With O(state=closed) it ends the
    process.
  - A TCP port that somebody has already is tried as it is. A UDP port of which that is so is left out, since nobody
    says whether its owner would answer.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
options:
  state:
    description: What is to be done.
    type: str
    choices: [listening, tried, closed]
    required: true
  name:
    description: This host's name in the inventory.
    type: str
    default: ""
  address:
    description: Where the others reach it.
    type: str
    default: ""
  ports:
    description: With O(state=listening), the ports, each as C(6443/tcp).
    type: list
    elements: str
    default: []
  peers:
    description: With O(state=tried), what the others returned.
    type: list
    elements: dict
    default: []
  seconds:
    description: With O(state=listening), after how long the process ends by itself.
    type: int
    default: 60
  timeout:
    description: Seconds that a connection may take.
    type: int
    default: 3
attributes:
  check_mode:
    description: In check mode nothing listens and nothing is tried.
    support: full
"""

EXAMPLES = r"""
- name: Start to listen
  abaci.infra.port_probe:
    state: listening
    name: "{{ inventory_hostname }}"
    address: "{{ ansible_host }}"
    ports: [6443/tcp, 8472/udp]
  register: __open
"""

RETURN = r"""
peer:
  description: This host's C(name) and C(address), and the C(ports) that the others can try.
  returned: with O(state=listening)
  type: dict
connections:
  description: The tries, each with C(source), C(target), C(port), C(protocol) and C(error), null where it worked.
  returned: with O(state=tried)
  type: list
  elements: dict
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, port_tries


def ports(listed: list[str]) -> list[port_tries.Port]:
    """6443/tcp as (6443, "tcp"); ValueError with a sentence for anything else."""
    found = []
    for text in listed:
        match = re.fullmatch(r"(\d{1,5})/(tcp|udp)", text)
        if not match or not 0 < int(match[1]) < 65536:
            raise ValueError(f"{text!r} is no port: write it as 6443/tcp or 8472/udp.")
        found.append((int(match[1]), match[2]))
    return found


def listening(options: arguments.Options) -> dict[str, Any]:
    """Listen, and say what the others can try."""
    wanted = ports(options["ports"])
    port_tries.close()  # that of a run that died
    sockets, taken = port_tries.bind(wanted)
    if sockets:
        port_tries.detach(sockets, options["seconds"])
    told = [f"{port}/{protocol}" for port, protocol in wanted if (port, protocol) not in taken or protocol == "tcp"]
    return {"name": options["name"], "address": options["address"], "ports": told}


def tried(options: arguments.Options) -> list[dict[str, Any]]:
    """Connect to each peer but this host."""
    found = []
    for peer in options["peers"]:
        if peer["name"] == options["name"]:
            continue
        answers = port_tries.tried(peer["address"], ports(peer["ports"]), options["timeout"])
        for (port, protocol), error in answers.items():
            where = {"source": options["name"], "target": peer["name"], "port": port, "protocol": protocol}
            found.append({**where, "error": error})
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listening", "tried", "closed"], "required": True},
            "name": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "ports": {"type": "list", "elements": "str", "default": []},
            "peers": {"type": "list", "elements": "dict", "default": []},
            "seconds": {"type": "int", "default": 60},
            "timeout": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    if module.check_mode:
        none = {"name": options["name"], "address": options["address"], "ports": []}
        module.exit_json(changed=False, peer=none, connections=[])
    try:
        if options["state"] == "listening":
            module.exit_json(changed=False, peer=listening(options))
        if options["state"] == "tried":
            module.exit_json(changed=False, connections=tried(options))
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    port_tries.close()
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
