"""Asking the archive's pod, through the Kubernetes API's port-forward. I/O.

Each question has a port-forward of its own: the archive speaks HTTP/1.0, so its answer ends with the connection. A
refusal of the archive is passed on in its own words.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import kube
from .archive.settings import Settings
from .operations import transfer
from .telling import tell

if TYPE_CHECKING:
    from .archive.status import FollowingDoc, HistoryDoc, TransactionDoc

PORT = Settings.local_port
ASK_SECONDS = 30.0


class ArchiveError(kube.KubeError):
    """The archive is away, or says no; one sentence."""


class NoArchive(ArchiveError):
    """The site has none."""


@dataclass(frozen=True)
class Found:
    """The database of a moment, as the archive describes it."""

    cluster: str
    history: str
    txid: str
    time: str
    checksum: str
    size: int

    def question(self) -> dict[str, str]:
        """That very database, and no other."""
        return {"cluster": self.cluster, "history": self.history, "txid": self.txid}


@dataclass(frozen=True)
class Offer:
    """A database whose bytes are still to come."""

    found: Found
    answer: http.client.HTTPResponse
    source: str

    def save(self, path: Path) -> None:
        """KubeError where it is cut."""
        name = f"Transaction {self.found.txid} from {self.source}"
        transfer.save(self.answer, path, name, name)


class Archive:
    """That of one StatefulSet; ``timeout`` (s) bounds the answers that may be long."""

    def __init__(self, api: kube.Client, namespace: str, app: str, database: str, timeout: float) -> None:
        self._api, self._namespace, self._app = api, namespace, app
        self._database, self._timeout = database, timeout
        self._pod = ""

    @property
    def pod(self) -> str:
        """The name of its pod; ArchiveError where none runs."""
        self._pod = self._pod or self._look()
        return self._pod

    def _look(self) -> str:
        labels = f"app.kubernetes.io/name={self._app},app.kubernetes.io/component=archive"
        pods = [
            pod
            for pod in self._api.list("v1", "Pod", self._namespace, labels)
            if not pod["metadata"].get("deletionTimestamp")
        ]
        where = f"StatefulSet {self._namespace}/{self._app}"
        if not pods:
            raise NoArchive(
                f"There is no archive of {where}, so no moment of its data can be had: set archive_image and run "
                "site.yml --tags archive; it keeps what is written from then on."
            )
        for pod in pods:
            if (pod.get("status") or {}).get("phase") == "Running":
                return str(pod["metadata"]["name"])
        name, phase = pods[0]["metadata"]["name"], (pods[0].get("status") or {}).get("phase")
        raise ArchiveError(
            f"The archive of {where} is away: its pod {name} is {phase} (kubectl describe pod -n {self._namespace} "
            f"{name})."
        )

    def histories(self) -> list[HistoryDoc]:
        """All of the database, the oldest first."""
        return [one for one in self.everything() if one["database"] == self._database]

    def everything(self) -> list[HistoryDoc]:
        """All histories of all databases, the oldest of each first."""
        with self._opened("/moments", {}, min(ASK_SECONDS, self._timeout)) as answer:
            found = _json(answer.read(), self.pod)
        histories = found.get("histories")
        if not isinstance(histories, list):
            raise ArchiveError(f"The archive {self.pod} answers something else than its moments: run site.yml.")
        return cast("list[HistoryDoc]", histories)

    def following(self, cluster: str, database: str, at: str) -> FollowingDoc:
        """What a copy at this position (TXID/checksum) lacks, every file read and proven there; ArchiveError says why
        that cannot be told."""
        txid, _, checksum = at.partition("/")
        asked = {"cluster": cluster, "database": database, "txid": txid, "checksum": checksum}
        with self._opened("/following", asked, self._timeout) as answer:
            return cast("FollowingDoc", _json(answer.read(), self.pod))

    def transactions(self, cluster: str, since: str = "", until: str = "") -> Iterator[TransactionDoc]:
        """By history and TXID, as they come: there may be a million. ArchiveError where the list is cut."""
        asked = {"database": self._database, "cluster": cluster, "since": since, "until": until}
        count = 0
        with self._opened(
            "/transactions", {key: value for key, value in asked.items() if value}, self._timeout
        ) as answer:
            for line in answer:
                found = _json(line, self.pod)
                if found.get("end"):
                    if found.get("count") == count:
                        return
                    break
                count += 1
                tell(f"List of the archive {self.pod}", count, None, "transactions")
                yield cast("TransactionDoc", found)
        raise ArchiveError(
            f"The archive {self.pod} broke off its list after {count} transactions: its log says why (kubectl logs -n "
            f"{self._namespace} {self.pod})."
        )

    @contextlib.contextmanager
    def database(self, question: Mapping[str, str]) -> Iterator[Offer]:
        """The database of a moment, rebuilt and proven there; see moments.Moment.question() and Found.question().

        Whoever only asks does not save it.
        """
        with self._opened("/database", {"database": self._database, **question}, self._timeout) as answer:
            said = {name.lower(): value for name, value in answer.getheaders()}
            names = ("cluster", "history", "txid", "time", "checksum")
            values = {name: said.get(f"archive-{name}", "") for name in names}
            if not all(values.values()):
                raise ArchiveError(f"The archive {self.pod} does not say which database it sends: run site.yml.")
            found = Found(size=int(said.get("content-length", "0")), **values)
            yield Offer(found, answer, f"the archive {self.pod}")

    @contextlib.contextmanager
    def _opened(self, path: str, question: Mapping[str, str], timeout: float) -> Iterator[http.client.HTTPResponse]:
        tell(f"Answer of the archive {self.pod} to {path}", deadline=time.monotonic() + timeout)
        asked = f"{path}?{urllib.parse.urlencode(question)}" if question else path
        with transfer.opened(self._api, self._namespace, self.pod, PORT, asked, timeout) as answer:
            if answer.status != 200:
                body = answer.read()
                sentence = _json(body, self.pod).get("error")
                why = sentence or f"The archive {self.pod} answered {answer.status} to {path}."
                raise ArchiveError(str(why), answer.status)
            yield answer


def _json(text: bytes, pod: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise ArchiveError(f"The archive {pod} answers half a document, or none: run again.") from exc
    if not isinstance(found, dict):
        raise ArchiveError(f"The archive {pod} answers something else than a document: run site.yml.")
    return found
