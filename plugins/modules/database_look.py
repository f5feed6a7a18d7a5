#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: database_look
short_description: Look whether the primary's database takes writes, and what would harm its replicas
description:
  - Reads the header of the primary's database through LiteFS's export, which is broken off at once, and fails in one
    sentence where no write gets through.
  - Warns where a change of the journal mode has ended replicas, where auto_vacuum in WAL mode can lock all writes, and
    where a replica could take a write that LiteFS would drop. The latter is seen in the pod's C(/proc/self/mounts).
  - Keeps the journal mode in the record once every replica is at the primary's position.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  mount:
    description: Where LiteFS mounts the databases in the pods.
    type: path
    default: /litefs
  read_only:
    description: Whether replicas are meant to have a read-only mount; otherwise their mounts are not looked at.
    type: bool
    default: true
  wait_replicated:
    description:
      - Seconds to wait first until every replica has reached the position that the primary had when it was first asked.
        Fails in one sentence when the time is over. 0 does not wait, nor does check mode.
    type: int
    default: 0
  state:
    description:
      - The state document, where M(abaci.infra.litefs_info) has just gathered it and nothing was changed since. It is
        the first look; where more are needed they are made. Left out, one is made.
    type: dict
  low_water:
    description: Whether to write down how far the data was seen, as M(abaci.infra.low_water) does.
    type: bool
    default: false
  timeout:
    description: Seconds that the primary may take for the header; a transaction that stays open that long is an error.
    type: int
    default: 30
attributes:
  check_mode:
    description: In check mode the record is not written, and the result says whether it would be.
    support: full
"""

EXAMPLES = r"""
- name: Check whether writes get through
  abaci.infra.database_look:
    kubeconfig: ~/.kube/k3s-config
"""

RETURN = r"""
header:
  description:
    - journal_mode (wal or delete), page_size (bytes), pages and auto_vacuum. Empty while no primary has the database.
  returned: success
  type: dict
notes:
  description: The warnings.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import (
    applying,
    arguments,
    database_look,
    gather,
    kube,
    litefs,
)
from ansible_collections.abaci.infra.plugins.module_utils.operations import act
from ansible_collections.abaci.infra.plugins.module_utils.state_types import State


def writable(api: Any, namespace: str, pods: list[str], mount: str) -> list[str]:
    """Those of the pods whose mount is known not to be read-only."""

    def look(pod: str) -> bool:
        try:
            text = api.run(namespace, pod, "app", ["cat", "/proc/self/mounts"])
        except kube.KubeError:
            return False
        return database_look.is_read_only(text, mount) is False

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="mounts") as pool:
        return [pod for pod, open_ in zip(pods, pool.map(look, pods), strict=True) if open_]


def keep_mode(api: Any, namespace: str, name: str, mode: str, check_mode: bool) -> bool:
    """Have the record say this journal mode; whether it was changed."""
    for left in (2, 1, 0):
        record = api.get("v1", "ConfigMap", f"{name}-litefs-identity", namespace)
        data = (record or {}).get("data") or {}
        if record is None or data.get("state") != "recorded" or data.get("journalMode") == mode:
            return False
        if check_mode:
            break
        try:
            api.replace("v1", "ConfigMap", {**record, "data": {**data, "journalMode": mode}}, applying.FIELD_MANAGER)
            break
        except kube.KubeError as exc:  # somebody else wrote it meanwhile
            if exc.status != 409 or not left:
                raise
    return True


def replicated(module: AnsibleModule, observe: Callable[[], State]) -> State:
    """The state document once every replica has what the primary had; fails the module where that does not come."""
    seconds = module.params["wait_replicated"]
    known = [module.params["state"]] if module.params["state"] else []

    def look() -> State:
        return known.pop() if known else observe()

    document, position, problems = gather.wait_replicated(look, module.params["database"], seconds)
    if problems:
        more = f" ({len(problems) - 1} more, see problems)" if len(problems) > 1 else ""
        sentence = f"Not replicated within {seconds} s: {problems[0]}{more}"
        module.fail_json(msg=sentence, problems=problems, position=position, state=document)
    for sentence in litefs.left_out(document):
        module.warn(sentence)
    return document


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "mount": {"type": "path", "default": "/litefs"},
            "read_only": {"type": "bool", "default": True},
            "wait_replicated": {"type": "int", "default": 0},
            "state": {"type": "dict"},
            "low_water": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    namespace, name, database, port = (options[key] for key in ("namespace", "name", "database", "port"))
    try:
        api = kube.connect(options["kubeconfig"])

        def observe() -> State:
            return gather.gather_replicas(api, namespace, name, database, options["claim_template"], port)

        waits = options["wait_replicated"] and not module.check_mode
        document = replicated(module, observe) if waits else options["state"] or observe()
        position = litefs.primary_position(document, database)
        if position is None:
            module.exit_json(changed=False, header={}, notes=[])
        if options["low_water"] and not module.check_mode:
            act.Site(api, namespace, name, database, options["claim_template"], port).raise_low_water(document)
        try:
            seen = database_look.header(api, namespace, position["pod"], port, database, options["timeout"])
        except kube.KubeError as exc:
            reason = database_look.locked(api, namespace, position["pod"], port, database, position)
            if reason:
                module.fail_json(msg=reason)
            module.warn(f"The database was not looked into: {exc}")
            module.exit_json(changed=False, header={}, notes=[])
        following = litefs.replicated(document, position, database)["done"]
        replicas = [pod["name"] for pod in litefs.reachable(document) if not pod["litefs"]["is_primary"]]
        open_ = writable(api, namespace, replicas, options["mount"]) if options["read_only"] else []
        record = (document["record"] or {"raw": {}})["raw"]
        recorded = record.get("journalMode", "")
        found = database_look.notes(seen, recorded, following, open_, database)
        for note in found:
            module.warn(note)
        lost = recorded == "wal" and seen["journal_mode"] == "delete" and not following
        known = record.get("state") != "recorded" or recorded == seen["journal_mode"]
        changed = not lost and not known and keep_mode(api, namespace, name, seen["journal_mode"], module.check_mode)
    except (act.NotDone, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=changed, header=seen, notes=found)


if __name__ == "__main__":
    main()
