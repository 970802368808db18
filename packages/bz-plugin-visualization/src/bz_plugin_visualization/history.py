"""Every epoch of the run, as the curves are drawn from it."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TRAINING: Final = "training"
VALIDATION: Final = "validation"

Curves = dict[str, "Curve"]
"""Phase to curve; a phase without a value is not there."""


class Curve:
    """Values over epochs, in the order of the epochs.

    Attributes:
        epochs: Where the values are, ascending: 3.0 is the end of the third epoch, 2.5 the middle of it.
        values: The values, NaN and infinity included.
    """

    __slots__ = ("epochs", "values")

    def __init__(self, epochs: Sequence[float] = (), values: Sequence[float] = ()) -> None:
        self.epochs = array("d", epochs)
        self.values = array("d", values)

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self.epochs, self.values, strict=True)

    @property
    def last(self) -> float:
        """The value of the last epoch that has one."""
        return self.values[-1]

    def add(self, epoch: float, value: float) -> None:
        """Add a later value."""
        self.epochs.append(epoch)
        self.values.append(value)

    def at(self, epoch: float) -> float | None:
        """Return the value of this place, or None if there is none."""
        index = bisect_left(self.epochs, epoch)
        return self.values[index] if index < len(self) and self.epochs[index] == epoch else None

    def lowest(self) -> tuple[float, float] | None:
        """Return place and value of the first lowest finite value of the trained model, or None without any."""
        finite = (point for point in self if point[0] > 0 and math.isfinite(point[1]))
        return min(finite, key=lambda point: point[1], default=None)

    def unusable_epochs(self) -> list[int]:
        """Return the epochs in which a value is NaN or infinite."""
        return sorted({math.ceil(epoch) for epoch, value in self if not math.isfinite(value)})

    def state_dict(self) -> dict[str, Any]:
        """Return it as plain lists."""
        return {"epochs": self.epochs.tolist(), "values": self.values.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the curve that `state_dict` described."""
        return cls(state["epochs"], state["values"])


class Measured(NamedTuple):
    """A validation: the training batches of its epoch that were done before, and what it came to."""

    batches_before: int
    loss: float
    metrics: dict[str, float]


class Best(NamedTuple):
    """The lowest loss: where it was, the phase whose loss decided, and that loss."""

    epoch: float
    phase: str
    loss: float


class History:
    """All finished epochs.

    Attributes:
        last_epoch: Number of the epoch that was finished last, 0 before the first.
        losses: Phase to curve.
        metrics: Name of the metric to its curves.
        learning_rates: Name of the parameter group to its curve.
    """

    def __init__(self) -> None:
        self.last_epoch = 0
        self.losses: Curves = {}
        self.metrics: dict[str, Curves] = {}
        self.learning_rates: Curves = {}

    def add_loss(self, epoch: int, phase: str, loss: float, metrics: Mapping[str, float]) -> None:
        """Add what one phase of an epoch came to."""
        self.last_epoch = epoch
        self.add_point(epoch, phase, loss, metrics)

    def add_point(self, place: float, phase: str, loss: float, metrics: Mapping[str, float]) -> None:
        """Add what was measured, in the middle of the third epoch at 2.5, before the first one at 0."""
        _phase_curve(self.losses, phase).add(place, loss)
        for name, value in metrics.items():
            _phase_curve(self.metrics.setdefault(name, {}), phase).add(place, value)

    def add_learning_rates(self, epoch: int, rates: Mapping[str, float]) -> None:
        """Add the learning rates of an epoch."""
        for name, rate in rates.items():
            _curve(self.learning_rates, name).add(epoch, rate)

    def best(self) -> Best | None:
        """Return where the validation loss was lowest, without one the training loss.

        None as long as no loss was finite; NaN never wins.
        """
        for phase in (VALIDATION, TRAINING):
            lowest = self.losses[phase].lowest() if phase in self.losses else None
            if lowest is not None:
                return Best(lowest[0], phase, lowest[1])
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "last_epoch": self.last_epoch,
            "losses": _states(self.losses),
            "metrics": {name: _states(curves) for name, curves in self.metrics.items()},
            "learning_rates": _states(self.learning_rates),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the history that `state_dict` described."""
        history = cls()
        history.last_epoch = state["last_epoch"]
        history.losses = _curves(state["losses"])
        history.metrics = {name: _curves(curves) for name, curves in state["metrics"].items()}
        history.learning_rates = _curves(state["learning_rates"])
        return history


def _curve(curves: Curves, name: str) -> Curve:
    return curves.setdefault(name, Curve())


def _phase_curve(curves: Curves, phase: str) -> Curve:
    """Return the curve of a phase; that of training stands first, also where the first value was of a validation."""
    if phase == TRAINING and VALIDATION in curves and TRAINING not in curves:
        curves[TRAINING] = Curve()
        curves[VALIDATION] = curves.pop(VALIDATION)
    return _curve(curves, phase)


def _states(curves: Curves) -> dict[str, Any]:
    return {name: curve.state_dict() for name, curve in curves.items()}


def _curves(states: Mapping[str, Any]) -> Curves:
    return {name: Curve.from_state(state) for name, state in states.items()}
