"""Who runs this playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: operator
short_description: Who runs this playbook, as the lock of the operations names it
description: Returns C(<user>@<host>/<process>), the same for the whole run.
author: The abaci.infra authors
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ lookup('abaci.infra.operator') }}"
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
from typing import Any

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        # Tasks are templated in a worker: what lives as long as the run is the process above it.
        parent = multiprocessing.parent_process()
        process = parent.pid if parent is not None else os.getpid()
        return [f"{getpass.getuser()}@{socket.gethostname()}/{process}"]
