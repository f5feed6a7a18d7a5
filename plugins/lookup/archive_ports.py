# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports of the archive's pod."""

from __future__ import annotations

DOCUMENTATION = r"""
name: archive_ports
short_description: The ports at which the archive answers
description:
  - Returns those that other pods may reach, as the archive's program has them.
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Show where LiteFS and the guard ask it
  ansible.builtin.debug:
    msg: "{{ lookup('abaci.infra.archive_ports').feed }}"
"""

RETURN = r"""
_raw:
  description: One entry, with C(feed), which the application's pods ask, and C(metrics).
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.abaci.infra.plugins.module_utils.archive.settings import Settings


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, int]]:
        return [{"feed": Settings.feed_port, "metrics": Settings.metrics_port}]
