#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeze or thaw Keel, or say why it did not update."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keel_action
short_description: Freeze or thaw Keel for an application, or say why it did not update it
description:
  - A freeze sets keel.sh/policy to never on the StatefulSet, a thaw back to what it was; C(site.yml) keeps both.
  - The thaw also takes away what says that an image was rolled out by hand. Both leave a line in the audit log.
  - V(why) reads the annotations, Keel's own log and what the pods run, and changes nothing.
version_added: 0.2.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
options:
  action:
    description: What is done.
    type: str
    choices: [freeze, thaw, why]
    default: why
  keel_namespace:
    description: Where Keel runs.
    type: str
    default: keel
  digest:
    description: With V(why), what a node got under the tag, as M(abaci.infra.image_pull_check) returns it.
    type: str
    default: ""
  error:
    description: With V(why), why it got nothing.
    type: str
    default: ""
  by:
    description: Who does it, for the audit log.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would be changed.
    support: full
"""

EXAMPLES = r"""
- name: Ensure that no new image comes
  abaci.infra.keel_action:
    kubeconfig: ~/.kube/k3s-config
    action: freeze
"""

RETURN = r"""
image:
  description: The image by its tag, behind which a newer build may be.
  returned: success
  type: str
said:
  description: What was done, or the answers to the three questions.
  returned: success
  type: list
  elements: str
"""

import copy
import urllib.parse
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, gather, keel, kube
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, progress

LINES = 2000
DONE = {
    "freeze": [
        "Keel is frozen: it rolls nothing out until playbooks/keel.yml -e keel_action=thaw. site.yml keeps that.",
        "site.yml --tags app pins the build that runs; until then a pod that is made anew pulls the tag.",
    ],
    "thaw": [
        "Keel follows again. site.yml --tags app takes app_image back, and with it whatever is behind its tag by now.",
    ],
}


def log(api: Any, namespace: str) -> tuple[str | None, str]:
    """(what Keel said since its start, its last lines; why that is not known)."""
    pods = api.list("v1", "Pod", namespace, "app=keel")
    if not pods:
        return None, f"there is none in namespace {namespace}"
    name = pods[-1]["metadata"]["name"]
    query = urllib.parse.urlencode({"tailLines": LINES})
    try:
        return api.raw(f"/api/v1/namespaces/{namespace}/pods/{name}/log?{query}").decode(errors="replace"), ""
    except kube.KubeError as exc:
        return None, str(exc).rstrip(".")


def set_policy(site: act.Site, action: str, found: Object, by: str, check: bool) -> bool:
    """Whether it changed."""
    change = keel.freeze if action == "freeze" else keel.thaw
    wanted = copy.deepcopy(found)
    change(wanted)
    if wanted == found or check:
        return bool(wanted != found)
    site.api.replace("apps/v1", "StatefulSet", wanted, applying.FIELD_MANAGER)
    line = {"time": site.api.server_time(), "holder": by, "operation": "keel", "event": "ended"}
    site.audit(line | {"parameters": {"action": action}, "result": "done"})
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.DATABASE,
            "action": {"type": "str", "choices": ["freeze", "thaw", "why"], "default": "why"},
            "keel_namespace": {"type": "str", "default": "keel"},
            "digest": {"type": "str", "default": ""},
            "error": {"type": "str", "default": ""},
            "by": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    action = options["action"]
    try:
        site = act.connect(options)
        found = site.api.get("apps/v1", "StatefulSet", site.name, site.namespace)
        if found is None:
            module.fail_json(
                msg=f"There is no StatefulSet {site.name} in namespace {site.namespace}: run site.yml, or set app_name "
                "and app_namespace."
            )
        state = gather.gather(site.api, site.namespace, site.name, site.database, site.claim_template, site.port, 5)
        known = progress.read(state)
        unfinished = tuple(name for name in ("rollback", "rollout") if name in known)
        if action != "why":
            if action == "thaw" and unfinished:
                name = unfinished[0]
                module.fail_json(
                    msg=f"Nothing was thawed. A {name} is not finished: run playbooks/{name}.yml again first."
                )
            changed = set_policy(site, action, found, options["by"], module.check_mode)
            module.exit_json(changed=changed, image=keel.image(state), said=DONE[action])
        said, why = log(site.api, options["keel_namespace"])
        annotations = found["metadata"].get("annotations") or {}
        error = options["error"] or None
        facts = keel.Facts(state, annotations, said, why, options["digest"] or None, error, unfinished)
    except (kube.KubeError, act.NotDone) as exc:
        module.fail_json(msg=str(exc))
    except ValueError as exc:
        module.fail_json(msg=f"StatefulSet {options['namespace']}/{options['name']} was left as it is: {exc}.")
    module.exit_json(changed=False, image=keel.image(state), said=[line.text() for line in keel.why(facts)])


if __name__ == "__main__":
    main()
