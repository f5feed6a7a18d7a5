#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuild the newest and a random moment of the archive beside the site, and prove them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_drill
short_description: Rebuild the newest and a random moment beside the site and prove them
description:
  - Fetches both from the archive, checks integrity and LiteFS's checksum, asks a query, and takes the time.
  - The result stands as a JSON file beside the backups, also where it is bad; then the module fails with the reason.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  directory:
    description: Where the result goes, on the controller. It is made with mode 0700.
    type: path
    required: true
  query:
    description: A statement that only reads and has to have an answer of at least one row. Empty for none.
    type: str
    default: ""
  seconds:
    description: How long it may run.
    type: float
    default: 30
  timeout:
    description: Seconds that the archive may take for each moment.
    type: int
    default: 600
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode the archive is asked for both moments, and nothing is fetched or written.
    support: full
"""

EXAMPLES = r"""
- name: Check that a restore would work
  abaci.infra.restore_drill:
    kubeconfig: ~/.kube/k3s-config
    directory: ~/abaci-backups
    query: SELECT max(created_at) FROM users
"""

RETURN = r"""
result:
  description: What stands in the file; empty in check mode.
  returned: success
  type: dict
said:
  description: A line for each moment, and where the result stands.
  returned: success
  type: list
  elements: str
"""

import random
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, moments, sqlquery
from ansible_collections.abaci.infra.plugins.module_utils.archive_client import Archive, ArchiveError
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, drill, export, from_archive


def questions(archive: Archive) -> dict[str, dict[str, str]]:
    """The two moments, as the archive is asked for them."""
    one = moments.newest(archive.histories())
    picked = moments.pick(one, random.random()) if one else None
    if one is None or picked is None:
        raise ArchiveError(f"The archive {archive.pod} has no moment of this database that can be rebuilt.")
    place = {"cluster": one["cluster"], "history": one["history"]}
    return {"newest": {**place, "txid": one["last"]["txid"]}, "random": {**place, "txid": f"{picked:016x}"}}


def rebuilt(archive: Archive, which: str, asked: dict[str, str], query: str, seconds: float) -> drill.Rebuilt:
    """One moment, or why not."""
    one = drill.Rebuilt(
        which=which,
        txid=asked["txid"],
        moment="",
        history=asked["history"],
        cluster_id=asked["cluster"],
        seconds=0.0,
        size=0,
        checksum="",
        answer=[],
        problem="",
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="abaci-drill-") as folder:
        path = Path(folder) / "database"
        try:
            found, facts = from_archive.rebuild(archive, asked, path)
            one.update(moment=found.time, size=facts["size"], checksum=facts["checksum"])
            one["seconds"] = round(time.monotonic() - began, 2)
            if query:
                answer = sqlquery.run(path, query, 10, seconds, "restore_drill_query")
                one["answer"] = [answer.columns, *([str(value) for value in row] for row in answer.rows)]
                one["problem"] = "" if answer.rows else "restore_drill_query answers with no row."
        except (sqlquery.Refused, kube.KubeError) as exc:
            one["problem"] = str(exc)
    return one


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "directory": {"type": "path", "required": True},
            "query": {"type": "str", "default": ""},
            "seconds": {"type": "float", "default": 30},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    directory = Path(options["directory"])
    try:
        site = act.connect(options)
        archive = from_archive.archive_of(site, options["timeout"])
        asked = questions(archive)
        if module.check_mode:
            said = []
            for which, one in asked.items():
                with archive.database(one) as offer:
                    said.append(f"The {which} moment is transaction {offer.found.txid} of {offer.found.time}.")
            module.exit_json(changed=True, result={}, said=said)
        done = [rebuilt(archive, which, one, options["query"], options["seconds"]) for which, one in asked.items()]
        result = drill.Result(
            schema=drill.SCHEMA,
            time=site.api.server_time(),
            namespace=site.namespace,
            statefulset=site.name,
            database=site.database,
            ok=not any(one["problem"] for one in done),
            moments=done,
        )
        export.make_room(directory)
        path = drill.write(directory, result)
    except (moments.Refused, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"The drill could not write on the controller: {exc}.")
    said = [*map(drill.said, done), f"The result stands in {path}."]
    if not result["ok"]:
        module.fail_json(
            msg=" ".join(drill.said(one) for one in done if one["problem"]), result=dict(result), said=said
        )
    module.exit_json(changed=True, result=dict(result), said=said)


if __name__ == "__main__":
    main()
