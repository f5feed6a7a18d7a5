# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of a release's one-file manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release_manifest
short_description: The objects of the one-file manifest of a release, such as cert-manager's
description:
  - Reads the file on the controller and returns its objects in the order in which they can be applied (namespaces and
    CRDs first), with the label C(app.kubernetes.io/managed-by).
  - The file has to be of the version that is asked for.
options:
  _terms:
    description: Paths of the files.
    type: list
    elements: path
    required: true
  version:
    description: The version that the Deployments have to carry, as C(v1.21.1).
    type: str
    required: true
  kinds:
    description: Kinds that the manifest has to define.
    type: list
    elements: str
    default: []
  namespace_labels:
    description: Further labels of its namespaces.
    type: dict
    default: {}
  removal:
    description:
      - V(keep_data) or V(all) to have the objects in the order in which they are removed. With V(keep_data) CRDs, which
        take every object of their kinds along, and namespaces are left out.
    type: str
    choices: ["", keep_data, all]
    default: ""
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Ensure cert-manager
  abaci.infra.server_side_apply:
    objects: "{{ query('abaci.infra.release_manifest', '/srv/mirror/cert-manager.yaml', version='v1.21.1') }}"
"""

RETURN = r"""
_raw:
  description: The objects.
  type: list
  elements: dict
"""

import os
from typing import Any

import yaml
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.abaci.infra.plugins.module_utils import release_manifest as rules
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Object]:
        self.set_options(var_options=variables, direct=kwargs)
        found: list[Object] = []
        for path in terms:
            documents = read(os.path.expanduser(str(path)), str(self.get_option("version")), self.get_option("kinds"))
            objects = rules.prepared(documents, self.get_option("namespace_labels"))
            removal = self.get_option("removal")
            found += rules.removal(objects, removal == "all") if removal else rules.ordered(objects)
        return found


def read(path: str, version: str, kinds: list[str]) -> list[Object]:
    """The documents of the file. Raises AnsibleLookupError where it is not the manifest of that version."""
    try:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.load_all(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise AnsibleLookupError(f"The manifest {path} cannot be read: {' '.join(str(exc).split())}.") from exc
    problem: str = rules.version_error(documents, version, kinds)
    if problem:
        raise AnsibleLookupError(f"The file {path} is not the manifest that was asked for: {problem}.")
    return documents
