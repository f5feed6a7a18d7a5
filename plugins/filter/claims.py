# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision about the role storage's claims as a filter; it lives in module_utils/claims.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.abaci.infra.plugins.module_utils import claims


class FilterModule:
    """Filters of the role storage."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"storage_plan": claims.storage_plan}
