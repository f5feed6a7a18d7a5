#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Download one file with its checksum, through a proxy whose password nobody gets to see."""

from __future__ import annotations

DOCUMENTATION = r"""
module: download
short_description: Download a file with its SHA-256, with environment variables that are secret
description:
  - Puts the file in place only when it is whole and has the checksum; what has it already is left alone.
  - Unlike with the keyword C(environment) of a task, the variables stand in no command line and in no output.
options:
  url:
    description: Address of the file, http or https.
    type: str
    required: true
  dest:
    description: Where it goes on this host.
    type: path
    required: true
  sha256:
    description: Its checksum in hexadecimal digits.
    type: str
    required: true
  mode:
    description: Its mode.
    type: str
    required: true
  timeout:
    description: Seconds to wait for the server at a time.
    type: int
    default: 120
  environment:
    description: Environment variables for the download, such as C(HTTPS_PROXY).
    type: dict
    default: {}
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Says whether the file would be downloaded.
    support: full
"""

EXAMPLES = r"""
- name: Download k3s
  abaci.infra.download:
    url: https://example.org/k3s
    dest: /usr/local/bin/k3s
    sha256: 835873f37245fc615f547a2fe2af9402a347875f13fa64a1f136de644955ea3f
    mode: "0755"
    environment: {HTTPS_PROXY: "http://user:password@proxy.example.org:3128"}
"""

RETURN = r"""
"""

import os
import tempfile
from http.client import HTTPException
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.abaci.infra.plugins.module_utils import telling

BLOCK = 1 << 20


def secrets(value: str) -> set[str]:
    """Return what an error may repeat of a proxy's address and nobody may see: all of it, and its password."""
    try:
        password = urlsplit(value).password
    except ValueError:
        password = None
    return {value, password, unquote(password)} if password else set()


def download(module: AnsibleModule, url: str, timeout: int, wanted: str) -> str:
    """Return the path of the whole file; ends the module where it cannot be had."""
    answer, info = fetch_url(module, url, timeout=timeout)
    if info["status"] != 200:
        module.fail_json(msg=str(info["msg"]).rstrip("."))
    size = int(info.get("content-length") or 0)
    name = PurePosixPath(urlsplit(url).path).name
    handle, path = tempfile.mkstemp(dir=str(module.tmpdir))
    try:
        with os.fdopen(handle, "wb") as file:
            reading = telling.Reading(answer, f"Download of {name}", size)
            while block := reading.read(BLOCK):
                file.write(block)
    except (OSError, HTTPException) as exc:
        module.fail_json(msg=f"the download broke off: {exc}")
    if (found := module.sha256(path)) != wanted:
        module.fail_json(msg=f"it has the SHA-256 {found}")
    return path


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
            "environment": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    # Not part of the answer; no_log would rather hide a value such as 1 wherever it stands in it.
    environment = {name: str(value) for name, value in asked.pop("environment").items()}
    module.no_log_values.clear()
    module.no_log_values.update(*(secrets(value) for value in environment.values()))
    dest = asked["dest"]
    changed = module.sha256(dest) != asked["sha256"]
    if changed and not module.check_mode:
        os.environ.update(environment)
        module.atomic_move(download(module, asked["url"], asked["timeout"], asked["sha256"]), dest)
    module.exit_json(changed=module.set_mode_if_different(dest, asked["mode"], changed))


if __name__ == "__main__":
    main()
