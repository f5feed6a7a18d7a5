"""Notes the requests to one port that every Python of a run makes: put this folder into PYTHONPATH.

Environment: COUNT_REQUESTS, the file that gets a line "METHOD target" for each request by http.client or urllib3, and a
line "connection" and "http" for each connection; one that has no "http" is a WebSocket, as of a port-forward.
COUNT_REQUESTS_PORT: the port. It goes by Python's audit events, so nothing that is counted has to know.
"""

from __future__ import annotations

import os
import sys
from typing import Any

TARGET = os.environ.get("COUNT_REQUESTS", "")
PORT = int(os.environ.get("COUNT_REQUESTS_PORT", "0"))
METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ")


def note(line: str) -> None:
    """Append one line. Processes write at the same time, and one small write in append mode stays whole."""
    with open(TARGET, "a") as file:
        file.write(line + "\n")


def is_head(data: Any) -> bool:
    """Whether this is the head of a request, not its body."""
    return isinstance(data, bytes) and data.startswith(METHODS) and b" HTTP/1.1\r\n" in data


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][1] == PORT:
        note("connection")
    elif event == "http.client.connect" and arguments[2] == PORT:
        note("http")
    elif event == "http.client.send" and arguments[0].port == PORT and is_head(arguments[1]):
        note(" ".join(arguments[1].split(b"\r\n", 1)[0].decode().split(" ")[:2]))


if TARGET:
    sys.addaudithook(hook)
