"""What names the primary in the objects of a site that lives, and how it is changed in place. Pure.

An operation that moves the primary or restores changes this and nothing else, so that neither an error in the
inventory nor an image or a Secret that changed there gets in the way. site.yml renders the same from the record.
"""

from __future__ import annotations

import re

from ..objects import Object

# The commands of LiteFS (litefs.yml, exec) while they are left out.
EXEC = "abaci.infra/exec"
POD_NAME = "statefulset.kubernetes.io/pod-name"


def primary_of(text: str, app: str) -> int | None:
    """The ordinal that a litefs.yml names as primary."""
    match = re.search(rf"^\s*hostname:\s*{re.escape(app)}-(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


def is_quiet(text: str) -> bool:
    """Whether a litefs.yml has no command."""
    return bool(text) and not re.search(r"^exec:", text, re.MULTILINE)


def litefs_yml(text: str, app: str, ordinal: int) -> str:
    """The litefs.yml with another primary: roles/app/templates/litefs.yml.j2 for this ordinal."""
    name = rf"{re.escape(app)}-\d+"
    for before, after in (
        (r"^(\s*hostname:\s*)", r"(?=\s*$)"),
        (r"^(\s*advertise-url:\s*http://)", r"(?=\.)"),
        (r"(POD_NAME == (?:\"|'))", r"(?=\"|')"),
    ):
        text = re.sub(f"{before}{name}{after}", rf"\g<1>{app}-{ordinal}", text, flags=re.MULTILINE)
    return text


def config_map(found: Object, app: str, ordinal: int, quiet: bool) -> None:
    """Change the ConfigMap <app>-litefs. ValueError where its commands are to come back and are not kept."""
    text = str(found["data"]["litefs.yml"])
    annotations = found["metadata"].setdefault("annotations", {})
    if quiet and not is_quiet(text):
        # It is the last section of the file.
        start = text.index("\nexec:") + 1
        annotations[EXEC], text = text[start:], text[:start]
    elif not quiet and is_quiet(text):
        if EXEC not in annotations:
            raise ValueError(
                "its litefs.yml has no commands, and none are kept beside it: run site.yml, which has them"
            )
        text = text.rstrip("\n") + "\n" + annotations[EXEC]
    if not quiet:
        annotations.pop(EXEC, None)
    found["data"]["litefs.yml"] = litefs_yml(text, app, ordinal)


def service(found: Object, app: str, ordinal: int) -> None:
    """Change the Service <app>-primary."""
    found["spec"]["selector"][POD_NAME] = f"{app}-{ordinal}"


def routed_to(found: Object | None, app: str) -> int | None:
    """The ordinal that the Service <app>-primary selects."""
    name = str((((found or {}).get("spec") or {}).get("selector") or {}).get(POD_NAME, ""))
    match = re.fullmatch(rf"{re.escape(app)}-(\d+)", name)
    return int(match[1]) if match else None
