# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of all options of the collection's roles."""

from __future__ import annotations

DOCUMENTATION = r"""
name: role_options
short_description: The names of all options of the roles of this collection
description: Read from their C(meta/argument_specs.yml), so that a playbook can refuse by name what no role knows.
options:
  _terms:
    description: Names of roles to leave out.
    type: list
    elements: str
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Check that all variables are known
  ansible.builtin.assert:
    that: query('abaci.infra.given_variables') | difference(query('abaci.infra.role_options')) | length == 0
"""

RETURN = r"""
_raw:
  description: The names, sorted.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase

ROLES = Path(__file__).resolve().parents[2] / "roles"


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        names: set[str] = set()
        for path in ROLES.glob("*/meta/argument_specs.yml"):
            if path.parent.parent.name not in terms:
                for entry in (yaml.safe_load(path.read_text()) or {}).get("argument_specs", {}).values():
                    names.update(entry.get("options") or {})
        return sorted(names)
