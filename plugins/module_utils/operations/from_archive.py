"""A moment of the archive: what it is, and the file of it, verified as any export. I/O."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .. import clock, kube, litefs, moments
from ..archive_client import Archive, ArchiveError, Found, NoArchive
from . import export, planning, retention, sqlitefile
from .act import Site
from .retention import Manifest

NOTHING = f"{0:016x}/{0:016x}"  # where a database is that is not there
REFUSED = 409  # what the archive answers where it cannot prove it, however often it is asked
REASON = "moment"  # of the manifest; backup_keep does not count it


@dataclass(frozen=True)
class Wanted:
    """What a person asks for: a moment, the history that it is in ("" for the newest), the variable that says it."""

    at: str
    history: str
    variable: str


@dataclass(frozen=True)
class Asked:
    """What is behind it."""

    found: Found
    later: moments.Later

    def notes(self, variable: str) -> list[str]:
        """For the plan; it can be repeated though what was given is a time that passes."""
        return [
            f"The moment is transaction {self.found.txid} of {self.found.time}, history {self.found.history} of the "
            f"archive; -e {variable}={self.found.txid} is the same one.",
            moments.after(self.later),
        ]


def archive_of(site: Site, timeout: float) -> Archive:
    """The archive of an application's database."""
    return Archive(site.api, site.namespace, site.name, site.database, timeout)


def tail(site: Site, timeout: float) -> planning.Archived:
    """What the archive has last, and more than each pod; never raises, since it may stop nothing."""
    archive = archive_of(site, timeout)
    try:
        one = moments.newest(archive.histories())
        if one is None:
            return {}
        more = _more(archive, site, one["cluster"])
    except NoArchive:
        return {}
    except (kube.KubeError, moments.Refused) as exc:
        return {"problem": str(exc)}
    return {
        "cluster_id": one["cluster"],
        "history": one["history"],
        "txid": one["last"]["txid"],
        "time": one["last"]["time"],
        "followed": one["followed"],
        "more": more,
    }


def _more(archive: Archive, site: Site, cluster: str) -> dict[str, dict[str, planning.More]]:
    """Than each pod of the cluster that answers."""
    databases = sorted({one["database"] for one in archive.everything() if one["cluster"] == cluster})
    known: dict[tuple[str, str], planning.More] = {}
    found: dict[str, dict[str, planning.More]] = {}
    for pod in litefs.reachable(site.look()):
        if pod["litefs"]["cluster_id"] != cluster:
            continue
        for database in databases:
            at = str(litefs.position(pod, database) or NOTHING)
            if (database, at) not in known:
                known[database, at] = lacking(archive, cluster, database, at)
            found.setdefault(pod["name"], {})[database] = known[database, at]
    return found


def lacking(archive: Archive, cluster: str, database: str, at: str) -> planning.More:
    """What a copy of a database at ``at`` (TXID/checksum) lacks."""
    try:
        said = archive.following(cluster, database, at)
    except kube.KubeError as exc:
        return {"problem": str(exc), "refused": exc.status == REFUSED}
    first = f"{int(at.partition('/')[0], 16) + 1:016x}" if said["count"] else ""
    return {
        "count": said["count"],
        "first": first,
        "first_time": said["first_time"] or "",
        "last": said["last"],
        "time": said["time"] or "",
    }


def question(site: Site, archive: Archive, wanted: Wanted) -> dict[str, str]:
    """What the archive is asked for; moments.Refused or ArchiveError where there is no such moment."""
    now = clock.moment(site.api.server_time())
    if now is None:
        raise ArchiveError("The API server does not say what time it is.")
    moment = moments.parse(wanted.at, now, wanted.variable)
    histories = archive.histories()
    newest = histories[-1]["cluster"] if histories else ""
    named = [one["cluster"] for one in histories if one["history"] == wanted.history]
    cluster = named[-1] if named else newest
    ours = [one for one in histories if one["cluster"] == cluster]
    one = moments.chosen(moment, ours, wanted.history, wanted.variable)
    return {"cluster": cluster, "history": one["history"], **moment.question()}


def ask(site: Site, archive: Archive, wanted: Wanted) -> Asked:
    """What would be fetched: the archive rebuilds and proves it, and nothing is taken."""
    with archive.database(question(site, archive, wanted)) as offer:
        found = offer.found
    return Asked(found, _later(archive, found))


def keep(
    site: Site,
    archive: Archive,
    wanted: Wanted,
    directory: Path,
    *,
    encrypt: Sequence[str] = (),
    decrypt: Sequence[str] = (),
) -> tuple[Asked, Manifest, bool]:
    """The file of a moment with its manifest, and whether it was made now: what lies there already is taken again.

    Raises export.Failed, moments.Refused, kube.KubeError and OSError; then nothing of it stays.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as folder:
        path = Path(folder) / "database"
        with archive.database(question(site, archive, wanted)) as offer:
            found = offer.found
            there = _there(site, directory, found)
            if there is None:
                offer.save(path)
        asked = Asked(found, _later(archive, found))
        if there is not None:
            return asked, there, False
        manifest: Manifest = {
            "database": site.database,
            "namespace": site.namespace,
            "statefulset": site.name,
            "pod": archive.pod,
            "reason": REASON,
            "at_primary": False,
            "image": None,
            "time": site.api.server_time(),
            "cluster_id": found.cluster,
            "txid": found.txid,
            "moment": found.time,
            "history": found.history,
            **cast("Manifest", verify(path, found)),
            "table_rows": sqlitefile.rows(path),
        }
        manifest["seconds"] = round(time.monotonic() - began, 1)
        return asked, export.store(path, directory, manifest, encrypt, decrypt), True


def rebuild(archive: Archive, asked: dict[str, str], path: Path) -> tuple[Found, sqlitefile.Facts]:
    """The database of a moment as a verified file."""
    with archive.database(asked) as offer:
        offer.save(path)
        found = offer.found
    return found, verify(path, found)


def verify(path: Path, found: Found) -> sqlitefile.Facts:
    """What the file is; ArchiveError where it is not the database that the archive said it is."""
    name = f"Transaction {found.txid} of history {found.history}, as the archive sent it,"
    try:
        facts = sqlitefile.verify(path)
    except sqlitefile.BadFile as exc:
        raise ArchiveError(f"{name} {exc}: nothing of it was kept.") from exc
    if facts["checksum"] != found.checksum:
        raise ArchiveError(
            f"{name} has the checksum {facts['checksum']} and not {found.checksum}: nothing of it was kept; run again."
        )
    return facts


def _there(site: Site, directory: Path, found: Found) -> Manifest | None:
    """The file of an earlier run."""
    wanted = {
        "namespace": site.namespace,
        "statefulset": site.name,
        "database": site.database,
        "reason": REASON,
        "cluster_id": found.cluster,
        "txid": found.txid,
        "checksum": found.checksum,
    }
    for one in retention.read(directory):
        if one.get("whole") and one.get("verified") is True and all(one.get(key) == it for key, it in wanted.items()):
            return one
    return None


def _later(archive: Archive, found: Found) -> moments.Later:
    return moments.later(archive.transactions(found.cluster, since=found.time), found.history, found.txid)
