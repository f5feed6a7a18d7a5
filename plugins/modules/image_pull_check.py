#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the cluster can pull an image, before anything that runs is changed to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull_check
short_description: Prove that a node of the cluster can pull an image
description:
  - Runs a short-lived pod with the image and the pull secrets and waits until the node has pulled it; what the image
    holds does not matter, unless O(command) names a program that has to end well in it. An image for another processor
    than the node's fails. The pod, C(<name>-pull-<6 hex digits>), carries no label of the application, mounts nothing
    and is always deleted, and pods that dead runs left behind are deleted first. The namespace has to exist.
  - Fails in one sentence with the registry's own reason; at once where another try cannot help, else after O(timeout).
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.application]
options:
  image:
    description: The image, as the pods will name it.
    type: str
    required: true
  pull_secrets:
    description: Names of the pull secrets in the namespace.
    type: list
    elements: str
    default: []
  login:
    description: A login to try that no Secret holds yet. It stands in a Secret of its own while the pod runs.
    type: dict
    suboptions:
      server:
        description: The registry.
        type: str
        required: true
      username:
        description: The name.
        type: str
        required: true
      token:
        description: The token.
        type: str
        required: true
  command:
    description: What has to end well in the image, with its arguments; where it is empty, the pull alone counts.
    type: list
    elements: str
    default: []
  kept:
    description: Whether the image that a node has under this tag is good enough, because the pods start it, too.
    type: bool
    default: false
  timeout:
    description: Seconds that the pull may take.
    type: int
    default: 180
  node_selector:
    description: Labels of the nodes that the application runs on.
    type: dict
    default: {}
  tolerations:
    description: The application's tolerations.
    type: list
    elements: dict
    default: []
  variables:
    description: The variables that name the image and its pull secrets, for the sentence that says what to correct.
    type: list
    elements: str
    default: [app_image, app_image_pull_secrets]
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Says what would be tried.
    details: The pull is skipped, because a pod would have to run for it.
    support: partial
"""

EXAMPLES = r"""
- name: Check that the new image can be pulled
  abaci.infra.image_pull_check:
    kubeconfig: ~/.kube/k3s-config
    image: ghcr.io/antialias/soroban-abacus-flashcards:latest
    pull_secrets: [ghcr-login]
"""

RETURN = r"""
digest:
  description: The digest that was pulled, null where the runtime names none.
  returned: success
  type: str
  sample: sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
node:
  description: The node that pulled it.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import secrets
import signal
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, image_pull, kube
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell


def check(api: Any, options: arguments.Options, pause: float = 0.5) -> dict[str, Any]:
    """Do it: returns {"digest", "node", "seconds"}, raises KubeError with the sentence. The pod is gone afterwards."""
    namespace, name, image = options["namespace"], options["name"], options["image"]
    if api.get("v1", "Namespace", namespace) is None:
        raise kube.KubeError(f"There is no namespace {namespace} to pull {image} in: run site.yml from the start.")
    for secret in options["pull_secrets"]:
        if api.get("v1", "Secret", secret, namespace) is None:
            raise kube.KubeError(
                f"The pull secret {secret} for {image} is not in namespace {namespace}: create it there, or take it "
                f"out of {options['variables'][-1]}."
            )
    for kind in ("Pod", "Secret"):
        for old in api.list("v1", kind, namespace, image_pull.selector(name)):
            _delete(api, namespace, old["metadata"]["name"], kind)
    suffix = secrets.token_hex(3)
    pull_secrets = list(options["pull_secrets"])
    login = options.get("login")
    if login:
        pull_secrets.append(f"{name}-pull-{suffix}")
    manifest = image_pull.pod(
        namespace,
        name,
        suffix,
        image,
        pull_secrets,
        options["timeout"],
        options["node_selector"],
        options["tolerations"],
        options["command"],
        options["kept"],
    )
    pod_name = manifest["metadata"]["name"]
    started = time.monotonic()
    try:
        if login:
            api.create(image_pull.login_secret(namespace, pod_name, name, login))
        api.create(manifest)
        reason: str | None = None
        while True:
            pod = api.get("v1", "Pod", pod_name, namespace)
            if pod is None:
                raise kube.KubeError(f"Pod {namespace}/{pod_name} was removed while it pulled {image}: run again.")
            status = image_pull.judge(pod, options["command"])
            seconds = time.monotonic() - started
            if status.pulled:
                node = pod["spec"].get("nodeName")
                return {"digest": status.digest, "node": node, "seconds": round(seconds, 1)}
            reason = status.reason or reason
            if status.final or seconds >= options["timeout"]:
                reason = reason or image_pull.last_warning(api.list("v1", "Event", namespace), pod_name)
                raise kube.KubeError(_sentence(options, pod, status, reason))
            node = pod["spec"].get("nodeName") or "a node"
            tell(f"{node} pulls {image}", deadline=started + options["timeout"])
            time.sleep(pause)
    finally:
        _delete(api, namespace, pod_name)
        if login:
            _delete(api, namespace, pod_name, "Secret")


def _sentence(options: arguments.Options, pod: Object, status: image_pull.Status, reason: str | None) -> str:
    variables, image = options["variables"], options["image"]
    node = pod["spec"].get("nodeName")
    if status.fault is not None:
        return f"The image {image} {_fault(options, status.fault, node, reason)} (nothing was changed)."
    by = f" by node {node}" if node else ""
    within = "" if status.final else f" within {options['timeout']} s"
    advice = (
        f"see to that, or correct {variables[0]}, and run again"
        if not status.final
        else f"renew app_registry_token (it may have expired; a public image needs none), or correct {variables[0]}"
        if options.get("login")
        else f"correct {' or '.join(variables)}"
    )
    reason = reason or "the node has not finished pulling it"
    return f"The image {image} cannot be pulled{by}{within}: {reason}; {advice} (nothing was changed)."


def _fault(options: arguments.Options, fault: str, node: str | None, reason: str | None) -> str:
    variable, command = options["variables"][0], options["command"]
    if fault == "processor":
        nodes = ", or app_node_selector to nodes that have it" if variable.startswith("app_") else ""
        return (
            f"is for another processor than that of node {node} ({reason}): set {variable} to an image for that one, "
            f"or for both{nodes}"
        )
    if fault == "program":
        return f"has no {command[0]} ({reason}): correct {variable}; roles/app/README.md says what it has to have"
    if fault == "node":
        return f"could not be started on node {node} ({reason}), which may be that node's doing: run again"
    return (
        f"cannot run {' '.join(command)} on node {node} ({reason}): correct {variable}; roles/app/README.md says what "
        "it has to have"
    )


def _delete(api: Any, namespace: str, name: str, kind: str = "Pod") -> None:
    # Without a grace period: there is nothing to end well, and a second run must not find it.
    api.delete("v1", kind, name, namespace, grace_period_seconds=0)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "image": {"type": "str", "required": True},
            "pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "login": {
                "type": "dict",
                "options": {
                    "server": {"type": "str", "required": True},
                    "username": {"type": "str", "required": True},
                    "token": {"type": "str", "required": True, "no_log": True},
                },
            },
            "command": {"type": "list", "elements": "str", "default": []},
            "kept": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 180},
            "node_selector": {"type": "dict", "default": {}},
            "tolerations": {"type": "list", "elements": "dict", "default": []},
            "variables": {"type": "list", "elements": "str", "default": ["app_image", "app_image_pull_secrets"]},
        },
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(
            changed=False,
            skipped=True,
            msg=f"Whether the cluster can pull {options['image']} is not tried in check mode, because it takes a pod.",
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The default action would leave the pod behind.
        signal.signal(number, lambda received, _frame: exit_with(128 + received))
    try:
        result = check(kube.connect(options["kubeconfig"]), options)
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **result)


def exit_with(code: int) -> None:
    raise SystemExit(code)


if __name__ == "__main__":
    main()
