#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a cluster whether it is the inventory's, and whether the site would be a second one in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_check
short_description: Check that it is the inventory's cluster, and the only site of its domains
description:
  - Compares the cluster behind the kubeconfig with the inventory's hosts. Where the hosts were asked in this run, by
    the hash of the CA on the server (O(ca_hash)). Else by what the site's StatefulSet says of the hosts from which it
    was applied last, and where that is not written down, by the names and addresses of the cluster's nodes. One host
    that matches is enough, so dead and removed ones do no harm.
  - With O(apply), refuses where a route of another site, in any namespace, serves one of O(domains), and where another
    StatefulSet of the namespace takes its environment from O(config_name) or O(secret_name).
  - Reads only. Fails in one sentence.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.application]
options:
  hosts:
    description: The inventory's hosts with their addresses. Where there are none, nothing is compared with them.
    type: dict
    default: {}
  aliases:
    description: Other names that their nodes may have.
    type: list
    elements: str
    default: []
  server:
    description: The host from which O(ca_hash) is, for the sentence.
    type: str
    default: ""
  ca_hash:
    description: SHA-256 of the cluster's CA on the server; empty where the server was not asked.
    type: str
    default: ""
  apply:
    description: Whether the caller would make or change the site.
    type: bool
    default: false
  domains:
    description: The site's host names.
    type: list
    elements: str
    default: []
  config_name:
    description: The site's ConfigMap of environment variables.
    type: str
    default: ""
  secret_name:
    description: The site's Secret of environment variables.
    type: str
    default: ""
  required:
    description: Whether an API that does not answer is an error. If not, RV(asked) says so.
    type: bool
    default: true
attributes:
  check_mode:
    description: The module only reads. In check mode an API that cannot be reached is no error.
    support: full
"""

EXAMPLES = r"""
- name: Check that it is the inventory's cluster
  abaci.infra.site_check:
    kubeconfig: ~/.kube/k3s-config
    hosts: {node-1: 192.0.2.11, node-2: 192.0.2.12}
"""

RETURN = r"""
asked:
  description: Whether the API answered.
  returned: success
  type: bool
known:
  description: The routes that were read, for the option C(known) of M(abaci.infra.objects_info).
  returned: success
  type: dict
hosts:
  description: The hosts that it was compared with, with the addresses that are known of them.
  returned: success
  type: dict
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube, site
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object


def look(api: Any, apply: bool, ca_hash: str) -> site.Seen:
    """Read what the decision is about; with ``apply`` also the routes, with ``ca_hash`` no nodes where it tells."""
    root = api.get("v1", "ConfigMap", "kube-root-ca.crt", "kube-system") or {}
    ca = (root.get("data") or {}).get("ca.crt", "")
    nodes = [] if ca_hash and ca else api.list("v1", "Node")
    seen = site.Seen(nodes=nodes, ca=ca, statefulsets=api.list("apps/v1", "StatefulSet"))
    if not apply:
        return seen
    return dataclasses.replace(
        seen,
        ingresses=api.list("networking.k8s.io/v1", "Ingress"),
        ingress_routes=_where_known(api, "traefik.io/v1alpha1", "IngressRoute"),
    )


def _where_known(api: Any, api_version: str, kind: str) -> list[Object]:
    try:
        found: list[Object] = api.list(api_version, kind)
    except kube.KubeError as exc:
        if exc.unknown_kind:
            return []
        raise
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "hosts": {"type": "dict", "default": {}},
            "aliases": {"type": "list", "elements": "str", "default": []},
            "server": {"type": "str", "default": ""},
            "ca_hash": {"type": "str", "default": ""},
            "apply": {"type": "bool", "default": False},
            "domains": {"type": "list", "elements": "str", "default": []},
            "config_name": {"type": "str", "default": ""},
            # A name, not a secret.
            "secret_name": {"type": "str", "default": "", "no_log": False},
            "required": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    required = options.pop("required")
    try:
        api = kube.connect(options["kubeconfig"], timeout=10)
        seen = look(api, options["apply"], options["ca_hash"])
    except kube.KubeError as exc:
        if required and not (module.check_mode and exc.status is None):
            module.fail_json(msg=str(exc))
        module.exit_json(changed=False, asked=False, known={}, hosts=options["hosts"])
    given = options.pop("hosts")
    hosts = {name: str(address or name) for name, address in given.items()}
    refusal = site.refusal(seen, site.Desired(hosts=hosts, **options))
    if refusal:
        module.fail_json(msg=refusal)
    routes = {
        ("networking.k8s.io/v1", "Ingress"): seen.ingresses,
        ("traefik.io/v1alpha1", "IngressRoute"): seen.ingress_routes,
    }
    reads = [
        {"apiVersion": version, "kind": kind, "namespace": None, "names": None, "items": items}
        for (version, kind), items in routes.items()
        if items
    ]
    module.exit_json(changed=False, asked=True, known={"server": api.server, "reads": reads}, hosts=given)


if __name__ == "__main__":
    main()
