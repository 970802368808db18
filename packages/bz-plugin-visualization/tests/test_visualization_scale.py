"""Axes and their ticks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bz_plugin_visualization.history import Curve
from bz_plugin_visualization.scale import AxisKind, epoch_scale, is_log, value_scale


def labels(ticks: tuple[tuple[float, str], ...]) -> list[str]:
    return [label for _, label in ticks]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("auto", [1.0, 0.011], False),
        ("auto", [1.0, 0.01], True),
        ("auto", [100.0, math.nan, math.inf, 1.0], True),
        ("auto", [100.0, 0.0], False),
        ("auto", [100.0, 0.1, -1.0], False),
        ("auto", [math.nan], False),
        ("linear", [1.0, 1e-9], False),
        ("log", [1.0, 0.9], True),
        ("log", [1.0, -1.0], True),
        ("log", [0.0, -1.0, math.nan], False),
    ],
)
def test_axis_is_logarithmic_from_two_powers_of_ten_on(kind: AxisKind, values: list[float], expected: object) -> None:
    curves = [Curve([index], [value]) for index, value in enumerate(values)]
    assert is_log(kind, curves) is expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 1, ["1"]),
        (1, 3, ["1", "2", "3"]),
        (1, 10, ["1", "5", "10"]),
        (7, 12, ["7", "8", "10", "12"]),
        (1, 200, ["1", "50", "100", "150", "200"]),
        (1, 120, ["1", "50", "100", "120"]),
        (1, 100_000, ["1", "50,000", "100,000"]),
    ],
)
def test_epoch_axis_has_whole_numbers_and_both_ends(first: int, last: int, expected: list[str]) -> None:
    assert labels(epoch_scale(first, last).ticks) == expected


def test_value_axis_has_round_ticks_and_room_at_both_ends() -> None:
    scale = value_scale(0.0, 1.0, log=False)
    assert labels(scale.ticks) == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert (round(scale.position(0.0), 3), round(scale.position(1.0), 3)) == (0.045, 0.955)


def test_logarithmic_axis_has_powers_of_ten() -> None:
    assert labels(value_scale(2e-6, 30.0, log=True).ticks) == ["1e-6", "0.0001", "0.01", "1"]


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        (1e-7, 3e-7, ["1e-07", "1.5e-07", "2e-07", "2.5e-07", "3e-07"]),
        (0.123456, 0.12346, ["0.123456", "0.123457", "0.123458", "0.123459", "0.12346"]),
        (5.0, 5.0, ["4.8", "4.9", "5.0", "5.1", "5.2"]),
        (1e6, 1.2e6, ["1e+06", "1.05e+06", "1.1e+06", "1.15e+06", "1.2e+06"]),
    ],
)
def test_value_axis_has_labels_that_differ(lowest: float, highest: float, expected: list[str]) -> None:
    assert labels(value_scale(lowest, highest, log=False).ticks) == expected


def test_narrow_logarithmic_axis_still_has_ticks() -> None:
    assert labels(value_scale(0.3, 0.31, log=True).ticks) == ["0.2", "0.5"]


near = st.builds(lambda value, change: (value, value * (1 + change)), st.floats(-1e9, 1e9), st.floats(0, 1e-3))
far = st.tuples(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))


@given(pair=near | far, log=st.booleans())
def test_any_two_values_have_an_axis_with_ticks(pair: tuple[float, float], *, log: bool) -> None:
    one, other = pair
    if log:
        one, other = abs(one) or 1.0, abs(other) or 1.0
    scale = value_scale(min(one, other), max(one, other), log=log)
    assert 0 <= scale.position(min(one, other)) <= scale.position(max(one, other)) <= 1
    assert 1 <= len(scale.ticks) <= 12
    assert all(-1e-6 <= scale.position(value) <= 1 + 1e-6 for value, _ in scale.ticks if value or not log)
    assert len(set(labels(scale.ticks))) == len(scale.ticks)
    assert all(len(label) <= 14 for label in labels(scale.ticks))
