"""One pass over a loader: the innermost part of a run, where every microsecond counts.

A batch of training, with every hook named:

    start_training_batch
    step          -> loss, outputs, targets
    zero_grad, backward, optimizer step; those of a window of batches where gradients are accumulated
    loss and metrics are added up on the device
    end_training_batch
    what is due between two batches is done; a stop "after the batch" or a limit leaves the loop
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bz.training.clock import TIMED_EVERY, PartClock
from bz.training.device import move_to_device
from bz.training.finite import refuse_nonfinite

if TYPE_CHECKING:
    import torch

    from bz.context import TrainingContext
    from bz.plugins.guard import GuardedHook
    from bz.progress import Progress
    from bz.training.metrics import MetricSet
    from bz.training.optimization import Optimization
    from bz.training.step import CheckedResult

logger = logging.getLogger(__name__)

CHECKED_EVERY: Final = 100
"""Batches between two looks at the losses; one for what is not finite waits for the device."""

Step = Callable[["TrainingContext", Any], "CheckedResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """What both loops work with.

    Attributes:
        context: What hooks and steps are given.
        progress: Where the run is.
        hooks: Lifecycle hooks by name.
        step: Turns a batch into loss, outputs and targets.
        metrics: Updated with each batch.
    """

    context: TrainingContext
    progress: Progress
    hooks: Mapping[str, GuardedHook]
    step: Step
    metrics: MetricSet

    def must_stop(self) -> bool:
        """Whether a stop takes effect here; also when the batches have ended because of what asked for it."""
        return self.progress.stop is not None and self.progress.stop.when == "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLoop(_Loop):
    """Trains on the batches of one epoch.

    Attributes:
        optimization: Turns losses into optimizer steps.
        on_nonfinite: `stop`, `skip` or `ignore`.
        between: Does what is due between two batches; returns whether more batches follow.
        is_always_due: Whether `between` is called after each batch, or only after one with a request.
        clock: Is told when each part of a batch ends.
    """

    optimization: Optimization
    on_nonfinite: str
    between: Callable[[], bool]
    is_always_due: bool
    clock: PartClock

    def run(self, batches: Iterable[Any], first_index: int = 0) -> bool:
        """Train on each batch.

        Args:
            batches: What is left of the epoch.
            first_index: Index of the first of them within the epoch.

        Returns:
            False when a stop took effect after a batch; True when the batches have ended or a limit was reached.
        """
        clock, offset = self.clock, self.clock.sample()
        with clock.measuring("loop"):
            timed = self._train(batches, first_index, offset)
        self.progress.loss = self.context.loss  # without its graph
        clock.count(self.progress.batches_done - first_index, timed)
        if not self.must_stop():
            self._flush()
        return not self.must_stop()

    def _train(self, batches: Iterable[Any], first_index: int, offset: int) -> int:
        """Train on each batch; return how many were timed, those whose index leaves `offset`."""
        context, progress, num_timed = self.context, self.progress, 0
        optimization, timed = self.optimization, self.clock.timed
        parts = move_to_device, self.step, optimization.compute_gradients, optimization.make_step, self.metrics.update
        timed_parts = (
            timed("transfer", move_to_device),
            timed("forward", self.step),
            timed("backward", optimization.compute_gradients),
            timed("optimizer", optimization.make_step),
            timed("metrics", self.metrics.update),
        )
        device, reads_wait, has_metrics = _target_device(context), context.reads_wait, bool(self.metrics)
        on_start, on_end = self.hooks["start_training_batch"] or None, self.hooks["end_training_batch"] or None
        add_loss = progress.training_loss.add
        skips = self.on_nonfinite == "skip"
        between, is_always_due = self.between, self.is_always_due
        for index, batch in enumerate(batches, first_index):
            is_timed = index % TIMED_EVERY == offset
            num_timed += is_timed
            move, step, compute_gradients, make_step, update_metrics = timed_parts if is_timed else parts
            progress.batch_index = index
            progress.batch = moved = batch if device is None else move(batch, device)
            if on_start is not None:
                on_start(context)
            loss, outputs, targets, weight = step(context, moved)
            progress.outputs = outputs
            if skips and not loss.isfinite():
                self._skip(loss, index)
            else:
                compute_gradients(loss, weight, moved, index)
                if make_step(index):
                    progress.global_step += 1
                progress.loss = loss
                # A copy, since a step that replays a captured graph returns the same tensor again and again.
                add_loss(loss.detach().clone() if reads_wait else loss.item())
                if has_metrics:
                    update_metrics(outputs, targets)
            progress.batches_done = index + 1
            if on_end is not None:
                on_end(context)
            # Nothing of this batch takes memory during the next forward pass.
            progress.batch = progress.outputs = None
            del batch, moved, loss, outputs, targets, weight
            if index % CHECKED_EVERY == CHECKED_EVERY - 1:
                self._look_at_losses()
            is_due = is_always_due or progress.checkpoint_requests or progress.stop is not None
            if is_due and not between():
                break
        return num_timed

    def _look_at_losses(self) -> None:
        """Find one that is not finite, which waits for the device; or only keep their number in memory small."""
        if self.on_nonfinite == "stop":
            refuse_nonfinite(self.progress)
        else:
            self.progress.training_loss.stack()

    def _flush(self) -> None:
        """Make the last step of a loader whose length was not known."""
        if self.optimization.flush():
            self.progress.global_step += 1
            self.between()

    def _skip(self, loss: torch.Tensor, index: int) -> None:
        """Leave the weights, the losses and the metrics as they are."""
        progress = self.progress
        progress.loss = loss.detach()
        if self.optimization.skip(index):
            progress.global_step += 1
        logger.warning(
            "the loss is %s in epoch %d, batch %d; this step is skipped",
            loss.item(),
            progress.epoch,
            progress.batch_index + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLoop(_Loop):
    """Measures the model on the validation batches; it must be in eval mode, with gradients off."""

    def run(self, batches: Iterable[Any]) -> bool:
        """Measure each batch; return False when a stop took effect after a batch."""
        context, progress, metrics = self.context, self.progress, self.metrics or None
        device, reads_wait = _target_device(context), context.reads_wait
        on_start, on_end = self.hooks["start_validation_batch"] or None, self.hooks["end_validation_batch"] or None
        add_loss = progress.validation_loss.add
        for index, batch in enumerate(batches):
            progress.batch_index = index
            progress.batch = batch if device is None else move_to_device(batch, device)
            if on_start is not None:
                on_start(context)
            loss, outputs, targets, _ = self.step(context, progress.batch)
            progress.outputs = outputs
            progress.loss = loss = loss.detach()
            add_loss(loss.clone() if reads_wait else loss.item())
            if metrics is not None:
                metrics.update(outputs, targets)
            if on_end is not None:
                on_end(context)
            progress.batch = progress.outputs = None
            del batch, loss, outputs, targets
            if index % CHECKED_EVERY == CHECKED_EVERY - 1:
                progress.validation_loss.stack()
            if progress.stop is not None and progress.stop.when == "batch":
                break
        return not self.must_stop()


def _target_device(context: TrainingContext) -> torch.device | None:
    """Return where batches have to go, or None on the CPU, where loaders already put them."""
    return None if context.device.type == "cpu" else context.device
