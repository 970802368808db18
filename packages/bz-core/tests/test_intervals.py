"""Intervals: how they are written, checked and described, and when they are over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jsonschema  # type: ignore[import-untyped] # its types are a package of their own
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bz.config import describe_faults
from bz.intervals import Interval, Schedule

ACCEPTED = {
    "5 epochs": "5 epochs",
    "1 epoch": "1 epoch",
    "1 epochs": "1 epoch",
    "5epochs": "5 epochs",
    "5": "5 epochs",
    5: "5 epochs",
    7.0: "7 epochs",
    "200 steps": "200 steps",
    "1 step": "1 step",
    "10 min": "10 min",
    "10min": "10 min",
    "1 minute": "1 min",
    "2 minutes": "2 min",
    "1.5 h": "1.5 h",
    "1 hour": "1 h",
    "3 hours": "3 h",
    "30 s": "30 s",
    "1 sec": "1 s",
    "1 second": "1 s",
    "0.25 seconds": "0.25 s",
    "999999999 steps": "999999999 steps",
}
NOT_JSON = [float("nan"), float("inf")]
REFUSED: list[Any] = [
    "", " 5", "5 ", "5  epochs", "5 epoch s", "0", "0 epochs", "-1 steps", "2.5 epochs", "2.5", "0 min", "0.0 s",
    ".5 h", "1. h", "1e3 steps", "nan s", "inf h", "5 weeks", "5 Epochs", "epochs", "1000000000 steps", "\u0661 epochs",
    "5\nepochs", "05 steps", 0, -3, 2.5, True, False, None, [5], {"epochs": 5}, 10**9, "5 epochs\n",
    *NOT_JSON,
]  # fmt: skip


class Settings(BaseModel):
    model_config = ConfigDict(strict=True)
    every: Interval = Field(default="1 epoch", validate_default=True)
    maybe: Interval | None = None


@dataclass
class Position:
    epoch: int = 0
    global_step: int = 0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("written", "canonical"), ACCEPTED.items(), ids=[repr(written) for written in ACCEPTED])
def test_interval_is_read_in_every_form(written: str | float, canonical: str) -> None:
    assert str(Interval.parse(written)) == canonical
    assert Settings.model_validate({"every": written}).every == Interval.parse(written)


@pytest.mark.parametrize("written", REFUSED, ids=repr)
def test_interval_that_is_none_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"^An interval must be above 0 and written as .*, got "):
        Interval.parse(written)
    with pytest.raises(ValidationError):
        Settings.model_validate({"every": written})


@pytest.mark.parametrize(("count", "unit"), [(0, "epochs"), (1.5, "steps"), (-1, "min"), (1, "weeks"), (1e-12, "s")])
def test_interval_cannot_be_made_out_of_range(count: float, unit: Any) -> None:
    with pytest.raises(ValueError, match="An interval must be above 0"):
        Interval(count, unit)


@given(st.one_of(
    st.builds(Interval, st.integers(1, 999_999_999), st.sampled_from(["epochs", "steps", "s", "min", "h"])),
    st.builds(Interval, st.integers(1, 10**12 - 1).map(lambda n: n / 1000), st.sampled_from(["s", "min", "h"])),
))  # fmt: skip
def test_interval_is_the_same_after_a_round_trip(interval: Interval) -> None:
    assert Interval.parse(str(interval)) == interval
    assert Settings.model_validate_json(Settings(every=interval).model_dump_json()).every == interval


def test_interval_cannot_be_changed_and_counts_as_a_value() -> None:
    interval = Interval.parse("5 epochs")
    with pytest.raises(AttributeError):
        interval.count = 6  # type: ignore[misc]  # what the test is about
    assert {interval, Interval(5, "epochs")} == {Interval(5)}


def test_interval_knows_its_seconds_and_whether_it_ends_inside_an_epoch() -> None:
    assert [Interval.parse(text).seconds for text in ("2 s", "1.5 min", "2 h", "5 epochs", "5 steps")] == [
        2, 90, 7200, None, None,
    ]  # fmt: skip
    assert [Interval.parse(text).is_inside_epoch for text in ("2 epochs", "2 steps", "2 s")] == [False, True, True]


def test_model_gives_plain_text_back() -> None:
    settings = Settings.model_validate({"every": "1 hour", "maybe": 5})
    assert settings.model_dump() == {"every": "1 h", "maybe": "5 epochs"}
    assert Settings().model_dump() == {"every": "1 epoch", "maybe": None}
    assert settings.maybe == Interval(5)


@pytest.mark.parametrize("key", ["every", "maybe"])
def test_fault_is_one_sentence(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({key: "5 weeks"})
    (fault,) = describe_faults(caught.value, Settings, {key: "5 weeks"})
    assert fault.text == (
        f'`{key}` must be above 0 and written as "5 epochs", "200 steps" or "10 min" (also s and h); '
        'a bare number means epochs, got "5 weeks".'
    )


@pytest.mark.parametrize("written", [*ACCEPTED, *REFUSED[:-3]], ids=repr)
def test_schema_accepts_what_is_accepted(written: Any) -> None:
    schema = Settings.model_json_schema()["properties"]["every"]
    is_accepted = isinstance(written, str | int | float) and not isinstance(written, bool) and written in ACCEPTED
    assert jsonschema.Draft202012Validator(schema).is_valid(written) == is_accepted


def test_schema_has_the_default_as_text() -> None:
    assert Settings.model_json_schema()["properties"]["every"]["default"] == "1 epoch"


def test_pattern_of_the_schema_is_ecma() -> None:
    pattern = Settings.model_json_schema()["properties"]["every"]["anyOf"][1]["pattern"]
    assert not re.search(r"\(\?P|\\A|\\Z|\(\?<", pattern)


def due_at(schedule: Schedule, positions: list[Position]) -> list[tuple[int, int]]:
    return [(place.epoch, place.global_step) for place in positions if schedule.is_due(place)]


def test_schedule_counts_epochs_by_their_number() -> None:
    positions = [Position(epoch, epoch * 7) for epoch in range(3, 12)]
    assert due_at(Schedule(Interval.parse("4 epochs")), positions) == [(4, 28), (8, 56)]


def test_schedule_counts_steps_by_their_number() -> None:
    positions = [Position(1 + step // 5, step) for step in range(12)]
    assert due_at(Schedule(Interval.parse("4 steps")), positions) == [(1, 4), (2, 8)]


def test_schedule_is_not_due_before_the_first_step() -> None:
    assert due_at(Schedule(Interval.parse("4 steps")), [Position(1, 0)]) == []


def test_schedule_is_due_once_at_a_step_that_takes_several_batches() -> None:
    schedule = Schedule(Interval.parse("2 steps"))
    assert due_at(schedule, [Position(1, 1), Position(1, 2), Position(1, 2), Position(1, 3)]) == [(1, 2)]
    resumed = Schedule(Interval.parse("2 steps"))
    resumed.load_state_dict(schedule.state_dict())
    assert due_at(resumed, [Position(1, 2), Position(1, 3), Position(1, 4)]) == [(1, 4)]


def test_schedule_of_steps_keeps_no_time() -> None:
    schedule = Schedule(Interval.parse("2 steps"))
    schedule.is_due(Position(1, 4))
    assert schedule.state_dict() == {"last": 4, "seconds": 0.0}


def test_schedule_of_time_begins_anew_each_time() -> None:
    clock = Clock()
    schedule = Schedule(Interval.parse("10 min"), clock)
    answers = []
    for now in (1000.0, 1599.9, 1600.0, 1601.0, 2199.0, 2300.0, 2899.0, 2900.0):
        clock.now = now
        answers.append(schedule.is_due(Position()))
    assert answers == [False, False, True, False, False, True, False, True]


def test_schedule_adds_the_time_of_earlier_sessions_and_not_the_time_between() -> None:
    clock = Clock()
    first = Schedule(Interval.parse("10 min"), clock)
    clock.now += 400
    state = first.state_dict()
    assert state == {"last": 0, "seconds": 400.0}
    clock.now = 50.0
    second = Schedule(Interval.parse("10 min"), clock)
    second.load_state_dict(state)
    clock.now += 199
    assert not second.is_due(Position())
    clock.now += 1
    assert second.is_due(Position())
    assert second.state_dict()["seconds"] == 0.0


def test_schedule_of_time_runs_on_the_wall_clock_by_default() -> None:
    schedule = Schedule(Interval.parse("0.000000001 s"))
    assert any(schedule.is_due(Position()) for _ in range(1000))
