#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what the archive has: transactions by time, histories, and where the data was lost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: archive_history
short_description: Say what the archive has, and find where the data was lost
description:
  - Lists histories with their gaps and bases, and transactions by time.
  - With O(lost) it finds the last transaction with which the answer to a question became smaller, by rebuilding and
    asking copies; their number grows with the logarithm of the number of transactions.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
  - abaci.infra.arguments.archive
options:
  by:
    description: Of what there is a line.
    type: str
    choices: [transaction, minute, hour, day]
    default: transaction
  since:
    description: The time from which, with its zone, or how long ago. Empty for the oldest.
    type: str
    default: ""
  until:
    description: The time until which. Empty for now.
    type: str
    default: ""
  limit:
    description: How many lines there are at most; the newest.
    type: int
    default: 50
  shrank:
    description: Whether to say where the database lost most pages.
    type: bool
    default: false
  lost:
    description: SQL that answers with one number, such as SELECT count(*) FROM users, or with no row.
    type: str
    default: ""
  seconds:
    description: How long that statement may run on each copy.
    type: float
    default: 30
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is changed, so it is the same.
    support: full
"""

EXAMPLES = r"""
- name: Read where the users went
  abaci.infra.archive_history:
    kubeconfig: ~/.kube/k3s-config
    since: 2h ago
    lost: SELECT count(*) FROM users
"""

RETURN = r"""
said:
  description: All of it in lines.
  returned: success
  type: list
  elements: str
fall:
  description: With O(lost), the transactions C(before) and C(after) the answer became smaller; empty where it did not.
  returned: success
  type: dict
rebuilt:
  description: How many databases were rebuilt for that.
  returned: success
  type: int
"""

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, clock, history, kube, moments, sqlquery
from ansible_collections.abaci.infra.plugins.module_utils.archive_client import Archive, ArchiveError
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, from_archive

if TYPE_CHECKING:
    from ansible_collections.abaci.infra.plugins.module_utils.archive.status import HistoryDoc, TransactionDoc


@dataclass
class Copies:
    """The answers of copies of one history."""

    archive: Archive
    one: HistoryDoc
    sql: str
    seconds: float
    folder: Path
    times: dict[int, str] = field(default_factory=dict)
    problem: sqlquery.Refused | None = None
    answered: bool = False

    def __call__(self, txid: int) -> float:
        asked = {"cluster": self.one["cluster"], "history": self.one["history"], "txid": f"{txid:016x}"}
        path = self.folder / "database"
        found, _facts = from_archive.rebuild(self.archive, asked, path)
        self.times[txid] = found.time
        try:
            value = sqlquery.number(sqlquery.run(path, self.sql, 1, self.seconds, "history_lost"))
        except sqlquery.Missing as exc:  # a table that is not there yet, or not any more
            self.problem = exc
            return float("-inf")
        self.answered = True
        return float("-inf") if value is None else value


def bound(site: act.Site, text: str, variable: str) -> str:
    """A time as the archive is asked for it; "" for none."""
    if not text:
        return ""
    now = clock.moment(site.api.server_time())
    if now is None:
        raise ArchiveError("The API server does not say what time it is.")
    moment = moments.parse(text, now, variable)
    if moment.time is None:
        raise moments.Refused(f"{variable} {text} is a TXID: give a time with its zone, or how long ago.")
    return str(moment.time.isoformat())


def listed(archive: Archive, one: HistoryDoc, window: tuple[str, str]) -> Iterator[TransactionDoc]:
    """The transactions of one history in a time."""
    return (line for line in archive.transactions(one["cluster"], *window) if line["history"] == one["history"])


def lost(
    archive: Archive, one: HistoryDoc, window: tuple[str, str], sql: str, seconds: float
) -> tuple[moments.Fall | None, dict[int, str], int]:
    """The fall, the times of what was rebuilt, and among how many transactions."""
    places = moments.spans(one)
    txids = array("Q")
    for line in listed(archive, one, window):
        txid = int(line["txid"], 16)
        if any(first <= txid <= last for first, last in places):
            txids.append(txid)
    with tempfile.TemporaryDirectory(prefix="abaci-history-") as folder:
        copies = Copies(archive, one, sql, seconds, Path(folder))
        found = moments.fall(txids, copies)
    if copies.problem and not copies.answered:
        raise copies.problem
    return found, copies.times, len(txids)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            **arguments.ARCHIVE,
            "by": {"type": "str", "choices": ["transaction", "minute", "hour", "day"], "default": "transaction"},
            "since": {"type": "str", "default": ""},
            "until": {"type": "str", "default": ""},
            "limit": {"type": "int", "default": 50},
            "shrank": {"type": "bool", "default": False},
            "lost": {"type": "str", "default": ""},
            "seconds": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    fall: dict[str, str] = {}
    times: dict[int, str] = {}
    try:
        site = act.connect(options)
        archive = from_archive.archive_of(site, options["timeout"])
        window = bound(site, options["since"], "history_since"), bound(site, options["until"], "history_until")
        histories = archive.histories()
        said = history.described(histories)
        one = moments.newest(histories, options["history"])
        if one is not None and options["shrank"]:
            said += history.shrank(moments.shrinks(listed(archive, one, window), min(options["limit"], 10)))
        if one is not None and options["lost"]:
            found, times, count = lost(archive, one, window, options["lost"], options["seconds"])
            newest = one["history"] == histories[-1]["history"]
            said += history.lost(found, times, count, newest, one["history"])
            fall = {"before": f"{found.before:016x}", "after": f"{found.after:016x}"} if found else {}
        if one is not None and not options["shrank"] and not options["lost"]:
            said += history.listed(listed(archive, one, window), options["by"], options["limit"])
    except (moments.Refused, sqlquery.Refused, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"There is no place for a copy on the controller: {exc}.")
    module.exit_json(changed=False, said=said, fall=fall, rebuilt=len(times))


if __name__ == "__main__":
    main()
