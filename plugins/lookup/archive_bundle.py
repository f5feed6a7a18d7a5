# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs in the archive's pod."""

from __future__ import annotations

DOCUMENTATION = r"""
name: archive_bundle
short_description: The archive's program as one file
description:
  - Packs the archive's code with the libraries C(h2), C(hpack) and C(hyperframe) of the controller's Python as a zipapp
    that any Python 3.11 or newer runs. The same files make the same bytes.
  - Fails where one of the libraries is missing, or a ConfigMap could not hold the file.
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Show which program it is
  ansible.builtin.debug:
    msg: "{{ lookup('abaci.infra.archive_bundle').digest }}"
"""

RETURN = r"""
_raw:
  description: One entry, with C(data), the file in base64, and C(digest), the SHA-256 of what is in it.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.abaci.infra.plugins.module_utils import archive_bundle


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        try:
            made = archive_bundle.pack(archive_bundle.collect())
        except (archive_bundle.BundleError, OSError) as exc:
            raise AnsibleLookupError(str(exc)) from exc
        return [{"data": made.data, "digest": made.digest}]
