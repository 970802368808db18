"""The plugin that makes a training a learning rate range test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from bz.errors import TrainingError
from bz.plugins import Plugin
from bz_plugin_lr_finder.config import RangeTestConfig
from bz_plugin_lr_finder.curve import Ending, LRCurve
from bz_plugin_lr_finder.rates import GroupRates
from bz_plugin_lr_finder.smoothing import RunningMean

if TYPE_CHECKING:
    from bz.context import TrainingContext

MAX_BATCHES_WITHOUT_STEP: Final = 100
"""Batches beyond those that are accumulated, for the gradient scaler of `fp16` to find its scale."""


OVERRIDDEN: Final = (
    "Something else sets the learning rate during the test, such as a scheduler that the training_step steps; "
    "lr-find needs it for itself."
)


class _Batch(NamedTuple):
    """The loss of a batch, and the number of its samples."""

    loss: float
    size: float


class LRFinderPlugin(Plugin):
    """Raises the learning rate from step to step, notes the loss, and ends the training when enough is known.

    The learning rate range test: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015,
    section 3.3 (https://arxiv.org/abs/1506.01186); with an exponential range as fastai has it. As there, a rate is
    noted with the loss of the batch that it was used for, which was computed just before the step.

    It is no plugin for a training that is to learn something, so no entry point names it: it does not run in
    `bz train`. Losses are read at every batch, which waits for the device. Nobody else may change the learning rate.

    Args:
        config: Which learning rates, and when to stop.
        accumulate_batches: How many batches make one step.

    Attributes:
        fault: What kept the test from being one, a sentence; None if nothing did.
    """

    name: ClassVar[str] = "lr_finder"

    def __init__(self, config: RangeTestConfig | None = None, *, accumulate_batches: int = 1) -> None:
        self._config = config if config is not None else RangeTestConfig()
        self._patience = accumulate_batches + MAX_BATCHES_WITHOUT_STEP
        self._mean = RunningMean(self._config.smoothing)
        self._rates: GroupRates | None = None
        self._learning_rates: list[float] = []
        self._losses: list[float] = []
        self._smoothed: list[float] = []
        self._sizes: list[float] = []
        self._window: list[_Batch] = []
        self._steps_done = 0
        self._ending: Ending = "interrupted"
        self.fault: str | None = None

    @property
    def curve(self) -> LRCurve:
        """What was seen so far."""
        return LRCurve(
            config=self._config,
            learning_rates=tuple(self._learning_rates),
            losses=tuple(self._losses),
            sizes=tuple(self._sizes),
            smoothed_losses=tuple(self._smoothed),
            ending=self._ending,
        )

    @property
    def _rate(self) -> float:
        """The learning rate of the step that is under way."""
        return self._config.learning_rate(len(self._learning_rates))

    def start_training_batch(self, context: TrainingContext) -> None:
        """Set the learning rate of the step that the batch is part of."""
        if self._rates is None:
            self._rates = GroupRates(context.optimizer)
            self._steps_done = context.global_step
        if not self._window:
            self._rates.set(self._rate)

    def end_training_batch(self, context: TrainingContext) -> None:
        """Note the loss; where a step was made, go on to the next learning rate."""
        assert context.loss is not None
        assert self._rates is not None
        loss = float(context.loss)
        self._window.append(_Batch(loss, _num_samples(context.batch)))
        if not math.isfinite(loss):
            self._end(context, "nonfinite")
        elif not self._rates.is_untouched():
            self.fault = OVERRIDDEN
            self._end(context, "interrupted")
        elif len(self._window) > self._patience:
            self.fault = f"No optimizer step was made in {len(self._window)} batches: the gradients are not finite."
            self._end(context, "interrupted")
        else:
            self._close_step(context)

    def end_training_loop(self, context: TrainingContext) -> None:
        """Note the last step of an epoch of unknown length, which is made after its last batch."""
        self._close_step(context)

    def _close_step(self, context: TrainingContext) -> None:
        if context.global_step == self._steps_done or context.should_stop_training:
            return
        self._steps_done = context.global_step
        size = math.fsum(batch.size for batch in self._window)
        loss = math.fsum(batch.loss * batch.size for batch in self._window) / size
        self._learning_rates.append(self._rate)
        self._losses.append(loss)
        self._sizes.append(size)
        self._smoothed.append(self._mean.add(loss, size))
        self._window.clear()
        if self._has_diverged():
            self._end(context, "diverged")
        elif len(self._losses) == self._config.steps:
            self._end(context, "steps")

    def _has_diverged(self) -> bool:
        """Whether the loss is far above its lowest value, in a way that also means something below zero."""
        lowest, last = min(self._smoothed), self._smoothed[-1]
        return last > self._smoothed[0] and last - lowest > (self._config.stop_factor - 1) * abs(lowest)

    def _end(self, context: TrainingContext, ending: Ending) -> None:
        self._ending = ending
        context.request_stop(f"learning rate range test: {ending}", when="batch")


def _num_samples(batch: Any) -> float:
    """Return how many samples a batch holds; 1 where nobody can tell, so that all batches count alike."""
    from bz.training.batches import count_samples

    try:
        return float(count_samples(batch)) or 1.0
    except TrainingError:
        return 1.0
