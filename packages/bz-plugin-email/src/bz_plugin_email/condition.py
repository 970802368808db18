"""Conditions on a loss or metric, such as `validation_accuracy > 0.97`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM: Final = re.compile(
    r"\s*(?P<name>(?:training|validation)_\S+?)\s*(?P<operator>>=|<=|>|<)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
)
EXAMPLE: Final = "validation_accuracy > 0.97"


@dataclass(frozen=True, slots=True)
class Condition:
    """A bound on a value of an epoch.

    Attributes:
        name: `training_loss`, `validation_loss`, or a metric's name after `training_` or `validation_`.
        sign: One of `OPERATORS`.
        bound: What the value is compared with.
    """

    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Return the condition that the text states.

        Raises:
            ValueError: If it is not of the form name, sign, number.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            accepted = "a name that begins with `training_` or `validation_`, one of > >= < <=, and a number"
            raise ValueError(f"must be {accepted}, as in {EXAMPLE!r}")
        return cls(found["name"], found["operator"], float(found["bound"]))

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"

    def is_met(self, values: Mapping[str, float]) -> bool:
        """Return whether the value is there and passes the bound; NaN never does."""
        return self.name in values and OPERATORS[self.sign](values[self.name], self.bound)
