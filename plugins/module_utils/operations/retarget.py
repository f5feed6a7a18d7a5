"""What names the primary in the objects of a site that lives, and how it is changed in place. Pure.

An operation that moves the primary or restores changes this and nothing else, so that neither an error in the
inventory nor an image or a Secret that changed there gets in the way. site.yml renders the same from the record.
"""

from __future__ import annotations

import re

from ..archive.settings import Settings
from ..objects import Object

# The commands of LiteFS (litefs.yml, exec) while they are left out.
EXEC = "abaci.infra/exec"
POD_NAME = "statefulset.kubernetes.io/pod-name"
# The address of the primary beside that of the archive, which stands in its place.
_KEPT = re.compile(r"^(\s*)# (advertise-url: .*)\n\s*advertise-url: .*$", re.MULTILINE)


def primary_of(text: str, app: str) -> int | None:
    """The ordinal that a litefs.yml names as primary."""
    match = re.search(rf"^\s*hostname:\s*{re.escape(app)}-(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


def is_quiet(text: str) -> bool:
    """Whether a litefs.yml has no command."""
    return bool(text) and not re.search(r"^exec:", text, re.MULTILINE)


def feeds(text: str, app: str) -> int | None:
    """The ordinal whose LiteFS a litefs.yml lets follow the archive, while nobody is primary."""
    match = re.search(rf"^\s*hostname:\s*{re.escape(app)}-archive-(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


def litefs_yml(text: str, app: str, ordinal: int, archive: bool = False) -> str:
    """The litefs.yml with another primary: roles/app/templates/litefs.yml.j2 for this ordinal.

    With ``archive`` nobody is primary, and whoever starts follows the archive. The guard reads the ordinal from the
    names all the same, so that it lets this one start first, as the primary that it will be. ValueError where no
    address of a primary is in it.
    """
    text = _KEPT.sub(r"\g<1>\g<2>", text)
    name = rf"{re.escape(app)}-(?:archive-)?\d+"
    to = f"{app}-archive-{ordinal}" if archive else f"{app}-{ordinal}"
    for before, after, put in (
        (r"^(\s*hostname:\s*)", r"(?=\s*$)", to),
        (r"^(\s*advertise-url:\s*http://)", r"(?=\.)", f"{app}-{ordinal}"),
        (r"(POD_NAME == (?:\"|'))", r"(?=\"|')", to),
    ):
        text = re.sub(f"{before}{name}{after}", rf"\g<1>{put}", text, flags=re.MULTILINE)
    if not archive:
        return text
    found = re.search(
        rf"^(\s*)(advertise-url:\s*http://){re.escape(app)}-\d+\.[^.:\s]+(\S*):\d+\s*$", text, re.MULTILINE
    )
    if not found:
        raise ValueError("its litefs.yml names no address of a primary (advertise-url): run site.yml, which has it")
    line = f"{found[1]}{found[2]}{app}-archive{found[3]}:{Settings.feed_port}"
    return f"{text[: found.start(2)]}# {text[found.start(2) : found.end()].rstrip()}\n{line}{text[found.end() :]}"


def config_map(found: Object, app: str, ordinal: int, quiet: bool, archive: bool = False) -> None:
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
    found["data"]["litefs.yml"] = litefs_yml(text, app, ordinal, archive)


def service(found: Object, app: str, ordinal: int) -> None:
    """Change the Service <app>-primary."""
    found["spec"]["selector"][POD_NAME] = f"{app}-{ordinal}"


def routed_to(found: Object | None, app: str) -> int | None:
    """The ordinal that the Service <app>-primary selects."""
    name = str((((found or {}).get("spec") or {}).get("selector") or {}).get(POD_NAME, ""))
    match = re.fullmatch(rf"{re.escape(app)}-(\d+)", name)
    return int(match[1]) if match else None
