"""The plugin: says when a checkpoint is written and what is kept; the core writes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from bz.config import check_arguments
from bz.errors import ConfigError
from bz.intervals import Interval
from bz.plugins import Plugin
from bz_plugin_checkpoint.monitor import (
    TRAINING_LOSS,
    VALIDATION_LOSS,
    is_higher_better,
    is_of_validation,
    measured_in_training,
    measured_in_validation,
    unknown_monitor,
)
from bz_plugin_checkpoint.retention import Checkpoint, Rules
from bz_plugin_checkpoint.shelf import Shelf, file_name
from bz_plugin_checkpoint.turn import Turn, is_end_of_epoch

if TYPE_CHECKING:
    from bz.context import TrainingContext

logger = logging.getLogger(__name__)

_MAX_COUNT = 1_000_000_000


class SmartCheckpointConfig(BaseModel):
    """Settings of the checkpoint plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    save_dir: str = Field(default="checkpoints", min_length=1)
    """Folder of the files, relative to the folder of the run; in a script without one, to the working directory."""

    max_checkpoints: int = Field(default=5, ge=0, le=_MAX_COUNT)
    """How many files of the rule `save_best_only` are kept, newest first, the best one among them; 0 for none."""

    save_best_only: bool = True
    """Whether what was validated is saved only if it is better than all before, rather than at every turn."""

    monitor: str = Field(default=VALIDATION_LOSS, min_length=1)
    """What files are compared by: `training_loss`, `validation_loss`, or a metric such as `validation_accuracy`."""

    mode: Literal["auto", "min", "max"] = Field(default="auto", validate_default=True)
    """Whether lower (`min`) or higher (`max`) is better; `auto` takes it from the name of the value."""

    every: Interval = Field(default="1 epoch", validate_default=True)
    """From one turn to the next; steps and times save inside epochs too, better or not."""

    keep_best: int = Field(default=0, ge=0, le=_MAX_COUNT)
    """How many of the best are saved and kept."""

    keep_last: int = Field(default=0, ge=0, le=_MAX_COUNT)
    """How many of the newest are kept; each turn is saved."""

    milestones: Interval | None = None
    """Interval of files that are kept for good, such as `10 epochs`; null for none."""

    @field_validator("mode")
    @classmethod
    def _check_mode(cls, mode: str, info: ValidationInfo) -> str:
        monitor = info.data.get("monitor", VALIDATION_LOSS)
        if mode == "auto" and is_higher_better(monitor) is None:
            raise ValueError(f'must be "min" or "max", since the name {monitor!r} does not say which one is better')
        return mode

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if not (self.max_checkpoints or self.keep_best or self.keep_last or self.milestones):
            raise ValueError(
                "has nothing to save: set `max_checkpoints`, `keep_best` or `keep_last` above 0, or `milestones`"
            )
        return self

    def rules(self) -> Rules:
        """Return what is kept."""
        return Rules(
            max_checkpoints=self.max_checkpoints,
            keep_best=self.keep_best,
            keep_last=self.keep_last,
            is_higher_better=is_higher_better(self.monitor) is True if self.mode == "auto" else self.mode == "max",
        )


class SmartCheckpointPlugin(Plugin):
    """Writes checkpoints and keeps the best, the last and milestones, together with `best.pth` and `last.pth`.

    Args:
        save_dir: Folder of the files.
        max_checkpoints: How many files of the rule `save_best_only` are kept.
        save_best_only: Whether what was validated is saved only if it is better than all before.
        monitor: What files are compared by.
        mode: Whether lower or higher is better.
        every: From one turn to the next: `"5 epochs"`, `"200 steps"`, `"10 min"`, or a number of epochs.
        keep_best: How many of the best are saved and kept.
        keep_last: How many of the newest are kept.
        milestones: Interval of files that are kept for good; None for none.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "checkpoint"
    required: ClassVar[bool] = True
    Config: ClassVar[type[BaseModel] | None] = SmartCheckpointConfig

    def __init__(  # noqa: PLR0913 - each argument is an own choice of the user's
        self,
        save_dir: str | os.PathLike[str] = "checkpoints",
        max_checkpoints: int = 5,
        save_best_only: bool = True,  # noqa: FBT001, FBT002 - the guide's order of arguments
        *,
        monitor: str = VALIDATION_LOSS,
        mode: Literal["auto", "min", "max"] = "auto",
        every: Interval | str | int = "1 epoch",
        keep_best: int = 0,
        keep_last: int = 0,
        milestones: Interval | str | int | None = None,
    ) -> None:
        self._settings = settings = check_arguments(
            SmartCheckpointConfig,
            "SmartCheckpointPlugin",
            save_dir=os.fspath(save_dir),
            max_checkpoints=max_checkpoints,
            save_best_only=save_best_only,
            monitor=monitor,
            mode=mode,
            every=every,
            keep_best=keep_best,
            keep_last=keep_last,
            milestones=milestones,
        )
        self._rules = settings.rules()
        self._begin(Path(settings.save_dir))
        if not (self._every.is_inside_epoch or self._milestones.is_inside_epoch):
            self.end_training_batch = None  # type: ignore[method-assign,assignment]  # costs the batches nothing

    def _begin(self, folder: Path) -> None:
        """Begin a run of which there is nothing yet."""
        self._shelf = Shelf(folder, self._rules)
        self._every = Turn(self._settings.every)
        self._milestones = Turn(self._settings.milestones)
        self._monitor: str | None = None
        self._validated_step: int | None = None
        self._is_training = False
        self._is_monitor_reported = False
        self._problem: OSError | None = None

    def start_training_session(self, context: TrainingContext) -> None:
        """Find the folder."""
        self._begin(context.output_path(self._settings.save_dir))

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Compare what the checkpoint knew with what is in the folder."""
        folder, run_dir = self._shelf.folder, context.run_dir
        is_own_folder = run_dir is not None and folder.resolve().is_relative_to(run_dir.resolve())
        self._report(
            self._shelf.resume(context.epoch, context.global_step, context.resumed_from, is_own_folder=is_own_folder)
        )

    def start_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002 - the name of the hook
        """Note that a validation from now on is one inside the epoch."""
        self._is_training = True

    def end_training_batch(self, context: TrainingContext) -> None:
        """Save if an interval of steps or time is over."""
        is_turn, is_milestone = self._every.is_after_batch(context), self._milestones.is_after_batch(context)
        is_regular = is_turn and self._rules.max_checkpoints > 0
        if is_regular or is_milestone or (is_turn and self._rules.keep_last > 0):
            self._save_inside(context, None, is_regular=is_regular, is_milestone=is_milestone)

    def end_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002 - the name of the hook
        """Note that a validation from now on is the one at the end of the epoch."""
        self._is_training = False

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Save what was validated inside the epoch if it is one of the best."""
        values = measured_in_validation(context)
        if values:
            self._validated_step = context.global_step
        if self._is_training and self._settings.monitor in values and not is_end_of_epoch(context):
            self._choose_monitor(context)
            self._compare_inside(context, values[self._settings.monitor])

    def _compare_inside(self, context: TrainingContext, value: float) -> None:
        is_best, is_ranked = self._is_among_best(value, 1), self._is_among_best(value, self._rules.keep_best)
        is_regular = is_best and self._settings.save_best_only and self._rules.max_checkpoints > 0
        if (is_regular or is_ranked) and not self._every.skips_epochs:
            self._save_inside(context, value, is_regular=is_regular)
        else:
            self._shelf.add_to(_inside(context, value))

    def _save_inside(
        self, context: TrainingContext, value: float | None, *, is_regular: bool, is_milestone: bool = False
    ) -> None:
        """Save this step, unless that is done or asked for already; then it only counts for more."""
        checkpoint = _inside(context, value, is_regular=is_regular, is_milestone=is_milestone)
        if not self._shelf.add_to(checkpoint):
            self._save(context, checkpoint)

    def end_epoch(self, context: TrainingContext) -> None:
        """Save if a rule wants this epoch.

        Raises:
            ConfigError: Once, if what is to be monitored is not measured in this run.
        """
        is_validated = self._validated_step == context.global_step
        values = measured_in_training(context) | (measured_in_validation(context) if is_validated else {})
        self._choose_monitor(context)
        value = values.get(self._monitor or "")
        is_unknown = value is None and (is_validated or not self._awaits_validation(context))
        is_turn, is_milestone = self._every.is_after_epoch(context), self._milestones.is_after_epoch(context)
        is_regular = self._rules.max_checkpoints > 0 and self._is_wanted(value, is_turn=is_turn, is_unknown=is_unknown)
        is_compared = is_turn or self._every.is_inside_epoch
        is_ranked = is_compared and self._is_among_best(value, self._rules.keep_best)
        if is_regular or is_ranked or is_milestone or (is_turn and self._rules.keep_last > 0):
            name = file_name(context.epoch, step=None, loss=values.get(VALIDATION_LOSS, values[TRAINING_LOSS]))
            self._save(context, Checkpoint(name, context.epoch, None, value, is_regular, is_milestone))
        if is_unknown:
            self._report_monitor(values)

    def _is_wanted(self, value: float | None, *, is_turn: bool, is_unknown: bool) -> bool:
        """Whether the rule of `save_best_only` wants this end of an epoch."""
        if not self._settings.save_best_only or is_unknown:
            return is_turn
        if self._every.is_inside_epoch:
            return is_turn or self._is_among_best(value, 1)
        return is_turn and self._is_among_best(value, 1)

    def _is_among_best(self, value: float | None, count: int) -> bool:
        return self._rules.is_among_best(value, self._shelf.checkpoints, count)

    def _awaits_validation(self, context: TrainingContext) -> bool:
        """Whether the monitored value is one of a validation that this run has, if not in every epoch."""
        return context.has_validation and is_of_validation(self._settings.monitor)

    def _choose_monitor(self, context: TrainingContext) -> None:
        """Take what is monitored from the settings, or the training loss in place of a validation that is not there."""
        wanted = self._settings.monitor
        if wanted == VALIDATION_LOSS and not self._awaits_validation(context):
            wanted = TRAINING_LOSS
            if self._monitor != wanted:
                logger.warning(
                    "this run has no validation: the best checkpoint is the one with the lowest training loss"
                )
        if self._monitor is not None and self._monitor != wanted:
            self._shelf.forget_values()
        self._monitor = wanted

    def _report_monitor(self, values: dict[str, float]) -> None:
        if not self._is_monitor_reported:
            self._is_monitor_reported = True
            message = unknown_monitor(self._settings.monitor, values)
            raise ConfigError(message, option="plugins.checkpoint.config.monitor")

    def _save(self, context: TrainingContext, checkpoint: Checkpoint) -> None:
        """Ask the core for the file."""
        extra = {"monitor": self._monitor, "value": checkpoint.value}
        context.save_checkpoint(self._shelf.expect(checkpoint), extra)

    def save_checkpoint(self, context: TrainingContext) -> None:
        """Once a file of this plugin is on disk, delete what it replaces."""
        if self._shelf.confirm(context.checkpoint_path):
            self._report(self._shelf.put_in_order())

    def _report(self, problem: OSError | None) -> None:
        if problem is not None and self._problem is None:
            logger.warning("%s; trying again after the next checkpoint", problem)
        self._problem = problem

    def end_training_session(self, context: TrainingContext) -> None:  # noqa: ARG002 - the name of the hook
        """Try a last time what could not be done.

        Raises:
            OSError: If `best.pth` or `last.pth` is not what it should be.
        """
        problem = self._problem and self._shelf.put_in_order()
        if problem is not None:
            raise problem

    def state_dict(self) -> dict[str, Any]:
        """Return which files there are, with their values, and when the next one is due."""
        return {
            "shelf": self._shelf.state_dict(),
            "every": self._every.state_dict(),
            "milestones": self._milestones.state_dict(),
            "monitor": self._monitor,
            "validated_step": self._validated_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the files that a checkpoint knew of."""
        self._shelf.load_state_dict(state["shelf"])
        self._every.load_state_dict(state["every"])
        self._milestones.load_state_dict(state["milestones"])
        self._monitor = state["monitor"]
        self._validated_step = state.get("validated_step")


def _inside(
    context: TrainingContext, value: float | None, *, is_regular: bool = False, is_milestone: bool = False
) -> Checkpoint:
    """Return the checkpoint of this step."""
    name = file_name(context.epoch, step=context.global_step, loss=0.0)
    return Checkpoint(name, context.epoch, context.global_step, value, is_regular, is_milestone)
