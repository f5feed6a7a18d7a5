"""The logs of the site's parts in one order. ``read`` does I/O through ``api`` (kube.Client or its list and raw)."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .. import state
from ..kube import KubeError
from ..wording import printable
from .reading import owners

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
# Of the application's pods, its containers; of what stands beside it all.
CONTAINERS = {"app": ("app",), "guard": ("pull", "guard")}
BESIDE = ("keel", "traefik", "redis", "cert-manager", "coredns")


@dataclass(frozen=True)
class Source:
    """A container whose log is read."""

    namespace: str
    pod: str
    container: str


def seconds(text: str) -> int:
    """10m, 2 h or 90 (s) in seconds; ValueError with a sentence for anything else."""
    match = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d)?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration: write it as 90, 10m, 2h or 1d.")
    return int(match[1]) * UNITS[match[2] or "s"]


def sources(pods: Iterable[Mapping[str, Any]], namespace: str, name: str, of: Sequence[str]) -> list[Source]:
    """The containers of the parts that are asked for, of pods of all namespaces."""
    listed = list(pods)
    here = [pod for pod in listed if pod["metadata"].get("namespace") == namespace]
    found = []
    for pod, _ordinal in state.our_pods(here, name):
        there = _containers(pod)
        wanted = [one for part in of for one in CONTAINERS.get(part, ())]
        found += [Source(namespace, pod["metadata"]["name"], one) for one in wanted if one in there]
    for pod in listed:
        if owners(pod) & (set(of) & set(BESIDE)):
            metadata = pod["metadata"]
            found += [Source(metadata["namespace"], metadata["name"], one) for one in _containers(pod)]
    return found


def _containers(pod: Mapping[str, Any]) -> list[str]:
    spec = pod.get("spec") or {}
    return [one["name"] for key in ("initContainers", "containers") for one in spec.get(key) or []]


def read(
    api: Any, asked: Sequence[Source], since: int, lines: int, previous: bool
) -> tuple[dict[Source, str], dict[Source, str]]:
    """(the logs, with a time before each line; why others could not be read). All at once."""

    def one(source: Source) -> tuple[Source, str, str]:
        query = {"container": source.container, "sinceSeconds": since, "tailLines": lines, "timestamps": "true"}
        if previous:
            query["previous"] = "true"
        where = f"/api/v1/namespaces/{source.namespace}/pods/{source.pod}/log?{urllib.parse.urlencode(query)}"
        try:
            return source, api.raw(where).decode(errors="replace"), ""
        except KubeError as exc:
            if exc.status is None:
                raise
            return source, "", str(exc)

    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="logs") as pool:
        answers = list(pool.map(one, asked))
    return (
        {source: said for source, said, error in answers if not error},
        {source: error for source, _said, error in answers if error},
    )


def merged(logs: Mapping[Source, str], pattern: str, lines: int) -> list[str]:
    """The last lines of all logs that hold the pattern, in the order of their times."""
    wanted = re.compile(pattern)
    found = []
    for source, text in logs.items():
        for line in text.splitlines():
            time, _, said = line.partition(" ")
            if wanted.search(said):
                found.append((time, f"{time[:19]} {source.pod}/{source.container}: {printable(said).rstrip()}"))
    return [shown for _time, shown in sorted(found, key=lambda pair: pair[0])][-lines:]
