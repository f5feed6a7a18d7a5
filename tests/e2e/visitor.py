"""A visitor of a Next.js site without a browser: cookies, forms without JavaScript, scripts, Socket.IO."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from http.cookies import SimpleCookie
from typing import Any

from sitebed import Response
from writer import Site

SOCKET = "/api/socket/?EIO=4&transport="


class Visitor:
    """One visitor, who keeps the cookies that the site sets."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request on a connection of its own; no redirect is followed. A body in pieces needs Content-Length."""
        with contextlib.closing(self.site.open()) as connection:
            connection.request(method, path, body, self._headers() | (headers or {}))
            answer = connection.getresponse()
            response = Response(answer.status, answer.getheaders(), answer.read())
        for name, value in response.headers:
            if name.lower() == "set-cookie":
                self.cookies |= {key: morsel.value for key, morsel in SimpleCookie(value).items()}
        return response

    def _headers(self) -> dict[str, str]:
        cookies = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        return {"Cookie": cookies} if cookies else {}

    def view(self, path: str = "/") -> Page:
        return Page(self.ask("GET", path))

    def submit(self, page: Page, form: str, seconds: float = 0, **fields: str) -> Response:
        """Send a form whose action is on the server, as a browser does in which no script has run yet.

        ``seconds``: for how long its body is on its way.
        """
        boundary = secrets.token_hex(16)
        parts = {page.action(form): "", **fields}
        body = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in parts.items()
        )
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Origin": self.site.url}
        data = f"{body}--{boundary}--\r\n".encode()
        headers["Content-Length"] = str(len(data))
        return self.ask("POST", "/", slowly(data, seconds) if seconds else data, headers)

    def lines(self, path: str) -> Iterator[str]:
        """The lines of an answer, each as soon as it comes."""
        with contextlib.closing(self.site.open()) as connection:
            connection.request("GET", path, headers=self._headers())
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            while line := answer.readline():
                yield line.decode().rstrip("\r\n")

    # Socket.IO, of which a packet is a digit of Engine.IO (0 open, 4 message) and one of its own (0 connect, 2 event)

    def echo_by_polling(self, text: str) -> list[Any]:
        """Send an event through HTTP requests and return the event that comes back."""
        opened = self.ask("GET", f"{SOCKET}polling")
        assert opened.status == 200 and opened.body.startswith(b"0"), opened
        path = f"{SOCKET}polling&sid={json.loads(opened.body[1:])['sid']}"
        for packet in ("40", "42" + json.dumps(["echo", text])):
            sent = self.ask("POST", path, packet.encode(), {"Content-Type": "text/plain;charset=UTF-8"})
            assert (sent.status, sent.body) == (200, b"ok"), sent
        for _ in range(5):
            for packet in self.ask("GET", path).body.decode().split("\x1e"):
                if packet.startswith("42"):
                    return list(json.loads(packet[2:]))
        raise AssertionError("no event came back")

    def echo_by_websocket(self, text: str) -> list[Any]:
        """The same through a WebSocket."""
        connection = self.site.open()
        connection.connect()
        with contextlib.closing(connection):
            raw: socket.socket = connection.sock
            key = base64.b64encode(os.urandom(16)).decode()
            raw.sendall(
                f"GET {SOCKET}websocket HTTP/1.1\r\nHost: {self.site.url.partition('//')[2]}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            stream = raw.makefile("rb")
            status = stream.readline()
            assert b" 101 " in status, status
            while stream.readline().strip():
                pass

            def receive() -> str:
                _, length = stream.read(2)
                size = int.from_bytes(stream.read(2), "big") if length == 126 else length
                return stream.read(size).decode()

            assert receive().startswith("0")
            raw.sendall(text_frame("40"))
            assert receive().startswith("40")
            raw.sendall(text_frame("42" + json.dumps(["echo", text])))
            answer = receive()
            assert answer.startswith("42"), answer
            return list(json.loads(answer[2:]))


def slowly(data: bytes, seconds: float, pieces: int = 20) -> Iterator[bytes]:
    """The data in pieces, of which the last comes after so many seconds."""
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        if start:
            time.sleep(seconds / (pieces - 1))
        yield data[start : start + size]


def text_frame(text: str) -> bytes:
    """A WebSocket's text frame of less than 126 bytes, masked as a client's have to be."""
    mask, data = os.urandom(4), text.encode()
    return bytes([0x81, 0x80 | len(data)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


class Page:
    """A page of the site, by the ids of its elements."""

    def __init__(self, answer: Response) -> None:
        self.status = answer.status
        self.answer = answer
        self.html = answer.body.decode(errors="replace")

    def text(self, identifier: str) -> str:
        found = re.search(rf'<(\w+) id="{identifier}">(.*?)</\1>', self.html, re.DOTALL)
        assert found, f"no {identifier} in {self.status} {self.html[:500]}"
        return html.unescape(found[2])

    def action(self, form: str) -> str:
        found = re.search(rf'<form id="{form}".*?name="(\$ACTION_ID_\w+)"', self.html, re.DOTALL)
        assert found, f"no form {form} in {self.status} {self.html[:500]}"
        return found[1]

    def scripts(self) -> list[str]:
        """What the page loads before it works."""
        return sorted(set(re.findall(r'(?:src|href)="(/_next/static/[^"]+)"', self.html)))

    def image(self) -> str:
        found = re.search(r'<img[^>]* src="([^"]+)"', self.html)
        assert found, self.html[:500]
        return html.unescape(found[1])
