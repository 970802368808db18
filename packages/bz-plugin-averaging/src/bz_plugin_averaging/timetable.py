"""When the weights are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz.intervals import Interval, Schedule

if TYPE_CHECKING:
    from bz.context import TrainingContext


class Timetable:
    """Says when weights are averaged: whenever `every` is over, once `start` is over.

    Both are counted from the beginning of the run. An interval in epochs is over with the training
    batches of an epoch, so that its validation sees what came of it.

    Args:
        start: What has to be over before the first time; None to begin at once.
        every: From one time to the next.
    """

    def __init__(self, start: Interval | None, every: Interval) -> None:
        self._start = start
        self._every = Schedule(every)
        self._clock = None if start is None or start.seconds is None else Schedule(start)
        self._last_step = 0

    def is_due(self, context: TrainingContext, *, is_epoch_trained: bool) -> bool:
        """Whether it is time for the weights of this step; true once for a step.

        To be asked after each batch, if `every` can be over inside an epoch, and after the training
        batches of each epoch.
        """
        if context.global_step == self._last_step or not self._has_begun(context, is_epoch_trained=is_epoch_trained):
            return False
        if not self._every.is_due(context):
            return False
        self._last_step = context.global_step
        return True

    def _has_begun(self, context: TrainingContext, *, is_epoch_trained: bool) -> bool:
        if self._start is None:
            return True
        if self._clock is not None:
            return self._is_time(context)
        if self._start.unit == "steps":
            return context.global_step >= self._start.count
        return context.epoch - (not is_epoch_trained) >= self._start.count

    def _is_time(self, context: TrainingContext) -> bool:
        """Whether the time until the start is over; from then on the clock is not needed."""
        assert self._clock is not None
        if not self._clock.is_due(context):
            return False
        self._start = self._clock = None
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "last_step": self._last_step,
            "every": self._every.state_dict(),
            "is_start_over": self._start is None,
            "start": self._clock and self._clock.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; a time that was not measured before is measured from now on."""
        self._last_step = state["last_step"]
        self._every.load_state_dict(state["every"])
        if self._clock is not None and state["is_start_over"]:
            self._start = self._clock = None
        elif self._clock is not None and state["start"] is not None:
            self._clock.load_state_dict(state["start"])
