"""One epoch after another: training, what is due between two batches, validation, and what belongs between epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bz.errors import TrainingError
from bz.progress import LossTotal
from bz.training.finite import refuse_nonfinite
from bz.training.loop import TrainingLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bz.config.models import TrainingSettings
    from bz.context import TrainingContext
    from bz.plugins.guard import GuardedHook
    from bz.progress import Progress
    from bz.training.account import TimeAccount
    from bz.training.limits import Limits
    from bz.training.loop import Step
    from bz.training.optimization import Optimization
    from bz.training.saving import CheckpointWriter
    from bz.training.schedulers import Schedulers
    from bz.training.state import NextPart, RunState
    from bz.training.validation import Validation


@dataclass(kw_only=True)
class Epochs:
    """The epochs of a session.

    Attributes:
        settings: How far to go, and how.
        context: What hooks are given.
        progress: Where the run is.
        state: What a checkpoint holds; its history gets a row for each epoch and each validation inside one.
        hooks: Lifecycle hooks by name.
        step: Turns a training batch into a loss.
        optimization: Turns losses into optimizer steps.
        schedulers: Those of the learning rate.
        validation: Validates the model when that is due.
        checkpoints: Writes those that are due.
        limits: End the run before its last epoch.
        account: Of the time.
        watch: Ends the batches when a signal has ended those who load them.
    """

    settings: TrainingSettings
    context: TrainingContext
    progress: Progress
    state: RunState
    hooks: Mapping[str, GuardedHook]
    step: Step
    optimization: Optimization
    schedulers: Schedulers
    validation: Validation
    checkpoints: CheckpointWriter
    limits: Limits
    account: TimeAccount
    watch: Callable[[Iterator[Any]], Iterator[Any]]
    _loop: TrainingLoop = field(init=False)
    _cut: Mapping[str, Any] | None = field(default=None, init=False)
    _go_on_from: Mapping[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._loop = TrainingLoop(
            context=self.context,
            progress=self.progress,
            hooks=self.hooks,
            step=self.step,
            metrics=self.state.metrics["training"],
            optimization=self.optimization,
            on_nonfinite=self.settings.on_nonfinite,
            between=self._between_batches,
            clock=self.account.clock,
            is_always_due=self.checkpoints.watches_batches
            or self.validation.is_inside_epoch
            or self.schedulers.watches_steps
            or bool(self.limits),
        )

    @property
    def are_complete(self) -> bool:
        """Whether the last epoch is done, or a limit of the settings is reached."""
        last = self.settings.epoch_limit
        return (last is not None and self.progress.epochs_done >= last) or self.progress.limit is not None

    def run(self) -> None:
        """Run epochs until the last one is done, a limit is reached, or a stop takes effect."""
        while not self._are_over():
            self.progress.epoch += 1
            self._begin_epoch()

    def _are_over(self) -> bool:
        return self.are_complete or self.progress.stop is not None

    def _has_reached_limit(self) -> bool:
        self.progress.limit = self.progress.limit or self.limits.reached(self.progress)
        return self.progress.limit is not None

    def validate_first(self) -> None:
        """Validate before the first epoch."""
        if self._validate():
            self.state.history.append(self.row())

    def finish(self, position: Mapping[str, Any]) -> None:
        """Run what a resumed run has left of its epoch.

        Args:
            position: What `RunState.moment` returned.
        """
        if position["batches_done"] is None:
            self._has_reached_limit()
            return
        self._fire("start_epoch")
        if position["next_part"] == "closing_validation":
            self._close_epoch(is_complete=self._end_epoch(is_validation_due=True))
            return
        done, limit = position["batches_done"], self.settings.limit_train_batches
        batches = self.state.data.go_on(position["data"], self.progress.epoch, done, limit)
        is_validation_due = position["next_part"] == "validation"
        is_trained = self._train_batches(batches, done, is_validation_due=is_validation_due)
        self._close_epoch(is_complete=is_trained and self._end_epoch())

    def _begin_epoch(self) -> None:
        """Run one epoch from its beginning."""
        progress = self.progress
        progress.training_loss, progress.validation_loss = LossTotal(), LossTotal()
        progress.batch_index = progress.batches_done = 0
        for metrics in self.state.metrics.values():
            metrics.reset()
        self._fire("start_epoch")
        batches = self.state.data.begin(progress.epoch, self.settings.limit_train_batches)
        self._close_epoch(is_complete=self._train_batches(batches, 0) and self._end_epoch())

    def _close_epoch(self, *, is_complete: bool) -> None:
        """Write the checkpoint of a run that ends inside an epoch."""
        if not is_complete:
            self.checkpoints.save_inside_epoch(self._go_on_from)

    def _train_batches(self, batches: Iterator[Any], first_index: int, *, is_validation_due: bool = False) -> bool:
        """Train on the batches; return False when a stop took effect after one of them."""
        self.context.model.train()
        self._fire("start_training_loop")
        self.account.end_startup()
        is_over = first_index > 0 and (self._has_reached_limit() or self._loop.must_stop())
        if is_validation_due:
            is_over = not self._between_batches(is_validation_due=True)
        if not self._loop.run(() if is_over else self.watch(batches), first_index):
            return False
        if self.progress.batches_done == 0:
            raise TrainingError(
                f"The training_loader gave no batches in epoch {self.progress.epoch}; "
                "it must be iterable again in every epoch, as a DataLoader or a list is."
            )
        if self.settings.on_nonfinite == "stop":
            refuse_nonfinite(self.progress)
        # Before the hooks that end the epoch: a run that is given more steps later has not ended it.
        self._cut = self._moment_of_cut()
        self._fire("end_training_loop")
        return True

    def _moment_of_cut(self) -> Mapping[str, Any] | None:
        """Return where a run has to go on from whose epoch a limit has ended early, or None."""
        progress = self.progress
        if progress.limit is None or progress.batches_done == self.context.training_batches:
            return None
        return self.state.moment(batches_done=progress.batches_done)

    def _between_batches(self, *, is_validation_due: bool = False) -> bool:
        """Do what is due after a batch; return whether more batches follow."""
        is_inside_step = self.optimization.is_window_open
        if not is_inside_step:
            if (is_validation_due or self.validation.is_due_after_step()) and not self._validate_inside_epoch():
                return False
            self.schedulers.after_step(self.progress, self.row)
        self.checkpoints.after_batch()
        is_limit_reached = not is_inside_step and self._has_reached_limit()
        return not is_limit_reached and not self._loop.must_stop()

    def _end_epoch(self, *, is_validation_due: bool = False) -> bool:
        """Validate, and do what belongs between two epochs; return False when a stop took effect in between."""
        progress = self.progress
        cut = self._cut or self._moment_of_cut()
        if (is_validation_due or self.validation.is_due_after_epoch()) and not self._validate("closing_validation"):
            return False
        self.state.history.append(self.row())
        progress.epochs_done += 1
        self._fire("end_epoch")
        if cut is None:
            self.schedulers.after_epoch(progress, self.row)
        else:
            cut = {**cut, "values": self.state.values()}
        is_last = self._has_reached_limit() or self._are_over()
        self.checkpoints.after_epoch(is_last=is_last, moment=cut)
        return True

    def _validate_inside_epoch(self) -> bool:
        is_complete = self._validate("validation")
        if is_complete:
            self.state.history.append(self.row(is_epoch_trained=False))
        return is_complete

    def _validate(self, next_part: NextPart | None = None) -> bool:
        """Validate; return False when a stop took effect after a batch: the run has to go on from before it."""
        before = self.checkpoints.moment(next_part) if next_part is not None else None
        with self.account.clock.measuring("validation"):
            is_complete = self.validation.run()
        if not is_complete:
            self._go_on_from = before
        return is_complete

    def row(self, *, is_epoch_trained: bool = True) -> dict[str, float]:
        """Return what was measured so far in this epoch, as a row of the history.

        Metrics of the training are left out before its end: not each of them can be computed from a few batches.
        """
        progress = self.progress
        row: dict[str, float] = {"epoch": progress.epoch, "global_step": progress.global_step}
        if progress.training_loss.batch_count:
            row["training_loss"] = progress.training_loss.mean
        if progress.training_loss.batch_count and is_epoch_trained:
            row |= {f"training_{name}": value for name, value in progress.training_metrics.values().items()}
        if progress.validation_loss.batch_count:
            row["validation_loss"] = progress.validation_loss.mean
            row |= {f"validation_{name}": value for name, value in progress.validation_metrics.values().items()}
        return row

    def _fire(self, hook: str) -> None:
        self.hooks[hook](self.context)
