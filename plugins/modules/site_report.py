#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a support bundle, without secrets and without what tells who a visitor is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_report
short_description: Write a support bundle without secrets
description:
  - Reads the objects, events and logs of the namespaces, and writes them to a tar.gz on the controller.
  - Values of Secrets are replaced wherever they stand, and so are cookies, tokens, e-mail addresses, and addresses of
    clients in logs and events. Where the Secrets cannot be read the logs are left out.
  - What could not be read stands in the file C(unread.txt) of the bundle. An API that is away is no failure.
version_added: 0.2.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  namespaces:
    description: The namespaces to read.
    type: list
    elements: str
    required: true
  path:
    description: The file to write, which ends with C(.tar.gz).
    type: path
    required: true
  files:
    description: Files to put into it, by their names; they are cleaned, too.
    type: dict
    default: {}
  lines:
    description: How many lines of each log at most, the last ones; of each at most 1 MiB.
    type: int
    default: 2000
  since:
    description: How far back the logs go, as 90 (seconds), 10m, 2h or 1d.
    type: str
    default: 1d
attributes:
  check_mode:
    description: Nothing is written in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Write a support bundle
  abaci.infra.site_report:
    kubeconfig: ~/.kube/k3s-config
    namespaces: [abaci, keel]
    path: ~/abaci-reports/abaci.tar.gz
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
names:
  description: What is in it.
  returned: success
  type: list
  elements: str
unread:
  description: What could not be read, one sentence each.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, bundle, kube
from ansible_collections.abaci.infra.plugins.module_utils.status import logs


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "namespaces": {"type": "list", "elements": "str", "required": True},
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "lines": {"type": "int", "default": 2000},
            "since": {"type": "str", "default": "1d"},
        },
        supports_check_mode=True,
    )
    options = module.params
    path = Path(options["path"])
    if not path.name.endswith(".tar.gz"):
        module.fail_json(msg=f"The path {path} does not end with .tar.gz: name a file that does.")
    try:
        since = logs.seconds(options["since"])
        api = kube.connect(options["kubeconfig"], timeout=10)
        seen = bundle.read(api, list(dict.fromkeys(options["namespaces"])), options["lines"], since)
    except ValueError as exc:
        module.fail_json(msg=str(exc))
    except kube.KubeError as exc:
        seen = bundle.Seen(unread=[str(exc)], secrets=False)
    given = {name: str(text) for name, text in options["files"].items()}
    contents = bundle.files(seen, given)
    if not module.check_mode:
        try:
            bundle.write(path, contents)
        except OSError as exc:
            module.fail_json(msg=f"The report cannot be written to {path} ({exc.strerror}): set report_directory.")
    module.exit_json(
        changed=True,
        path=str(path),
        names=sorted(contents),
        unread=contents["unread.txt"].splitlines(),
    )


if __name__ == "__main__":
    main()
