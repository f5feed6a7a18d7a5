#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: edge_probe
short_description: Ask a site from outside, over HTTP and HTTPS, and return the answers
description:
  - Sends each request on a connection of its own, one after the other, and follows no redirect.
  - A request can go to another address than its URL's; the name in SNI, in Host and in the check of the certificate is
    the URL's all the same.
  - Neither an answer with an error status nor a missing answer fails the task; see RV(answers[].error).
version_added: 0.1.0
author: The abaci.infra authors
options:
  requests:
    description: The requests.
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: What is asked for.
        type: str
        required: true
      method:
        description: The method.
        type: str
        default: GET
      connect:
        description: Address and port to connect to, as C(192.0.2.1:443) or C([2001:db8::1]:443), in place of the URL's.
        type: str
      headers:
        description: Further headers.
        type: dict
        default: {}
      body:
        description: The body, as text.
        type: str
      ca_file:
        description: PEM file of the authorities that are trusted, in place of the system's.
        type: path
      verify:
        description: Whether the certificate is verified.
        type: bool
        default: true
      timeout:
        description: Seconds for the connection, and for each wait for data.
        type: float
        default: 10.0
attributes:
  check_mode:
    description: The requests are sent in check mode, too; skip the task where they would write.
    support: full
"""

EXAMPLES = r"""
- name: Ask for the front page at one node
  abaci.infra.edge_probe:
    requests:
      - url: https://www.example.org/
        connect: 192.0.2.10:443
  register: probe
"""

RETURN = r"""
answers:
  description: One answer for each request, in their order.
  type: list
  elements: dict
  returned: success
  contains:
    method: {description: The method of the request., type: str}
    url: {description: The URL of the request., type: str}
    status: {description: The status, V(null) where there was no answer., type: int}
    headers: {description: The headers as pairs of name and value., type: list}
    body: {description: The first 4096 bytes of the body as text., type: str}
    length: {description: Length of the body in bytes., type: int}
    tls:
      description: >-
        V(null) without TLS, else version, verified, fingerprint_sha256, and of a verified certificate subject, issuer,
        names and not_after.
      type: dict
    error: {description: One sentence where there was no answer, else empty., type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import edge


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "url": {"type": "str", "required": True},
                    "method": {"type": "str", "default": "GET"},
                    "connect": {"type": "str"},
                    "headers": {"type": "dict", "default": {}},
                    "body": {"type": "str"},
                    "ca_file": {"type": "path"},
                    "verify": {"type": "bool", "default": True},
                    "timeout": {"type": "float", "default": 10.0},
                },
            }
        },
        supports_check_mode=True,
    )
    try:
        requests = [edge.parse(given) for given in module.params["requests"]]
    except edge.BadRequest as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, answers=[edge.send(request) for request in requests])


if __name__ == "__main__":
    main()
