#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a copy of k3s's datastore on the server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_backup
short_description: Copy k3s's datastore on SQLite, with its token, CAs and keys, into one archive on the server
description:
  - The database is taken online by SQLite's own backup in one read transaction, and its integrity is checked.
  - The archive holds every secret of the cluster in plain; it is written with mode 0600.
options:
  data_dir:
    description: k3s's data directory.
    type: path
    default: /var/lib/rancher/k3s
  password_file:
    description: The password of the server's own node.
    type: path
    default: /etc/rancher/node/password
  host:
    description: Name of the server, for the archive's note.
    type: str
    required: true
  path:
    description: The archive to write, in a folder of its own.
    type: path
    required: true
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode it is only said whether there is a datastore that can be copied.
    support: full
"""

EXAMPLES = r"""
- name: Copy the datastore
  abaci.infra.cluster_backup:
    host: server-0
    path: /root/copy/cluster.tar.gz
"""

RETURN = r"""
note:
  description: time, host, k3s, ca_hash, rows, revision and files of the copy. Empty in check mode.
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import clock, datastore


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            # A path, no password.
            "password_file": {"type": "path", "default": "/etc/rancher/node/password", "no_log": False},
            "host": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    data_dir, host = Path(module.params["data_dir"]), module.params["host"]
    stamp = clock.now()
    try:
        datastore.check_kind(data_dir, host)
        note = {}
        if not module.check_mode:
            password = Path(module.params["password_file"])
            note = datastore.make(data_dir, password, Path(module.params["path"]), host, stamp)
    except (datastore.Bad, OSError) as exc:
        module.fail_json(msg=f"No copy of the cluster's datastore was made on {host}. {exc}")
    module.exit_json(changed=True, note=note)


if __name__ == "__main__":
    main()
