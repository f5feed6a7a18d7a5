"""Plays and inventories that the bench makes for itself, as plain data. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

Data = dict[str, Any]


def floor(modules: Mapping[str, int]) -> list[Data]:
    """Plays in which each host executes as many modules as it is given: a setup, then pings.

    That is what Ansible itself takes for so many round trips. A host of 0 takes no part.
    """
    plays: list[Data] = []
    for number in range(1, max(modules.values(), default=0) + 1):
        there = sorted(host for host, count in modules.items() if count >= number)
        for local in (True, False):
            hosts = [host for host in there if (host == "localhost") is local]
            if hosts:
                task: Data = {"ansible.builtin.setup": {}} if number == 1 else {"ansible.builtin.ping": {}}
                plays.append(_play(hosts, [task], local))
    return plays


def _play(hosts: Sequence[str], tasks: list[Data], local: bool) -> Data:
    play: Data = {"hosts": ",".join(hosts), "gather_facts": False, "tasks": tasks}
    if local:
        play |= {"connection": "local", "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}}
    return play


def one_call(kubeconfig: str, objects: str) -> list[Data]:
    """Apply the manifests of a JSON file in one call. Read by a lookup, so that nothing in them is a template."""
    content = f"{{{{ lookup('ansible.builtin.file', {objects!r}) | from_json }}}}"
    return [
        _play(["localhost"], [{"abaci.infra.server_side_apply": {"kubeconfig": kubeconfig, "objects": content}}], True)
    ]


def one_task_each(kubeconfig: str, files: Sequence[str]) -> list[Data]:
    """Apply the manifests, each in a file of its own, as the same field manager by one kubernetes.core.k8s each."""
    tasks = [
        {
            "kubernetes.core.k8s": {
                "kubeconfig": kubeconfig,
                "src": file,
                "apply": True,
                "server_side_apply": {"field_manager": "abaci.infra"},
            }
        }
        for file in files
    ]
    return [_play(["localhost"], tasks, True)]


def behind_relays(hosts: Data, ssh: Mapping[str, int], kubeconfig: str, api: int) -> Data:
    """The inventory of a bed with SSH and API behind relays on 127.0.0.1.

    Args:
        hosts: what hosts.yml of the bed has.
        ssh: port of the relay by name of the host. ansible_host stays, for roles put it into configuration.
        kubeconfig: a kubeconfig whose server is the relay of the API.
        api: port of that relay.
    """
    changed = copy.deepcopy(hosts)
    for group in changed["all"]["children"]["k3s_cluster"]["children"].values():
        for name, variables in group["hosts"].items():
            variables["ansible_ssh_extra_args"] = (
                f"-o HostName=127.0.0.1 -o Port={ssh[name]} -o HostKeyAlias={variables['ansible_host']}"
            )
    changed["all"]["vars"] |= {
        "k3s_kubeconfig": kubeconfig,
        "k3s_kubeconfig_server": f"https://127.0.0.1:{api}",
    }
    return changed


def addresses(hosts: Data) -> dict[str, str]:
    """Host -> address, of an inventory that the bed wrote."""
    groups = hosts["all"]["children"]["k3s_cluster"]["children"].values()
    return {name: variables["ansible_host"] for group in groups for name, variables in group["hosts"].items()}
