#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch the database of any moment from the archive, as a backup with a manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: archive_file
short_description: Fetch the database of a moment from the archive and keep it with a manifest
description:
  - Asks the archive's pod through the Kubernetes API's port-forward. The archive rebuilds the database of the moment
    and proves it; the file is proven again here, by its integrity check and by LiteFS's checksum.
  - A moment that lies in O(directory) already is not fetched again.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
  - abaci.infra.arguments.archive
options:
  at:
    description:
      - The moment, as a time with its zone, a TXID of 16 hexadecimal digits, or how long ago, such as V(15m ago).
      - Of a time it is the last transaction that is not later.
    type: str
    required: true
  variable:
    description: The name of the user's variable that is O(at), for sentences.
    type: str
    default: at
  directory:
    description: Where the file goes, on the controller. It is made with mode 0700.
    type: path
    required: true
  work:
    description:
      - A directory for a plain copy. With it RV(file) says what the file is, as M(abaci.infra.backup_file) does.
    type: path
  encrypt_command:
    description: A command that encrypts its input to its output. Empty for none.
    type: list
    elements: str
    default: []
  decrypt_command:
    description: Its counterpart. Neither is ever shown.
    type: list
    elements: str
    default: []
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode the archive is asked and proves the moment, and nothing is fetched.
    support: full
"""

EXAMPLES = r"""
- name: Fetch the database of five past two
  abaci.infra.archive_file:
    kubeconfig: ~/.kube/k3s-config
    at: 2026-11-30 14:05:00 Europe/Berlin
    directory: ~/abaci-backups
"""

RETURN = r"""
manifest:
  description: What stands beside the file, with the paths of both; empty in check mode.
  returned: success
  type: dict
file:
  description: With O(work), what the file is; in check mode what the archive says of it.
  returned: success
  type: dict
notes:
  description: Which transaction it is, and how many came after it, in sentences.
  returned: success
  type: list
  elements: str
said:
  description: The same for the user, and what was written.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, moments
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, export, from_archive, planning, saying


def expected(site: act.Site, asked: from_archive.Asked) -> planning.File:
    """What is known of a file before it is fetched."""
    return {
        "path": f"the database after transaction {asked.found.txid}",
        "verified": True,
        "problem": None,
        "cluster_id": asked.found.cluster,
        "txid": asked.found.txid,
        "size": asked.found.size,
        "checksum": asked.found.checksum,
        "namespace": site.namespace,
        "statefulset": site.name,
        "database": site.database,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            **arguments.ARCHIVE,
            "at": {"type": "str", "required": True},
            "variable": {"type": "str", "default": "at"},
            "directory": {"type": "path", "required": True},
            "work": {"type": "path"},
            "encrypt_command": arguments.COMMAND,
            "decrypt_command": arguments.COMMAND,
        },
        supports_check_mode=True,
    )
    options = module.params
    encrypt, decrypt = (arguments.command(module, option) for option in ("encrypt_command", "decrypt_command"))
    if options["work"] and encrypt and not decrypt:
        module.fail_json(
            msg="backup_encrypt_command is set, and restore_decrypt_command is not, so that the file could not be read "
            "again: set it, too."
        )
    directory = Path(options["directory"])
    wanted = from_archive.Wanted(options["at"], options["history"], options["variable"])
    try:
        site = act.connect(options)
        archive = from_archive.archive_of(site, options["timeout"])
        if module.check_mode:
            asked = from_archive.ask(site, archive, wanted)
            notes = asked.notes(wanted.variable)
            file = expected(site, asked) | {"notes": notes}
            module.exit_json(changed=True, manifest={}, file=file, notes=notes, said=notes)
        export.make_room(directory)
        asked, manifest, made = from_archive.keep(site, archive, wanted, directory, encrypt=encrypt, decrypt=decrypt)
        notes = asked.notes(wanted.variable)
        described: planning.File = {}
        if options["work"]:
            described = export.describe(Path(manifest["path"]), decrypt, Path(options["work"]))
    except (moments.Refused, export.Failed, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"Nothing was written to {directory} on the controller: {exc}.")
    said = [*notes, saying.backup(manifest)]
    module.exit_json(changed=made, manifest=manifest, file={**described, "notes": notes}, notes=notes, said=said)


if __name__ == "__main__":
    main()
