#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: release_manifest
short_description: Apply the one-file manifest of a release, CRDs first
description:
  - Reads a manifest from a file, applies its namespaces and CRDs server-side, waits until the API serves the new kinds,
    and applies everything else. Every object gets the label C(app.kubernetes.io/managed-by).
  - The file has to be of the version that is asked for, and the Deployment that it brings must not be Helm's.
  - With O(state=absent) everything but CRDs and namespaces goes, unless O(remove_data) is true.
version_added: 0.1.0
author: The abaci.infra authors
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig]
options:
  path:
    description: The manifest's file on that machine.
    type: path
    required: true
  version:
    description: The version that the manifest's Deployments have to carry, as C(v1.21.1).
    type: str
    required: true
  kinds:
    description: Kinds that the manifest has to define.
    type: list
    elements: str
    default: []
  namespace_labels:
    description: Further labels of the manifest's namespaces.
    type: dict
    default: {}
  state:
    description: Whether its objects are there.
    type: str
    choices: [present, absent]
    default: present
  remove_data:
    description: With O(state=absent), whether CRDs (with every object of their kinds) and namespaces go, too.
    type: bool
    default: false
  timeout:
    description: Seconds to wait until the API serves the kinds.
    type: int
    default: 60
attributes:
  check_mode:
    description: Nothing is stored; what the API cannot dry-run yet is listed as what would be created.
    support: full
  diff_mode:
    description: The objects that change, without their status; of CRDs only the name.
    support: full
"""

EXAMPLES = r"""
- name: Install cert-manager
  abaci.infra.release_manifest:
    kubeconfig: ~/.kube/k3s-config
    path: /srv/mirror/cert-manager.yaml
    version: v1.21.1
    kinds: [Certificate, ClusterIssuer]
"""

RETURN = r"""
changes:
  description: What was (in check mode, would be) created, changed or removed, each as C(Kind namespace/name).
  type: list
  elements: str
  returned: success
"""

import time
from typing import Any

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments, kube, release_manifest

Object = dict[str, Any]

POLL = 0.5


def read(path: str, version: str, kinds: list[str]) -> list[Object]:
    """The documents of the file. Raises KubeError where it is not the manifest of that version."""
    try:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.load_all(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise kube.KubeError(f"The manifest {path} cannot be read: {' '.join(str(exc).split())}.") from exc
    problem: str = release_manifest.version_error(documents, version, kinds)
    if problem:
        raise kube.KubeError(f"The file {path} is not the manifest that was asked for: {problem}.")
    return documents


def apply_all(
    client: kube.Client | None, objects: list[Object], check: bool, timeout: int
) -> tuple[list[str], list[Object]]:
    """Return the names of what changes, and the differences. ``client`` may be None in check mode only."""
    changes: list[str] = []
    differences: list[Object] = []
    for stage in release_manifest.stages(objects):
        possible = list(range(len(stage)))
        if check:
            possible, others = applying.scope(client, stage, "no API answers yet")
            changes += others
            if others:
                differences.append(applying.would_be_created(others))
        for position in possible if client is not None else []:
            obj = stage[position]
            before, after = applying.apply(client, obj, check)
            if before != after:
                name = applying.label(obj)
                changes.append(name)
                differences.append(_difference(name, obj, before, after))
        if client is not None and not check:
            wait_established(client, [item for item in stage if item["kind"] == release_manifest.CRD], timeout)
    return changes, differences


def _difference(name: str, obj: Object, before: Object, after: Object) -> Object:
    if obj["kind"] == release_manifest.CRD:  # a schema has thousands of lines
        texts = {"before": "the old schema\n" if before else "", "after": "the schema of this version\n"}
    else:
        texts = {"before": _text(before), "after": _text(after)}
    return {"before_header": name, "after_header": name, **texts}


def _text(obj: Object) -> str:
    return yaml.safe_dump(obj, sort_keys=False) if obj else ""


def wait_established(client: kube.Client, crds: list[Object], timeout: int) -> None:
    """Return once the API serves all these kinds. Raises KubeError with the names of those that it does not serve."""
    deadline = time.monotonic() + timeout
    while True:
        waiting = []
        for crd in crds:
            found = client.get(crd["apiVersion"], crd["kind"], crd["metadata"]["name"])
            if not release_manifest.established(found):
                waiting.append(crd["metadata"]["name"])
        if not waiting:
            return
        if time.monotonic() >= deadline:
            raise kube.KubeError(
                f"After {timeout} s the API does not serve {', '.join(waiting)}: see the conditions of "
                f"`kubectl describe crd {waiting[0]}`."
            )
        time.sleep(POLL)


def remove(client: kube.Client, objects: list[Object], with_data: bool, check: bool) -> list[str]:
    """Return the names of what was removed, or in check mode would be."""
    removed = []
    for obj in release_manifest.removal(objects, with_data):
        place = (obj["apiVersion"], obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        if not client.knows(obj["apiVersion"], obj["kind"]):
            continue
        if client.get(*place) is not None:
            removed.append(applying.label(obj))
            if not check:
                client.delete(*place)
    return removed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.KUBECONFIG,
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "kinds": {"type": "list", "elements": "str", "default": []},
            "namespace_labels": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "remove_data": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    client: kube.Client | None = None
    try:
        documents = read(asked["path"], asked["version"], asked["kinds"])
        try:
            client = kube.connect(asked["kubeconfig"])
            client.raw("/version")
        except kube.KubeError as exc:
            if exc.status is not None or not module.check_mode:
                raise
            client = None
        objects = release_manifest.prepared(documents, asked["namespace_labels"])
        if asked["state"] == "absent":
            changes = remove(client, objects, asked["remove_data"], module.check_mode) if client is not None else []
            lines = "".join(f"{name}\n" for name in changes)
            module.exit_json(changed=bool(changes), changes=changes, diff=[{"before": lines, "after": ""}])
        for obj in objects:
            if obj["kind"] == "Deployment" and client is not None:
                found = client.get("apps/v1", "Deployment", obj["metadata"]["name"], obj["metadata"].get("namespace"))
                reason = release_manifest.foreign(found)
                if reason:
                    raise kube.KubeError(f"{applying.label(obj)} is already there. {reason}")
        changes, differences = apply_all(client, objects, module.check_mode, asked["timeout"])
    except kube.KubeError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=bool(changes), changes=changes, diff=differences)


if __name__ == "__main__":
    main()
