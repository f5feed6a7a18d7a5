#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a copied database on the controller as a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_keep
short_description: Verify a copied database on the controller, and keep it as a backup with its manifest
description:
  - For a copy that M(abaci.infra.volumes_copy) made on a host. C(restore.yml) takes what is kept.
options:
  path:
    description: The copy, in a folder of its own. It is moved.
    type: path
    required: true
  directory:
    description: Where backups go. It is made with mode 0700.
    type: path
    required: true
  manifest:
    description: What is known of it, such as database, statefulset, pod, reason, volume, cluster_id, txid and sha256.
    type: dict
    required: true
  encrypt_command:
    description: As for M(abaci.infra.litefs_backup).
    type: list
    elements: str
    default: []
  decrypt_command:
    description: As for M(abaci.infra.litefs_backup).
    type: list
    elements: str
    default: []
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is kept in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Write it into the directory of backups
  abaci.infra.backup_keep:
    path: ~/copy/sqlite.db
    directory: ~/abaci-backups
    manifest: {database: sqlite.db, pod: volume-pvc-1, reason: volume_export, txid: 000000000000002a}
"""

RETURN = r"""
manifest:
  description: What was written, with the paths of the file and its manifest.
  returned: success
  type: dict
"""

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, clock
from ansible_collections.abaci.infra.plugins.module_utils.operations import backup, export, keeping, sqlitefile


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "directory": {"type": "path", "required": True},
            "manifest": {"type": "dict", "required": True},
            "encrypt_command": arguments.COMMAND,
            "decrypt_command": arguments.COMMAND,
        },
        supports_check_mode=True,
    )
    encrypt, decrypt = (arguments.command(module, option) for option in ("encrypt_command", "decrypt_command"))
    path, directory = Path(module.params["path"]), Path(module.params["directory"])
    about = {key: value for key, value in module.params["manifest"].items() if key != "path"}
    if module.check_mode:
        module.exit_json(changed=True, manifest={})
    try:
        export.make_room(directory)
        facts = sqlitefile.verify(path)
        if facts["sha256"] != about.get("sha256"):
            module.fail_json(msg=f"{path} is not what was copied on the host: its SHA-256 is another; run again.")
        stamp = clock.now()
        stem = backup.stem(str(about["database"]), stamp, str(about["pod"]), str(about["txid"] or "unknown"))
        with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as beside:
            made = keeping.put(
                path,
                directory,
                stem,
                ".sqlite",
                {"time": stamp, **about, **facts},
                encrypt,
                decrypt,
                beside=Path(beside),
            )
    except sqlitefile.BadFile as exc:
        module.fail_json(msg=f"{path} {exc}.")
    except (keeping.Failed, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=True, manifest=made)


if __name__ == "__main__":
    main()
