#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the database of any moment, or of now, in SQL that only reads."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_query
short_description: Ask a copy of the database in SQL that only reads
description:
  - With O(at) of the copy that the archive rebuilds of that moment, else of a fresh export from a replica.
  - The copy is proven, asked, and gone afterwards. A statement that would write is refused.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
  - abaci.infra.arguments.archive
options:
  sql:
    description: One statement that only reads.
    type: str
    required: true
  at:
    description: The moment, as for M(abaci.infra.archive_file). Empty for now.
    type: str
    default: ""
  rows:
    description: How many rows are answered at most.
    type: int
    default: 1000
  seconds:
    description: How long the statement may run.
    type: float
    default: 30
  format:
    description: How RV(answer) is written.
    type: str
    choices: [text, csv, json]
    default: text
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is changed, so it is the same.
    support: full
"""

EXAMPLES = r"""
- name: Read how many users there were at noon
  abaci.infra.database_query:
    kubeconfig: ~/.kube/k3s-config
    sql: SELECT count(*) FROM users
    at: 2026-11-30 12:00:00 Europe/Berlin
"""

RETURN = r"""
answer:
  description: The whole answer in O(format).
  returned: success
  type: str
txid:
  description: The transaction after which that was so.
  returned: success
  type: str
said:
  description: The answer in lines, after one that says of which moment it is.
  returned: success
  type: list
  elements: str
"""

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, moments, sqlquery
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, export, from_archive


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            **arguments.ARCHIVE,
            "sql": {"type": "str", "required": True},
            "at": {"type": "str", "default": ""},
            "rows": {"type": "int", "default": 1000},
            "seconds": {"type": "float", "default": 30},
            "format": {"type": "str", "choices": ["text", "csv", "json"], "default": "text"},
        },
        supports_check_mode=True,
    )
    options = module.params
    wanted = from_archive.Wanted(options["at"], options["history"], "query_at")
    try:
        site = act.connect(options)
        with tempfile.TemporaryDirectory(prefix="abaci-query-") as folder:
            path = Path(folder) / "database"
            if wanted.at:
                archive = from_archive.archive_of(site, options["timeout"])
                found, _facts = from_archive.rebuild(archive, from_archive.question(site, archive, wanted), path)
                txid, of = found.txid, f"After transaction {found.txid} of {found.time}, history {found.history}:"
            else:
                path, txid, of = exported(module, site, Path(folder))
            answer = sqlquery.run(path, options["sql"], options["rows"], options["seconds"], "query_sql")
    except sqlquery.Writes as exc:
        now = "" if options["at"] else " With query_write the database of now is changed, after a backup."
        module.fail_json(msg=f"{exc}{now}")
    except (moments.Refused, sqlquery.Refused, export.Failed, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"There is no place for the copy on the controller: {exc}.")
    text = sqlquery.shown(answer, options["format"])
    more = [f"There are more than {options['rows']} rows (query_rows)."] if answer.more else []
    module.exit_json(changed=False, answer=text, txid=txid, said=[of, *text.splitlines(), *more])


def exported(module: AnsibleModule, site: act.Site, folder: Path) -> tuple[Path, str, str]:
    """A fresh export, from where a backup would be taken."""
    manifest = export.fresh(site, folder, module.warn, reason="query", timeout=module.params["timeout"])
    of = f"After transaction {manifest['txid']}, as {manifest['pod']} has it at {manifest['time']}:"
    return Path(manifest["path"]), manifest["txid"], of


if __name__ == "__main__":
    main()
