# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of the operations on the application's data."""

from __future__ import annotations

DOCUMENTATION = r"""
name: operations
short_description: The names of the operations on the application's data
description: From the one table of them, C(plugins/module_utils/operations/__init__.py).
author: The abaci.infra authors (@abaci-infra)
options: {}
"""

EXAMPLES = r"""
- name: Show the operations
  ansible.builtin.debug:
    msg: "{{ query('abaci.infra.operations') }}"
"""

RETURN = r"""
_raw:
  description: The names, in the order of the table.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return list(OPERATIONS)
