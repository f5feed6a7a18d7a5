"""The decisions about k3s as filters; they live in module_utils/k3s.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from ansible_collections.abaci.infra.plugins.module_utils import k3s


def k3s_kubeconfig(text: str, server: str) -> str:
    """Return the server's own kubeconfig with the address under which the reader reaches the API."""
    # str(): Ansible marks its strings, and the dumper knows plain ones only.
    return str(yaml.safe_dump(k3s.kubeconfig_for(yaml.safe_load(text), str(server)), sort_keys=False))


def k3s_kubeconfig_refusal(text: str, living: str, path: str) -> str:
    """Return why the kubeconfig with this content must not be overwritten; see module_utils."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = "broken"
    return str(k3s.kubeconfig_refusal(document, living, path))


def k3s_kubeconfig_ca(text: str) -> str:
    """Return the hash of the CA of a kubeconfig's cluster."""
    return str(k3s.kubeconfig_ca(yaml.safe_load(text)))


def upgrade_error(installed: str, wanted: str) -> str:
    """Return why one version may not follow another where an upgrade is allowed; see module_utils."""
    return str(k3s.upgrade_error(installed, wanted, True))


class FilterModule:
    """Filters of the role k3s."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "k3s_artifact": k3s.artifact,
            "k3s_files_in_folder": k3s.files_in_folder,
            "k3s_file_error": k3s.file_error,
            "k3s_upgrade_error": upgrade_error,
            "k3s_merge": k3s.merge_config,
            "k3s_config_errors": k3s.config_errors,
            "k3s_cluster_errors": k3s.cluster_errors,
            "k3s_foreign_error": k3s.foreign_error,
            "k3s_ca_hash": k3s.ca_hash,
            "k3s_san": k3s.san,
            "k3s_likely_cause": k3s.likely_cause,
            "k3s_kubeconfig": k3s_kubeconfig,
            "k3s_kubeconfig_ca": k3s_kubeconfig_ca,
            "k3s_kubeconfig_refusal": k3s_kubeconfig_refusal,
        }
