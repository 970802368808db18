"""The one system of units for how often something happens: `"5 epochs"`, `"200 steps"`, `"10 min"`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

Unit = Literal["epochs", "steps", "s", "min", "h"]

_UNITS: Final[dict[str, Unit]] = {
    "": "epochs", "epoch": "epochs", "epochs": "epochs",
    "step": "steps", "steps": "steps",
    "s": "s", "sec": "s", "second": "s", "seconds": "s",
    "min": "min", "minute": "min", "minutes": "min",
    "h": "h", "hour": "h", "hours": "h",
}  # fmt: skip
_SECONDS: Final[dict[Unit, int]] = {"s": 1, "min": 60, "h": 3600}
_MAX_COUNT: Final = 999_999_999
_COUNTED: Final = r"[1-9][0-9]{0,8}( ?(epochs?|steps?))?"
_TIMED: Final = r"(?=[0-9.]*[1-9])[0-9]{1,9}(\.[0-9]{1,9})? ?(s|sec|seconds?|min|minutes?|h|hours?)"
_FORM: Final = f"({_COUNTED}|{_TIMED})"
_REQUIREMENT: Final = (
    'must be above 0 and written as "5 epochs", "200 steps" or "10 min" (also s and h); a bare number means epochs'
)
_TIME_REQUIREMENT: Final = 'must be above 0 and written as "30 s", "10 min" or "8 h"'


@dataclass(frozen=True, slots=True)
class Interval:
    """A number of epochs or steps, or a time.

    As a field of a pydantic model it is read from text or a number. Its default is best written as
    users write it, which is then what they are shown:

        every: Interval = Field(default="5 epochs", validate_default=True)

    Attributes:
        count: How many; a whole number for epochs and steps.
        unit: Of what.

    Raises:
        ValueError: If it is not above 0, is more than 999,999,999, or is a fraction of an epoch or step.
    """

    count: float
    unit: Unit = "epochs"

    def __post_init__(self) -> None:
        if re.fullmatch(_FORM, str(self)) is None:
            raise ValueError(f"An interval {_REQUIREMENT}, got {str(self)!r}.")

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the interval that a text or number in the settings means.

        Raises:
            ValueError: If it means none, with a sentence that says what is accepted.
        """
        interval = cls._read(value)
        if interval is None:
            raise ValueError(f"An interval {_REQUIREMENT}, got {value!r}.")
        return interval

    @classmethod
    def _read(cls, value: object) -> Self | None:
        if isinstance(value, Interval):
            return cls(value.count, value.unit)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:.0f}" if value % 1 == 0 else ""
        if not isinstance(value, str) or re.fullmatch(_FORM, value) is None:
            return None
        number = value.rstrip("abcdefghijklmnopqrstuvwxyz ")
        return cls(float(number), _UNITS[value[len(number) :].strip()])

    @property
    def seconds(self) -> float | None:
        """Its length if it is a time, else None."""
        return self.count * _SECONDS[self.unit] if self.unit in _SECONDS else None

    @property
    def is_inside_epoch(self) -> bool:
        """Whether it can be over in the middle of an epoch: any unit but epochs."""
        return self.unit != "epochs"

    def check_counted(self) -> Self:
        """Return the interval itself.

        Raises:
            ValueError: If it is a time, which is never the same twice; epochs and steps are.
        """
        if self.seconds is not None:
            raise ValueError('must be a number of epochs or steps, as in "1 epoch" or "200 steps"')
        return self

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        number = f"{self.count:.9f}".rstrip("0").rstrip(".")
        return f"{number} {self.unit.removesuffix('s') if number == '1' and self.unit != 's' else self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read it from settings; `model_dump` gives the text back."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def _validate(cls, value: object) -> Self:
        interval = cls._read(value)
        if interval is None:
            raise ValueError(_REQUIREMENT)
        return interval

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe both forms: a number of epochs, and a text with a unit."""
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MAX_COUNT},
                {"type": "string", "pattern": f"^{_FORM}$"},
            ],
            "examples": ["5 epochs", "200 steps", "10 min"],
        }


class Duration(Interval):
    """An interval that is a time: `"30 s"`, `"10 min"`, `"8 h"`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        Interval.__post_init__(self)
        if self.seconds is None:
            raise ValueError(f"A time {_TIME_REQUIREMENT}, got {str(self)!r}.")

    @classmethod
    def _validate(cls, value: object) -> Self:
        try:
            return super()._validate(value)
        except ValueError as error:
            raise ValueError(_TIME_REQUIREMENT) from error

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the text with its unit."""
        return {"type": "string", "pattern": f"^{_TIMED}$", "examples": ["30 s", "10 min", "8 h"]}


class Position(Protocol):
    """Where a run is; `bz.TrainingContext` is one."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""


class Schedule:
    """Says when an interval is over, again and again.

    Epochs and steps are counted by their number in the run, so a resume or a question left out
    shifts nothing: 5 epochs are over at the end of epochs 5, 10 and 15. Time runs while the
    schedule lives, from its making on; what a saved state had is added to it.

    Args:
        interval: From one time to the next.
        clock: Seconds that never go back.
    """

    def __init__(self, interval: Interval, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval = interval
        self._clock = clock
        self._began = clock()
        self._count = int(interval.count)
        self._last = 0

    def is_due(self, position: Position) -> bool:
        """Whether the interval is over; true once for each time that it is.

        To be asked at the end of every epoch or, unless the unit is epochs, after every batch.
        """
        if self.interval.unit == "epochs":
            return self._is_multiple(position.epoch)
        if self.interval.unit == "steps":
            return self._is_multiple(position.global_step)
        return self._is_time()

    def _is_multiple(self, number: int) -> bool:
        if number % self._count or number == self._last:
            return False
        self._last = number
        return True

    def _is_time(self) -> bool:
        now = self._clock()
        assert self.interval.seconds is not None
        if now - self._began < self.interval.seconds:
            return False
        self._began = now
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the last epoch or step, and the seconds since the last time."""
        seconds = 0.0 if self.interval.seconds is None else self._clock() - self._began
        return {"last": self._last, "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the time between two sessions does not count."""
        self._last = int(state["last"])
        self._began = self._clock() - float(state["seconds"])
