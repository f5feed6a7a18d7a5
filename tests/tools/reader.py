#!/usr/bin/env python3
"""A visitor who reads at a steady pace and counts what came: nothing is asked twice, every outcome counts.

    reader.py --url https://abaci.localhost:8443 --connect 127.0.0.1:8443 --ca ca.crt --seconds 60 --rate 20

Prints one JSON object, and exits 1 when any read failed. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from writer import Pace, Site, address, percentile


@dataclass(frozen=True)
class Read:
    """One read: when it began, seconds from its start, how long it took, and its status or error."""

    at: float
    seconds: float
    outcome: str


@dataclass
class Report:
    """Figures of a run; times in seconds. Failed is all that was not 200."""

    sent: int = 0
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    failures: list[Read] = field(default_factory=list)
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0


def summarise(reads: list[Read]) -> Report:
    """Count; the percentiles are over all reads, also those that failed."""
    times = sorted(read.seconds for read in reads)
    bad = [read for read in reads if read.outcome != "200"]
    return Report(
        sent=len(reads),
        failed=len(bad),
        outcomes=dict(sorted(Counter(read.outcome for read in reads).items())),
        failures=bad[:20],
        p50=round(percentile(times, 0.5), 4),
        p95=round(percentile(times, 0.95), 4),
        p99=round(percentile(times, 0.99), 4),
        slowest=round(percentile(times, 1), 4),
    )


class Reader:
    """A run of GETs by several visitors, each on a connection of its own that is kept."""

    def __init__(
        self,
        site: Site,
        *,
        seconds: float | None = None,
        rate: float = 20.0,
        concurrency: int = 16,
        path: str = "/api/records?limit=1",
    ) -> None:
        self._site = site
        self._path = path
        self._pace = Pace(None, seconds, rate)
        self._lock = threading.Lock()
        self._reads: list[Read] = []
        self._started = time.monotonic()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    def start(self) -> Reader:
        self._started = time.monotonic()
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
        return summarise(self._reads)

    def _work(self) -> None:
        connection = self._site.open()
        while self._pace.turn() is not None:
            begin = time.monotonic()
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = f"{type(error).__name__}: {error}"
                connection.close()
                connection = self._site.open()
            read = Read(round(begin - self._started, 3), time.monotonic() - begin, outcome)
            with self._lock:
                self._reads.append(read)
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Read from a site at a steady pace and count what came.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--connect", type=address, metavar="HOST:PORT")
    parser.add_argument("--ca")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--path", default="/api/records?limit=1")
    options = parser.parse_args(arguments)
    site = Site(options.url.rstrip("/"), options.connect, options.ca)
    report = (
        Reader(
            site,
            seconds=options.seconds,
            rate=options.rate,
            concurrency=options.concurrency,
            path=options.path,
        )
        .start()
        .finish()
    )
    print(json.dumps(asdict(report)))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
