#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a copy of a cluster's datastore on the controller, or open one that is kept there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_backup_file
short_description: Prove a copy of a cluster's datastore, and keep or describe it
description:
  - With O(keep_in) the plain archive O(path) is opened and proven, encrypted, read back where O(decrypt_command) is
    given, and moved there with a manifest beside it. Old ones are removed as O(keep) says.
  - Without it O(path), a kept copy or a folder whose newest copy is taken, is decrypted into O(work) and proven.
options:
  path:
    description: The archive.
    type: path
    required: true
  keep_in:
    description: A folder on the controller; it is made with mode 0700.
    type: path
  keep:
    description: How many copies of this cluster stay; 0 keeps all.
    type: int
    default: 0
  work:
    description: An empty folder for what is decrypted. The plain archive stays there; what is unpacked does not.
    type: path
    required: true
  encrypt_command:
    description: A command that encrypts its input to its output. Empty for none. It is never shown.
    type: list
    elements: str
    default: []
  decrypt_command:
    description: Its counterpart. It is never shown.
    type: list
    elements: str
    default: []
  restore:
    description: The server whose datastore the copy is to become. Fails with the reasons where it may not.
    type: dict
    suboptions:
      server:
        description: Its name in the inventory.
        type: str
        required: true
      reports:
        description: What M(abaci.infra.host_probe) saw of k3s on each host; one that is away has none.
        type: list
        elements: dict
        required: true
      version:
        description: The version of k3s that follows, which must be no older than the copy's.
        type: str
        required: true
      accepted:
        description: The revision after which the loss is accepted.
        type: str
        default: ""
  variables:
    description: How the names of the user's variables begin, for what is said.
    type: str
    default: cluster_backup
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Describing changes nothing but O(work).
    support: full
"""

EXAMPLES = r"""
- name: Read the newest copy
  abaci.infra.cluster_backup_file:
    path: ~/abaci-cluster-backups
    work: /root/work
  register: __copy
"""

RETURN = r"""
copied:
  description: >-
    time, host, k3s, ca_hash, rows, revision and sha256 of the plain archive; path of the kept copy and plain, that of
    the plain archive in O(work); encrypted and read_back of one that is kept now.
  returned: success
  type: dict
in_place:
  description: Whether the copy is the server's datastore already, and nothing was written to it since.
  returned: with O(restore)
  type: bool
record:
  description: What is noted on the server of a copy that is kept now, time (seconds since the epoch) and place.
  returned: with O(keep_in)
  type: dict
removed:
  description: Old copies that were removed.
  returned: success
  type: list
  elements: str
said:
  description: The same for the user, in lines.
  returned: with O(keep_in)
  type: list
  elements: str
"""

import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, datastore, k3s
from ansible_collections.abaci.infra.plugins.module_utils.operations import keeping, retention, saying


def prove(archive: Path, work: Path) -> dict[str, Any]:
    """The note of a plain archive, which was opened and proven; nothing that was unpacked stays."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        note = datastore.unpack(archive, Path(folder))
    return {key: value for key, value in note.items() if key != "files"}


def opened(path: Path, decrypt: list[str], work: Path, variables: str) -> dict[str, Any]:
    """Describe a kept copy, or the newest in a folder. Raises datastore.Bad and OSError."""
    if path.is_dir():
        kept = [one for one in retention.read(path) if one.get("reason") == datastore.REASON and one["whole"]]
        if not kept:
            raise datastore.Bad(f"The folder {path} on the controller holds no copy of a cluster's datastore.")
        path = Path(max(kept, key=lambda one: str(one["time"]))["path"])
    if not path.is_file():
        raise datastore.Bad(f"There is no file {path} on the controller.")
    plain = path
    if path.name.endswith(".encrypted"):
        if not decrypt:
            raise datastore.Bad(f"{path} is encrypted: set {variables}_decrypt_command.")
        plain = work / "plain.tar.gz"
        plain.touch(mode=0o600)
        problem = keeping.through(decrypt, path, plain)
        if problem:
            raise datastore.Bad(f"{variables}_decrypt_command ({decrypt[0]}) failed on {path} ({problem}).")
    note = prove(plain, work)
    return {**note, "path": str(path), "plain": str(plain), "sha256": datastore.digest(plain)}


def restorable(copied: Any, asked: Mapping[str, Any]) -> bool:
    """Whether the copy is the server's datastore already; raises datastore.Bad where it may not become it.

    ``asked``: the option ``restore``.
    """
    hosts = {
        report["name"]: {
            **report["probe"]["k3s"],
            "name": report["name"],
            "kind": report["probe"]["k3s"]["datastore"],
        }
        for report in asked["reports"]
        if "probe" in report
    }
    own = hosts.pop(asked["server"])
    error = k3s.upgrade_error(copied["k3s"], asked["version"], True)
    errors = datastore.restore_errors(copied, own, list(hosts.values()), error, asked["accepted"])
    if errors:
        raise datastore.Bad(" ".join(errors))
    return bool(datastore.in_place(copied, own))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "keep_in": {"type": "path"},
            "keep": {"type": "int", "default": 0},
            "work": {"type": "path", "required": True},
            "encrypt_command": arguments.COMMAND,
            "decrypt_command": arguments.COMMAND,
            "restore": {
                "type": "dict",
                "options": {
                    "server": {"type": "str", "required": True},
                    "reports": {"type": "list", "elements": "dict", "required": True},
                    "version": {"type": "str", "required": True},
                    "accepted": {"type": "str", "default": ""},
                },
            },
            "variables": {"type": "str", "default": "cluster_backup"},
        },
        supports_check_mode=True,
    )
    encrypt, decrypt = (arguments.command(module, option) for option in ("encrypt_command", "decrypt_command"))
    path, work, variables = Path(module.params["path"]), Path(module.params["work"]), module.params["variables"]
    try:
        if not module.params["keep_in"]:
            copied, asked = opened(path, decrypt, work, variables), module.params["restore"]
            there = {"in_place": restorable(copied, asked)} if asked else {}
            module.exit_json(changed=False, copied=copied, removed=[], **there)
        target = Path(module.params["keep_in"])
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = prove(path, work)
        with tempfile.TemporaryDirectory(prefix=".cluster-", dir=target) as beside:
            made = keeping.put(
                path,
                target,
                datastore.stem(note),
                datastore.ENDING,
                datastore.manifest(note, path),
                encrypt,
                decrypt,
                beside=Path(beside),
                variables=variables,
            )
        removed = retention.prune(target, module.params["keep"], made)
    except (datastore.Bad, keeping.Failed, OSError) as exc:
        module.fail_json(msg=str(exc))
    record = datastore.record(note, platform.node(), made["path"])
    said = [saying.datastore(made), *saying.removed(removed)]
    module.exit_json(changed=True, copied=made, removed=removed, record=record, said=said)


if __name__ == "__main__":
    main()
