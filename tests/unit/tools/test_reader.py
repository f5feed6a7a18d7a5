"""What the reader counts."""

from __future__ import annotations

from reader import Read, summarise


def test_all_that_is_not_200_failed_and_times_are_of_all_reads() -> None:
    reads = [Read(number / 10, 0.01, "200") for number in range(97)]
    reads += [Read(9.7, 3.0, "504"), Read(9.8, 10.0, "TimeoutError: timed out"), Read(9.9, 0.02, "302")]
    report = summarise(reads)
    assert (report.sent, report.failed) == (100, 3)
    assert report.outcomes == {"200": 97, "302": 1, "504": 1, "TimeoutError: timed out": 1}
    assert [read.at for read in report.failures] == [9.7, 9.8, 9.9]
    assert (report.p50, report.p99, report.slowest) == (0.01, 3.0, 10.0)


def test_nothing_read_is_nothing_failed() -> None:
    assert summarise([]).failed == 0
