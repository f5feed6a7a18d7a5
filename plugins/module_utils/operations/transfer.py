"""A whole database over LiteFS's HTTP API, through the Kubernetes API's port-forward, in pieces of some kilobytes."""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from .. import kube, wording
from ..telling import Reading, tell
from . import positions, sqlitefile

PIECE = 1 << 16


def download(
    api: kube.Client, namespace: str, pod: str, port: int, path: str, target: Path, timeout: float
) -> dict[str, str]:
    """GET ``path`` of the pod into the file ``target``; returns the headers, names in lower case.

    Raises kube.KubeError where the pod does not answer 200 or the answer is cut off; the file is then incomplete.
    """
    where = _where("GET", path, port, namespace, pod)
    with opened(api, namespace, pod, port, path, timeout) as answer:
        if answer.status != 200:
            raise kube.KubeError(f"{where} was answered {answer.status}: {_text(answer)}.", answer.status)
        save(answer, target, where, f"Copy of {path.partition('?')[0]} from pod {pod}")
        return {name.lower(): value for name, value in answer.getheaders()}


@contextlib.contextmanager
def opened(
    api: kube.Client, namespace: str, pod: str, port: int, path: str, timeout: float
) -> Iterator[http.client.HTTPResponse]:
    """The answer to GET ``path`` of the pod, of whatever status, its body not yet read."""
    with kube.forward(api, namespace, pod, port, timeout, _where("GET", path, port, namespace, pod)) as stream:
        stream.send(f"GET {path} HTTP/1.1\r\nHost: {pod}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        yield answer


def save(answer: http.client.HTTPResponse, target: Path, where: str, what: str) -> None:
    """The body of an answer into a file, told as ``what``; KubeError that begins with ``where`` where it is cut."""
    total, done = answer.length, 0
    tell(what, 0, total)
    with target.open("wb") as file:
        while piece := answer.read(PIECE):
            # LiteFS sends an export without its length, and SQLite's own header has it.
            total = total or (sqlitefile.said_size(piece) if not done else None)
            done += len(piece)
            tell(what, done, total)
            file.write(piece)
    if answer.length:  # http.client says nothing where a body that is read in pieces ends early
        raise kube.KubeError(f"{where} broke off before the end of its answer.")


def upload(api: kube.Client, namespace: str, pod: str, port: int, path: str, source: Path, timeout: float) -> None:
    """POST the file ``source`` to ``path`` of the pod. Raises kube.KubeError unless it is answered 200."""
    where = _where("POST", path, port, namespace, pod)
    size = source.stat().st_size
    with kube.forward(api, namespace, pod, port, timeout, where) as stream:
        head = f"POST {path} HTTP/1.1\r\nHost: {pod}:{port}\r\nConnection: close\r\n"
        stream.send(f"{head}Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n".encode())
        with source.open("rb") as file:
            reading = Reading(file, f"Copy of {source.name} to pod {pod}", size)
            while piece := reading.read(PIECE):
                stream.send(piece)
        tell(f"Answer of pod {pod} to what it was sent")
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        if answer.status != 200:
            raise kube.KubeError(f"{where} was answered {answer.status}: {_text(answer)}.", answer.status)
        answer.read()


@contextlib.contextmanager
def watch(
    api: kube.Client, namespace: str, pod: str, port: int, database: str, timeout: float
) -> Iterator[dict[str, str]]:
    """Every transaction of the database that the pod reports while the body runs: checksum -> TXID (GET /events)."""
    seen: dict[str, str] = {}
    with opened(api, namespace, pod, port, "/events", timeout) as answer:

        def read() -> None:
            with contextlib.suppress(Exception):  # it ends by being closed, in whatever way that shows
                for line in answer:
                    positions.note(line, database, seen)

        threading.Thread(target=read, daemon=True).start()
        yield seen


def name_query(path: str, database: str) -> str:
    """``path?name=<database>``."""
    return f"{path}?{urllib.parse.urlencode({'name': database})}"


def _where(method: str, path: str, port: int, namespace: str, pod: str) -> str:
    return f"{method} {path} on port {port} of pod {namespace}/{pod}"


def _text(answer: http.client.HTTPResponse) -> str:
    return wording.reason(answer.read(400).decode(errors="replace"))
