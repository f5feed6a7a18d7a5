# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the variables of roles: names, types, and what plugins/module_utils/rules knows of their values."""

from __future__ import annotations

import difflib
import importlib
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible_collections.abaci.infra.plugins.module_utils import rules as package

Object = dict[str, Any]

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Names that begin so may belong to others, as storage_box_user does: only what looks like a slip of the pen is refused.
SHARED = {"host", "fuse", "k3s", "traefik", "cert_manager", "redis", "storage", "keel", "archive"}
# A copy, and the way back, have to be possible whatever else is wrong in the inventory.
COPIES = {"backup", "cluster_backup", "cluster_restore", "volumes_save"}
RENAMED = {
    "app_redis_enabled": "app_use_redis",
    "app_socket_path": "app_socket_paths, a list",
    "cert_manager_acme_enabled": "cert_manager_acme_state, present or unmanaged",
    "cert_manager_enabled": "cert_manager_state, present, absent or unmanaged",
    "fuse_device_plugin_enabled": "fuse_device_plugin_state, present, absent or unmanaged",
    "k3s_images_enabled": "k3s_images_state, present or unmanaged",
    "keel_enabled": "keel_state, present, absent or unmanaged",
    "storage_enabled": "storage_state, present, absent or unmanaged",
}
# How Ansible says that a value is of another type, and what our sentence says instead.
_OF_TYPE = re.compile(r"argument '(\w+)' is of type \w+ and we were unable to convert to (\w+): .*")
_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a list",
    "dict": "a dictionary",
}
ARGUMENTS: Object = {
    "roles": {"type": "list", "elements": "str", "required": True},
    "types_only": {"type": "bool", "default": False},
}


class Controller:
    """What rules may read of the controller; see rules.Look."""

    def is_file(self, path: str) -> bool:
        return Path(path).expanduser().is_file()

    def text(self, path: str) -> str:
        try:
            return Path(path).expanduser().read_text(errors="replace")
        except OSError:
            return ""


class ActionModule(ActionBase):  # type: ignore[misc]
    """The arguments stand in the module of the same name, which holds the documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Object | None = None) -> Object:
        result: Object = super().run(tmp, task_vars)
        given = self.validate_argument_spec(ARGUMENTS)[1]
        variables = task_vars or {}
        found = [] if given["types_only"] else renamed(given["roles"], variables)
        for role in given["roles"]:
            found += errors(str(role), variables, self._loader, given["types_only"])
        if found:
            return {**result, "failed": True, "msg": " ".join(found), "errors": found}
        return {**result, "changed": False, "errors": []}


def renamed(roles: list[str], variables: Object) -> list[str]:
    """A sentence for each variable, of whatever role, that has another name since, where these roles are checked.

    Defaults of one role follow variables of another, so that what is not seen changes more than its own role.
    """
    if COPIES.issuperset(roles):
        return []
    return [f"{old} is not known any more: it is {new} now." for old, new in RENAMED.items() if old in variables]


def as_text(spec: Object, given: Object) -> list[str]:
    """A sentence for each list or dictionary that is a text: Ansible takes it, templates read its letters."""
    return [
        f"{name} is a text, and has to be a {'list' if option['type'] == 'list' else 'dictionary'}: "
        "write it as YAML, with -e as JSON."
        for name, option in spec.items()
        if option.get("type") in ("list", "dict") and isinstance(given.get(name), str)
    ]


def worded(message: str, spec: Object, given: Object) -> str:
    """What Ansible says of a value, as a sentence that names it and what it has to be."""
    match = _OF_TYPE.fullmatch(message)
    name, kind = match.groups() if match else ("", "")
    if name not in given or kind not in _TYPES:
        return f"{message.rstrip('.')}."
    value = "not of that type" if spec[name].get("no_log") else repr(given[name])
    return f"{name} is {value}, and has to be {_TYPES[kind]}."


def errors(role: str, variables: Object, loader: DataLoader, types_only: bool = False) -> list[str]:
    """A sentence for everything that is wrong with the role's variables among these."""
    entries = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    spec: Object = entries["main"]["options"]
    known = {name for entry in entries.values() for name in entry.get("options") or {}}
    unknown = sorted(name for name in variables if name.startswith(f"{role}_") and name not in {*known, *RENAMED})
    if role in SHARED:
        unknown = [name for name in unknown if difflib.get_close_matches(name, known, cutoff=0.85)]
    found = []
    if unknown and not types_only:
        found.append(
            f"The variables {', '.join(unknown)} are not known: correct their names (roles/{role}/meta/"
            "argument_specs.yml lists all)."
        )
    # A play that is no role's has not its defaults.
    every = {**_of_role(role, "defaults", loader), **_of_role(role, "vars", loader), **variables}
    templar = Templar(loader=loader, variables=every)
    given = {name: templar.template(every[name]) for name in spec if name in every}
    if texts := as_text(spec, given):
        return found + texts
    checked = ArgumentSpecValidator(spec).validate(given)
    if checked.error_messages:
        return found + [worded(message, spec, given) for message in checked.error_messages]
    rules = None if types_only else _rules(role)
    # What is not looked at may have any value.
    if rules is None or checked.validated_parameters.get(f"{role}_state") == "unmanaged":
        return found
    others = {
        name: _like(default, templar.template(every[name])) if name in every else default
        for name, default in getattr(rules, "OTHERS", {}).items()
    }
    return found + list(rules.errors({**others, **checked.validated_parameters}, Controller()))


def _like(default: Any, value: Any) -> Any:
    """The value of another role's variable, of the type that its default has: -e gives text."""
    return boolean(value, strict=False) if isinstance(default, bool) else value


def _of_role(role: str, part: str, loader: DataLoader) -> Object:
    path = ROLES / role / part / "main.yml"
    return dict(loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.is_file() else {}


def _rules(role: str) -> Any:
    """The module of the role's rules; None for a role without."""
    if not (Path(package.__file__).parent / f"{role}.py").is_file():
        return None
    return importlib.import_module(f"{package.__name__}.{role}")
