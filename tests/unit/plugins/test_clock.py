"""Times are compared as they are written by several machines."""

from __future__ import annotations

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import clock


@pytest.mark.parametrize(
    ("earlier", "later", "seconds"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01.500000Z", 1.5),
        ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:02Z", 2),
        ("2026-01-01T00:00:02Z", "2026-01-01T00:00:00Z", -2),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z", float("-inf")),
        ("yesterday", "2026-01-01T00:00:00Z", float("-inf")),
        (None, "2026-01-01T00:00:00Z", float("-inf")),
    ],
)
def test_seconds_lie_between_two_times(earlier: object, later: object, seconds: float) -> None:
    assert clock.between(earlier, later) == seconds


def test_a_time_is_written_as_each_reader_wants_it() -> None:
    moment = clock.moment("2026-01-02T03:04:05.060708Z")
    assert moment is not None
    assert clock.micro(moment) == "2026-01-02T03:04:05.060708Z"
    assert clock.second(clock.micro(moment)) == "2026-01-02T03:04:05Z"
    assert clock.compact(clock.second(clock.micro(moment))) == "20260102T030405Z"
    assert clock.between(clock.now(), clock.now()) < 2
