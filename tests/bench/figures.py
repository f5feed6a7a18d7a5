"""From measured seconds to a table: medians, ratios pair by pair, goals. Pure.

A machine that others use as well is slow at one moment and fast at the next. So what is compared runs in turn (A B A B
...), and a ratio is that of the two runs of one round; the median of these is given.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = (
    "| What | Median (min to max), s | Compared with | Its median, s | Ratio | Goal | Met |\n"
    "|---|---|---|---|---|---|---|\n"
)
COUNT_HEAD = "| What | Count | Goal | Met |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Comparison:
    """What is measured against what: two names of series.

    ``goal`` is the ratio that it may have at most; None where no goal was set.
    """

    measured: str
    baseline: str
    goal: float | None = None


@dataclass(frozen=True)
class Count:
    """A number that does not depend on the machine, with the most that it may be."""

    what: str
    count: int
    goal: int | None = None


@dataclass(frozen=True)
class Figure:
    """A comparison with its outcome. Times are in seconds; ``met`` is None without a goal."""

    what: str
    median: float
    low: float
    high: float
    baseline: str
    baseline_median: float
    ratio: float
    goal: float | None
    met: bool | None


def ratios(measured: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """The ratio of each round.

    Raises:
        ValueError: there is no round, the two have different numbers of them, or a baseline took no time.
    """
    if not measured or len(measured) != len(baseline):
        raise ValueError(f"{len(measured)} rounds cannot be compared with {len(baseline)}")
    if min(baseline) <= 0:
        raise ValueError("a baseline took no time")
    return [one / other for one, other in zip(measured, baseline, strict=True)]


def figure(comparison: Comparison, series: Mapping[str, Sequence[float]]) -> Figure:
    """The outcome of one comparison. A ratio meets its goal as it is, not as it is rounded for people.

    Raises:
        KeyError: a series was not measured.
        ValueError: as ``ratios``.
    """
    measured, baseline = series[comparison.measured], series[comparison.baseline]
    ratio = statistics.median(ratios(measured, baseline))
    return Figure(
        what=comparison.measured,
        median=statistics.median(measured),
        low=min(measured),
        high=max(measured),
        baseline=comparison.baseline,
        baseline_median=statistics.median(baseline),
        ratio=ratio,
        goal=comparison.goal,
        met=None if comparison.goal is None else ratio <= comparison.goal,
    )


def figures(comparisons: Sequence[Comparison], series: Mapping[str, Sequence[float]]) -> list[Figure]:
    """The outcomes of those whose two series were measured."""
    return [figure(one, series) for one in comparisons if one.measured in series and one.baseline in series]


def _said(met: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[met]


def _bound(goal: float | None) -> str:
    return "" if goal is None else f"≤ {goal:g}"


def table(found: Sequence[Figure]) -> str:
    """The figures in Markdown; "" without any."""
    rows = [
        f"| {one.what} | {one.median:.1f} ({one.low:.1f} to {one.high:.1f}) | {one.baseline} | "
        f"{one.baseline_median:.1f} | {one.ratio:.2f} | {_bound(one.goal)} | {_said(one.met)} |\n"
        for one in found
    ]
    return HEAD + "".join(rows) if rows else ""


def count_table(found: Sequence[Count]) -> str:
    """The counts in Markdown; "" without any."""
    rows = [
        f"| {one.what} | {one.count} | {_bound(one.goal)} | "
        f"{_said(None if one.goal is None else one.count <= one.goal)} |\n"
        for one in found
    ]
    return COUNT_HEAD + "".join(rows) if rows else ""
