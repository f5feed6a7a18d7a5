"""A database through a stream to a pod, against a server on loopback that answers as the pod would."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import transfer

DATABASE = b"pages" * 50_000


class Pod(http.server.BaseHTTPRequestHandler):
    received = b""

    def do_GET(self) -> None:
        if self.path == "/gone":
            return self.send_error(404, "no such database")
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATABASE) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(DATABASE)

    def do_POST(self) -> None:
        type(self).received = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/import" else 500)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


class Stream:
    """What Client.dial() returns, over a plain socket."""

    error = ""

    def __init__(self, address: Any) -> None:
        self._socket = socket.create_connection(address, timeout=5)
        self.send, self.makefile, self.close = self._socket.sendall, self._socket.makefile, self._socket.close


class Api:
    def __init__(self, address: Any) -> None:
        self.address = address

    def dial(self, _namespace: str, pod: str, _port: int, _deadline: float) -> Stream:
        if pod == "slow":
            raise TimeoutError
        return Stream(self.address)


@pytest.fixture
def api() -> Iterator[Api]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pod)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield Api(server.server_address)
    server.shutdown()
    server.server_close()


def test_a_database_comes_and_goes_whole(api: Any, tmp_path: Path) -> None:
    target = tmp_path / "database"
    headers = transfer.download(api, "abaci", "p-0", 20202, "/export", target, 5)
    assert headers["content-length"] == str(len(DATABASE)) and target.read_bytes() == DATABASE
    transfer.upload(api, "abaci", "p-0", 20202, "/import", target, 5)
    assert Pod.received == DATABASE


@pytest.mark.parametrize(
    ("pod", "path", "words", "status"),
    [
        ("p-0", "/gone", "was answered 404: .*no such database", 404),
        ("p-0", "/cut", "broke off before the end", None),
        ("slow", "/export", "was not answered within 5 s", None),
    ],
)
def test_what_goes_wrong_names_the_pod(
    api: Any, tmp_path: Path, pod: str, path: str, words: str, status: int | None
) -> None:
    with pytest.raises(kube.KubeError, match=rf"^GET {path} on port 20202 of pod abaci/{pod} {words}") as caught:
        transfer.download(api, "abaci", pod, 20202, path, tmp_path / "database", 5)
    assert caught.value.status == status


def test_an_import_that_is_not_taken_is_an_error(api: Any, tmp_path: Path) -> None:
    (tmp_path / "database").write_bytes(DATABASE)
    with pytest.raises(kube.KubeError, match=r"^POST /other on port 20202 of pod abaci/p-0 was answered 500"):
        transfer.upload(api, "abaci", "p-0", 20202, "/other", tmp_path / "database", 5)
