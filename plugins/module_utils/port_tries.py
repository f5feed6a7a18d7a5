"""Listening on ports for a moment, and trying to connect to them from elsewhere. I/O; standard library only.

Only a real connection tells what a firewall on the way lets pass, and before anything is installed nobody listens yet.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

ANSWER = b"abaci.infra"
# By it a listener is told to end; an abstract name, so that no file is left where it was killed.
NAME = "\0abaci.infra.port_probe"
TRIES = 3

Port = tuple[int, str]


def bind(ports: Iterable[Port]) -> tuple[list[socket.socket], list[Port]]:
    """(sockets of those ports that were free, those that somebody else has)."""
    sockets: list[socket.socket] = []
    taken: list[Port] = []
    for port, protocol in ports:
        try:
            sockets.append(_bound(port, protocol))
        except OSError:
            taken.append((port, protocol))
    return sockets, taken


def _bound(port: int, protocol: str) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if protocol == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        if protocol == "tcp":
            made.listen(16)
    except OSError:
        made.close()
        raise
    return made


def ending() -> socket.socket:
    """What serve() is told to end by."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(NAME)
    return end


def serve(sockets: list[socket.socket], end: socket.socket, seconds: float) -> None:
    """Answer whoever connects, until the time is over or close() is called on this machine."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([*sockets, end], [], [], left)
        if end in ready:
            break
        for one in ready:
            _answer(one)
    for one in [*sockets, end]:  # its name last: who waits for that finds the ports free
        one.close()


def _answer(one: socket.socket) -> None:
    try:
        if one.type == socket.SOCK_STREAM:
            caller, _ = one.accept()
            with caller:
                caller.sendall(ANSWER)
        else:
            _, sender = one.recvfrom(64)
            one.sendto(ANSWER, sender)
    except OSError:
        return  # who is gone before the answer has its own trouble


def close(wait: float = 2.0) -> bool:
    """End the listener on this machine; whether there was one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.sendto(b"end", NAME)
        except OSError:
            return False
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
            try:
                name.bind(NAME)
                return True
            except OSError:
                time.sleep(0.02)
    return True


def detach(sockets: list[socket.socket], seconds: float) -> None:
    """Serve in a process of its own, which holds neither this one's output nor its terminal."""
    end = ending()
    if os.fork():
        for one in [*sockets, end]:
            one.close()
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        serve(sockets, end, seconds)
    finally:
        os._exit(0)


def tried(address: str, ports: Iterable[Port], timeout: float) -> dict[Port, str | None]:
    """By port: None where it answered, else why not."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = {port: pool.submit(_tried, address, port, timeout) for port in ports}
        return {port: answer.result() for port, answer in asked.items()}


def _tried(address: str, where: Port, timeout: float) -> str | None:
    port, protocol = where
    problem: OSError | None = None
    try:
        if protocol == "tcp":
            with socket.create_connection((address, port), timeout=timeout):
                return None
        family, kind, proto, _, there = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as caller:
            caller.connect(there)
            caller.settimeout(timeout / TRIES)
            for _attempt in range(TRIES):
                try:
                    caller.send(ANSWER)
                    if caller.recv(64) == ANSWER:
                        return None
                except OSError as exc:  # a datagram may get lost
                    problem = exc
    except OSError as exc:
        problem = exc
    said = str(problem or "timed out").lower()
    if "timed out" in said:
        return f"no answer within {timeout:g} s"
    return ((problem.strerror if problem else None) or said).lower()
