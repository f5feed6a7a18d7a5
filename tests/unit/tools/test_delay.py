"""The relay that makes a line long: late, whole and in order one way, at once the other."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import delay


def test_what_the_server_sends_comes_late_whole_and_in_its_order() -> None:
    sent = [bytes([number]) * 100_000 for number in range(20)]
    heard: list[float] = []
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"
            heard.append(time.monotonic())
            for piece in sent:
                connection.sendall(piece)

    threading.Thread(target=answer, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=delay.serve, args=(listener, server.getsockname(), 0.3), daemon=True).start()
    with contextlib.closing(socket.create_connection(listener.getsockname(), timeout=20)) as client:
        began = time.monotonic()
        client.sendall(b"hello")
        first = client.recv(1)
        waited = time.monotonic() - began
        rest = b""
        while piece := client.recv(65536):
            rest += piece
    assert first + rest == b"".join(sent)
    assert waited >= 0.3 and waited - (heard[0] - began) >= 0.3


def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=delay.serve, args=(listener, nobody, 0.0), daemon=True).start()
    with contextlib.closing(socket.create_connection(listener.getsockname(), timeout=20)) as client:
        assert client.recv(1) == b""
