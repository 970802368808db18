"""What was measured so far, and whether the run should stop: values in, a reason out.

All that is remembered is the best measurement, the newest one and how many there were since the
best. Whether to stop follows from these three alone, so a resumed run comes to the same decision.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bz_plugin_early_stopping.monitor import is_of_validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value, and where in the run it was measured.

    Attributes:
        value: What was measured.
        epoch: Epoch in which, from 1; 0 before the first.
        step: Optimizer steps done.
        epochs_done: Epochs that were trained to their end: one less than `epoch` inside an epoch.
    """

    value: float
    epoch: int
    step: int
    epochs_done: int

    @property
    def place(self) -> str:
        """Where it was measured, in words."""
        return f"in epoch {self.epoch}, step {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a run stops.

    Attributes:
        is_higher_better: Whether a higher value is better.
        patience: Measurements in a row without an improvement.
        min_delta: A value that is better by no more than this is no improvement.
        min_epochs: Nothing stops the run before as many epochs are done.
        stopping_threshold: A value as good as this is good enough; None for no such goal.
        divergence_threshold: A value worse than this is hopeless; None for no such bound.
        check_finite: Whether NaN and infinity are hopeless.
    """

    is_higher_better: bool
    patience: int
    min_delta: float
    min_epochs: int
    stopping_threshold: float | None
    divergence_threshold: float | None
    check_finite: bool

    @property
    def mode(self) -> str:
        """Which values are better, as in the settings."""
        return "max" if self.is_higher_better else "min"

    def is_better(self, value: float, other: float, by: float = 0.0) -> bool:
        """Whether a value is better than another by more than `by`."""
        return value - by > other if self.is_higher_better else value + by < other

    def is_goal(self, value: float) -> bool:
        """Whether the value is good enough."""
        goal = self.stopping_threshold
        return goal is not None and math.isfinite(value) and not self.is_better(goal, value)

    def is_diverged(self, value: float) -> bool:
        """Whether the value is beyond the bound."""
        return self.divergence_threshold is not None and self.is_better(self.divergence_threshold, value)


class Watch:
    """Follows one value through a run.

    Args:
        monitor: Name of the value.
        rules: When the run stops.

    Attributes:
        best: The last measurement that was an improvement; None before the first finite one.
        last: The newest measurement.
        waited: Measurements since the best one, or since the beginning.
    """

    def __init__(self, monitor: str, rules: Rules) -> None:
        self.monitor = monitor
        self.rules = rules
        self.best: Measurement | None = None
        self.last: Measurement | None = None
        self.waited = 0

    def add(self, measurement: Measurement) -> bool:
        """Take in a measurement; return whether it is an improvement."""
        is_improvement = self._is_improvement(measurement.value)
        self.last = measurement
        self.waited = 0 if is_improvement else self.waited + 1
        if is_improvement:
            self.best = measurement
        return is_improvement

    def _is_improvement(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        # What reaches the goal ends the run, so it is the best one however little is between them.
        min_delta = 0.0 if self.rules.is_goal(value) else self.rules.min_delta
        return self.rules.is_better(value, self.best.value, by=min_delta)

    def reason(self) -> str | None:
        """Return why the run should stop after the newest measurement, or None if it should go on."""
        last, rules = self.last, self.rules
        if last is None or last.epochs_done < rules.min_epochs:
            return None
        if rules.check_finite and not math.isfinite(last.value):
            return self._hopeless(last, "not finite")
        if rules.is_diverged(last.value):
            side = "below" if rules.is_higher_better else "above"
            return self._hopeless(last, f"{side} the divergence threshold {rules.divergence_threshold:.6g}")
        if rules.is_goal(last.value):
            return f"{self.monitor} reached {last.value:.6g} {last.place}; the goal was {rules.stopping_threshold:.6g}"
        return self._impatience()

    def _hopeless(self, last: Measurement, what: str) -> str:
        return f"{self.monitor} is {last.value:.6g} {last.place}, which is {what}; {self.best_in_words()}"

    def _impatience(self) -> str | None:
        if self.waited < self.rules.patience:
            return None
        return f"{self.monitor} has not improved for {self.count(self.waited)}; {self.best_in_words()}"

    def count(self, number: int) -> str:
        """Return a number of measurements, named after what measures."""
        unit = "validation" if is_of_validation(self.monitor) else "epoch"
        return f"{number} {unit}{'' if number == 1 else 's'}"

    def best_in_words(self) -> str:
        """Return the best value and where it was measured."""
        return "it never was finite" if self.best is None else f"best {self.best.value:.6g} {self.best.place}"

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured, as plain values."""
        return {
            "monitor": self.monitor,
            "mode": self.rules.mode,
            "best": None if self.best is None else asdict(self.best),
            "last": None if self.last is None else asdict(self.last),
            "waited": self.waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same monitor and mode."""
        self.best = None if state["best"] is None else Measurement(**state["best"])
        self.last = None if state["last"] is None else Measurement(**state["last"])
        self.waited = state["waited"]
