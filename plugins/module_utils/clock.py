"""Times as Kubernetes, the state document and the manifests write them: RFC 3339 in UTC. Standard library only.

Whoever compares what several machines wrote takes the time from the API server (kube.Client.server_time()), not now().
"""

from __future__ import annotations

import datetime
import re
import time

# As Go's Time.String() writes a time, "2026-12-01 12:22:33.715669463 +0000 UTC m=+5.1": in any zone, with up to nine
# digits of the second. https://pkg.go.dev/time#Time.String
_GO = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d\d)(\d\d) ")


def now() -> str:
    """This machine's time, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def moment(text: object) -> datetime.datetime | None:
    """The time that a text says; None where it says none, or not in which zone."""
    try:
        # Also for the Python of an old host, which does not know the Z.
        found = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else None


def from_go(text: object) -> str | None:
    """The time that Go's Time.String() wrote, to the second; None where that is none."""
    found = _GO.match(str(text))
    when = moment(f"{found[1]}T{found[2]}{found[3]}:{found[4]}") if found else None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when.timestamp())) if when else None


def between(earlier: object, later: object) -> float:
    """Seconds from one time to another; minus infinity where one cannot be read."""
    one, two = moment(earlier), moment(later)
    return (two - one).total_seconds() if one and two else float("-inf")


def micro(when: datetime.datetime) -> str:
    """A time as a Lease writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def second(text: str) -> str:
    """A time without the parts of its second."""
    return text[:19] + "Z"


def compact(text: str) -> str:
    """A time as a part of a file's name."""
    return text.replace("-", "").replace(":", "")
