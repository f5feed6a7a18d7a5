#!/usr/bin/env python3
"""A TCP relay that holds back what the other side sends, as a long line between two hosts does.

    delay.py --listen 20299 --to 10.42.0.9:20202 --seconds 0.25 --mark 77

What the client sends passes at once. ``--mark`` is put on the relay's own connections, so that a firewall which
redirects everybody else to the relay lets it through; it takes root. It runs until it is killed. Standard library only.
"""

from __future__ import annotations

import argparse
import queue
import socket
import threading
import time

SIZE = 65536


def hold_back(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on what comes, each piece ``seconds`` after it came, in its order; and then the end."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def send() -> None:
        while True:
            due, piece = pieces.get()
            time.sleep(max(due - time.monotonic(), 0))
            try:
                if not piece:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(piece)
            except OSError:
                return

    threading.Thread(target=send, daemon=True).start()
    while True:
        try:
            piece = source.recv(SIZE)
        except OSError:
            piece = b""
        pieces.put((time.monotonic() + seconds, piece))
        if not piece:
            return


def serve(listener: socket.socket, to: tuple[str, int], seconds: float, mark: int = 0) -> None:
    """Relay every connection that the listener gets."""
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if mark:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            server.connect(to)
        except OSError:
            client.close()
            continue
        threading.Thread(target=hold_back, args=(client, server, 0.0), daemon=True).start()
        threading.Thread(target=hold_back, args=(server, client, seconds), daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--mark", type=int, default=0)
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    serve(socket.create_server(("127.0.0.1", given.listen)), (host, int(port)), given.seconds, given.mark)


if __name__ == "__main__":
    main()
