#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe a file that is to be restored."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_file
short_description: Say what a backup or a plain SQLite file on the controller is, and whether it is sound
description:
  - Checks page size, journal mode, whole pages and integrity, computes LiteFS's checksum of the file and the one that
    an import makes of it, and compares it with the manifest beside it, if there is one.
  - With O(path) a directory, the newest backup in it that belongs to this application is taken; of the same namespace,
    StatefulSet, database and recorded cluster, verified, whole, and not stamped later than now by the API's clock.
options:
  path:
    description: The file, or a directory with backups.
    type: path
    required: true
  kubeconfig:
    description: Path of the kubeconfig file; needed for a directory, as are the next three.
    type: path
  namespace:
    description: Namespace of the application.
    type: str
  name:
    description: Name of the StatefulSet.
    type: str
  database:
    description: File name of the database.
    type: str
  decrypt_command:
    description: A command that decrypts its input to its output, for an encrypted backup. It is never shown.
    type: list
    elements: str
    default: []
  work:
    description: A directory for the decrypted file.
    type: path
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is changed but O(work).
    support: full
"""

EXAMPLES = r"""
- name: Read the newest backup
  abaci.infra.backup_file:
    path: ~/abaci-backups
    kubeconfig: ~/.kube/k3s-config
    namespace: abaci
    name: abaci-app
    database: sqlite.db
  register: __file
"""

RETURN = r"""
file:
  description: path, verified, problem, page_size, journal_mode, pages, checksum, imported_checksum, sha256,
    tables_sha256, user_version, and from the manifest cluster_id, txid, time, namespace, statefulset and database.
  returned: success
  type: dict
taken:
  description: Path of the backup or file that was read, of a directory the one that was chosen.
  returned: success
  type: str
said:
  description: Of a directory, which backup was taken, and which newer ones were passed over and why.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import backup, export, retention


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "kubeconfig": {"type": "path"},
            "namespace": {"type": "str"},
            "name": {"type": "str"},
            "database": {"type": "str"},
            "decrypt_command": arguments.COMMAND,
            "work": {"type": "path"},
        },
        required_together=[("kubeconfig", "namespace", "name", "database")],
        supports_check_mode=True,
    )
    decrypt = arguments.command(module, "decrypt_command")
    path = Path(module.params["path"])
    said: list[str] = []
    try:
        if path.is_dir():
            path, said = _newest(module, path)
        described = export.describe(path, decrypt, Path(module.params["work"] or module.tmpdir))
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"{path} on the controller cannot be read: {exc}.")
    module.exit_json(changed=False, file=described, said=said, taken=str(path))


def _newest(module: AnsibleModule, folder: Path) -> tuple[Path, list[str]]:
    """The newest backup of this application in a folder, and what is to be said of the choice."""
    options: dict[str, Any] = module.params
    if not options["kubeconfig"]:
        module.fail_json(msg=f"{folder} is a directory, and nothing says of which application: name a file.")
    api = kube.connect(options["kubeconfig"])
    record = api.get("v1", "ConfigMap", f"{options['name']}-litefs-identity", options["namespace"])
    cluster_id = ((record or {}).get("data") or {}).get("clusterID") or None
    owner = {key: options[key] for key in ("namespace", "database")} | {"statefulset": options["name"]}
    found, passed = backup.newest(retention.read(folder), owner, cluster_id, api.server_time())
    whose = f"StatefulSet {options['namespace']}/{options['name']}, database {options['database']}"
    if cluster_id:
        whose += f", cluster {cluster_id}"
    if found is None:
        why = f" Passed over: {'; '.join(passed[:5])}." if passed else ""
        module.fail_json(msg=f"The directory {folder} on the controller holds no backup of {whose}: name a file.{why}")
    taken = f"{found['file']} of {found['time']} was taken, the newest of {whose}."
    return Path(str(found["path"])), [taken, *(f"Passed over: {line}." for line in passed)]


if __name__ == "__main__":
    main()
