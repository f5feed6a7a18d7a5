#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the logs of the site's parts in one order."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_logs
short_description: Read the logs of the site's parts in one order
description:
  - Reads the logs of the application, its guard and what stands beside it, and puts their lines into the order of
    their times. One request for the pods, and one for each container.
  - A container that has no log is told in RV(unread), and holds nobody up.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.application]
options:
  of:
    description:
      - V(app) is the application's container, with LiteFS, V(guard) what runs before it; the others are all containers
        of that name's Deployment or DaemonSet.
    type: list
    elements: str
    choices: [app, guard, keel, traefik, redis, cert-manager, coredns]
    default: [app]
  pods:
    description: Names of pods to read; all where none is named.
    type: list
    elements: str
    default: []
  since:
    description: How far back, as 90 (seconds), 10m, 2h or 1d.
    type: str
    default: 10m
  filter:
    description: A regular expression that a line has to hold.
    type: str
    default: ""
  lines:
    description: How many lines at most, the last ones.
    type: int
    default: 200
  previous:
    description: Whether the logs are those of the containers before their last restart.
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Read what LiteFS and the application said
  abaci.infra.site_logs:
    kubeconfig: ~/.kube/k3s-config
    of: [app, guard]
    since: 1h
"""

RETURN = r"""
shown:
  description: The lines.
  returned: success
  type: list
  elements: str
unread:
  description: What could not be read, one sentence each.
  returned: success
  type: list
  elements: str
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.status import logs

PARTS = ["app", "guard", "keel", "traefik", "redis", "cert-manager", "coredns"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "of": {"type": "list", "elements": "str", "choices": PARTS, "default": ["app"]},
            "pods": {"type": "list", "elements": "str", "default": []},
            "since": {"type": "str", "default": "10m"},
            "filter": {"type": "str", "default": ""},
            "lines": {"type": "int", "default": 200},
            "previous": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        since = logs.seconds(options["since"])
        re.compile(options["filter"])
        api = kube.connect(options["kubeconfig"], timeout=10)
        asked = logs.sources(api.list("v1", "Pod"), options["namespace"], options["name"], options["of"])
        there = sorted({source.pod for source in asked})
        missing = sorted(set(options["pods"]) - set(there))
        if missing:
            module.fail_json(
                msg=f"There is no pod {', '.join(missing)} of {', '.join(options['of'])}: there are "
                f"{', '.join(there) or 'none'}."
            )
        asked = [source for source in asked if not options["pods"] or source.pod in options["pods"]]
        found, unread = logs.read(api, asked, since, options["lines"], options["previous"])
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    except re.error as exc:
        module.fail_json(msg=f"The filter {options['filter']!r} is no regular expression: {exc}.")
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=False,
        shown=logs.merged(found, options["filter"], options["lines"]),
        unread=[f"{source.pod}/{source.container} could not be read: {why}" for source, why in unread.items()],
    )


if __name__ == "__main__":
    main()
