#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: edge_check
short_description: Check from outside that a site answers as it should, over HTTP and HTTPS
description:
  - Asks for the health path of each domain, for the redirect to https, and sends writes to a path that the application
    rejects, each on a connection of its own. Follows no redirect.
  - The requests go to the given address; the name in SNI, in Host and in the check of the certificate is the domain's.
  - Asks again until all answers are right. Fails with a sentence for each that is not when the time is over.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.edge]
options:
  domains:
    description: The site's names; the writes go to the first.
    type: list
    elements: str
    required: true
  address:
    description: Where to connect to.
    type: str
    required: true
  upstream:
    description: Whether a proxy in front ends TLS, so that the site speaks http and redirects nobody.
    type: bool
    default: false
  verify:
    description: Whether the certificate is verified.
    type: bool
    default: true
  ca_file:
    description: PEM file of the authorities that are trusted, in place of the system's.
    type: path
    default: ""
  hsts_seconds:
    description: The max-age of Strict-Transport-Security that has to come; with V(0) none may come.
    type: int
    default: 0
  verify_path:
    description: A path whose writes the application rejects.
    type: str
    required: true
  write:
    description:
      - A write that is sent once, when all else is right. C(method), C(path) and C(status) (the expected one), maybe
        C(body) and C(headers). Not in check mode.
    type: dict
    default: {}
  timeout:
    description: Seconds until all answers have to be right.
    type: int
    default: 60
attributes:
  check_mode:
    description: The requests are sent in check mode, too, but for O(write).
    support: full
"""

EXAMPLES = r"""
- name: Check the site from outside
  abaci.infra.edge_check:
    domains: [www.example.org]
    address: 192.0.2.10
    verify_path: /.well-known/none
"""

RETURN = r"""
answers:
  description: The last answers, each with C(method), C(url), C(status), C(tls) and C(error).
  type: list
  elements: dict
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, edge, edge_status
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell

POLL = 3.0
OPTIONS = arguments.EDGE | {
    "domains": {"type": "list", "elements": "str", "required": True},
    "address": {"type": "str", "required": True},
    "upstream": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": True},
    "ca_file": {"type": "path", "default": ""},
    "hsts_seconds": {"type": "int", "default": 0},
    "verify_path": {"type": "str", "required": True},
    "write": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 60},
}


def wait(expected: edge_status.Expected, timeout: float) -> tuple[list[edge_status.Answer], list[str]]:
    """(the last answers, what is wrong with them: nothing once all are right)."""
    requests = [edge.parse(request) for request in edge_status.requests(expected)]
    deadline = time.monotonic() + timeout
    while True:
        answers: list[edge_status.Answer] = [edge.send(request) for request in requests]
        problems = edge_status.problems(answers, expected)
        if not problems or time.monotonic() >= deadline:
            return answers, problems
        tell(f"The edge answers: {problems[0]}", deadline=deadline)
        time.sleep(POLL)


def shown(answers: list[edge_status.Answer]) -> list[edge_status.Answer]:
    """The answers without cookies and bodies, which may be secrets."""
    return [{key: value for key, value in answer.items() if key not in ("headers", "body")} for answer in answers]


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    expected: edge_status.Expected = module.params
    try:
        answers, problems = wait(expected, expected["timeout"])
        write = expected["write"]
        if not problems and write and not module.check_mode:
            answer = edge.send(edge.parse(edge_status.write(expected, write)))
            answers.append(answer)
            problems = edge_status.write_problems(answer, write)
    except edge.BadRequest as exc:
        module.fail_json(msg=str(exc), answers=[])
    if problems:
        module.fail_json(msg=" ".join(problems), answers=shown(answers))
    module.exit_json(changed=False, answers=shown(answers))


if __name__ == "__main__":
    main()
