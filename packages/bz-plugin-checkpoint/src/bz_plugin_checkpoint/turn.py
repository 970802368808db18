"""When it is time for a checkpoint, at the end of an epoch or inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz.intervals import Interval, Schedule

if TYPE_CHECKING:
    from bz.context import TrainingContext


class Turn:
    """Says when an interval is over.

    One that is over after the last batch of an epoch waits for the end of the epoch: nothing is
    trained in between, and there the value is known.

    Args:
        interval: From one turn to the next; None for never.

    Attributes:
        is_inside_epoch: Whether the interval is in steps or time.
        skips_epochs: Whether there are epochs without a turn because the interval is several epochs.
    """

    def __init__(self, interval: Interval | None) -> None:
        self.is_inside_epoch = interval is not None and interval.is_inside_epoch
        self.skips_epochs = interval is not None and interval.unit == "epochs" and interval.count > 1
        self._schedule = None if interval is None else Schedule(interval)
        self._is_waiting = False

    def is_after_batch(self, context: TrainingContext) -> bool:
        """Whether it is time now, inside the epoch."""
        if not self.is_inside_epoch or self._schedule is None or not self._schedule.is_due(context):
            return False
        self._is_waiting = is_end_of_epoch(context)
        return not self._is_waiting

    def is_after_epoch(self, context: TrainingContext) -> bool:
        """Whether it is time now, at the end of the epoch."""
        if self.is_inside_epoch:
            was_waiting, self._is_waiting = self._is_waiting, False
            return was_waiting
        return self._schedule is not None and self._schedule.is_due(context)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"is_waiting": self._is_waiting, "schedule": self._schedule and self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; a schedule that was not there begins now."""
        self._is_waiting = self.is_inside_epoch and state["is_waiting"]
        if self._schedule is not None and state["schedule"] is not None:
            self._schedule.load_state_dict(state["schedule"])


def is_end_of_epoch(context: TrainingContext) -> bool:
    """Return whether nothing more is trained in this epoch; False as well while that is not known."""
    is_last_step = context.max_steps is not None and context.global_step >= context.max_steps
    return is_last_step or context.training_batch_count == context.training_batches
