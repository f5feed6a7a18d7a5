#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather everything that is decided about the application as one plain document."""

from __future__ import annotations

DOCUMENTATION = r"""
module: litefs_info
short_description: Describe the application, its LiteFS nodes, identity and volumes as one document
description:
  - Asks the API for the StatefulSet, the identity record, pods, claims, volumes and nodes, and every pod's LiteFS
    (through the API's port-forward, all pods at the same time) for its role, cluster id, positions and lag. Needs no
    shell in a pod.
  - The document's fields are described in C(plugins/module_utils/state.py). Within one schema number fields are only
    added.
  - A namespace or StatefulSet that does not exist is described, not an error. A pod whose LiteFS cannot be asked is
    described with the reason; one that its init container holds has the reason in C(init.message).
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
  - abaci.infra.arguments.known
options:
  sysctls:
    description: >-
      A kubelet on which a pod of the application runs with all of these is not asked which sysctls it allows. Leave it
      out before something is written.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that each pod and each API request may take.
    type: int
    default: 10
  wait_replicated:
    description:
      - Seconds to wait until every replica has reached the position that the primary had when it was first asked, with
        equal checksums wherever two pods show the same TXID. Fails in one sentence when the time is over. 0 does not
        wait.
    type: int
    default: 0
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description:
      - Nothing is ever changed. In check mode O(wait_replicated) looks once and does not fail, and where there is no
        kubeconfig yet or no API answers, the document of an empty cluster is returned with the reason in C(api.error).
    support: full
"""

EXAMPLES = r"""
- name: Read the application's state
  abaci.infra.litefs_info:
    kubeconfig: ~/.kube/k3s-config
  register: __app_info

- name: Wait until every replica has what the primary has
  abaci.infra.litefs_info:
    kubeconfig: ~/.kube/k3s-config
    wait_replicated: 60
"""

RETURN = r"""
state:
  description:
    - The state document, schema 1; see C(plugins/module_utils/state.py) for every field.
    - The size of the database is not among them, since no answer of LiteFS but the export has it. What was asked for of
      each volume is its C(storage), and a backup's manifest has the C(size) of the database.
  returned: success
  type: dict
known:
  description: O(known), and before it the StatefulSet and the record as they were read.
  returned: when O(wait_replicated) is 0 and the API answered
  type: dict
position:
  description: With O(wait_replicated), the primary's position when first asked (pod, cluster_id, txid, checksum).
  returned: when O(wait_replicated) is not 0
  type: dict
problems:
  description: With O(wait_replicated) in check mode, what is not replicated now, in sentences.
  returned: when O(wait_replicated) is not 0
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, gather, kube, litefs, state
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.state_types import State


def apart(known: Object) -> Object:
    """Of what is known, what may be older than the pods: the record and the StatefulSet are compared with them."""
    reads = known.get("reads") or []
    kinds = ("Node", "PersistentVolume", "PersistentVolumeClaim")
    return {**known, "reads": [read for read in reads if read["kind"] in kinds]}


def reads(options: Object, read: Object) -> list[Object]:
    """The StatefulSet and the record, as kube.Client.know() takes them."""
    named = {
        "statefulset": ("apps/v1", "StatefulSet", options["name"]),
        "record": ("v1", "ConfigMap", f"{options['name']}-litefs-identity"),
    }
    return [
        {
            **{"apiVersion": version, "kind": kind, "namespace": options["namespace"], "names": [name]},
            "items": [read[part]] if read[part] else [],
        }
        for part, (version, kind, name) in named.items()
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            **arguments.KNOWN,
            "sysctls": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 10},
            "wait_replicated": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    options = module.params
    client: kube.Client | None = None
    read: Object = {}
    try:
        client = kube.connect(options["kubeconfig"], timeout=max(options["timeout"], 5))
        client.know({} if options["wait_replicated"] else apart(options["known"]))

        def look() -> State:
            document: State = gather.gather(
                client,
                options["namespace"],
                options["name"],
                options["database"],
                options["claim_template"],
                options["port"],
                options["timeout"],
                read,
                options["sysctls"],
            )
            return document

        if not options["wait_replicated"]:
            document, given = look(), options["known"]
            # What is known may be older, and the first that has an object counts.
            older = given.get("reads", []) if given.get("server") == client.server else []
            known = {"server": client.server, "reads": [*reads(options, read), *older]}
            module.exit_json(changed=False, state=document, known=known)
        seconds = 0 if module.check_mode else options["wait_replicated"]
        document, position, problems = gather.wait_replicated(look, options["database"], seconds)
    except kube.KubeError as exc:
        # A check run on clean hosts comes here before there is a cluster: nothing exists, and it says why it thinks so.
        absent = exc.status is None and (client is not None or not os.path.exists(options["kubeconfig"]))
        if not module.check_mode or not absent:
            module.fail_json(msg=str(exc))
        document = state.empty(
            options["namespace"], options["name"], options["database"], options["claim_template"], str(exc)
        )
        module.exit_json(changed=False, state=document, position=None, problems=[])
    if problems and not module.check_mode:
        more = f" ({len(problems) - 1} more, see problems)" if len(problems) > 1 else ""
        module.fail_json(
            msg=f"Not replicated within {options['wait_replicated']} s: {problems[0]}{more}",
            problems=problems,
            position=position,
            state=document,
        )
    for sentence in litefs.left_out(document):
        module.warn(sentence)
    module.exit_json(changed=False, state=document, position=position, problems=problems)


if __name__ == "__main__":
    main()
