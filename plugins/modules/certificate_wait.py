#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_wait
short_description: Wait until an issuer or a certificate of cert-manager is ready, or say why it is not
description:
  - Waits for the condition C(Ready) about the object's present spec.
  - Fails in one sentence with the cause, taken from the conditions and events of Certificate, CertificateRequest,
    Order and Challenge; at once where cert-manager has given up, else after O(timeout).
  - After a failed attempt cert-manager takes a break of an hour or more. A certificate in such a break is asked for
    once more at the start, as C(cmctl renew) does it, so that a corrected error needs no further command.
  - An order that the ACME server has not answered gets an annotation, which makes cert-manager ask again at once.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  kind:
    description: What is waited for.
    type: str
    required: true
    choices: [ClusterIssuer, Certificate]
  name:
    description: Its name.
    type: str
    required: true
  namespace:
    description: Namespace of a Certificate.
    type: str
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 300
attributes:
  check_mode:
    description: In check mode nothing is waited for, since nothing was changed.
    support: full
"""

EXAMPLES = r"""
- name: Wait for the certificate
  abaci.infra.certificate_wait:
    kubeconfig: ~/.kube/k3s-config
    kind: Certificate
    name: abaci-tls
    namespace: abaci
"""

RETURN = r"""
waited:
  description: Seconds that it took. V(0) in check mode.
  type: int
  returned: success
asked_again:
  description: Whether a break after a failed attempt was ended.
  type: bool
  returned: success
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import (
    applying,
    arguments,
    certificates,
    clock,
    conditions,
    kube,
    waiting,
)
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.waiting import ACME, ISSUE

ASKED = "abaci.infra/asked-again"


def ask_again(client: Any, name: str, namespace: str | None) -> bool:
    """End cert-manager's break after a failed attempt; whether there was one."""
    for _attempt in range(5):
        certificate = client.get(ISSUE, "Certificate", name, namespace)
        if certificate is None:
            return False
        now = clock.now()
        if not certificates.resting(certificate):
            return first_again(client, certificate, now)
        try:
            client.patch_status(
                {"apiVersion": ISSUE, "kind": "Certificate", **certificate}, certificates.asked_again(certificate, now)
            )
        except kube.KubeError as exc:
            if exc.status != 409:
                raise
            continue
        return True
    return False


def first_again(client: Any, certificate: Object, now: str) -> bool:
    """Make cert-manager ask for unanswered orders now; whether there were any."""
    if conditions.is_ready(certificate):
        return False
    namespace = certificate["metadata"]["namespace"]
    requests = client.list(ISSUE, "CertificateRequest", namespace)
    waiting = certificates.unanswered(certificate, requests, client.list(ACME, "Order", namespace))
    for order in waiting:
        metadata = {"name": order["metadata"]["name"], "namespace": namespace, "annotations": {ASKED: now}}
        client.apply({"apiVersion": ACME, "kind": "Order", "metadata": metadata}, applying.FIELD_MANAGER, force=True)
    return bool(waiting)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "kind": {"type": "str", "required": True, "choices": ["ClusterIssuer", "Certificate"]},
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str"},
            "timeout": {"type": "int", "default": 300},
        },
        required_if=[("kind", "Certificate", ["namespace"])],
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0, asked_again=False)
    asked: dict[str, Any] = module.params
    begin = time.monotonic()
    again = False
    try:
        client = kube.connect(asked["kubeconfig"])
        if asked["kind"] == "Certificate":
            again = ask_again(client, asked["name"], asked["namespace"])
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    target = waiting.Target(asked["kind"], asked["name"], asked["namespace"])
    status = waiting.wait(client, target, asked["timeout"])
    if status.state != "done":
        module.fail_json(msg=status.sentence)
    module.exit_json(changed=again, waited=round(time.monotonic() - begin), asked_again=again)


if __name__ == "__main__":
    main()
