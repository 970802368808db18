"""Validating a model in the course of its training: when it is due, and with which weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bz.progress import LossTotal
from bz.training.seeding import random_state, restore_random_state
from bz.training.weights import swapped_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from bz.context import TrainingContext
    from bz.intervals import Schedule
    from bz.plugins.manager import PluginManager
    from bz.progress import Progress
    from bz.spec import TrainingSpec
    from bz.training.data import EpochData
    from bz.training.loop import ValidationLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The validations of a session.

    Attributes:
        spec: Whose model is validated.
        loop: Walks the validation loader.
        data: The batches.
        schedule: When a validation is due; None for never.
        limit: The most batches of one validation, or None.
        context: What hooks are given.
        progress: Where the run is.
        plugins: Asked for other weights.
        fire: Calls a hook.
        watch: Ends the batches when a signal has ended those who load them.
    """

    spec: TrainingSpec
    loop: ValidationLoop
    data: EpochData
    schedule: Schedule | None
    limit: int | None
    context: TrainingContext
    progress: Progress
    plugins: PluginManager
    fire: Callable[[str], None]
    watch: Callable[[Iterator[Any]], Iterator[Any]]

    @property
    def is_inside_epoch(self) -> bool:
        """Whether a validation may be due between two batches."""
        return self.schedule is not None and self.schedule.interval.is_inside_epoch

    def is_due_after_step(self) -> bool:
        """Whether to validate now, between two batches."""
        return self.schedule is not None and self.is_inside_epoch and self.schedule.is_due(self.progress)

    def is_due_after_epoch(self) -> bool:
        """Whether to validate now, at the end of an epoch."""
        return self.schedule is not None and not self.is_inside_epoch and self.schedule.is_due(self.progress)

    def run(self) -> bool:
        """Validate once; return False when a stop took effect after a batch."""
        self.progress.validation_loss = LossTotal()
        self.loop.metrics.reset()
        weights = self.plugins.evaluation_weights(self.context)
        with self._random_states(), swapped_weights(self.spec.model, weights):
            return self._validate()

    def _validate(self) -> bool:
        model, progress = self.spec.model, self.progress
        batch_index = progress.batch_index
        model.eval()
        with torch.no_grad():
            self.fire("start_validation_loop")
            is_complete = self.loop.run(self.watch(self.data.begin(progress.epoch, self.limit)))
            if is_complete:
                self.fire("end_validation_loop")
        model.train()
        progress.batch_index = batch_index
        return is_complete

    def _random_states(self) -> AbstractContextManager[None]:
        """Keep random states as they are where the clock decides when to validate: else it would decide the weights."""
        is_timed = self.schedule is not None and self.schedule.interval.seconds is not None
        return _unchanged_random_states() if is_timed else nullcontext()


@contextmanager
def _unchanged_random_states() -> Iterator[None]:
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)
