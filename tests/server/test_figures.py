"""The histogram behind ``stats()``: quantiles near the truth, whatever the times are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcore.server.figures import OpStats

nanoseconds = st.integers(0, 10**14)


def recorded(times: list[int]) -> OpStats:
    op = OpStats()
    for time in times:
        op.record(time)
    return op


def test_before_the_first_call_all_figures_are_zero():
    assert OpStats().as_dict() == {"count": 0, "errors": 0, "p50": 0.0, "p99": 0.0}


@given(nanoseconds)
def test_a_time_is_told_to_within_13_percent(time):
    assert recorded([time]).quantile(0.5) * 1e9 == pytest.approx(time, rel=0.13, abs=1)


@given(st.lists(nanoseconds, min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99]))
def test_a_quantile_is_the_time_at_its_place_in_the_sorted_list(times, part):
    expected = sorted(times)[max(0, math.ceil(part * len(times)) - 1)]
    assert recorded(times).quantile(part) * 1e9 == pytest.approx(expected, rel=0.13, abs=1)


def test_a_call_of_a_year_is_counted_in_the_last_bucket():
    assert recorded([365 * 86_400 * 10**9]).quantile(0.5) > 86_400
