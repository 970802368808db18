"""How far a run is and how long it still takes, whatever ends it: epochs, steps or time, the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bz_plugin_console.timing import Forecast, StepForecast

if TYPE_CHECKING:
    from bz.context import TrainingContext


class Course:
    """The way of a run to its end."""

    def __init__(self) -> None:
        self._epochs = Forecast()
        self._steps = StepForecast()

    def start_epoch(self, now: float, fraction: float, step: int) -> None:
        """Begin an epoch of which `fraction` (0 to 1) was done by the process that was resumed."""
        self._epochs.start_epoch(now, fraction)
        self._steps.start(now, step)

    def epoch_seconds(self, now: float) -> float:
        """Return the seconds spent in the epoch so far."""
        return self._epochs.elapsed(now)

    def end_epoch(self, now: float) -> float:
        """Return the seconds spent in the epoch."""
        return self._epochs.end_epoch(now)

    def fraction(self, context: TrainingContext, epoch_fraction: float, seconds: float) -> float:
        """Return the part of the run that is done, 0 to 1.

        Args:
            context: Where the run is.
            epoch_fraction: Part of the epoch that is done.
            seconds: Time of the run, over all of its sessions.
        """
        parts = [0.0]
        if context.epochs:
            parts.append((context.epoch - 1 + epoch_fraction) / context.epochs)
        if context.max_steps:
            parts.append(context.global_step / context.max_steps)
        if context.max_seconds:
            parts.append(seconds / context.max_seconds)
        return min(max(parts), 1.0)

    def seconds_left(self, context: TrainingContext, epoch_fraction: float, seconds: float, now: float) -> float | None:
        """Return an estimate, None while nothing is known; arguments as those of `fraction`."""
        estimates = []
        if context.epochs:
            estimates.append(self._epochs.seconds_left(now, epoch_fraction, context.epochs - context.epoch))
        if context.max_steps:
            estimates.append(self._steps.seconds_left(now, context.global_step, context.max_steps))
        if context.max_seconds:
            estimates.append(max(context.max_seconds - seconds, 0.0))
        return min((one for one in estimates if one is not None), default=None)
