"""Taking a backup: export, verify, write it with its manifest; what cannot be verified leaves nothing behind. I/O."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from .. import clock, kube, litefs
from . import backup, keeping, planning, retention, sqlitefile, transfer
from . import situation as sit
from .act import Site
from .retention import Manifest

Failed = keeping.Failed


def export(
    site: Site,
    pod: str,
    directory: Path,
    *,
    reason: str,
    encrypt: Sequence[str] = (),
    decrypt: Sequence[str] = (),
    timeout: float = 600,
    tries: int = 3,
    at_primary: bool = True,
) -> Manifest:
    """Export the database from a pod into the directory and return the manifest.

    ``at_primary``: whether the pod is known to be at the primary's position; only stands in the manifest.
    Raises Failed, also where the position of a sound file cannot be proven; then nothing of it stays.
    """
    began = time.monotonic()
    problem = ""
    for _try in range(tries):
        with tempfile.TemporaryDirectory(prefix=".export-", dir=_folder(directory)) as folder:
            path = Path(folder) / "database"
            try:
                facts = _fetch(site, pod, path, timeout)
            except (kube.KubeError, sqlitefile.BadFile, _NoPosition) as exc:
                problem = str(exc) if isinstance(exc, kube.KubeError) else f"The export from {pod} {exc}"
                continue
            return store(
                path,
                directory,
                {
                    "database": site.database,
                    "namespace": site.namespace,
                    "statefulset": site.name,
                    "pod": pod,
                    "reason": reason,
                    "at_primary": at_primary,
                    "seconds": round(time.monotonic() - began, 1),
                    "time": site.api.server_time(),
                    **facts,
                },
                encrypt,
                decrypt,
            )
    raise Failed(f"{problem.rstrip('.')}. No backup was made of {site.database} from {pod}, after {tries} tries.")


class _NoPosition(Exception):
    """The file is sound, but nothing says which transaction it ends with."""


def _fetch(site: Site, pod: str, path: Path, timeout: float) -> Manifest:
    # What comes before the watch is seen by the look after it, so no transaction is missed.
    with transfer.watch(site.api, site.namespace, pod, site.port, site.database, 2 * timeout) as shown:
        before = _node(site, pod)
        query = transfer.name_query("/export", site.database)
        transfer.download(site.api, site.namespace, pod, site.port, query, path, timeout)
        after = _node(site, pod)
        facts = sqlitefile.verify(path)
        known = [(node["txid"], node["checksum"]) for node in (before, after) if node["txid"]]
        one, two = ([*known, None, None])[:2]
        txid, problem = backup.position(facts["checksum"], one, two, shown)
        if txid is None and one != two:
            time.sleep(1)  # a report may be on its way
            txid, problem = backup.position(facts["checksum"], one, two, shown)
    if txid is None:
        raise _NoPosition(f"is sound, but its position cannot be proven: {problem}")
    cluster = after["cluster_id"]
    if not cluster or cluster != before["cluster_id"]:
        raise _NoPosition(f"came from a node whose cluster id changed from {before['cluster_id']} to {cluster}")
    more = {"txid": txid, "cluster_id": cluster, "image": before["image"], "table_rows": sqlitefile.rows(path)}
    return cast("Manifest", {**facts, **more})


class _Node(TypedDict):
    cluster_id: str | None
    txid: str | None
    checksum: str
    image: str | None


def _node(site: Site, pod: str) -> _Node:
    def get(path: str) -> bytes:
        status, _headers, body = site.api.portforward_get(site.namespace, pod, site.port, path, timeout=site.timeout)
        if status != 200:
            raise kube.KubeError(f"GET {path} of {pod} was answered {status}.", status)
        return body

    try:
        info = litefs.parse_info(get("/info"))
        database = litefs.parse_vars(get("/debug/vars")).get(site.database)
    except ValueError as exc:
        raise kube.KubeError(str(exc)) from exc
    if database is None:
        raise kube.KubeError(f"Pod {pod} does not have the database {site.database}: check app_database.")
    found = site.api.get("v1", "Pod", pod, site.namespace) or {}
    containers = (found.get("spec") or {}).get("containers") or [{}]
    return {
        "cluster_id": info.cluster_id,
        "txid": f"{database.position.txid:016x}" if database.position.known else None,
        "checksum": database.position.checksum,
        "image": containers[0].get("image"),
    }


def store(
    path: Path, directory: Path, manifest: Manifest, encrypt: Sequence[str] = (), decrypt: Sequence[str] = ()
) -> Manifest:
    """Put a verified database under its name, its manifest last; see keeping.put().

    The manifest's ``time`` is when it was exported, by the API server's clock.
    """
    stamp = clock.second(str(manifest["time"]))
    stem = backup.stem(str(manifest["database"]), stamp, str(manifest["pod"]), str(manifest["txid"]))
    return keeping.put(path, directory, stem, ".sqlite", {**manifest, "time": stamp}, encrypt, decrypt)


def describe(path: Path, decrypt: Sequence[str], work: Path) -> planning.File:
    """What a file to restore is: {path (of the plain file), verified, problem, ...}; never raises for a bad file.

    A manifest beside it (<name without ending>.manifest.json) has to agree with the file. An encrypted one is
    decrypted into ``work``.
    """
    answer: planning.File = {"path": str(path), "verified": False, "problem": None, "cluster_id": None, "txid": None}
    if not path.is_file():
        return {**answer, "problem": "there is no such file on the controller"}
    plain = path
    stem = path.name.removesuffix(".encrypted").removesuffix(".sqlite")
    note = path.with_name(stem + retention.SUFFIX)
    manifest: Manifest = {}
    if note.is_file():
        try:
            manifest = json.loads(note.read_text())
        except (OSError, ValueError) as exc:
            return {**answer, "problem": f"its manifest {note.name} cannot be read ({exc})"}
    if manifest.get("encrypted") or path.name.endswith(".encrypted"):
        if not decrypt:
            return {**answer, "problem": "it is encrypted: set restore_decrypt_command"}
        try:
            if "stored_sha256" in manifest and sqlitefile.sha256(path) != manifest["stored_sha256"]:
                return {**answer, "problem": "its stored_sha256 is not the one in its manifest: it was changed"}
            plain = work / stem
            problem = keeping.through(decrypt, path, plain)
        except OSError as exc:
            problem = str(exc)
        if problem:
            return {**answer, "problem": f"restore_decrypt_command ({decrypt[0]}) failed ({problem})"}
    try:
        facts = sqlitefile.verify(plain)
    except (OSError, sqlitefile.BadFile) as exc:
        return {**answer, "problem": f"it {exc}"}
    for key in ("sha256", "checksum", "page_size", "pages", "journal_mode"):
        if manifest and manifest.get(key) != facts[key]:
            return {
                **answer,
                "problem": f"its manifest says {key} {manifest.get(key)} and the file has {facts[key]}: it was changed",
            }
    return {
        **answer,
        **facts,
        "path": str(plain),
        "verified": True,
        "rows": sqlitefile.rows(plain),
        "cluster_id": manifest.get("cluster_id"),
        "txid": manifest.get("txid"),
        "time": manifest.get("time"),
        "namespace": manifest.get("namespace"),
        "statefulset": manifest.get("statefulset"),
        "database": manifest.get("database"),
    }


def choose_and_export(
    site: Site, pods: Sequence[str], directory: Path, warn: Callable[[str], None], *, reason: str, **options: Any
) -> tuple[list[Manifest], list[dict[str, str]], str]:
    """Export from the pods named, or from the one that backup.choose() takes: (manifests, failed, why that pod).

    One after the other, and what was made stays: of those that ``failed`` there is {pod, problem: a sentence}.
    """
    document = site.look()
    for note in filter(None, (backup.job_note(document), backup.other_databases_note(document))):
        warn(note)
    made: list[Manifest] = []
    failed: list[dict[str, str]] = []
    why = ""
    names: list[str | None] = [*pods] or [None]
    for name in names:
        choice, problem = backup.choose(document, name)
        if choice is None:
            failed.append({"pod": str(name or ""), "problem": problem or ""})
            continue
        why = choice["why"]
        found = sit.look(document)
        alone = isinstance(found, sit.Situation) and (not choice["at_primary"] or choice["pod"] == found.leader["name"])
        if alone and not pods:
            warn(f"No replica follows the primary, so the backup is taken from {choice['pod']}: {why}.")
        try:
            at_primary = choice["at_primary"]
            made.append(export(site, choice["pod"], directory, reason=reason, at_primary=at_primary, **options))
        except (Failed, OSError) as exc:
            said = (
                str(exc) if isinstance(exc, Failed) else f"No backup was made in {directory} on the controller: {exc}."
            )
            failed.append({"pod": choice["pod"], "problem": said})
    return made, failed, why


def fresh(site: Site, directory: Path, warn: Callable[[str], None], *, reason: str, **options: Any) -> Manifest:
    """One export, from where a backup would be taken. Raises Failed."""
    made, failed, _why = choose_and_export(site, [], directory, warn, reason=reason, **options)
    if failed:
        raise Failed(failed[0]["problem"])
    return made[0]


def make_room(directory: Path) -> None:
    """Make the directory (0700) and take away what a run that died left in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in directory.glob(".export-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _folder(directory: Path) -> Path:
    if not directory.is_dir():
        raise Failed(f"There is no directory {directory} on the controller.")
    return directory
