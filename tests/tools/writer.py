#!/usr/bin/env python3
"""A client with a ledger: it writes records through a site and later proves that every acknowledged one is there.

    writer.py post   --url https://abaci.localhost:8443 --connect 127.0.0.1:8443 --ca ca.crt --ledger FILE --count 1000
    writer.py verify --url https://abaci.localhost:8443 --connect 127.0.0.1:8443 --ca ca.crt --ledger FILE

Each record is sent once: nothing is retried, every outcome is counted. Both print one JSON object. `post` exits 1 when
an answer was one that loses writes (a 2xx without an id, or a Fly-Replay header) or, with --all, when any record was
not acknowledged; `verify` exits 1 when an acknowledged record is missing or another body stands under its id.
Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import secrets
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Site:
    """Where to send requests. Name and SNI come from the URL; the TCP connection goes to `connect` if it is given."""

    url: str
    connect: tuple[str, int] | None = None
    ca: str | None = None
    verify: bool = True
    timeout: float = 10.0

    def open(self) -> http.client.HTTPConnection:
        """A connection, not yet connected."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url} is no http(s) URL")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host, connect_port = self.connect or (parts.hostname, port)
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=self.timeout)
        context = None
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca)
            connection.default_port = 443  # so that Host leaves out the port that https implies
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        name = parts.hostname

        def connect() -> None:
            raw = socket.create_connection((host, connect_port), timeout=self.timeout)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = context.wrap_socket(raw, server_hostname=name) if context else raw

        connection.connect = connect  # type: ignore[method-assign]
        return connection


@dataclass(frozen=True)
class Outcome:
    """What became of one record: the id when it was acknowledged, else why it was not."""

    body: str
    started: float
    ended: float
    status: int | None = None
    id: int | None = None
    fly_replay: bool = False
    empty: bool = False
    error: str = ""

    @property
    def kind(self) -> str:
        """`acknowledged`, `empty 2xx`, `fly-replay`, `no answer`, or the status."""
        if self.id is not None and not self.fly_replay:
            return "acknowledged"
        if self.fly_replay:
            return "fly-replay"
        if self.status is None:
            return "no answer"
        if 200 <= self.status < 300:
            return "empty 2xx"
        return str(self.status)


def judge(
    body: str, started: float, ended: float, status: int, headers: Iterable[tuple[str, str]], data: bytes
) -> Outcome:
    """Read an answer. Acknowledged means 201 with a whole number as `id`."""
    fly_replay = any(name.lower() == "fly-replay" for name, _ in headers)
    number = None
    if status == 201:
        try:
            value = json.loads(data)["id"]
            number = value if isinstance(value, int) else None
        except (ValueError, TypeError, LookupError):
            number = None
    return Outcome(body, started, ended, status, number, fly_replay, not data)


@dataclass
class Report:
    """Figures of a run. Times in seconds; the longest gap counts from the start to the first acknowledgement too."""

    sent: int = 0
    acknowledged: int = 0
    lost: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    empty_2xx: int = 0
    fly_replay: int = 0
    server_errors: int = 0
    no_answer: int = 0
    longest_gap: float = 0.0
    longest_gap_at: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    latency_p50: float = 0.0
    latency_p99: float = 0.0
    latency_max: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


def percentile(values: list[float], share: float) -> float:
    """The smallest of the sorted values that `share` of them do not exceed; 0 without any."""
    return values[max(0, math.ceil(len(values) * share) - 1)] if values else 0.0


def summarise(outcomes: list[Outcome], started: float, ended: float) -> Report:
    """Count the outcomes of a run that went from `started` to `ended`."""
    acknowledged = sorted((o for o in outcomes if o.kind == "acknowledged"), key=lambda o: o.ended)
    moments = [started, *(o.ended for o in acknowledged), ended]
    gap, at = max((after - before, before) for before, after in itertools.pairwise(moments))
    latencies = sorted(o.ended - o.started for o in acknowledged)
    kinds = Counter(o.kind for o in outcomes)
    return Report(
        sent=len(outcomes),
        acknowledged=len(acknowledged),
        lost=kinds["empty 2xx"] + kinds["fly-replay"],
        kinds=dict(sorted(kinds.items())),
        statuses=dict(sorted(Counter(str(o.status) for o in outcomes if o.status is not None).items())),
        empty_2xx=sum(o.status is not None and 200 <= o.status < 300 and o.empty for o in outcomes),
        fly_replay=sum(o.fly_replay for o in outcomes),
        server_errors=sum(o.status is not None and o.status >= 500 for o in outcomes),
        no_answer=kinds["no answer"],
        longest_gap=round(gap, 3),
        longest_gap_at=round(at - started, 3),
        seconds=round(ended - started, 3),
        rate=round(len(acknowledged) / max(ended - started, 1e-9), 1),
        latency_p50=round(percentile(latencies, 0.5), 4),
        latency_p99=round(percentile(latencies, 0.99), 4),
        latency_max=round(percentile(latencies, 1), 4),
        errors=dict(Counter(o.error for o in outcomes if o.error)),
    )


class Pace:
    """Hands out turns, at most `rate` a second; what an outage held up is not made good by a burst."""

    def __init__(self, count: int | None, seconds: float | None, rate: float | None) -> None:
        self._left = count
        self._deadline = time.monotonic() + seconds if seconds is not None else None
        self._step = 1 / rate if rate else 0.0
        self._next = 0.0
        self._number = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def turn(self) -> int | None:
        """Wait for the next turn and return its number from 1; None when the run is over."""
        with self._lock:
            if self._stop.is_set() or self._left == 0:
                return None
            now = time.monotonic()
            self._next = max(now, self._next + self._step)
            if self._deadline is not None and self._next >= self._deadline:
                return None
            if self._left is not None:
                self._left -= 1
            self._number += 1
            number, pause = self._number, self._next - now
        return None if pause > 0 and self._stop.wait(pause) else number

    def stop(self) -> None:
        """No further turns."""
        self._stop.set()


class Writer:
    """A run of POSTs. `start` returns at once, `finish` waits; `run` is both."""

    def __init__(
        self,
        site: Site,
        ledger: Path,
        *,
        count: int | None = None,
        seconds: float | None = None,
        rate: float | None = 40.0,
        concurrency: int = 4,
        prefix: str = "",
        path: str = "/api/records",
    ) -> None:
        if count is None and seconds is None:
            raise ValueError("say how many records or for how many seconds")
        site.open()  # a malformed URL is an error here, not in the threads
        self._site = site
        self._path = path
        self._prefix = prefix or secrets.token_hex(4)
        self._limits = (count, seconds, rate)
        self._concurrency = concurrency
        self._ledger = ledger.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> Writer:
        self._pace = Pace(*self._limits)
        self._started = time.monotonic()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._concurrency)]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> Report:
        """Send nothing more, and finish."""
        self._pace.stop()
        return self.finish()

    def finish(self) -> Report:
        """Wait for the run to end."""
        for thread in self._threads:
            thread.join()
        self._ledger.close()
        return self.report()

    def run(self) -> Report:
        return self.start().finish()

    def report(self) -> Report:
        """The figures so far."""
        with self._lock:
            return summarise(list(self._outcomes), self._started, time.monotonic())

    def _work(self) -> None:
        connection = self._site.open()
        while (number := self._pace.turn()) is not None:
            body = f"{self._prefix}-{number}"
            outcome = self._send(connection, body)
            if outcome.status is None:
                connection.close()
                connection = self._site.open()
            # The ledger first: what is counted as acknowledged can be looked for.
            with self._lock:
                self._ledger.write(json.dumps({"id": outcome.id, "body": body, "kind": outcome.kind}) + "\n")
                self._ledger.flush()
                self._outcomes.append(outcome)
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: str) -> Outcome:
        started = time.monotonic()
        try:
            connection.request(
                "POST", self._path, json.dumps({"body": body}).encode(), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            return Outcome(body, started, time.monotonic(), error=f"{type(error).__name__}: {error}")
        return judge(body, started, time.monotonic(), response.status, response.getheaders(), data)


def read_ledger(path: Path) -> tuple[dict[int, str], list[str], list[int]]:
    """The acknowledged records by id, the bodies of the others, and ids that were acknowledged twice."""
    acknowledged: dict[int, str] = {}
    others: list[str] = []
    twice: list[int] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["kind"] != "acknowledged":
            others.append(entry["body"])
        elif entry["id"] in acknowledged:
            twice.append(entry["id"])
        else:
            acknowledged[entry["id"]] = entry["body"]
    return acknowledged, others, twice


def list_records(site: Site, after: int = 0, path: str = "/api/records") -> dict[int, str]:
    """All records of the site whose id is over `after`. Raises OSError when an answer is not 200."""
    records: dict[int, str] = {}
    connection = site.open()
    try:
        while True:
            connection.request("GET", f"{path}?after={after}&limit=1000")
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                raise OSError(f"GET {path} answered {response.status}: {data[:200]!r}")
            page = {int(record["id"]): str(record["body"]) for record in json.loads(data)["records"]}
            if not page:
                return records
            records |= page
            after = max(page)
    finally:
        connection.close()


def compare(acknowledged: dict[int, str], others: list[str], twice: list[int], found: dict[int, str]) -> dict[str, Any]:
    """Hold the ledger against the records. `ok` is whether every acknowledged record is there under its id."""
    missing = sorted(number for number in acknowledged if number not in found)
    changed = sorted(n for n, body in acknowledged.items() if n in found and found[n] != body)
    bodies = Counter(found.values())
    ours = set(acknowledged.values()) | set(others)
    return {
        "ok": not (missing or changed or twice),
        "acknowledged": len(acknowledged),
        "found": len(acknowledged) - len(missing) - len(changed),
        "missing": missing,
        "changed": changed,
        "acknowledged_twice": twice,
        # A write without an acknowledgement may have been stored or not; neither is an error.
        "stored_without_acknowledgement": sum(body in bodies for body in others),
        "stored_twice": sorted(body for body in ours if bodies[body] > 1),
        "records": len(found),
    }


def verify(site: Site, ledger: Path, wait: float = 0.0) -> dict[str, Any]:
    """Compare the ledger with what the site lists, again and again for `wait` seconds while records are missing."""
    acknowledged, others, twice = read_ledger(ledger)
    deadline = time.monotonic() + wait
    after = min(acknowledged, default=1) - 1
    while True:
        result = compare(acknowledged, others, twice, list_records(site, after))
        if result["ok"] or time.monotonic() >= deadline:
            return result
        time.sleep(0.3)


def address(text: str) -> tuple[str, int]:
    """host:port of the command line."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not host:port")
    return host.strip("[]"), int(port)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Write records through a site and prove that they are there.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("post", "verify"):
        command = commands.add_parser(name)
        command.add_argument("--url", required=True, help="the site, e.g. https://abaci.localhost:8443")
        command.add_argument("--connect", type=address, metavar="HOST:PORT", help="where the TCP connection goes")
        command.add_argument("--ca", help="file with the CA's certificate")
        command.add_argument("--insecure", action="store_true", help="do not verify the certificate")
        command.add_argument("--timeout", type=float, default=10.0, help="seconds for each answer")
        command.add_argument("--ledger", required=True, type=Path)
    post = commands.choices["post"]
    post.add_argument("--count", type=int)
    post.add_argument("--seconds", type=float)
    post.add_argument("--rate", type=float, default=40.0, help="records a second, 0: as fast as it goes")
    post.add_argument("--concurrency", type=int, default=4)
    post.add_argument("--prefix", default="", help="begins each body; random unless given")
    post.add_argument("--all", action="store_true", help="fail unless every record is acknowledged")
    commands.choices["verify"].add_argument("--wait", type=float, default=0.0, help="seconds for replicas to follow")
    options = parser.parse_args(arguments)
    if options.command == "post" and options.count is None and options.seconds is None:
        parser.error("say --count or --seconds")
    site = Site(options.url.rstrip("/"), options.connect, options.ca, not options.insecure, options.timeout)
    try:
        if options.command == "verify":
            result = verify(site, options.ledger, options.wait)
            failed = not result["ok"]
        else:
            report = Writer(
                site,
                options.ledger,
                count=options.count,
                seconds=options.seconds,
                rate=options.rate,
                concurrency=options.concurrency,
                prefix=options.prefix,
            ).run()
            result = asdict(report)
            failed = report.lost > 0 or (options.all and report.acknowledged < report.sent)
    except (OSError, ValueError) as error:
        print(f"{options.command} failed: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
