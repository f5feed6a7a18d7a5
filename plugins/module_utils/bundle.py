"""Reads what a support bundle has, and writes it, without secrets. I/O around redacting.py."""

from __future__ import annotations

import io
import json
import os
import tarfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import conditions, kube, redacting
from .objects import Object
from .wording import one_line

LIMIT = 1 << 20  # bytes of each log
# What is not of one namespace, and tells how the cluster is.
CLUSTER = (("v1", "Node"), ("v1", "PersistentVolume"), ("cert-manager.io/v1", "ClusterIssuer"))


@dataclass
class Seen:
    """What was read: objects by namespace ("" for the cluster's) and kind, logs by their file; and what was not."""

    objects: dict[tuple[str, str], list[Object]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    version: str = ""
    unread: list[str] = field(default_factory=list)
    secrets: bool = True  # whether all Secrets were read

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [one for (_namespace, found), objects in self.objects.items() if found == kind for one in objects]


def read(api: Any, namespaces: Sequence[str], lines: int, since: int) -> Seen:
    """All that the namespaces have, with the logs of their pods; what cannot be read is told, and holds nobody up."""
    seen = Seen()
    kinds = [
        (namespace, version, kind)
        for namespace in namespaces
        for version, listed in kube.KINDS.items()
        for kind, (_plural, namespaced) in listed.items()
        if namespaced
    ]
    kinds += [("", version, kind) for version, kind in CLUSTER]

    def listed(place: tuple[str, str, str]) -> tuple[tuple[str, str, str], list[Object] | kube.KubeError]:
        namespace, version, kind = place
        try:
            return place, api.list(version, kind, namespace or None)
        except kube.KubeError as exc:
            return place, exc

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="report") as pool:
        for (namespace, _version, kind), found in pool.map(listed, kinds):
            if not isinstance(found, kube.KubeError):
                seen.objects[namespace, kind] = found
            elif not found.unknown_kind:  # its CRD is not installed
                seen.unread.append(f"{kind} of {namespace or 'the cluster'} could not be read: {found}")
                seen.secrets = seen.secrets and kind != "Secret"
        try:
            seen.version = one_line(api.raw("/version").decode(errors="replace"))
        except kube.KubeError as exc:
            seen.unread.append(f"The version of the API could not be read: {exc}")
        if seen.secrets:
            _logs(api, seen, pool, lines, since)
        else:
            seen.unread.append("Logs were left out: without the Secrets nobody knows what to take out of them.")
    return seen


def _logs(api: Any, seen: Seen, pool: ThreadPoolExecutor, lines: int, since: int) -> None:
    asked = []
    for pod in seen.of("Pod"):
        where = pod["metadata"].get("namespace", ""), pod["metadata"]["name"]
        status = pod.get("status") or {}
        for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            asked.append((*where, one["name"], False))
            asked += [(*where, one["name"], True)] if one.get("restartCount") else []

    def log(source: tuple[str, str, str, bool]) -> tuple[str, str, str]:
        namespace, pod, container, previous = source
        query = {"container": container, "tailLines": lines, "limitBytes": LIMIT, "timestamps": "true"}
        query |= {"previous": "true"} if previous else {"sinceSeconds": since}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{urllib.parse.urlencode(query)}"
        name = f"logs/{namespace}/{pod}/{container}{'.before' if previous else ''}.log"
        try:
            return name, api.raw(path).decode(errors="replace"), ""
        except kube.KubeError as exc:
            return name, "", str(exc)

    for name, text, error in pool.map(log, asked):
        if error:
            seen.unread.append(f"{name} could not be read: {error}")
        else:
            seen.logs[name] = text


def own_addresses(seen: Seen) -> set[str]:
    """The addresses of nodes, pods and Services."""
    found: set[str] = set()
    for one in [*seen.of("Node"), *seen.of("Pod"), *seen.of("Service")]:
        spec, status = one.get("spec") or {}, one.get("status") or {}
        found |= {entry.get("address", "") for entry in status.get("addresses") or []}
        found |= {entry.get("ip", "") for entry in [*(status.get("podIPs") or []), *(status.get("hostIPs") or [])]}
        found |= {status.get("podIP", ""), status.get("hostIP", ""), *(spec.get("clusterIPs") or [])}
    return found - {""}


def files(seen: Seen, given: Mapping[str, str], hidden: Iterable[str] = ()) -> dict[str, str]:
    """The bundle's files. ``given``: files that are there already; ``hidden``: more that is secret."""
    secrets = {*redacting.values(seen.of("Secret")), *hidden}
    redactor = redacting.Redactor(secrets, own_addresses(seen))
    made = {name: _given(redactor, name, text) for name, text in given.items()}
    for (namespace, kind), objects in seen.objects.items():
        if objects and kind != "Event":
            shown = [redactor.document(redacting.bare(one)) for one in objects]
            made[f"objects/{namespace or 'cluster'}/{kind}.json"] = json.dumps(shown, indent=1, sort_keys=True)
    for (namespace, kind), objects in seen.objects.items():
        if kind == "Event" and objects:
            lines = [redactor.text(_event(one)) for one in sorted(objects, key=conditions.when)]
            made[f"events/{namespace}.txt"] = "\n".join(lines) + "\n"
    made |= {name: redactor.text(text) for name, text in seen.logs.items()}
    if seen.version:
        made["version-of-kubernetes.json"] = seen.version
    made["unread.txt"] = "".join(f"{redactor.text(line)}\n" for line in seen.unread)
    return made


def _given(redactor: redacting.Redactor, name: str, text: str) -> str:
    if not name.endswith(".json"):
        return redactor.text(text)
    try:
        return json.dumps(redactor.document(json.loads(text)), indent=1)
    except ValueError:
        return redactor.text(text)


def _event(found: Object) -> str:
    about = found.get("involvedObject") or {}
    named = f"{about.get('kind')}/{about.get('name')}"
    return (
        f"{conditions.when(found)} {found.get('type')} {named} {found.get('reason')}: {one_line(found.get('message'))}"
    )


def write(path: Path, contents: Mapping[str, str]) -> None:
    """Write a tar.gz that nobody else may read; all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, text in sorted(contents.items()):
                entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
                content = text.encode(errors="replace")
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
