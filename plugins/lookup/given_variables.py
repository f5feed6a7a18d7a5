# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of the variables that were given on the command line."""

from __future__ import annotations

DOCUMENTATION = r"""
name: given_variables
short_description: The names of the variables that were given with -e
description: So that a playbook can refuse by name a variable that it does not know, above all a misspelt one.
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Check that all variables are known
  ansible.builtin.assert:
    that: query('abaci.infra.given_variables') | difference(['scale_replicas']) | length == 0
"""

RETURN = r"""
_raw:
  description: The names.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return sorted(str(name) for name in load_extra_vars(self._loader))
