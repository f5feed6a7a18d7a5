"""What the archive is told: one JSON file, written by the role. Pure but for read()."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Durations in seconds, sizes as Kubernetes writes them; an empty one is no limit."""

    service: str  # name in DNS of all pods
    port: int
    namespace: str
    app: str  # the StatefulSet that events are about
    record: str  # ConfigMap with the cluster id; "" for none
    buffer: str  # folder that outlives the container
    target: str = ""  # a second folder, to which what is finished is copied
    remote_stamp: str = ""  # file that the copying to a remote touches after each success
    keep: float = 14 * 86400.0
    max_size: str = ""
    buffer_size: str = ""
    pack_after: float = 600.0
    base_every: float = 86400.0
    check_every: float = 86400.0
    drill_every: float = 7 * 86400.0
    drill_query: str = ""  # SQL that each rebuilt database has to answer
    metrics_port: int = 9102
    local_port: int = 9103  # on 127.0.0.1 in the pod
    feed_port: int = 9104  # also of the Service


_FACTORS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


def size(text: str) -> int:
    """Bytes of a quantity such as 10Gi; 0 for an empty one. ValueError with a sentence."""
    match = re.fullmatch(r"([1-9][0-9]*)(k|M|G|T|Ki|Mi|Gi|Ti)?", text)
    if text and match is None:
        raise ValueError(f"{text} is no size such as 10Gi.")
    return int(match[1]) * _FACTORS[match[2] or ""] if match else 0


def read(path: Path) -> Settings:
    """ValueError with a sentence for what is unknown or missing."""
    given = json.loads(path.read_text())
    known = {one.name: one for one in dataclasses.fields(Settings)}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{path} has settings that this archive does not know: {', '.join(unknown)}.")
    needed = [name for name, one in known.items() if one.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    made = Settings(**given)
    size(made.max_size), size(made.buffer_size)
    return made
