"""Evaluates one variable of a role as Ansible would, in this process: undefined variables are errors."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.abaci.infra.plugins.action import check_settings
from rendering import ROOT


def evaluate(role: str, name: str, **variables: Any) -> Any:
    """Return the value of a variable of the role, with its defaults and vars, and these instead."""
    loader, known = _known(role, variables)
    return Templar(loader=loader, variables=known).template(known[name])


def asked(role: str, tasks: str, module: str, option: str, **variables: Any) -> Any:
    """What each task of a file of the role gives to an option of a module, in their order; see evaluate()."""
    loader, known = _known(role, variables)
    every = loader.load_from_file(str(ROOT / "roles" / role / "tasks" / tasks), trusted_as_template=True)
    templar = Templar(loader=loader, variables=known)
    return [templar.template(task[module][option]) for task in every if option in (task.get(module) or {})]


def _known(role: str, variables: dict[str, Any]) -> tuple[DataLoader, dict[str, Any]]:
    loader = DataLoader()
    folder = ROOT / "roles" / role
    loader.set_basedir(str(folder))
    known: dict[str, Any] = {}
    for file in (folder / "defaults" / "main.yml", folder / "vars" / "main.yml"):
        if file.exists():
            known |= loader.load_from_file(str(file), trusted_as_template=True) or {}
    known |= {"ansible_check_mode": False, **variables}
    known |= {"role_path": str(folder), "ansible_search_path": [str(folder)]}
    return loader, known


def errors(role: str, **variables: Any) -> list[str]:
    """What the action check_settings says of these variables of the role."""
    found: list[str] = check_settings.errors(role, {"ansible_check_mode": False, **variables}, DataLoader())
    return found


def living(
    secret: Any = None,
    redis: Any = None,
    tls: Any = None,
    registry: Any = None,
    certificate: Any = None,
    unknown: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What the role app reads of the cluster (__app_living), in its order."""
    objects = [one or {} for one in (secret, redis, tls, registry, certificate)]
    return {"__app_found": {"objects": objects, "unknown": list(unknown)}}
