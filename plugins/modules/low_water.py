#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raise the low-water mark: write down how far the data was seen, so that no older copy becomes primary."""

from __future__ import annotations

DOCUMENTATION = r"""
module: low_water
short_description: Write into the identity record how far the site's data was seen
description:
  - Looks at the running pods and raises C(lowWaterTXID) (16 hex digits) and C(lowWaterTime) of the ConfigMap
    C(<name>-litefs-identity) to the lowest transaction that the running primary and the answering replicas of the
    recorded cluster have. Below that the guard lets no primary start, also where no other pod answers.
  - It goes only up. It does nothing where no cluster is recorded or its primary does not run.
  - An observation, like the time in a Lease, and no change of the site, so RV(ignore:changed) is always false.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
attributes:
  check_mode:
    description: In check mode nothing is written.
    support: full
"""

EXAMPLES = r"""
- name: Record how far the data was seen
  abaci.infra.low_water:
    kubeconfig: ~/.kube/k3s-config
"""

RETURN = r"""
raised:
  description: Whether the mark rose.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act


def main() -> None:
    module = AnsibleModule(argument_spec=dict(arguments.DATABASE), supports_check_mode=True)
    try:
        rose = not module.check_mode and act.connect(module.params).raise_low_water()
    except (act.NotDone, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, raised=rose)


if __name__ == "__main__":
    main()
