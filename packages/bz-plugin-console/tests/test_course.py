"""How far a run is, taken from real ones."""

from __future__ import annotations

from typing import Any

import pytest

from bz.testing import RecordingPlugin, tiny_spec, train
from bz_plugin_console.course import Course
from bz_plugin_console.timing import StepForecast


def fractions(seconds_per_step: float = 0.0, **options: Any) -> list[int]:
    """Train three batches an epoch and return the part that is done after each of them, in per cent."""
    course, seen = Course(), []

    def look(hook: str, context: Any) -> None:
        if hook == "end_training_batch":
            seconds = seconds_per_step * context.global_step
            seen.append(round(100 * course.fraction(context, context.training_batch_count / 3, seconds)))

    train(tiny_spec(), RecordingPlugin(look), **options)
    return seen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 2}, [17, 33, 50, 67, 83, 100]),
        ({"epochs": None, "max_steps": 5}, [20, 40, 60, 80, 100]),
        ({"epochs": 2, "max_steps": 100}, [17, 33, 50, 67, 83, 100]),
        ({"epochs": 9, "max_steps": 4}, [25, 50, 75, 100]),
        ({"epochs": 1, "max_time": "400 s", "seconds_per_step": 200.0}, [50, 100, 100]),
        ({"epochs": 1, "max_time": "100 min", "seconds_per_step": 200.0}, [33, 67, 100]),
    ],
)
def test_part_that_is_done_is_that_of_the_end_that_comes_first(options: dict[str, Any], expected: list[int]) -> None:
    assert fractions(**options) == expected


def test_forecast_of_steps_goes_by_those_of_this_process() -> None:
    forecast = StepForecast()
    assert forecast.seconds_left(1.0, 10, 20) is None
    forecast.start(10.0, 50)
    forecast.start(12.0, 55)
    assert forecast.seconds_left(10.0, 50, 100) is None
    assert forecast.seconds_left(15.0, 60, 100) == pytest.approx(20.0)
    assert forecast.seconds_left(60.0, 110, 100) == 0.0


def test_time_left_is_that_to_the_end_that_comes_first() -> None:
    course, seen = Course(), []

    def look(hook: str, context: Any) -> None:
        if hook == "end_training_batch":
            step = context.global_step
            seen.append(course.seconds_left(context, step / 3, 200.0 * step, now=200.0 * step))

    course.start_epoch(0.0, 0.0, 0)
    train(tiny_spec(), RecordingPlugin(look), epochs=1, max_steps=2, max_time="300 s")
    assert seen == [pytest.approx(100.0), pytest.approx(0.0)]
