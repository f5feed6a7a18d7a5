#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look into volumes whose LiteFS does not run, or copy the database out of one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_export
short_description: See which cluster a volume holds, or save its database, without LiteFS
description:
  - Runs a small pod on the volume's node that serves the volume's files read-only, reads through the Kubernetes API's
    port-forward, and removes the pod.
  - A volume that is a directory of a node, as those of local-path are, is mounted by its path. Any other is mounted
    through its claim (read-only in the pod), where it has one and no pod runs on it.
  - With O(ordinals) the database of these pods' volumes is saved to O(directory) with a manifest. LiteFS must not run
    on them.
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  image:
    description: A busybox.
    type: str
    default: docker.io/library/busybox:1.36
  pull_secrets:
    description: Names of pull secrets in the namespace.
    type: list
    elements: str
    default: []
  volumes:
    description: Names of volumes to look into.
    type: list
    elements: str
    default: []
  ordinals:
    description: Ordinals of pods whose volume's database is to be saved.
    type: list
    elements: int
    default: []
  directory:
    description: Where saved databases go, on the controller.
    type: path
  reason:
    description: Why; it stands in the manifest.
    type: str
    default: volume_export
  encrypt_command:
    description: As for M(abaci.infra.litefs_backup).
    type: list
    elements: str
    default: []
  decrypt_command:
    description: As for M(abaci.infra.litefs_backup).
    type: list
    elements: str
    default: []
  holder:
    description: Who has the lock (M(abaci.infra.operation_lock)), which is renewed meanwhile. Empty for nobody.
    type: str
    default: ""
  timeout:
    description: Seconds for one volume.
    type: int
    default: 600
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: In check mode nothing is done.
    support: full
"""

EXAMPLES = r"""
- name: Read two volumes
  abaci.infra.volume_export:
    kubeconfig: ~/.kube/k3s-config
    volumes: [pvc-1, pvc-2]
"""

RETURN = r"""
volumes:
  description:
    - Volume name to what is in it, C(cluster_id), C(txid), C(checksum), C(page_size) and C(journal_mode), each
      null for none.
    - C(problem) is a sentence where it could not be looked into, else null.
  returned: success
  type: dict
said:
  description: A line for each volume, what is in it or why it could not be looked into.
  returned: success
  type: list
  elements: str
manifests:
  description: What was saved.
  returned: success
  type: list
  elements: dict
exports:
  description: RV(manifests), as the operation that asked for them takes them.
  returned: success
  type: list
  elements: dict
did:
  description: A line for each export, for what an operation says at its end.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, export, holding, saying, volume_export
from ansible_collections.abaci.infra.plugins.module_utils.operations import situation as sit

ARGUMENTS: dict[str, Any] = {
    **arguments.DATABASE,
    "image": {"type": "str", "default": "docker.io/library/busybox:1.36"},
    "pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "volumes": {"type": "list", "elements": "str", "default": []},
    "ordinals": {"type": "list", "elements": "int", "default": []},
    "directory": {"type": "path"},
    "reason": {"type": "str", "default": "volume_export"},
    "encrypt_command": arguments.COMMAND,
    "decrypt_command": arguments.COMMAND,
    "holder": {"type": "str", "default": ""},
    "timeout": {"type": "int", "default": 600},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    encrypt, decrypt = (arguments.command(module, option) for option in ("encrypt_command", "decrypt_command"))
    if module.check_mode:
        module.exit_json(changed=False, volumes={}, said=[], manifests=[], exports=[], did=[])
    if options["ordinals"] and not options["directory"]:
        module.fail_json(msg="ordinals needs directory: name a directory on the controller.")
    try:
        site = act.connect(options)
        with holding.Holding(site, options["holder"]):
            document = site.look()
            known = {volume["name"]: volume for volume in document["volumes"]}
            wanted = [known[name] for name in options["volumes"] if name in known]
            pull_secrets = options["pull_secrets"]
            volumes = volume_export.look(site, wanted, options["image"], min(options["timeout"], 120), pull_secrets)
            manifests = []
            for ordinal in options["ordinals"]:
                pod = sit.pod_of(document, ordinal)
                if pod is not None and pod["litefs"]["reachable"]:
                    module.fail_json(msg=f"LiteFS runs in pod {pod['name']}: export it with litefs_backup instead.")
                volume = sit.volume_of(document, sit.claim_of(document, ordinal))
                if volume is None:
                    module.fail_json(msg=f"There is no volume of ordinal {ordinal} to save.")
                directory = Path(options["directory"])
                export.make_room(directory)
                manifests.append(
                    volume_export.save(
                        site,
                        volume,
                        options["image"],
                        directory,
                        reason=options["reason"],
                        encrypt=encrypt,
                        decrypt=decrypt,
                        timeout=options["timeout"],
                        pull_secrets=pull_secrets,
                    )
                )
    except volume_export.CannotLook as exc:
        module.fail_json(msg=f"Nothing was saved: {exc}.")
    except (export.Failed, kube.KubeError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"Not everything could be saved in {options['directory']} on the controller: {exc}.")
    said = volume_export.said(volumes)
    did = saying.exported(manifests)
    module.exit_json(
        changed=bool(manifests), volumes=volumes, said=said, manifests=manifests, exports=manifests, did=did
    )


if __name__ == "__main__":
    main()
