"""HTTP/2 with prior knowledge over a socket, as much of it as LiteFS's stream needs. I/O."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

# It is packed into the archive's pod; on a controller without it everything else can be read.
with contextlib.suppress(ImportError):
    import h2.config
    import h2.connection
    import h2.events
    import h2.exceptions
    import h2.settings

# What the primary may send before it is acknowledged; the follower itself holds one piece of READ bytes at a time.
WINDOW = 1 << 20
READ = 1 << 16


class StreamError(OSError):
    """The primary refused, or the stream broke."""


class Connection:
    """What both sides do: bytes of the socket become events, and what is to be said goes out."""

    def __init__(self, connected: socket.socket, *, client: bool) -> None:
        self._socket = connected
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._socket.sendall(data)

    def _receive(self) -> None:
        """One piece from the socket, with what it means. StreamError where the other side ended it."""
        data = self._socket.recv(READ)
        if not data:
            raise StreamError("the connection was closed")
        for event in self._h2.receive_data(data):
            if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise StreamError("the stream was reset")
            self._take(event)
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        raise NotImplementedError


class Stream(Connection):
    """One POST /stream: its answer's headers, then its body for ever."""

    def __init__(self, address: tuple[str, int], node_id: str, body: bytes, timeout: float) -> None:
        self.cluster_id = ""
        self._answered = False
        self._ended = ""
        self._body: list[bytes] = []
        super().__init__(socket.create_connection(address, timeout=timeout), client=True)
        try:
            self._ask(f"{address[0]}:{address[1]}", node_id, body)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def shut(self) -> None:
        """From another thread: whoever waits for the next piece gets a StreamError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. A primary that is silent for the time-out, or ends the stream, is a StreamError."""
        while True:
            yield from self._body
            self._body = []
            self._receive()

    def _ask(self, authority: str, node_id: str, body: bytes) -> None:
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._h2.increment_flow_control_window(WINDOW)
        number = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", authority),
            (":path", "/stream"),
            ("litefs-id", node_id),
            ("content-length", str(len(body))),
        ]
        self._h2.send_headers(number, headers)
        size = self._h2.max_outbound_frame_size
        for at in range(0, len(body), size):
            self._h2.send_data(number, body[at : at + size], end_stream=at + size >= len(body))
        self._flush()
        while not self._answered:
            self._receive()

    def _receive(self) -> None:
        if self._ended:
            raise StreamError(self._ended)
        try:
            super()._receive()
        except TimeoutError as exc:
            raise StreamError("nothing came for too long") from exc
        except h2.exceptions.ProtocolError as exc:
            raise StreamError(f"it does not speak HTTP/2: {exc}") from exc

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            headers = {str(name).lower(): str(value) for name, value in event.headers or ()}
            if headers.get(":status") != "200":
                raise StreamError(f"the stream was answered {headers.get(':status')}")
            self.cluster_id = headers.get("litefs-cluster-id", "")
            self._answered = True
        elif isinstance(event, h2.events.DataReceived):
            self._body.append(event.data or b"")
        elif isinstance(event, h2.events.StreamEnded):
            # What came before the end is read first.
            self._ended = "the primary ended the stream"
