#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change rows of the site's database by one statement: tried on a copy, then after a backup on the primary."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_write
short_description: Change rows of the site's database by one statement
description:
  - The statement is run on a fresh copy first. One that fails there, that takes too long, that does something else
    than change rows and tables of this database, or that makes its file smaller in WAL mode is refused.
  - Then a backup is taken into O(directory), and the statement is run in the application's container of the primary,
    where it is written whole or not at all. Foreign keys are kept. It needs C(sqlite3), C(python3) or C(node) with
    better-sqlite3 in the image.
  - The lock of the operations is renewed meanwhile, and nothing is written where O(holder) has it no more.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  sql:
    description: One statement.
    type: str
    required: true
  directory:
    description: Where the backup goes on the controller.
    type: path
    required: true
  encrypt_command:
    description: What encrypts the backup, as M(abaci.infra.litefs_backup) takes it.
    type: list
    elements: str
    default: []
  decrypt_command:
    description: What decrypts it, for the proof that it can be read.
    type: list
    elements: str
    default: []
  holder:
    description: Who holds the lock, see M(abaci.infra.operation_lock). Empty for nobody. In check mode nobody has to.
    type: str
    default: ""
  seconds:
    description: How long the statement may run.
    type: float
    default: 30
  timeout:
    description: Seconds that an export may take.
    type: int
    default: 600
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: The statement is run on the copy only.
    support: full
"""

EXAMPLES = r"""
- name: Remove what was never confirmed
  abaci.infra.database_write:
    kubeconfig: ~/.kube/k3s-config
    sql: DELETE FROM users WHERE confirmed_at IS NULL
    directory: ~/abaci-backups
"""

RETURN = r"""
rows:
  description: How many rows were changed, with those of triggers and foreign keys; in check mode on the copy.
  returned: success
  type: int
backup:
  description: The backup that was taken before it; empty in check mode.
  returned: success
  type: str
said:
  description: What was done, and the way back.
  returned: success
  type: list
  elements: str
"""

import shlex
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, sqlquery
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, export, holding
from ansible_collections.abaci.infra.plugins.module_utils.operations import situation as sit

MOUNT = "/litefs"
BUSY_S = 10  # for which it waits while somebody else writes
NODE = (
    "try { const D = require('better-sqlite3'), [file, sql, busy] = process.argv.slice(1);"
    "const d = new D(file, {timeout: +busy, fileMustExist: true}); d.pragma('foreign_keys = 1');"
    "const s = d.prepare(sql); s.reader ? s.all() : s.run();"
    "console.log(d.prepare('SELECT total_changes()').pluck().get()) }"
    "catch (error) { console.error(error.message); process.exit(1) }"
)
PYTHON = (
    "import sqlite3, sys\n"
    "d = sqlite3.connect(sys.argv[1], timeout=int(sys.argv[3]) / 1000, isolation_level=None)\n"
    "d.execute('PRAGMA foreign_keys = 1'); d.execute(sys.argv[2]).fetchall(); print(d.total_changes)"
)
# $1: database, $2: statement, $3: ms that it waits for others. The last line is the number of rows that changed. The
# blank is for a statement that begins with a comment, which sqlite3 would take for an option.
SCRIPT = f"""
if command -v sqlite3 >/dev/null 2>&1; then
  exec sqlite3 -batch -bail "$1" ".timeout $3" "PRAGMA foreign_keys = 1" " $2" "SELECT total_changes()"
elif command -v python3 >/dev/null 2>&1; then
  exec python3 -c {shlex.quote(PYTHON)} "$@"
elif command -v node >/dev/null 2>&1; then
  exec node -e {shlex.quote(NODE)} "$@"
fi
echo "the image has none of sqlite3, python3 and node: add one of them to it" >&2
exit 127
"""


class Refused(Exception):
    """Nothing was written; one sentence."""


def rehearsed(module: AnsibleModule, site: act.Site) -> int:
    """How many rows the statement changes in a fresh copy."""
    options = module.params
    with tempfile.TemporaryDirectory(prefix="abaci-query-") as folder:
        made = export.fresh(site, Path(folder), module.warn, reason="query", timeout=options["timeout"])
        copy = Path(made["path"])
        answer = sqlquery.run(copy, options["sql"], 1, options["seconds"], "query_sql", write=True)
        if made["journal_mode"] == "wal" and copy.stat().st_size < made["size"]:
            raise Refused(
                f"Nothing was written. query_sql makes the file of {site.database} smaller, since it has auto_vacuum, "
                "and in WAL mode that locks all writes for good: switch it off as docs/runbooks/writes-locked.md says, "
                "and run it again."
            )
    rows: int = answer.changed
    return rows


def primary(site: act.Site) -> str:
    """The pod that takes the statement."""
    found = sit.look(site.look())
    if isinstance(found, sit.Problem):
        raise Refused(f"Nothing was written. {found.sentence}")
    name: str = found.leader["name"]
    return name


def written(site: act.Site, pod: str, sql: str, seconds: float) -> int:
    """How many rows the statement changed in the primary's database."""
    command = ["sh", "-c", SCRIPT, "sh", f"{MOUNT}/{site.database}", sql, str(BUSY_S * 1000)]
    try:
        said = site.api.run(site.namespace, pod, "app", command, seconds + 2 * BUSY_S, called="The statement")
    except kube.KubeError as exc:
        raise Refused(
            f"{str(exc).rstrip('.')}: it was written whole or not at all, ask with playbooks/query.yml which."
        ) from exc
    return int(said.split()[-1])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "sql": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "encrypt_command": arguments.COMMAND,
            "decrypt_command": arguments.COMMAND,
            "holder": {"type": "str", "default": ""},
            "seconds": {"type": "float", "default": 30},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        site = act.connect(options)
        with holding.Holding(site, "" if module.check_mode else options["holder"]) as held:
            pod = primary(site)
            tried = rehearsed(module, site)
            if module.check_mode:
                said = [f"It would change {tried} rows: so many changed in a copy."]
                module.exit_json(changed=tried > 0, rows=tried, backup="", said=said)
            directory = Path(options["directory"])
            export.make_room(directory)
            crypt = {name: arguments.command(module, f"{name}_command") for name in ("encrypt", "decrypt")}
            more = {**crypt, "timeout": options["timeout"]}
            backup = export.fresh(site, directory, module.warn, reason="before query", **more)
            held.renew()
            rows = written(site, pod, options["sql"], options["seconds"])
            after = sit.look(site.look())
    except (Refused, sqlquery.Refused, export.Failed, kube.KubeError, act.NotDone) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"There is no place for the copy on the controller: {exc}.")
    at = f", with transaction {after.position.txid:016x} at the latest" if isinstance(after, sit.Situation) else ""
    said = [f"{rows} rows were changed on {pod}{at}."]
    if rows != tried:
        said.append(f"In the copy there were {tried}: the site wrote meanwhile.")
    back = shlex.quote(backup["path"])
    said.append(f"Before it a backup was taken: playbooks/restore.yml -e restore_from={back} goes back to it.")
    module.exit_json(changed=True, rows=rows, backup=backup["path"], said=said)


if __name__ == "__main__":
    main()
