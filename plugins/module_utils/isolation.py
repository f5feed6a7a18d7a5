"""How little the application's pods may have on their node: pure decisions over the state document and the inventory.

LiteFS mounts FUSE, which takes the device and the right to mount. In falling order of safety that is had by:

user-namespace   the device from a device plugin, CAP_SYS_ADMIN in a user namespace: the root is nobody on the host
device-plugin    the same without the namespace: the pod's root is the host's, with CAP_SYS_ADMIN and nothing else
privileged       the whole host, as the original system ran
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .app_types import Desired
from .placement import local_claims, may_run
from .state_types import Node, State

# hostUsers is on by default from Kubernetes 1.33, and needs id-mapped mounts of tmpfs, which Linux has from 6.3.
# Source: kubernetes.io/docs/concepts/workloads/pods/user-namespaces
USER_NAMESPACES_MINOR = 33
USER_NAMESPACES_KERNEL = (6, 3)
# Kinds of a pod's volumes that Linux cannot id-map.
NETWORK_VOLUMES = ("nfs", "cephfs", "glusterfs", "rbd", "iscsi", "azureFile")


@dataclass(frozen=True)
class Isolation:
    """What the pods get: ``mode`` as in the module's docstring, and ``reason``, a clause that follows a colon."""

    mode: str
    reason: str


def decide(state: State, desired: Desired) -> Isolation:
    """Choose for all pods of the StatefulSet at once: a pod that cannot be mapped never starts."""
    if desired.get("privileged"):
        return Isolation("privileged", "app_privileged is true")
    user_namespace = desired.get("user_namespace")
    if user_namespace is False:
        return Isolation("device-plugin", "app_user_namespace is false")
    for volume in desired.get("volumes") or []:
        kind = next((kind for kind in NETWORK_VOLUMES if kind in volume), None)
        if kind:
            return Isolation("device-plugin", f"the volume {volume['name']} is {kind}, which cannot be id-mapped")
        # What many pods write to at once is NFS nearly always, whatever its class is called.
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and user_namespace is None and claim not in local_claims(desired):
            return Isolation(
                "device-plugin",
                f"the claim {claim} may be on NFS, which cannot be id-mapped (where it is not, set app_user_namespace: "
                "true)",
            )
    if state["api"]["error"]:
        return Isolation("user-namespace", "no node could be asked yet whether it has what that needs")
    minor = state["api"]["minor"]
    if minor is not None and minor < USER_NAMESPACES_MINOR:
        return Isolation("device-plugin", f"the API is {state['api']['version']}, and user namespaces need 1.33")
    # A node that is cordoned or down today runs pods tomorrow.
    nodes = [node for node in state["nodes"] if may_run(node, desired, some_day=True)]
    if not nodes:
        return Isolation("device-plugin", "no node may run the pods")
    for node in nodes:
        problem = _problem(node)
        if problem:
            return Isolation("device-plugin", f"node {node['name']} {problem}")
    return Isolation("user-namespace", "every node that may run the pods can map them")


def without_device(state: State, desired: Desired) -> list[str]:
    """The names of the nodes that may run the pods now, where not one of them offers the FUSE device."""
    nodes = [node for node in state["nodes"] if may_run(node, desired)]
    return [] if any(node["fuse_devices"] for node in nodes) else [node["name"] for node in nodes]


def _problem(node: Node) -> str | None:
    found = re.match(r"(\d+)\.(\d+)", node["kernel"])
    if not found or (int(found[1]), int(found[2])) < USER_NAMESPACES_KERNEL:
        return f"has the kernel {node['kernel'] or 'of an unknown version'}, and user namespaces need 6.3"
    if not node["user_namespaces"]:
        return f"has {node['runtime'] or 'a runtime'}, whose kubelet does not say that it can make user namespaces"
    return None
