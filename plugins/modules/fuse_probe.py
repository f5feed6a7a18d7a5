#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount a FUSE file system of one empty directory, look at it through the kernel, and unmount it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fuse_probe
short_description: Prove by a real mount that FUSE works on a host
description:
  - Opens C(/dev/fuse), mounts a file system that it answers itself, asks the kernel for the attributes of its root,
    compares them with what it answered, and unmounts.
  - Needs root and nothing else; leaves nothing behind.
options:
  timeout:
    description: Seconds for each answer of the kernel.
    type: float
    default: 10
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is mounted.
    support: full
"""

EXAMPLES = r"""
- name: Prove that FUSE works
  abaci.infra.fuse_probe:
"""

RETURN = r"""
version:
  description: Protocol version of the kernel, such as C(7.45).
  returned: success, not in check mode
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import fuse_mount


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "float", "default": 10}}, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=False, msg="Would mount a FUSE file system and unmount it again.")
    try:
        version = fuse_mount.prove(module.params["timeout"])
    except OSError as exc:
        module.fail_json(
            msg=f"No FUSE file system can be mounted here ({exc}), and LiteFS needs one: check that /dev/fuse exists, "
            "that the fuse module is loaded and that this host, if it is a container, has the device and may mount."
        )
    module.exit_json(changed=False, version=version)


if __name__ == "__main__":
    main()
