"""The plugin: turns what happens in a run into events, and has them written."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bz.config import check_arguments
from bz.errors import describe_error
from bz.plugins import Plugin
from bz_plugin_logging.formats import FORMATS
from bz_plugin_logging.logfile import LogFile
from bz_plugin_logging.plain import finite, plain_hyperparameters, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bz.context import TrainingContext
    from bz_plugin_logging.formats import Event

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 200
"""A file name has at most 255 on most systems, and the hidden twin has a longer one than the log."""

FormatName = Literal["json", "jsonl", "csv"]


class LoggingConfig(BaseModel):
    """Settings of the logging plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    log_file: Path = Path("training_log.json")
    """The file, taken from the run folder, or from the working directory in a script; its ending follows the format."""

    format: FormatName | Annotated[tuple[FormatName, ...], Field(min_length=1)] | None = None
    """`json`, `jsonl` (an event a line), `csv` (an epoch a row), or a list of these; by default the ending decides."""

    @field_validator("log_file")
    @classmethod
    def _check_name(cls, path: Path) -> Path:
        if path.name in {"", ".."} or not str(path).isprintable():
            raise ValueError("must be the name of a file")
        if len(path.name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
            raise ValueError(f"must have a name of at most {MAX_NAME_BYTES} bytes")
        return path


class Best(NamedTuple):
    """The best epoch so far.

    Attributes:
        epoch: Its number.
        loss_name: Which loss decides: `validation_loss`, or `training_loss` while there was no validation.
        loss: That loss.
        step: Optimizer steps done at a validation inside the epoch; None for its end.
    """

    epoch: int
    loss_name: str
    loss: float
    step: int | None = None


class LoggingPlugin(Plugin):
    """Writes what began, every epoch and validation, and how it ended to a file that is whole at every moment.

    Args:
        log_file: The file, relative to the run folder, or to the working directory in a script.
        format: `json`, `jsonl`, `csv`, or several of them; None to go by the ending of `log_file`.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "logging"
    Config: ClassVar[type[BaseModel] | None] = LoggingConfig

    def __init__(
        self,
        log_file: str | Path = "training_log.json",
        format: FormatName | Sequence[FormatName] | None = None,  # noqa: A002 - as it is called in the settings
    ) -> None:
        config = check_arguments(LoggingConfig, "LoggingPlugin", log_file=log_file, format=format)
        self._names = _file_names(config)
        self._files: dict[str, LogFile] = {}
        self._forget()

    def _forget(self) -> None:
        """Begin a session about which nothing is known."""
        self._is_begun = False
        self._saved: Mapping[str, Any] = {}
        self._best: Best | None = None
        self._earlier_seconds = 0.0
        self._session_started = perf_counter()
        self._epoch_started: float | None = None
        self._is_training = False

    def start_training_session(self, context: TrainingContext) -> None:
        """Begin the log; when resuming, nothing is touched before the state is there."""
        self._forget()
        if context.resumed_from is None:
            # As with the class of the guide, a second run of one instance goes on with its list of events.
            self._begin(context, self._file_states())

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Cut the log back to the events that were there when the checkpoint was written."""
        self._begin(context, self._saved.get("files", {}))

    def start_epoch(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Start the clock of the epoch."""
        self._epoch_started = perf_counter() - self._saved.get("epoch_seconds", 0.0)
        self._saved = {}

    def start_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002
        """Note that a validation from now on is one inside the epoch."""
        self._is_training = True

    def end_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002
        """Note that a validation from now on is part of the end of the epoch."""
        self._is_training = False

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Write a validation inside the epoch, or before the first; that at the end of one is written with it."""
        if self._is_training and context.validation_batch_count:
            self._note_best(context, step=context.global_step)
        if (self._is_training or not context.epoch) and context.validation_batch_count:
            self._write(_event("validation_complete", epoch=context.epoch, **_validation(context), **_place(context)))

    def end_epoch(self, context: TrainingContext) -> None:
        """Write the epoch; reading the losses waits for the device once."""
        event = _epoch_event(context)
        event["duration_seconds"] = self._epoch_seconds()
        self._epoch_started = None
        self._note_best(context)
        self._write(event)

    def end_training_session(self, context: TrainingContext) -> None:
        """Write how it ended, and leave nothing but the log itself on disk."""
        if not self._is_begun:
            return
        try:
            self._write(self._closing_event(context))
        finally:
            with ExitStack() as stack:
                for file in self._files.values():
                    stack.callback(file.close)
        for file in self._files.values():
            logger.info("training log saved to %s", file.path)

    def state_dict(self) -> dict[str, Any]:
        """Return where the log is cut on a resume, the best epoch, and the time spent."""
        return {
            "files": self._file_states(),
            "best": None if self._best is None else list(self._best),
            "seconds": self._seconds(),
            "epoch_seconds": self._epoch_seconds(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `load_checkpoint` will need."""
        self._best = None if state["best"] is None else Best(*state["best"])
        self._earlier_seconds = float(state["seconds"])
        self._saved = state

    def _file_states(self) -> dict[str, Any]:
        return {name: file.state_dict() for name, file in self._files.items()}

    def _begin(self, context: TrainingContext, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Open the files, and write the first event to those that do not go on from a state."""
        self._files = {}
        self._files = {name: LogFile(context.output_path(path), FORMATS[name]()) for name, path in self._names.items()}
        self._is_begun = True
        opening = _opening_event(context)
        for name, file in self._files.items():
            goes_on = name in states and _goes_on(file, states[name])
            if not goes_on and file.path.is_file():
                logger.warning("the log of an earlier run is replaced: %s", file.path)
            if not goes_on or context.resumed_from is None:
                file.add(opening)
        self._write_files()

    def _write(self, event: Event) -> None:
        for file in self._files.values():
            file.add(event)
        self._write_files()

    def _write_files(self) -> None:
        """Write every file, also when one of them cannot be."""
        errors = [error for file in self._files.values() if (error := _try_to_write(file))]
        if errors:
            raise errors[0]

    def _note_best(self, context: TrainingContext, step: int | None = None) -> None:
        """Remember the epoch if its loss is the least, a validation loss as soon as there is one; NaN never is."""
        is_validated = context.validation_batch_count > 0
        loss_name = "validation_loss" if is_validated else "training_loss"
        loss = context.validation_loss if is_validated else context.training_loss
        if self._best is not None and self._best.loss_name != loss_name:
            least = math.inf if is_validated else -math.inf
        else:
            least = math.inf if self._best is None else self._best.loss
        if loss < least:
            self._best = Best(context.epoch, loss_name, loss, step)

    def _seconds(self) -> float:
        return self._earlier_seconds + perf_counter() - self._session_started

    def _epoch_seconds(self) -> float:
        return 0.0 if self._epoch_started is None else perf_counter() - self._epoch_started

    def _closing_event(self, context: TrainingContext) -> Event:
        event = _event("training_complete", total_epochs=context.epoch, status=context.status)
        if context.stop_reason is not None:
            event["reason"] = context.stop_reason
        if context.error is not None:
            event["error"] = without_secrets(context.error_text, context.hyperparameters)
        if self._best is not None:
            event["best_epoch"] = self._best.epoch
            if self._best.step is not None:
                event["best_global_step"] = self._best.step
            event[f"best_{self._best.loss_name}"] = finite(self._best.loss)
        return event | {"global_step": context.global_step, "duration_seconds": self._seconds()}


def _file_names(config: LoggingConfig) -> dict[str, Path]:
    """Return format to file: the known ending is exchanged; an unknown one stays where one file is written."""
    endings = {kind.suffix: name for name, kind in FORMATS.items()}
    path = config.log_file
    is_known = path.suffix.lower() in endings
    wanted = config.format or endings.get(path.suffix.lower(), "json")
    formats = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    if is_known:
        return {
            name: path if endings[path.suffix.lower()] == name else path.with_suffix(FORMATS[name].suffix)
            for name in formats
        }
    if len(formats) == 1:
        return {formats[0]: path}
    return {name: path.with_name(path.name + FORMATS[name].suffix) for name in formats}


def _goes_on(file: LogFile, state: Mapping[str, Any]) -> bool:
    """Let a file go on from a state; return False, with a warning, when it is not the file of that state."""
    try:
        file.go_on(state)
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be continued (%s); it begins anew", file.path, describe_error(error))
        return False
    return True


def _try_to_write(file: LogFile) -> OSError | None:
    try:
        file.write()
    except OSError as error:
        return error
    return None


def _event(kind: str, **values: Any) -> Event:
    return {"timestamp": datetime.now().isoformat(), "event": kind, **values}  # noqa: DTZ005 - local, as in the guide


def _opening_event(context: TrainingContext) -> Event:
    return _event("training_start", hyperparameters=plain_hyperparameters(context.hyperparameters))


def _epoch_event(context: TrainingContext) -> Event:
    event = _event(
        "epoch_complete",
        epoch=context.epoch,
        training_loss=finite(context.training_loss),
        training_metrics=_finite_values(context.training_metrics),
    )
    return event | _validation(context) | _place(context)


def _validation(context: TrainingContext) -> Event:
    """Return what the last validation of the epoch came to; empty if there was none."""
    if not context.validation_batch_count:
        return {}
    return {
        "validation_loss": finite(context.validation_loss),
        "validation_metrics": _finite_values(context.validation_metrics),
    }


def _place(context: TrainingContext) -> Event:
    """Return the learning rates that the model was trained with last, and the step."""
    rates = _finite_values(context.learning_rates)
    several = {"learning_rates": rates} if len(rates) > 1 else {}
    return {"learning_rate": next(iter(rates.values()), None), **several, "global_step": context.global_step}


def _finite_values(values: Mapping[str, float]) -> dict[str, float | None]:
    return {str(name): finite(value) for name, value in values.items()}
