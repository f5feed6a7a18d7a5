#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a copy the datastore of the server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_restore
short_description: Put a copy of k3s's datastore, with its token, CAs and keys, where k3s looks for it
description:
  - k3s has to be stopped, or not installed yet. The present server folder is put aside under another name, and nothing
    is removed.
  - The revision is taken ahead of everything that watchers of the API have seen, so that they list anew.
options:
  archive:
    description: The plain archive on this host.
    type: path
    required: true
  data_dir:
    description: k3s's data directory.
    type: path
    default: /var/lib/rancher/k3s
  password_file:
    description: Where the password of the server's own node goes.
    type: path
    default: /etc/rancher/node/password
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is changed in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Restore the datastore
  abaci.infra.cluster_restore:
    archive: /root/copy/cluster.tar.gz
"""

RETURN = r"""
aside:
  description: Where what was there before is now.
  returned: success
  type: list
  elements: str
revision:
  description: The revision from which the API goes on.
  returned: success
  type: int
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import clock, datastore


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            # A path, no password.
            "password_file": {"type": "path", "default": "/etc/rancher/node/password", "no_log": False},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, aside=[], revision=0)
    stamp = clock.compact(clock.now())
    archive, data_dir, password = (Path(module.params[name]) for name in ("archive", "data_dir", "password_file"))
    try:
        done = datastore.put_back(archive, data_dir, password, stamp)
    except (datastore.Bad, OSError) as exc:
        module.fail_json(msg=f"The datastore was not put back. {exc}")
    module.exit_json(changed=True, aside=done["aside"], revision=done["revision"])


if __name__ == "__main__":
    main()
