#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how a site is: what is known of it, what is wrong, and what mends it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_status
short_description: Say how a site is, what is wrong with it, and what mends it
description:
  - Looks at the cluster, the application's pods and volumes, its edge and what stands beside it, and judges that by one
    table of checks. Eleven requests to the API, one to each pod and one to each kubelet.
  - Fails only where it is used wrongly. An API that is away, a cluster of another inventory and a site that is down are
    summaries. What is not known is said to be unknown.
  - C(docs/status.md) describes the facts.
version_added: 0.1.0
author: The abaci.infra authors (@abaci-infra)
extends_documentation_fragment:
  - abaci.infra.arguments.kubeconfig
  - abaci.infra.arguments.application
  - abaci.infra.arguments.database
  - abaci.infra.arguments.edge
options:
  cluster:
    description: Whether the cluster is looked at; else only O(hosts) are.
    type: bool
    default: true
  tls_secret:
    description: The Secret with the site's certificate.
    type: str
    default: abaci-tls
  tls:
    description: Whether TLS ends here, and not at a proxy in front.
    type: bool
    default: true
  domains:
    description: The site's names; the writes go to the first. Without any the edge is not asked.
    type: list
    elements: str
    default: []
  address:
    description: Where to connect to.
    type: str
    default: ""
  verify_path:
    description: A path whose writes the application rejects.
    type: str
    default: /
  parts:
    description: The Deployments and DaemonSets beside the application.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      namespace:
        description: Its namespace.
        type: str
        required: true
      wanted:
        description: Whether the inventory asks for it.
        type: bool
        default: true
  inventory_hosts:
    description: The inventory's hosts with their addresses. Where there are none, nothing is compared with them.
    type: dict
    default: {}
  aliases:
    description: Other names that their nodes may have.
    type: list
    elements: str
    default: []
  inventory:
    description: The inventory as it stands in commands.
    type: str
    default: inventories/mine
  backup_hours:
    description: How old the last scheduled backup may be.
    type: int
    default: 36
  backup_directory:
    description: Where backups of the database are kept on this machine; empty for nowhere.
    type: path
    default: ""
  cluster_copied:
    description: What the server has written down of the last copy of its datastore, as JSON; empty for nothing.
    type: str
    default: ""
  cluster_copied_error:
    description: Why the server could not be asked for it.
    type: str
    default: ""
  hosts:
    description: What M(abaci.infra.host_probe) returned of each host. Empty where the hosts were not looked at.
    type: list
    elements: dict
    default: []
  connections:
    description:
      - Tries to connect from host to host, each with C(source), C(target), C(port), C(protocol) and C(error), which is
        null where it worked.
    type: list
    elements: dict
    default: []
  groups:
    description: Groups of checks to run; all where none is named.
    type: list
    elements: str
    default: []
  output:
    description: What RV(shown) is.
    type: str
    choices: [text, json, html, lines, junit]
    default: text
  template:
    description: The Jinja template of O(output=html), on this machine.
    type: path
    default: ""
  timeout:
    description: Seconds that each pod and each API request may take.
    type: int
    default: 5
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
"""

EXAMPLES = r"""
- name: Read how the site is
  abaci.infra.site_status:
    kubeconfig: ~/.kube/k3s-config
    domains: [www.example.org]
    address: 192.0.2.10
  register: __status
"""

RETURN = r"""
code:
  description: 0 for a site that is well, 1 for one that is degraded, 2 for one that is down or unsafe.
  returned: success
  type: int
sentence:
  description: The summary.
  returned: success
  type: str
shown:
  description: The output that was asked for.
  returned: success
  type: str
checks:
  description: The checks, each with C(slug), C(group), C(asks), C(mark), C(cause), C(command), C(page) and C(grave).
  returned: success
  type: list
  elements: dict
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import arguments, kube
from ansible_collections.abaci.infra.plugins.module_utils.status import checks, observe, reading, view
from ansible_collections.abaci.infra.plugins.module_utils.status.facts import Facts

PART = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "wanted": {"type": "bool", "default": True},
}
SPEC: arguments.Spec = {
    **arguments.DATABASE,
    **arguments.EDGE,
    "cluster": {"type": "bool", "default": True},
    # A name, not a secret.
    "tls_secret": {"type": "str", "default": "abaci-tls", "no_log": False},
    "tls": {"type": "bool", "default": True},
    "domains": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str", "default": ""},
    "verify_path": {"type": "str", "default": "/"},
    "parts": {"type": "list", "elements": "dict", "default": [], "options": PART},
    "inventory_hosts": {"type": "dict", "default": {}},
    "aliases": {"type": "list", "elements": "str", "default": []},
    "inventory": {"type": "str", "default": "inventories/mine"},
    "backup_hours": {"type": "int", "default": 36},
    "backup_directory": {"type": "path", "default": ""},
    "cluster_copied": {"type": "str", "default": ""},
    "cluster_copied_error": {"type": "str", "default": ""},
    "hosts": {"type": "list", "elements": "dict", "default": []},
    "connections": {"type": "list", "elements": "dict", "default": []},
    "groups": {"type": "list", "elements": "str", "default": []},
    "output": {"type": "str", "choices": ["text", "json", "html", "lines", "junit"], "default": "text"},
    "template": {"type": "path", "default": ""},
    "timeout": {"type": "int", "default": 5},
}


def asked(options: arguments.Options) -> reading.Asked:
    """What is to be looked at."""
    same = (
        *("namespace", "name", "database", "kubeconfig", "claim_template", "port", "tls_secret", "tls", "address"),
        *("https_port", "edge_https_port", "edge_http_port", "health_path", "verify_path", "inventory", "backup_hours"),
        "backup_directory",
    )
    try:
        copied = json.loads(options["cluster_copied"] or "{}")
    except ValueError:
        copied = {}
    return reading.Asked(
        **{name: options[name] for name in same},
        timeout=float(options["timeout"]),
        domains=tuple(options["domains"]),
        parts=tuple((part["name"], part["namespace"], part["wanted"]) for part in options["parts"]),
        hosts={name: str(address or name) for name, address in options["inventory_hosts"].items()},
        aliases=tuple(options["aliases"]),
        cluster_copied=copied if isinstance(copied, dict) else {},
        cluster_copied_error=options["cluster_copied_error"] or None,
    )


def seen(options: arguments.Options, question: reading.Asked) -> reading.Seen:
    """What the cluster says; a kubeconfig that cannot be used is a finding, too."""
    if not options["cluster"]:
        return reading.Seen()
    try:
        api = kube.connect(options["kubeconfig"], timeout=options["timeout"])
    except kube.KubeError as exc:
        return reading.Seen(error=str(exc), kubeconfig=options["kubeconfig"])
    found: reading.Seen = observe.observe(api, question)
    return found


def show(options: arguments.Options, found: Facts, results: list[checks.Result], summary: checks.Summary) -> str:
    """The output that was asked for."""
    kind, said = options["output"], ""
    if kind == "text":
        said = view.text(found, results, summary)
    elif kind == "json":
        said = json.dumps(view.document(found, results, summary), indent=2) + "\n"
    elif kind == "html":
        said = view.page(Path(options["template"]).read_text(), found, results, summary)
    elif kind == "lines":
        said = view.lines(results, summary)
    elif kind == "junit":
        said = view.junit(results)
    return said


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    options = module.params
    unknown = sorted(set(options["groups"]) - set(checks.groups()))
    if unknown:
        module.fail_json(
            msg=f"There is no group of checks {', '.join(unknown)}: choose among {', '.join(checks.groups())}."
        )
    question = asked(options)
    found = replace(reading.facts(seen(options, question), question), cluster_asked=options["cluster"])
    if options["hosts"]:
        found = reading.with_hosts(found, options["hosts"], options["connections"])
    results = checks.run(found, options["groups"])
    summary = checks.summary(found, results)
    module.exit_json(
        changed=False,
        code=summary.code,
        sentence=summary.sentence,
        shown=show(options, found, results, summary),
        checks=[asdict(one) for one in results],
    )


if __name__ == "__main__":
    main()
