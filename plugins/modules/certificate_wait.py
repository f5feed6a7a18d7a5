#!/usr/bin/python
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
author: The abaci.infra authors
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
)

Object = dict[str, Any]

POLL = 2.0
V1 = "cert-manager.io/v1"
ACME = "acme.cert-manager.io/v1"
ASKED = "abaci.infra/asked-again"


def look(client: Any, kind: str, name: str, namespace: str | None) -> certificates.Status:
    """How the object is now."""
    if kind == "ClusterIssuer":
        return certificates.issuer_status(kind, name, client.get(V1, kind, name))
    certificate = client.get(V1, kind, name, namespace)
    where = f"{namespace}/{name}"
    nothing = certificates.Status("ready")
    first = certificates.certificate_status(where, certificate, [], [], [], nothing, [])
    if certificate is None or first.state == "ready":
        return first
    asked = certificate["spec"]["issuerRef"]
    issuer_kind = asked.get("kind", "Issuer")
    issuer = nothing
    if asked.get("group", "cert-manager.io") == "cert-manager.io" and issuer_kind in ("ClusterIssuer", "Issuer"):
        place = namespace if issuer_kind == "Issuer" else None
        found = client.get(V1, issuer_kind, asked["name"], place)
        issuer = certificates.issuer_status(issuer_kind, asked["name"], found)
    return certificates.certificate_status(
        where,
        certificate,
        client.list(V1, "CertificateRequest", namespace),
        client.list(ACME, "Order", namespace),
        client.list(ACME, "Challenge", namespace),
        issuer,
        client.list("v1", "Event", namespace),
    )


def wait(client: Any, kind: str, name: str, namespace: str | None, timeout: int, poll: float = POLL) -> str:
    """Return "" once the object is ready, or the sentence that says why it is not."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            status = look(client, kind, name, namespace)
        except kube.KubeError as exc:
            if exc.unknown_kind:
                return f"{exc} Run the role cert_manager first."
            status = certificates.Status("waiting", str(exc))
        if status.state == "ready":
            return ""
        sentence: str = status.sentence
        if status.state == "failed":
            return sentence
        if time.monotonic() >= deadline:
            return f"After {timeout} s: {sentence}"
        time.sleep(poll)


def ask_again(client: Any, name: str, namespace: str | None) -> bool:
    """End cert-manager's break after a failed attempt; whether there was one."""
    for _attempt in range(5):
        certificate = client.get(V1, "Certificate", name, namespace)
        if certificate is None:
            return False
        now = clock.now()
        if not certificates.resting(certificate):
            return first_again(client, certificate, now)
        try:
            client.patch_status(
                {"apiVersion": V1, "kind": "Certificate", **certificate}, certificates.asked_again(certificate, now)
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
    requests = client.list(V1, "CertificateRequest", namespace)
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
    sentence = wait(client, asked["kind"], asked["name"], asked["namespace"], asked["timeout"])
    if sentence:
        module.fail_json(msg=sentence)
    module.exit_json(changed=again, waited=round(time.monotonic() - begin), asked_again=again)


if __name__ == "__main__":
    main()
