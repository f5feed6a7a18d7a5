"""The counter of requests, held against a process whose requests are known."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# A GET and a POST on one connection by urllib3, one of http.client, a bare socket as of a WebSocket, and another port.
ASK = """
import http.client, socket, sys, urllib3
port = int(sys.argv[1])
pool = urllib3.HTTPConnectionPool("127.0.0.1", port)
pool.request("GET", "/a?b=c")
pool.request("POST", "/a", body=b"GET /not HTTP/1.1")
one = http.client.HTTPConnection("127.0.0.1", port)
one.request("GET", "/d")
one.getresponse().read()
socket.create_connection(("127.0.0.1", port)).close()
http.client.HTTPConnection("127.0.0.1", int(sys.argv[2])).connect()
"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def test_requests_to_the_port_are_noted_and_no_others(tmp_path: Path) -> None:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = [str(server.server_address[1]) for server in servers]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests/tools/requests"),
        "COUNT_REQUESTS": str(tmp_path / "noted"),
        "COUNT_REQUESTS_PORT": ports[0],
    }
    subprocess.run([sys.executable, "-c", ASK, *ports], env=environment, check=True)
    for server in servers:
        server.shutdown()
        server.server_close()
    noted = (tmp_path / "noted").read_text().splitlines()
    assert [line for line in noted if line.startswith(("GET", "POST"))] == ["GET /a?b=c", "POST /a", "GET /d"]
    assert (noted.count("connection"), noted.count("http")) == (3, 2)
