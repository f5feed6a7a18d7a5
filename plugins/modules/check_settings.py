#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Check the variables of roles of this collection before anything is changed
description:
  - Refuses variables whose names begin with a role's and that no entry of its C(meta/argument_specs.yml) knows, values
    of other types, and what C(plugins/module_utils/rules) says of their values. Fails with one sentence for each.
  - Runs on the controller and reads nothing but files that are named in variables.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
options:
  roles:
    description: Names of roles.
    type: list
    elements: str
    required: true
  types_only:
    description:
      - Whether only types and choices are checked, as before a role that checks the rest by itself. Ansible's own check
        of a role's arguments says the same beside the whole specification.
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Check the values
  abaci.infra.check_settings:
    roles: [traefik, app]
"""

RETURN = r"""
errors:
  description: What is wrong, in sentences.
  type: list
  elements: str
  returned: always
"""

# An action plugin: plugins/action/check_settings.py.
