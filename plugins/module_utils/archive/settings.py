"""What the archive is told: one JSON file, written by the role. Pure but for read()."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Durations in seconds, sizes in bytes; 0 is no limit."""

    service: str  # name in DNS of all pods
    port: int
    namespace: str
    app: str  # the StatefulSet that events are about
    record: str  # ConfigMap with the cluster id; "" for none
    buffer: str  # folder that outlives the container
    owner: str  # who writes here: of two archives at one target one is refused
    target: str = ""  # a second folder, to which what is finished is copied
    remote_stamp: str = ""  # file that the copying to a remote touches after each success
    keep: float = 14 * 86400.0
    max_bytes: int = 0
    buffer_bytes: int = 0
    pack_after: float = 600.0
    base_every: float = 86400.0
    check_every: float = 86400.0
    metrics_port: int = 9102
    local_port: int = 9103


def read(path: Path) -> Settings:
    """ValueError with a sentence for what is unknown or missing."""
    given = json.loads(path.read_text())
    known = {one.name: one for one in dataclasses.fields(Settings)}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{path} has settings that this archive does not know: {', '.join(unknown)}.")
    needed = [name for name, one in known.items() if one.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    return Settings(**given)
