"""Looking into a volume whose LiteFS does not run: a small pod on its node serves the files, read-only. I/O.

Used where a pod is stopped by its guard, and for kept volumes that no claim has. A volume that is a directory of a
node is mounted by its path, so no claim, no volume and no StatefulSet is touched; any other is mounted through its
claim.
"""

from __future__ import annotations

import contextlib
import re
import struct
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from .. import clock, kube
from ..conditions import is_ready
from ..objects import Object, Part
from ..state_types import Volume
from ..telling import copy_file, tell
from . import export, planning, sqlitefile, transfer
from . import situation as sit
from .act import Site
from .retention import Manifest

PORT = 20202
_NOT_THERE = 404
# SQLite's endings, and what LiteFS calls these files.
FILES = {"": "database", "-wal": "wal", "-journal": "journal"}
# Where LiteFS puts a WAL at a start that it does not fit, or that fails. It stays there, so it may be long out of date,
# or what the database lacks (v0.5.14, tests/litefs).
PUT_ASIDE = "wal.removed"


class CannotLook(Exception):
    """The volume cannot be looked into; the message says why."""


def source(site: Site, volume: Volume) -> tuple[Object, dict[str, str]]:
    """How a pod gets at the volume: what stands in its spec.volumes, and where it has to run. Raises CannotLook."""
    name = volume["name"]
    if volume["path"] and volume["node"]:
        node = site.api.get("v1", "Node", volume["node"])
        if node is None or not is_ready(node):
            raise CannotLook(f"volume {name} is on node {volume['node']}, which does not answer")
        return {"hostPath": {"path": volume["path"], "type": "Directory"}}, {"nodeName": volume["node"]}
    claim = site.api.get("v1", "PersistentVolumeClaim", volume["claim"], site.namespace)
    if claim is None or claim["metadata"]["uid"] != volume["claim_uid"] or claim["metadata"].get("deletionTimestamp"):
        raise CannotLook(f"volume {name} is no directory of a node, and no claim has it that it could be read through")
    users = [pod for pod in site.api.list("v1", "Pod", site.namespace) if _uses(pod, volume["claim"])]
    modes = set(claim["spec"].get("accessModes") or [])
    for pod in users:
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        runs = any("running" in (status.get("state") or {}) for status in statuses)
        if "ReadWriteOncePod" in modes or (runs and "ReadWriteMany" not in modes):
            raise CannotLook(f"volume {name} is in use by pod {pod['metadata']['name']}")
    # Not readOnly here, but in the container: a driver may else attach the volume so that nobody can write to it.
    where = next((pod["spec"]["nodeName"] for pod in users if pod["spec"].get("nodeName")), None)
    mount = {"persistentVolumeClaim": {"claimName": volume["claim"]}}
    return mount, {"nodeName": where} if where and "ReadWriteMany" not in modes else {}


def _uses(pod: Part, claim: str) -> bool:
    """Whether a pod that has not ended mounts a claim, other than to look into it."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    if (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "volume-export":
        return False
    mounts = pod["spec"].get("volumes") or []
    return any((one.get("persistentVolumeClaim") or {}).get("claimName") == claim for one in mounts)


def manifest(site: Site, volume: Volume, image: str, pull_secrets: Sequence[str] = ()) -> Object:
    """The pod that serves a volume's files. Nothing of the volume is writable for it. Raises CannotLook."""
    mount, where = source(site, volume)
    base = f"/data/dbs/{site.database}"
    listing = (
        f"mkdir -p /srv && ln -s /data /srv/data && ls {base}/ltx >/srv/ltx 2>/dev/null; "
        f"head -c 100 {base}/database >/srv/header 2>/dev/null"
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name_of(site, volume),
            "namespace": site.namespace,
            "labels": {"app.kubernetes.io/managed-by": "abaci.infra", "app.kubernetes.io/component": "volume-export"},
        },
        "spec": {
            **where,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            # It ends by itself where the run that made it died.
            "activeDeadlineSeconds": 1800,
            "imagePullSecrets": [{"name": name} for name in pull_secrets],
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "files",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", f"{listing}; exec httpd -f -p {PORT} -h /srv"],
                    "securityContext": {
                        "runAsUser": 0,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "data", **mount}],
        },
    }


def name_of(site: Site, volume: Volume) -> str:
    """The pod's name."""
    return f"export-{re.sub(r'[^a-z0-9-]', '-', str(volume['name']).lower())}"[:63].rstrip("-")


@contextlib.contextmanager
def opened(site: Site, volume: Volume, image: str, timeout: float, pull_secrets: Sequence[str] = ()) -> Iterator[str]:
    """The name of a pod that serves the volume's files. Raises CannotLook. The pod is gone afterwards."""
    pod = manifest(site, volume, image, pull_secrets)
    name = pod["metadata"]["name"]
    site.api.delete("v1", "Pod", name, site.namespace, grace_period_seconds=0)  # of a run that died
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                site.api.create(pod)
                break
            except kube.KubeError as exc:
                if exc.status != 409 or time.monotonic() > deadline:
                    raise
                tell(f"The end of an earlier pod {name}", deadline=deadline)
                time.sleep(0.5)
        while True:
            found = site.api.get("v1", "Pod", name, site.namespace) or {}
            status = found.get("status") or {}
            state = ((status.get("containerStatuses") or [{}])[0]).get("state") or {}
            if "running" in state:
                break
            tell(f"Pod {name}, which reads volume {volume['name']}", deadline=deadline)
            if time.monotonic() > deadline or status.get("phase") in ("Failed", "Succeeded"):
                waiting = state.get("waiting") or state.get("terminated") or {}
                why = status.get("message") or waiting.get("message") or waiting.get("reason") or "it did not start"
                place = f" on node {volume['node']}" if volume["node"] else ""
                raise CannotLook(f"volume {volume['name']}{place} cannot be read ({why})")
            time.sleep(0.5)
        yield name
    finally:
        with contextlib.suppress(kube.KubeError):
            site.api.delete("v1", "Pod", name, site.namespace, grace_period_seconds=0)


def cluster_id(site: Site, pod: str, deadline: float) -> str | None:
    """The cluster id in the volume, None where it has none."""
    while True:
        try:
            status, _headers, body = site.api.portforward_get(site.namespace, pod, PORT, "/data/clusterid", timeout=10)
        except kube.KubeError:
            if time.monotonic() > deadline:
                raise
            tell(f"Pod {pod} listens", deadline=deadline)
            time.sleep(0.5)  # the server in it listens a moment later
            continue
        if status == _NOT_THERE:
            return None
        if status != 200:
            raise kube.KubeError(f"The cluster id of the volume that pod {pod} serves was answered {status}.", status)
        return body.decode(errors="replace").strip() or None


def look(
    site: Site, volumes: Sequence[Volume], image: str, timeout: float, pull_secrets: Sequence[str] = ()
) -> sit.Seen:
    """What each volume holds."""
    found: dict[str, planning.Content] = {}
    for volume in volumes:
        what: planning.Content = {
            "cluster_id": None,
            "txid": None,
            "checksum": None,
            "page_size": None,
            "journal_mode": None,
            "problem": None,
        }
        try:
            with opened(site, volume, image, timeout, pull_secrets) as pod:
                held = cluster_id(site, pod, time.monotonic() + 20)
                page_size, mode = _shape(site, pod)
                txid, checksum = _newest(site, pod, f"/data/dbs/{urllib.parse.quote(site.database)}")
                what["cluster_id"], what["page_size"], what["journal_mode"] = held, page_size, mode
                what["txid"], what["checksum"] = txid, checksum
        except (CannotLook, kube.KubeError) as exc:
            what["problem"] = f"{str(exc).rstrip('.')}."
        found[volume["name"]] = what
    return found


def _shape(site: Site, pod: str) -> tuple[int | None, str | None]:
    """Page size and journal mode of the database in the volume, None where it has none."""
    status, _headers, head = site.api.portforward_get(site.namespace, pod, PORT, "/header", timeout=30)
    try:
        return sqlitefile.shape(head) if status == 200 else (None, None)
    except sqlitefile.BadFile:
        return None, None


def said(volumes: sit.Seen) -> list[str]:
    """A line for each volume that was looked into, or why it could not be."""
    return [held["problem"] or f"{name} holds {_what(held)}" for name, held in volumes.items()]


def _what(held: planning.Content) -> str:
    if held["cluster_id"]:
        return f"the cluster {held['cluster_id']} up to TXID {held['txid'] or 'unknown'}"
    return f"a database up to TXID {held['txid']} without a cluster id" if held["txid"] else "no cluster"


def save(
    site: Site,
    volume: Volume,
    image: str,
    directory: Path,
    *,
    reason: str,
    encrypt: Sequence[str] = (),
    decrypt: Sequence[str] = (),
    timeout: float = 600,
    pull_secrets: Sequence[str] = (),
) -> Manifest:
    """Copy the database out of a volume, let SQLite finish what was under way in it, verify it and keep it.

    The position is the one that the newest transaction file names; position_proven says whether the checksum in that
    file is the one of the copy.
    """
    import tempfile

    began = time.monotonic()
    with (
        opened(site, volume, image, min(timeout, 120), pull_secrets) as pod,
        tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as folder,
    ):
        held = cluster_id(site, pod, time.monotonic() + 20)
        path = Path(folder) / "database"
        base = f"/data/dbs/{urllib.parse.quote(site.database)}"
        for ending, name in FILES.items():
            there = _fetch(site, volume, pod, f"{base}/{name}", path.with_name(path.name + ending), timeout)
            if not ending and not there:
                return _nothing(volume, site, held)
        variants = [path, *_with_wal_aside(site, volume, pod, base, path, timeout)]
        newest, shown = _newest(site, pod, base)
        path, facts = best(variants, shown, volume["name"])
        made = {
            "database": site.database,
            "namespace": site.namespace,
            "statefulset": site.name,
            "pod": f"volume-{volume['name']}",
            "volume": volume["name"],
            "volume_of": volume["ordinal"],
            "reason": reason,
            "seconds": round(time.monotonic() - began, 1),
            **facts,
            "txid": newest or "unknown",
            "position_proven": shown == facts["checksum"],
            "cluster_id": held,
            "time": site.api.server_time(),
        }
        return export.store(path, directory, cast("Manifest", made), encrypt, decrypt)


def _with_wal_aside(site: Site, volume: Volume, pod: str, base: str, path: Path, timeout: float) -> list[Path]:
    """A copy of the database beside the write-ahead log that LiteFS put aside, where there is one and no other."""
    aside = path.parent / "with" / "database-wal"
    if path.with_name("database-wal").exists():
        return []
    aside.parent.mkdir()
    if not _fetch(site, volume, pod, f"{base}/{PUT_ASIDE}", aside, timeout):
        return []
    copy_file(path, aside.with_name("database"), f"Second copy of volume {volume['name']}")
    return [aside.with_name("database")]


def best(variants: Sequence[Path], checksum: str | None, volume: str) -> tuple[Path, sqlitefile.Facts]:
    """Of several copies of one database the first that has this checksum, else the first that is sound; with its facts.

    Raises export.Failed where none is sound.
    """
    sound: list[tuple[Path, sqlitefile.Facts]] = []
    problem: Exception | None = None
    for path in variants:
        try:
            sqlitefile.settle(path)
            facts = sqlitefile.verify(path)
        except sqlitefile.BadFile as exc:
            problem = problem or exc
            continue
        if facts["checksum"] == checksum:
            return path, facts
        sound.append((path, facts))
    if sound:
        return sound[0]
    raise export.Failed(f"The database in volume {volume} {problem}; nothing was kept.")


def _fetch(site: Site, volume: Volume, pod: str, url: str, target: Path, timeout: float) -> bool:
    """Whether the file is there; then it is fetched."""
    try:
        transfer.download(site.api, site.namespace, pod, PORT, url, target, timeout)
    except kube.KubeError as exc:
        if exc.status != _NOT_THERE:
            raise export.Failed(f"Volume {volume['name']} could not be exported: {exc}") from exc
        target.unlink(missing_ok=True)
        return False
    return True


def _nothing(volume: Volume, site: Site, held: str | None) -> Manifest:
    """What stands for the export of a volume that holds no database: there is nothing to lose, and no file."""
    return {
        "verified": True,
        "empty": True,
        "volume": volume["name"],
        "volume_of": volume["ordinal"],
        "database": site.database,
        "cluster_id": held,
        "time": clock.second(site.api.server_time()),
        "path": f"nothing: volume {volume['name']} holds no database {site.database}",
    }


def _newest_file(site: Site, pod: str) -> tuple[str | None, str | None]:
    """(name, TXID) of the newest transaction file in the volume; its name ends with its TXID."""
    status, _headers, body = site.api.portforward_get(site.namespace, pod, PORT, "/ltx", timeout=30)
    names = re.findall(r"^([0-9a-f]{16}-([0-9a-f]{16}))\.ltx$", body.decode(), re.MULTILINE) if status == 200 else []
    return max(names, key=lambda match: match[1], default=(None, None))


def _newest(site: Site, pod: str, base: str) -> tuple[str | None, str | None]:
    """(TXID, checksum) of the newest transaction file: its name, and the first half of its trailer of 16 bytes."""
    name, txid = _newest_file(site, pod)
    if name is None:
        return None, None
    status, _headers, data = site.api.portforward_get(site.namespace, pod, PORT, f"{base}/ltx/{name}.ltx", timeout=120)
    if status != 200 or len(data) < 16:
        return txid, None
    return txid, f"{struct.unpack('>Q', data[-16:-8])[0]:016x}"
