"""A primary on a loopback socket: /info over HTTP/1.1, and the stream over HTTP/2, as a test says it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events

Script = Callable[["Answer"], None]


class Answer:
    """What a script may do with a stream that came."""

    def __init__(self, connection: h2.connection.H2Connection, sock: socket.socket, stream: int, body: bytes) -> None:
        self._h2, self._socket, self._stream, self.body = connection, sock, stream, body
        self.headers: list[tuple[str, str]] = []

    def head(self, status: int = 200, cluster: str = "LFSC1") -> None:
        headers = [(":status", str(status)), ("litefs-cluster-id", cluster)]
        self._h2.send_headers(self._stream, headers)
        self._flush()

    def send(self, data: bytes) -> None:
        """Within the window, for as long as the client acknowledges."""
        while data:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size, len(data))
            if not room:
                self._h2.receive_data(self._socket.recv(65536))
                continue
            self._h2.send_data(self._stream, data[:room])
            data = data[room:]
            self._flush()

    def end(self) -> None:
        self._h2.end_stream(self._stream)
        self._flush()
        # Closing while acknowledgements come would take back what was sent.
        self.wait_gone()

    def reset(self) -> None:
        self._h2.reset_stream(self._stream)
        self._flush()

    def cut(self) -> None:
        """As a process that was killed: the connection is closed without a word."""
        self._socket.shutdown(socket.SHUT_WR)
        self.wait_gone()

    def wait_gone(self) -> None:
        while self._socket.recv(65536):
            pass

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


class Primary:
    """Each stream that comes runs the next script; the last one again and again."""

    def __init__(self, *scripts: Script, primary: bool = True, cluster: str = "LFSC1") -> None:
        self.info = {"clusterID": cluster, "isPrimary": primary}
        self.scripts = list(scripts)
        self.streams: list[tuple[dict[str, str], bytes]] = []
        self.errors: list[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(10)
            data = sock.recv(65536)
            if data.startswith(b"GET /info"):
                body = json.dumps(self.info).encode()
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                return
            try:
                self._stream(sock, data)
            except OSError:
                pass
            except BaseException as exc:
                self.errors.append(exc)

    def _stream(self, sock: socket.socket, data: bytes) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        headers: dict[str, str] = {}
        body, number = b"", 0
        while True:
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    headers = {str(name): str(value) for name, value in event.headers or ()}
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    number = event.stream_id or 0
            sock.sendall(connection.data_to_send())
            if number:
                break
            data = sock.recv(65536)
        self.streams.append((headers, body))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        script(Answer(connection, sock, number, body))
