#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: cert_manager_wait
short_description: Wait until cert-manager takes issuers
description:
  - A Deployment that is available says nothing of the webhook, which the API has to reach and to trust. This waits
    until both webhook configurations hold a CA, and then until a dry run of O(issuer) passes through the webhook.
  - Only what an API server says while a webhook comes up is waited out; any other refusal fails at once.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  webhook:
    description: Name of both webhook configurations.
    type: str
    default: cert-manager-webhook
  issuer:
    description: The manifest of an issuer; nothing is stored.
    type: dict
    required: true
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 120
attributes:
  check_mode:
    description: In check mode nothing is waited for, since nothing was changed.
    support: full
"""

EXAMPLES = r"""
- name: Wait for the webhook
  abaci.infra.cert_manager_wait:
    kubeconfig: ~/.kube/k3s-config
    issuer:
      apiVersion: cert-manager.io/v1
      kind: ClusterIssuer
      metadata:
        name: probe
      spec:
        selfSigned: {}
"""

RETURN = r"""
waited:
  description: Seconds that it took. V(0) in check mode.
  type: int
  returned: success
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, certificates, kube

POLL = 1.0
REGISTRATION = "admissionregistration.k8s.io/v1"


def wait(client: Any, webhook: str, issuer: dict[str, Any], timeout: int, poll: float = POLL) -> str:
    """Return "" once the webhook takes the issuer, or the sentence that says why it does not."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = [client.get(REGISTRATION, kind, webhook) for kind in certificates.WEBHOOK_KINDS]
            lacking = certificates.without_bundle(found)
            if not lacking:
                client.apply(issuer, applying.FIELD_MANAGER, force=True, dry_run=True)
                return ""
            sentence = (
                f"{' and '.join(lacking)} {webhook} has no CA yet, which cert-manager-cainjector writes: see "
                "`kubectl -n cert-manager logs deployment/cert-manager-cainjector`."
            )
        except kube.KubeError as exc:
            sentence = str(exc)
            away = exc.status is None or exc.status in (429, 503)  # an API server that restarts is part of life
            if not away and not certificates.in_race(sentence):
                return f"cert-manager refuses {applying.label(issuer)}: {sentence}"
        if time.monotonic() >= deadline:
            return f"After {timeout} s cert-manager's webhook is not ready: {sentence}"
        time.sleep(poll)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "webhook": {"type": "str", "default": "cert-manager-webhook"},
            "issuer": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0)
    asked: dict[str, Any] = module.params
    begin = time.monotonic()
    try:
        # Longer than the 30 s that the API server gives a webhook.
        client = kube.connect(asked["kubeconfig"], timeout=45)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    sentence = wait(client, asked["webhook"], asked["issuer"], asked["timeout"])
    if sentence:
        module.fail_json(msg=sentence)
    module.exit_json(changed=False, waited=round(time.monotonic() - begin))


if __name__ == "__main__":
    main()
