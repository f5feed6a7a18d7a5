#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a verified backup of the application's database to a directory on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: litefs_backup
short_description: Export the database, prove that the export is whole, and keep it with a manifest
description:
  - Exports over LiteFS's API through the Kubernetes API's port-forward, from a connected replica at the primary's
    position, else from the pod with the highest position.
  - Proves that the file is whole pages, that its integrity check is ok, and that its checksum, computed here, is the
    one of a position that LiteFS shows before, during (GET /events) or after the export.
  - A backup that cannot be verified is a failed one and leaves no file behind. The manifest is written last.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  directory:
    description: Where backups go, on the controller. It is made with mode 0700.
    type: path
    required: true
  pods:
    description: Names or ordinals of the pods to export, of whatever cluster. Empty chooses one.
    type: list
    elements: str
    default: []
  reason:
    description: Why it is taken. Only those with V(backup) are subject to O(keep).
    type: str
    default: backup
  keep:
    description:
      - How many plain backups of this application's cluster stay in the directory; 0 keeps all.
      - Those of other applications and clusters stay, and so do those that are stamped later than now.
    type: int
    default: 0
  encrypt_command:
    description: A command that encrypts its input to its output, such as [age, -r, age1...]. Empty for none.
    type: list
    elements: str
    default: []
  decrypt_command:
    description:
      - The counterpart of O(encrypt_command). With it what was encrypted is read back and compared before it counts.
      - Neither command is ever shown.
    type: list
    elements: str
    default: []
  partial:
    description:
      - With more than one pod, return what could be exported and RV(problems) with the rest instead of failing.
    type: bool
    default: false
  holder:
    description: Who has the lock (M(abaci.infra.operation_lock)), which is renewed meanwhile. Empty for nobody.
    type: str
    default: ""
  timeout:
    description: Seconds that one export may take.
    type: int
    default: 600
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode it is only said which pod would be exported.
    support: full
"""

EXAMPLES = r"""
- name: Create a backup
  abaci.infra.litefs_backup:
    kubeconfig: ~/.kube/k3s-config
    directory: ~/abaci-backups
    keep: 14
"""

RETURN = r"""
manifests:
  description:
    - What was written, one for each export, with the paths of the file and its manifest.
    - C(size) and C(sha256) are the database's, C(stored_size) and C(stored_sha256) those of the file, which is another
      where it is encrypted. C(read_back) is false where an encrypted file was not decrypted again and compared.
  returned: success
  type: list
  elements: dict
problems:
  description: With O(partial), the pods that could not be exported, each with C(pod) and C(problem), a sentence.
  returned: success
  type: list
  elements: dict
why:
  description: Why that pod.
  returned: success
  type: str
removed:
  description: Old backups that were removed.
  returned: success
  type: list
  elements: str
exports:
  description: RV(manifests) and RV(problems), as the operation that asked for them takes them.
  returned: success
  type: list
  elements: dict
did:
  description: A line for each export, for what an operation says at its end.
  returned: success
  type: list
  elements: str
said:
  description: The same for the user, in lines.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import (
    act,
    backup,
    export,
    holding,
    retention,
    saying,
)


def chosen(why: str) -> str:
    return f"Taken from that pod because {why}."


def would_export(module: AnsibleModule, site: act.Site, pods: Sequence[str]) -> None:
    """End the module with the pod that would be exported, or with why none can be."""
    asked: Sequence[str | None] = pods or [None]
    choices = [backup.choose(site.look(), pod) for pod in asked]
    problem = next((problem for choice, problem in choices if choice is None), None)
    if problem:
        module.fail_json(msg=f"No backup can be made. {problem}")
    why = next((choice["why"] for choice, _problem in choices if choice), "")
    module.exit_json(
        changed=True, manifests=[], problems=[], why=why, removed=[], said=[chosen(why)], exports=[], did=[]
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "directory": {"type": "path", "required": True},
            "pods": {"type": "list", "elements": "str", "default": []},
            "reason": {"type": "str", "default": "backup"},
            "keep": {"type": "int", "default": 0},
            "encrypt_command": arguments.COMMAND,
            "decrypt_command": arguments.COMMAND,
            "partial": {"type": "bool", "default": False},
            "holder": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    options = module.params
    encrypt, decrypt = (arguments.command(module, option) for option in ("encrypt_command", "decrypt_command"))
    directory = Path(options["directory"])
    try:
        site = act.connect(options)
        if module.check_mode:
            would_export(module, site, options["pods"])
        export.make_room(directory)
        with holding.Holding(site, options["holder"]):
            made, failed, why = export.choose_and_export(
                site,
                options["pods"],
                directory,
                module.warn,
                reason=options["reason"],
                encrypt=encrypt,
                decrypt=decrypt,
                timeout=options["timeout"],
            )
        removed = retention.prune(directory, options["keep"], made[-1]) if made else []
    except (export.Failed, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"No backup was made in {directory} on the controller: {exc}.")
    if failed and not options["partial"]:
        module.fail_json(msg=failed[0]["problem"], manifests=made, problems=failed)
    said = [*map(saying.backup, made), chosen(why), *saying.removed(removed)]
    module.exit_json(
        changed=bool(made),
        manifests=made,
        # Not by the name failed: Ansible takes a list that is not empty for a failure.
        problems=failed,
        exports=[*made, *failed],
        did=saying.exported(made),
        why=why,
        removed=removed,
        said=said,
    )


if __name__ == "__main__":
    main()
