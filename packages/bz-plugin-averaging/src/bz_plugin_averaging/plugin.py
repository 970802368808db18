"""The plugin: averages the weights as a run goes on; the core validates with the average."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from bz.config import check_arguments
from bz.durable import make_folder, replacing
from bz.intervals import Interval
from bz.plugins import Plugin
from bz_plugin_averaging.average import WeightAverage
from bz_plugin_averaging.timetable import Timetable

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from bz.context import TrainingContext
    from bz_plugin_averaging.average import AverageFunction

logger = logging.getLogger(__name__)

DEFAULT_DECAY: Final = 0.999
_LARGE_SHARE: Final = 0.1
_EVERY: Final = {"ema": Interval(1, "steps"), "swa": Interval(1, "epochs")}


class AveragingConfig(BaseModel):
    """Settings of the averaging plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: Literal["ema", "swa"] = "ema"
    """`ema`: each time, a part of the average is replaced by the weights; `swa`: the mean of all weights so far."""

    decay: float = Field(default=DEFAULT_DECAY, ge=0, le=1)
    """Of `ema`, 0 to 1: the part of the average that stays each time; the nearer to 1, the longer it remembers."""

    start: Interval | None = None
    """What has to be over before the first weights are taken; null to begin at once."""

    every: Interval | None = None
    """From one time that weights are averaged to the next; null for `1 step` with `ema`, `1 epoch` with `swa`."""

    buffers: bool = False
    """Whether buffers, such as the statistics of BatchNorm, are averaged, rather than taken as they are each time."""

    output: str | None = Field(default="averaged.pth", min_length=1)
    """File of the averaged weights, written at the end, relative to the folder of the run; null for none."""


class AveragingPlugin(Plugin):
    """Averages the weights, has the run validated with the average, and saves it.

    Args:
        method: `"ema"` or `"swa"`.
        decay: Of `"ema"`: the part of the average that stays each time.
        start: What has to be over before the first weights are taken: `"5 epochs"`, `"200 steps"`, `"10 min"`, or a
            number of epochs; None to begin at once.
        every: From one time that weights are averaged to the next; None for each step with `"ema"`, each epoch with
            `"swa"`.
        buffers: Whether buffers are averaged, rather than taken as they are each time.
        output: File of the averaged weights; None for none.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "averaging"
    required: ClassVar[bool] = True
    Config: ClassVar[type[BaseModel] | None] = AveragingConfig

    def __init__(  # noqa: PLR0913 - each argument is an own choice of the user's
        self,
        method: Literal["ema", "swa"] = "ema",
        decay: float = DEFAULT_DECAY,
        *,
        start: Interval | str | int | None = None,
        every: Interval | str | int | None = None,
        buffers: bool = False,
        output: str | os.PathLike[str] | None = "averaged.pth",
    ) -> None:
        self._settings = check_arguments(
            AveragingConfig,
            "AveragingPlugin",
            method=method,
            decay=decay,
            start=start,
            every=every,
            buffers=buffers,
            output=None if output is None else os.fspath(output),
        )
        self._every = self._settings.every or _EVERY[self._settings.method]
        self._begin()
        if not self._every.is_inside_epoch:
            self.end_training_batch = None  # type: ignore[method-assign,assignment]  # costs the batches nothing

    def _begin(self) -> None:
        """Begin a run of which there is nothing yet."""
        self._timetable = Timetable(self._settings.start, self._every)
        self._average: WeightAverage | None = None
        self._saved: dict[str, Any] = {}

    def start_training_session(self, context: TrainingContext) -> None:  # noqa: ARG002 - the name of the hook
        """Forget the run before, and say what has no effect."""
        self._begin()
        if self._settings.method == "swa" and self._settings.decay != DEFAULT_DECAY:
            logger.warning("`decay` has no effect with the method 'swa', which weighs all weights alike")

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Go on with the average of the checkpoint."""
        if self._saved:
            self._average = self._new_average(context.model)
            self._average.restore(self._saved["evaluation_weights"], self._saved["count"])
            self._saved = {}

    def end_training_batch(self, context: TrainingContext) -> None:
        """Average the weights if steps or a time are over."""
        self._take_turn(context, is_epoch_trained=False)

    def end_training_loop(self, context: TrainingContext) -> None:
        """Average the weights if it is time, before they are validated."""
        self._take_turn(context, is_epoch_trained=True)

    def _take_turn(self, context: TrainingContext, *, is_epoch_trained: bool) -> None:
        if self._timetable.is_due(context, is_epoch_trained=is_epoch_trained):
            if self._average is None:
                self._average = self._new_average(context.model)
            self._average.add()

    def _new_average(self, model: torch.nn.Module) -> WeightAverage:
        return WeightAverage(model, _function(self._settings), with_buffers=self._settings.buffers)

    def evaluation_weights(self, context: TrainingContext) -> dict[str, torch.Tensor] | None:  # noqa: ARG002
        """Return the average for the validation, or None before it has begun."""
        return None if self._average is None else self._average.weights

    def end_training_session(self, context: TrainingContext) -> None:
        """Write the average if the run came to its end, and say what is wrong with it.

        Raises:
            OSError: If the file cannot be written.
        """
        if context.status not in {"completed", "stopped"}:
            return
        if self._average is None:
            logger.warning("nothing was averaged: the run ended before `start` and `every` were over")
            return
        self._warn_of_first_weights(self._average.count)
        if self._settings.output is not None:
            self._write(context.output_path(self._settings.output), context.model)

    def _warn_of_first_weights(self, count: int) -> None:
        """Say that the run was too short for the decay, if it was: the average is then close to where it began."""
        share = self._settings.decay ** (count - 1) if self._settings.method == "ema" else 0.0
        if share > _LARGE_SHARE:
            logger.warning(
                "%.0f %% of the average are the very first weights: it was made %d times with the decay %s; "
                "lower `decay`, or train longer",
                100 * share,
                count,
                self._settings.decay,
            )

    def _write(self, path: Path, model: torch.nn.Module) -> None:
        import torch

        assert self._average is not None
        whole = {**model.state_dict(), **self._average.weights}
        make_folder(path.parent)
        with replacing(path) as file:
            torch.save({name: _on_cpu(value) for name, value in whole.items()}, file)
        logger.info("the averaged weights are in %s", path)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, how many weights it is of, and when the next ones are due."""
        average = self._saved
        if self._average is not None:
            average = {"evaluation_weights": self._average.weights, "count": self._average.count}
        return {**average, "timetable": self._timetable.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what a checkpoint knew until the model is at hand."""
        self._timetable.load_state_dict(state["timetable"])
        self._saved = {key: value for key, value in state.items() if key != "timetable"}


def _function(settings: AveragingConfig) -> AverageFunction:
    from torch.optim import swa_utils

    untyped: Any = swa_utils
    function: AverageFunction = (
        untyped.get_swa_multi_avg_fn() if settings.method == "swa" else untyped.get_ema_multi_avg_fn(settings.decay)
    )
    return function


def _on_cpu(value: Any) -> Any:
    import torch

    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
