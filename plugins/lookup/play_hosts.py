# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a play, and with -e help=true none: then the variables are shown instead."""

from __future__ import annotations

DOCUMENTATION = r"""
name: play_hosts
short_description: The hosts of a play, or none where help is asked for
description:
  - The pattern that is given. With C(-e help=true) a pattern without hosts, so that a run of however many plays ends
    with 0 and touches nothing, and once in a run the variables of O(help_of) are shown with type, unit, default and a
    sentence.
  - Nothing within a run can end all plays that follow without a failure, so each of them asks.
options:
  _terms:
    description: The pattern.
    type: str
    required: true
  help_of:
    description: Roles of this collection whose variables are shown.
    type: list
    elements: str
    default: []
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Scale the application
  hosts: "{{ lookup('abaci.infra.play_hosts', 'localhost', help_of=['scale', 'operation']) }}"
"""

RETURN = r"""
_raw:
  description: The pattern, or one that matches no host.
  type: list
  elements: str
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleLookupError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

ROLES = Path(__file__).resolve().parents[2] / "roles"
NOBODY = "all:!all"
UNITS = {"_timeout": "s", "_seconds": "s", "_hours": "h", "_mb": "MB"}
# Ansible asks for the hosts of one play several times.
_shown: set[tuple[str, ...]] = set()


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        asked = load_extra_vars(self._loader).get("help", False)
        try:
            wanted = boolean(asked)
        except TypeError:
            raise AnsibleLookupError(f"help is {asked}: set it to true or false.") from None
        if not wanted:
            return [str(term) for term in terms]
        roles = tuple(map(str, self.get_option("help_of")))
        if roles and roles not in _shown:
            _shown.add(roles)
            Display().display("\n".join(line for role in roles for line in described(role, specification(role))))
        return [NOBODY]


def specification(role: str) -> dict[str, Any]:
    """The entry ``main`` of a role's argument_specs."""
    found: dict[str, Any] = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    entry: dict[str, Any] = found["argument_specs"]["main"]
    return entry


def described(role: str, entry: dict[str, Any]) -> Iterator[str]:
    """Two lines for each variable that is not internal: name, type, unit and default, and what it is for."""
    yield f"\nVariables of the role {role} ({sentence(entry['short_description'])})"
    for name, option in entry["options"].items():
        what = sentence(option["description"])
        if what.startswith("Internal"):
            continue
        yield f"  {name}: {kind(name, option)}, {default(option)}"
        yield f"      {what}"


def kind(name: str, option: dict[str, Any]) -> str:
    """Such as ``int (s)``, ``list of str`` or ``present|absent``."""
    choices = "|".join(json.dumps(one) if isinstance(one, bool) else str(one) for one in option.get("choices") or [])
    inner = f" of {option['elements']}" if option.get("elements") else ""
    number = option.get("type") in ("int", "float")
    unit = next((unit for ending, unit in UNITS.items() if number and name.endswith(ending)), "")
    return f"{option.get('type', 'str')}{inner}{f' ({unit})' if unit else ''}{f' {choices}' if choices else ''}"


def default(option: dict[str, Any]) -> str:
    """What holds where nobody sets it."""
    if "default" in option:
        value = option["default"]
        # A template is shown as it stands.
        text = value if isinstance(value, str) and value else json.dumps(value)
        return f"default {text}"
    return "required" if option.get("required") else "no default"


def sentence(description: Any) -> str:
    """The first sentence of a description, without Ansible's marks."""
    first = description[0] if isinstance(description, list) else description
    plain = re.sub(r"\b[A-Z]\(([^)]*)\)", r"\1", " ".join(str(first).split()))
    return re.split(r"(?<=[a-z0-9)][.;]) (?=[A-Z])", plain, maxsplit=1)[0].rstrip(".")
