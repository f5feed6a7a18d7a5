"""Arguments that several modules take, each set with the one before it; documented in plugins/doc_fragments."""

from __future__ import annotations

from typing import Any

Spec = dict[str, dict[str, Any]]  # the argument_spec of AnsibleModule
Options = dict[str, Any]  # its params: what a module was given

KUBECONFIG: Spec = {"kubeconfig": {"type": "path", "required": True}}
APPLICATION = KUBECONFIG | {
    "namespace": {"type": "str", "default": "abaci"},
    "name": {"type": "str", "default": "abaci-app"},
}
KNOWN: Spec = {"known": {"type": "dict", "default": {}}}
# Whether what objects_info read for several tasks is still so: a host fact of the play.
KNOWN_HOLDS = "abaci_known_holds"
_KINDS = ["StatefulSet", "Deployment", "DaemonSet", "PersistentVolumeClaim", "ClusterIssuer", "Certificate"]
APPLY = (
    KUBECONFIG
    | KNOWN
    | {
        "objects": {"type": "list", "elements": "dict", "default": []},
        "absent": {"type": "list", "elements": "dict", "default": []},
        "namespace": {"type": "str", "default": ""},
        "size_variable": {"type": "str", "default": ""},
        "wait_kinds": {"type": "list", "elements": "str", "choices": _KINDS, "default": []},
        "wait": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "kind": {"type": "str", "required": True, "choices": _KINDS},
                "name": {"type": "str", "required": True},
                "namespace": {"type": "str"},
                "annotations": {"type": "dict", "default": {}},
                "node_resource": {"type": "str", "default": ""},
            },
        },
        "timeout": {"type": "int", "default": 0},
    }
)
EDGE: Spec = {
    "https_port": {"type": "int", "default": 443},
    "edge_https_port": {"type": "int", "default": 443},
    "edge_http_port": {"type": "int", "default": 80},
    "health_path": {"type": "str", "default": "/"},
}
ARCHIVE: Spec = {"history": {"type": "str", "default": ""}, "timeout": {"type": "int", "default": 600}}
# It may have a passphrase in it.
COMMAND = {"type": "list", "elements": "str", "default": [], "no_log": True}
DATABASE = APPLICATION | {
    "database": {"type": "str", "default": "sqlite.db"},
    "claim_template": {"type": "str", "default": "litefs-data"},
    "port": {"type": "int", "default": 20202},
}


def command(module: Any, option: str) -> list[str]:
    """A command that was given as COMMAND: it is never shown, but its words stay readable elsewhere (age, -d, enc)."""
    words = [str(word) for word in module.params[option]]
    module.params[option] = "not shown"
    module.no_log_values -= set(words)
    return words
