"""The plugin: measures, asks the core for the stop, and keeps the best weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bz.config import check_arguments
from bz.errors import ConfigError
from bz.plugins import Plugin, hookimpl
from bz_plugin_early_stopping.config import EarlyStoppingConfig
from bz_plugin_early_stopping.monitor import (
    TRAINING_LOSS,
    VALIDATION_LOSS,
    is_of_validation,
    measured,
    read,
    unknown_monitor,
)
from bz_plugin_early_stopping.watch import Measurement, Watch
from bz_plugin_early_stopping.weights import copy_weights

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bz.context import TrainingContext
    from bz.progress import StopPoint

logger = logging.getLogger(__name__)


class EarlyStoppingPlugin(Plugin):
    """Stops a run that no longer improves, diverges or has reached its goal.

    Args:
        monitor: What is watched.
        mode: Whether lower or higher is better.
        patience: How many measurements in a row may bring no improvement.
        min_delta: What is better by no more than this is no improvement.
        min_epochs: Nothing stops the run before as many epochs are done.
        restore_best_weights: Whether the model has its best weights when the run is over.
        stopping_threshold: Goal at which the run stops.
        divergence_threshold: Bound beyond which the run stops at once.
        check_finite: Whether the run stops at once at NaN and infinity.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "early_stopping"
    Config: ClassVar[type[BaseModel] | None] = EarlyStoppingConfig

    def __init__(  # noqa: PLR0913 - each argument is an own choice of the user's
        self,
        monitor: str = VALIDATION_LOSS,
        *,
        mode: Literal["auto", "min", "max"] = "auto",
        patience: int = 5,
        min_delta: float = 0.0,
        min_epochs: int = 0,
        restore_best_weights: bool = False,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_finite: bool = True,
    ) -> None:
        self._settings = settings = check_arguments(
            EarlyStoppingConfig,
            "EarlyStoppingPlugin",
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            min_epochs=min_epochs,
            restore_best_weights=restore_best_weights,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
            check_finite=check_finite,
        )
        self._rules = settings.rules()
        self._begin(settings.monitor)

    def _begin(self, monitor: str) -> None:
        """Begin to watch a value of which nothing is known yet."""
        self._watch = Watch(monitor, self._rules)
        self._weights: dict[str, Any] | None = None
        self._trained_epoch = 0
        self._is_monitor_reported = False

    def start_training_session(self, context: TrainingContext) -> None:  # noqa: ARG002 - the name of the hook
        """Begin afresh, and say what is watched."""
        self._begin(self._settings.monitor)
        self._announce()

    def _announce(self) -> None:
        side = "higher" if self._rules.is_higher_better else "lower"
        patience = self._watch.count(self._rules.patience)
        logger.info("watching %s: %s is better; patience: %s", self._watch.monitor, side, patience)

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Stop again where the run was stopped before, unless the settings are others now."""
        reason = self._watch.reason()
        if reason is not None:
            logger.warning("the run was over at this checkpoint; to go on, change the settings of early_stopping")
            self._stop(context, reason)

    def end_training_loop(self, context: TrainingContext) -> None:
        """Note that the epoch is trained: a validation that comes now is not inside it."""
        self._trained_epoch = context.epoch

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Measure a value of the validation.

        Raises:
            ConfigError: Once, if what is to be monitored is not measured in this run.
        """
        if is_of_validation(self._settings.monitor) and context.validation_batch_count:
            self._measure(context, self._settings.monitor)

    def end_epoch(self, context: TrainingContext) -> None:
        """Measure a value of the training.

        Raises:
            ConfigError: Once, if what is to be monitored is not measured in this run.
        """
        monitor = self._settings.monitor
        if not is_of_validation(monitor):
            self._measure(context, monitor)
        elif not context.has_validation:
            self._measure_without_validation(context)

    def _measure_without_validation(self, context: TrainingContext) -> None:
        """Take the training loss in place of the default, which is not there."""
        if self._settings.monitor != VALIDATION_LOSS:
            self._report_monitor(context)
            return
        if self._watch.monitor != TRAINING_LOSS:
            logger.warning("this run has no validation: early stopping watches the training loss")
        self._measure(context, TRAINING_LOSS)

    def _measure(self, context: TrainingContext, monitor: str) -> None:
        """Take in the newest value, and ask for a stop if it is time."""
        value = read(context, monitor)
        if value is None:
            self._report_monitor(context)
            return
        if monitor != self._watch.monitor:
            self._watch, self._weights = Watch(monitor, self._rules), None
            self._announce()
        is_inside_epoch = self._is_inside_epoch(context)
        epochs_done = context.epoch - is_inside_epoch
        place = {"epoch": context.epoch, "step": context.global_step, "epochs_done": epochs_done}
        if self._watch.add(Measurement(value=value, **place)) and self._settings.restore_best_weights:
            self._weights = copy_weights(context.model)
        reason = self._watch.reason()
        if reason is not None:
            self._stop(context, reason)

    def _is_inside_epoch(self, context: TrainingContext) -> bool:
        """Whether batches of this epoch are still to come, as far as that is known."""
        has_all_batches = context.training_batch_count == context.training_batches
        return context.epoch > self._trained_epoch and not has_all_batches

    def _stop(self, context: TrainingContext, reason: str) -> None:
        """Ask for a stop: at once inside an epoch, which may be long, else when the epoch is closed."""
        when: StopPoint = "batch" if self._is_inside_epoch(context) else "epoch"
        context.request_stop(reason, when)
        logger.info("stopping: %s", reason)

    def _report_monitor(self, context: TrainingContext) -> None:
        if not self._is_monitor_reported:
            self._is_monitor_reported = True
            message = unknown_monitor(self._settings.monitor, measured(context))
            raise ConfigError(message, option="plugins.early_stopping.config.monitor")

    @hookimpl(tryfirst=True)
    def end_training_session(self, context: TrainingContext) -> None:
        """Say what was best, and give the model its best weights before other plugins look at it."""
        if self._watch.best is None:
            if context.status == "completed" and not self._is_monitor_reported:
                logger.warning("early stopping has had no value of %s to go by", self._watch.monitor)
            return
        logger.info("%s: %s", self._watch.monitor, self._watch.best_in_words())
        if self._settings.restore_best_weights and context.status in {"completed", "stopped"}:
            self._restore(context, self._watch.best)

    def _restore(self, context: TrainingContext, best: Measurement) -> None:
        if self._weights is None:
            logger.warning("the weights of the best %s were not kept: the model has the last ones", self._watch.monitor)
            return
        context.model.load_state_dict(self._weights)
        logger.info("the model has the weights measured %s", best.place)

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured, and the best weights if they are kept."""
        return {**self._watch.state_dict(), "trained_epoch": self._trained_epoch, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, unless it is of another value than is watched now."""
        self._trained_epoch = state["trained_epoch"]
        if not self._is_comparable(state):
            logger.warning("early stopping watches something else than before, and begins afresh")
            return
        self._watch = Watch(state["monitor"], self._rules)
        self._watch.load_state_dict(state)
        self._weights = state["weights"] if self._settings.restore_best_weights else None

    def _is_comparable(self, state: dict[str, Any]) -> bool:
        """Whether the state is of the value that is watched now, or of the one that stands in for it."""
        wanted = self._settings.monitor
        watched = {wanted, TRAINING_LOSS} if wanted == VALIDATION_LOSS else {wanted}
        return state["monitor"] in watched and state["mode"] == self._rules.mode
