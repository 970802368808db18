"""How fast the run is, how long it still takes, and when there is time to show it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


class Pace:
    """Spaces out something costly: not more often than `interval_seconds`, not above `share` of the time.

    Attributes:
        due: The moment, on the clock of `time.perf_counter`, from which it may be done again.
    """

    def __init__(self, interval_seconds: float, share: float = 0.01) -> None:
        self.due = 0.0
        self._interval_seconds = interval_seconds
        self._share = share

    def spend(self, started: float, ended: float) -> None:
        """Take note that it was done, and how long it took."""
        self.due = ended + max(self._interval_seconds, (ended - started) / self._share)


@dataclass(frozen=True, slots=True)
class Loop:
    """One pass over a loader, in this process.

    Attributes:
        phase: `training` or `validation`.
        first_batch: Batches that were done before this process took over; above 0 after a resume.
        total: Planned batches, or None when unknown.
        started: When it began, on the clock of `time.perf_counter`.
    """

    phase: str
    first_batch: int
    total: int | None
    started: float

    def rate(self, done: int, now: float) -> float | None:
        """Return the batches per second so far, or None before the first."""
        batches, seconds = done - self.first_batch, now - self.started
        return batches / seconds if batches > 0 and seconds > 0 else None

    def after_pause(self, seconds: float) -> Self:
        """Return the same loop as if the pause had not been."""
        return replace(self, started=self.started + seconds)


class Forecast:
    """Estimates the time left: from the last whole epoch, and within the first one from the part that is done."""

    def __init__(self) -> None:
        self._epoch_seconds: float | None = None
        self._started = 0.0
        self._first_fraction = 0.0

    def start_epoch(self, now: float, fraction: float) -> None:
        """Begin an epoch of which `fraction` (0 to 1) was done before, by the process that was resumed."""
        self._started, self._first_fraction = now, fraction

    def elapsed(self, now: float) -> float:
        """Return the seconds spent in the epoch so far."""
        return now - self._started

    def end_epoch(self, now: float) -> float:
        """Return the seconds spent in the epoch, and expect the next ones to take as long."""
        seconds = self.elapsed(now)
        if self._first_fraction < 1:
            self._epoch_seconds = seconds / (1 - self._first_fraction)
        return seconds

    def seconds_left(self, now: float, fraction: float, epochs_after: int) -> float | None:
        """Return the estimate when `fraction` of the epoch is done, or None while nothing is known."""
        per_epoch = self._epoch_seconds
        if per_epoch is None and fraction > self._first_fraction:
            per_epoch = (now - self._started) / (fraction - self._first_fraction)
        return None if per_epoch is None else per_epoch * (epochs_after + 1 - fraction)


class StepForecast:
    """Estimates the time left until a step, from the steps made since the first epoch of this process began."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def start(self, now: float, step: int) -> None:
        """Begin to count, if that is not done already."""
        self._start = self._start or (now, step)

    def seconds_left(self, now: float, step: int, last_step: int) -> float | None:
        """Return the estimate after so many steps of the run, or None while nothing is known."""
        if self._start is None or step <= self._start[1]:
            return None
        started, first_step = self._start
        return (now - started) / (step - first_step) * max(last_step - step, 0)
