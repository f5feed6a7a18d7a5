"""Let kubernetes.core.k8s apply a list of manifests, and say object by object what that changed.

For a list, kubernetes.core.k8s keeps the differences inside its result, where no callback shows them, and its dry run
fails on what the same run would first make possible. This adds both and returns no object, so no secret, to the caller.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.abaci.infra.plugins.module_utils import applying, arguments

Object = dict[str, Any]

ARGUMENTS: Object = {
    **arguments.KUBECONFIG,
    "objects": {"type": "list", "elements": "dict", "required": True},
    "namespace": {"type": "str", "default": ""},
}


def lift(objects: list[Object], answer: Object) -> tuple[list[str], list[Object]]:
    """Names and differences of the objects that have changed; ``answer`` is what kubernetes.core.k8s says in diff mode.

    That module also calls changed what the API or a controller wrote: a status that moved between its two readings, or
    the time in managedFields, which the first apply after a ``kubectl scale`` renews. Who owns a field is bookkeeping,
    too: taking over what somebody set to the same value changes nothing.
    """
    results = answer["result"]["results"] if len(objects) > 1 else [answer]
    changes: list[str] = []
    differences: list[Object] = []
    for obj, result in zip(objects, results, strict=True):
        if not result["changed"]:
            continue
        before, after = (applying.comparable(result["diff"].get(side)) for side in ("before", "after"))
        if before == after:
            continue
        name = applying.label(obj)
        changes.append(name)
        differences.append({"before_header": name, "after_header": name, "before": before, "after": after})
    return changes, differences


def reason(message: str) -> str:
    """The API server's own sentence out of kubernetes.core's message, or that message where there is none."""
    found = re.search(r'"message":("(?:[^"\\]|\\.)*")', message)
    return f"The API server refuses: {json.loads(found.group(1))}" if found else message


class ActionModule(ActionBase):  # type: ignore[misc]
    """The arguments stand in the module of the same name, which holds the documentation."""

    def run(self, tmp: str | None = None, task_vars: Object | None = None) -> Object:
        result: Object = super().run(tmp, task_vars)
        call = functools.partial(self._execute_module, task_vars=task_vars)
        _, given = self.validate_argument_spec(ARGUMENTS)
        kubeconfig, objects, namespace = given["kubeconfig"], list(given["objects"]), given["namespace"]
        pending: list[str] = []
        if not self._task.check_mode and not Path(kubeconfig).is_file():
            return {
                **result,
                "failed": True,
                "msg": f"There is no kubeconfig {kubeconfig}; name it in abaci_kubeconfig.",
            }
        if self._task.check_mode or namespace:
            scope_arguments = {"kubeconfig": kubeconfig, "objects": objects, "namespace": namespace}
            scope = call(module_name="abaci.infra.dry_run_scope", module_args=scope_arguments)
            if scope.get("failed"):
                return {**result, "failed": True, "msg": scope["msg"]}
            if self._task.check_mode:
                objects = [objects[index] for index in scope["indices"]]
                pending = scope["would_create"]
            # One that exists is left alone: its owner may set more with this field manager.
            if scope["namespace_missing"] and (scope["reachable"] or not self._task.check_mode):
                objects.insert(0, applying.namespace_object(namespace))
        changes: list[str] = []
        differences: list[Object] = []
        if pending:
            differences.append(applying.would_be_created(pending))
        if objects:
            apply = {
                "kubeconfig": kubeconfig,
                "resource_definition": objects,
                "apply": True,
                "server_side_apply": {"field_manager": applying.FIELD_MANAGER, "force_conflicts": True},
            }
            wanted, self._task.diff = self._task.diff, True
            try:
                answer = call(module_name="kubernetes.core.k8s", module_args=apply)
            finally:
                self._task.diff = wanted
            if answer.get("failed"):
                return {**result, "failed": True, "msg": reason(str(answer.get("msg", answer)))}
            changes, lifted = lift(objects, answer)
            differences += lifted
        shown = {"diff": differences} if self._task.diff else {}
        return {**result, "changed": bool(pending or changes), "changes": pending + changes, **shown}
