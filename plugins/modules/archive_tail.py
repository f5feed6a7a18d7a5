#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what the archive has last."""

from __future__ import annotations

DOCUMENTATION = r"""
module: archive_tail
short_description: Say which transactions the archive has last
description:
  - For M(abaci.infra.operation). An archive that is away fails nothing, RV(archive.problem) says why; where there is
    none RV(archive) is empty.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  timeout:
    description: Seconds that the archive may take to answer.
    type: int
    default: 30
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Nothing is changed, so it is the same.
    support: full
"""

EXAMPLES = r"""
- name: Read what the archive has
  abaci.infra.archive_tail:
    kubeconfig: ~/.kube/k3s-config
  register: __archive
"""

RETURN = r"""
archive:
  description: cluster_id, history, txid and time of the last transaction, followed, and the tail (TXID and time).
  returned: success
  type: dict
  contains:
    problem:
      description: Why it could not be asked, in a sentence; then there is nothing else.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, from_archive


def main() -> None:
    module = AnsibleModule(
        argument_spec={**arguments.DATABASE, "timeout": {"type": "int", "default": 30}}, supports_check_mode=True
    )
    try:
        site = act.connect(module.params)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, archive=dict(from_archive.tail(site, module.params["timeout"])))


if __name__ == "__main__":
    main()
