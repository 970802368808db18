"""Points that are drawn: bounded, without losing peaks or gaps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bz_plugin_visualization.history import Curve
from bz_plugin_visualization.thinning import Points, thin


def curve(values: list[float]) -> Curve:
    return Curve(list(range(1, len(values) + 1)), values)


def pairs(points: Points) -> list[tuple[int, float]]:
    return list(zip(points.epochs.tolist(), points.values.tolist(), strict=True))


def test_few_points_are_all_kept() -> None:
    assert pairs(thin(curve([3.0, 2.0, 1.0]), 10)) == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.parametrize("length", [1_000, 10_000, 100_000])
def test_number_of_points_is_bounded_and_extremes_are_kept(length: int) -> None:
    values = [math.sin(index) for index in range(length)]
    values[length // 3], values[length // 2], values[length // 5] = 7.0, -7.0, math.nan
    points = thin(curve(values), 100)
    assert len(points.epochs) <= 500
    assert {(length // 3 + 1, 7.0), (length // 2 + 1, -7.0)} <= set(pairs(points))
    assert points.epochs[0] == 1
    assert points.epochs[-1] == length
    assert points.epochs[[math.isnan(value) for value in points.values]].tolist() == [length // 5 + 1]


@given(
    st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=400),
    st.integers(1, 20),
)
def test_each_column_keeps_its_lowest_and_highest_value(values: list[float], num_columns: int) -> None:
    points = thin(curve(values), num_columns)
    assert len(points.epochs) <= 5 * num_columns
    assert (points.epochs[1:] > points.epochs[:-1]).all()
    kept = dict(pairs(points))
    column_of = {epoch: (epoch - 1) * num_columns // len(values) for epoch in range(1, len(values) + 1)}
    for column in set(column_of.values()):
        own = [epoch for epoch, number in column_of.items() if number == column]
        finite = [values[epoch - 1] for epoch in own if math.isfinite(values[epoch - 1])]
        drawn = [kept[epoch] for epoch in own if epoch in kept and not math.isnan(kept[epoch])]
        assert (len(finite) == len(own)) == (not any(math.isnan(kept[epoch]) for epoch in own if epoch in kept))
        if finite:
            assert (min(drawn), max(drawn)) == (min(finite), max(finite))


def test_infinity_and_what_exploded_make_gaps() -> None:
    points = thin(curve([1.0, math.inf, 2.0, -math.inf, 1e101, 3.0]), 10)
    assert [math.isnan(value) for value in points.values] == [False, True, False, True, True, False]


def test_logarithmic_axis_has_no_place_for_zero() -> None:
    assert thin(curve([1.0, 0.0, -1.0]), 10, positive=True).finite.tolist() == [1.0]


def test_lonely_points_are_those_between_gaps() -> None:
    points = thin(curve([1.0, math.nan, 2.0, math.nan, 3.0, 4.0]), 10)
    assert points.lonely().tolist() == [0, 2]


def test_curve_can_grow_after_it_was_thinned() -> None:
    growing = curve([1.0])
    points = thin(growing, 10)
    growing.add(2, 5.0)
    assert pairs(points) == [(1, 1.0)]
