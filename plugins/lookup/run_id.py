# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs this playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: run_id
short_description: Who runs this playbook, as the lock of the operations names it
description:
  - Returns C(<user>@<host>+<machine>/<process>), the same for the whole run.
  - C(machine) is short for the machine, its boot and its PID namespace. Hosts share names, and a process's number says
    something only where all three are the same.
author: The abaci.infra authors (@abaci-infra)
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ lookup('abaci.infra.run_id') }}"
"""

RETURN = r"""
_raw:
  description: The name.
  type: list
  elements: str
"""

import getpass
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.abaci.infra.plugins.module_utils.operations import lock


def machine() -> tuple[str, ...]:
    """Machine id, boot id and PID namespace, each empty where it cannot be known."""
    found = []
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            found.append(Path(path).read_text().strip())
        except OSError:
            found.append("")
    try:
        return (*found, os.readlink("/proc/self/ns/pid"))
    except OSError:
        return (*found, "")


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        # Tasks are templated in a worker: what lives as long as the run is the process above it.
        parent = multiprocessing.parent_process()
        process = parent.pid if parent is not None else os.getpid()
        return [lock.holder(getpass.getuser(), socket.gethostname(), process, machine())]
