#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the databases out of a host's LiteFS volumes, without Kubernetes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volumes_copy
short_description: Copy the application's database out of each volume folder of a host, without Kubernetes
description:
  - For a cluster whose API is gone. Reads only; LiteFS may run on the volumes. A copy is taken again until its checksum
    is the one that the newest transaction file names.
options:
  storage_dir:
    description: Where local-path keeps the volumes.
    type: path
    default: /var/lib/rancher/k3s/storage
  database:
    description: File name of the database.
    type: str
    default: sqlite.db
  directory:
    description: An empty folder on the host for the copies.
    type: path
    required: true
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode the volumes are only named.
    support: full
"""

EXAMPLES = r"""
- name: Copy what the host holds
  abaci.infra.volumes_copy:
    directory: /root/copies
  register: __copies
"""

RETURN = r"""
copies:
  description: >-
    For each volume its name, and cluster_id, txid, position_proven, page_size, journal_mode, pages, size, checksum,
    sha256 and path of the copy; or problem, a sentence.
  returned: success
  type: list
  elements: dict
said:
  description: The same for the user, in lines.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils.operations import folder, saying, sqlitefile


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "storage_dir": {"type": "path", "default": "/var/lib/rancher/k3s/storage"},
            "database": {"type": "str", "default": "sqlite.db"},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    database, directory = module.params["database"], Path(module.params["directory"])
    copies: list[dict[str, Any]] = []
    for volume in folder.found(Path(module.params["storage_dir"]), database):
        target = directory / f"{volume.name}.sqlite"
        try:
            made: dict[str, Any] = (
                {} if module.check_mode else {**folder.copy(volume, database, target), "path": str(target)}
            )
        except (sqlitefile.BadFile, OSError) as exc:
            made = {"problem": f"The database in {volume} {exc}."}
        copies.append({"volume": volume.name, **made})
    whole = [saying.volume(one) for one in copies if "path" in one]
    said = whole + [one["problem"] for one in copies if "problem" in one]
    module.exit_json(changed=bool(copies), copies=copies, said=said or ["No volume with the database is here."])


if __name__ == "__main__":
    main()
