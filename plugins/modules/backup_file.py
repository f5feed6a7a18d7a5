#!/usr/bin/python
"""Describe a file that is to be restored."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_file
short_description: Say what a backup or a plain SQLite file on the controller is, and whether it is sound
description:
  - Checks page size, journal mode, whole pages and integrity, computes LiteFS's checksum of the file and the one that
    an import makes of it, and compares it with the manifest beside it, if there is one.
  - With O(path) a directory, its newest verified plain backup is taken.
options:
  path:
    description: The file, or a directory with backups.
    type: path
    required: true
  decrypt_command:
    description: A command that decrypts its input to its output, for an encrypted backup. It is never shown.
    type: list
    elements: str
    default: []
  work:
    description: A directory for the decrypted file.
    type: path
author: The abaci.infra authors
attributes:
  check_mode:
    description: Nothing is changed but O(work).
    support: full
"""

EXAMPLES = r"""
- name: Look at the file
  abaci.infra.backup_file:
    path: ~/abaci-backups
  register: __file
"""

RETURN = r"""
file:
  description: path, verified, problem, page_size, journal_mode, pages, checksum, imported_checksum, sha256, cluster_id
    and txid (from the manifest).
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments
from ansible_collections.abaci.infra.plugins.module_utils.operations import export, retention


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "decrypt_command": arguments.COMMAND,
            "work": {"type": "path"},
        },
        supports_check_mode=True,
    )
    decrypt = arguments.command(module, "decrypt_command")
    path = Path(module.params["path"])
    try:
        if path.is_dir():
            newest = sorted(
                (one for one in retention.read(path) if one.get("reason") == retention.SCHEDULED),
                key=lambda one: str(one["time"]),
            )
            if not newest:
                module.fail_json(msg=f"The directory {path} on the controller holds no backup: name a file.")
            path = Path(newest[-1]["path"])
        described = export.describe(path, decrypt, Path(module.params["work"] or module.tmpdir))
    except OSError as exc:
        module.fail_json(msg=f"{path} on the controller cannot be read: {exc}.")
    module.exit_json(changed=False, file=described)


if __name__ == "__main__":
    main()
