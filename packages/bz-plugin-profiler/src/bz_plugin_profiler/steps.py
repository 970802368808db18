"""Which optimizer steps of a run are traced: `"6-8"`, or `"6-8, 500"`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_RANGE: Final = r"[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})?"
_FORM: Final = rf"{_RANGE}(, ?{_RANGE})*"
_REQUIREMENT: Final = 'must be steps in rising order, counted from 1, such as "6-8", "6-8, 500-502" or 100'


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of a run, counted from 1.

    Attributes:
        ranges: One for each trace, in rising order and apart.
    """

    ranges: tuple[range, ...]

    @classmethod
    def read(cls, value: object) -> Steps:
        """Return the steps that a text or number in the settings means.

        Raises:
            ValueError: If it means none.
        """
        if isinstance(value, Steps):
            return value
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or re.fullmatch(_FORM, text) is None:
            raise ValueError(_REQUIREMENT)
        ranges = tuple(_read_range(part.strip()) for part in text.split(","))
        bounds = [bound for one in ranges for bound in (one.start, one.stop)]
        if bounds != sorted(bounds) or not all(ranges):
            raise ValueError(_REQUIREMENT)
        return cls(ranges)

    def next_range(self, step: int) -> range | None:
        """Return the range that holds `step`, or the first one behind it."""
        return next((one for one in self.ranges if one.stop > step), None)

    def __str__(self) -> str:
        """Return the form that `read` reads."""
        return ", ".join(range_name(one.start, one.stop - 1) for one in self.ranges)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read it from settings; `model_dump` gives the text back."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe both forms: one step, and a text."""
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_FORM}$"}]}


def _read_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def range_name(first: int, last: int) -> str:
    """Return `6-8`, or `6` for one step."""
    return str(first) if first == last else f"{first}-{last}"
