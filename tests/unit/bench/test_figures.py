"""Medians, ratios and goals of the bench, and the tables that it prints."""

from __future__ import annotations

import pytest
from figures import Comparison, Count, count_table, figure, figures, ratios, table

# A machine that is four times as slow in the second round and ten times in the third.
UNSTEADY = {"ours": [1.0, 4.0, 10.0], "theirs": [2.0, 8.0, 20.0]}


def test_the_ratio_is_that_of_each_round() -> None:
    assert ratios(UNSTEADY["ours"], UNSTEADY["theirs"]) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("measured", "baseline", "why"),
    [
        ([], [], "0 rounds"),
        ([1.0], [1.0, 2.0], "1 rounds cannot be compared with 2"),
        ([1.0], [0.0], "took no time"),
    ],
)
def test_what_is_no_pair_is_refused(measured: list[float], baseline: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ratios(measured, baseline)


def test_the_median_of_the_ratios_is_not_the_ratio_of_the_medians() -> None:
    found = figure(Comparison("a", "b", 0.5), {"a": [1.0, 9.0, 2.0], "b": [4.0, 10.0, 5.0]})
    assert (found.median, found.low, found.high, found.baseline_median) == (2.0, 1.0, 9.0, 5.0)
    assert found.ratio == 0.4 and found.met is True


@pytest.mark.parametrize(("goal", "met"), [(None, None), (0.5, True), (0.499, False), (0.6, True)])
def test_a_goal_is_met_at_its_bound_and_below(goal: float | None, met: bool | None) -> None:
    assert figure(Comparison("ours", "theirs", goal), UNSTEADY).met is met


def test_a_ratio_that_is_only_rounded_to_its_goal_misses_it() -> None:
    missed = figure(Comparison("a", "b", 1.5), {"a": [1.504], "b": [1.0]})
    assert missed.met is False and "| 1.50 | ≤ 1.5 | no |" in table([missed])


def test_what_was_not_measured_is_left_out() -> None:
    asked = [Comparison("ours", "theirs"), Comparison("ours", "nobody's"), Comparison("nobody's", "ours")]
    assert [one.baseline for one in figures(asked, UNSTEADY)] == ["theirs"]
    with pytest.raises(KeyError):
        figure(asked[1], UNSTEADY)


def test_the_table_has_a_row_for_each_figure() -> None:
    found = figures([Comparison("ours", "theirs", 0.35), Comparison("theirs", "ours")], UNSTEADY)
    assert table(found) == (
        "| What | Median (min to max), s | Compared with | Its median, s | Ratio | Goal | Met |\n"
        "|---|---|---|---|---|---|---|\n"
        "| ours | 4.0 (1.0 to 10.0) | theirs | 8.0 | 0.50 | ≤ 0.35 | no |\n"
        "| theirs | 8.0 (2.0 to 20.0) | ours | 4.0 | 2.00 |  |  |\n"
    )


def test_counts_have_a_table_of_their_own() -> None:
    assert count_table(
        [Count("requests", 12, 12), Count("modules", 9, 8), Count("manifests", 20), Count("writing", 0, 0)]
    ) == (
        "| What | Count | Goal | Met |\n"
        "|---|---|---|---|\n"
        "| requests | 12 | ≤ 12 | yes |\n"
        "| modules | 9 | ≤ 8 | no |\n"
        "| manifests | 20 |  |  |\n"
        "| writing | 0 | ≤ 0 | yes |\n"
    )


def test_without_figures_there_is_no_table() -> None:
    assert table([]) == count_table([]) == ""
