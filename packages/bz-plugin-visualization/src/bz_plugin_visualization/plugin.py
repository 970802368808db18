"""The plugin: collects every epoch, and has it drawn when it is time."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bz.config import check_arguments
from bz.durable import remove_leftovers
from bz.intervals import Interval, Schedule
from bz.plugins import Plugin, hookimpl
from bz_plugin_visualization.files import delete_later_plots, delete_plots, plot_name, replace_file
from bz_plugin_visualization.history import TRAINING, VALIDATION, History, Measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bz.context import TrainingContext

MAX_RATES: Final = 6


class VisualizationConfig(BaseModel):
    """Settings of the visualization plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    plot_dir: Path = Path("plots")
    """Folder of the plots, in the run folder, or in the working directory in a script."""

    update_interval: Interval = Field(default="5 epochs", validate_default=True)
    """From one plot to the next: a number of epochs, or a time such as `"10 min"`; the last epoch always has one."""

    dpi: int = Field(default=150, ge=30, le=600)
    """Pixels per inch of a plot of 10 by 6 inches."""

    keep: int | None = Field(default=None, ge=1)
    """Plots of each kind that stay; older ones of this run are deleted. By default all stay."""

    loss_axis: Literal["auto", "linear", "log"] = "auto"
    """Axis of the losses: `linear`, `log`, or `auto`, which is `log` from two powers of ten on."""

    report_file: Path | Literal[False] = Path("report.html")
    """The page at the end, in the run folder or the working directory; `false` for none."""

    @field_validator("update_interval")
    @classmethod
    def _has_points(cls, interval: Interval) -> Interval:
        if interval.unit == "steps":
            raise ValueError("must be epochs or a time, since plots are drawn at the end of an epoch")
        return interval

    @field_validator("plot_dir", "report_file")
    @classmethod
    def _is_printable(cls, path: Path | Literal[False]) -> Path | Literal[False]:
        if path is not False and not str(path).isprintable():
            raise ValueError("must be a path without control characters")
        return path


class VisualizationPlugin(Plugin):
    """Plots losses, metrics and learning rate while a run goes on, and writes a report of it at the end.

    Args:
        plot_dir: Folder of the plots, relative to the run folder, or to the working directory in a script.
        update_interval: Epochs, or a time such as `"10 min"`, from one plot to the next.
        dpi: Pixels per inch.
        keep: Plots of each kind that stay, None for all.
        loss_axis: `auto`, `linear` or `log`.
        report_file: The page at the end; False for none.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "visualization"
    Config: ClassVar[type[BaseModel] | None] = VisualizationConfig

    def __init__(  # noqa: PLR0913 - as many as there are settings
        self,
        plot_dir: str | Path = "plots",
        update_interval: int | str | Interval = 5,
        *,
        dpi: int = 150,
        keep: int | None = None,
        loss_axis: Literal["auto", "linear", "log"] = "auto",
        report_file: str | Path | Literal[False] = "report.html",
    ) -> None:
        self._config = check_arguments(
            VisualizationConfig,
            "VisualizationPlugin",
            plot_dir=plot_dir,
            update_interval=update_interval,
            dpi=dpi,
            keep=keep,
            loss_axis=loss_axis,
            report_file=report_file,
        )
        self._forget()

    def _forget(self) -> None:
        """Begin a run about which nothing is known."""
        self._history = History()
        self._validations: list[Measured] = []
        self._schedule = Schedule(self._config.update_interval)
        self._plotted: list[int] = []
        self._earlier_seconds = 0.0
        self._earlier_sessions = 0
        self._session_started: float | None = None

    def start_training_session(self, context: TrainingContext) -> None:
        """Begin anew; say at once if a path leads out of the run folder."""
        self._forget()
        self._session_started = perf_counter()
        context.output_path(self._config.plot_dir)
        if self._config.report_file is not False:
            context.output_path(self._config.report_file)

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Delete what the run plotted after the checkpoint; only in a run folder, where all plots are its own."""
        folder = context.output_path(self._config.plot_dir)
        if context.run_dir is not None and folder.is_relative_to(context.run_dir.absolute()):
            remove_leftovers(folder)
            delete_later_plots(folder, self._history.last_epoch or context.epoch)

    def end_validation_loop(self, context: TrainingContext) -> None:
        """Keep what was measured until the end of the epoch, when its place in it is known; waits for the device."""
        if context.validation_batch_count:
            loss, metrics = context.validation_loss, context.validation_metrics
            self._validations.append(Measured(context.training_batch_count, loss, metrics))
        if not context.epoch:
            self._take_in_validations(0, 1)

    def end_epoch(self, context: TrainingContext) -> None:
        """Take in the epoch, which waits for the device once, and draw the plots when they are due."""
        self._take_in(context)
        if self._schedule.is_due(context):
            self._write_plots(context)

    @hookimpl(trylast=True)
    def end_training_session(self, context: TrainingContext) -> None:
        """Draw the last epoch, and write the report; late, so that it counts what the other plugins cost."""
        if self._history.last_epoch not in (0, *self._plotted[-1:]):
            self._write_plots(context)
        if self._config.report_file is not False:
            self._write_report(context, self._config.report_file)
        self._earlier_seconds, self._earlier_sessions = self._seconds, self._num_sessions
        self._session_started = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that the plots and the report of a resumed run show of the epochs before it."""
        return {
            "history": self._history.state_dict(),
            "validations": [list(one) for one in self._validations],
            "schedule": self._schedule.state_dict() if self._config.update_interval.seconds else None,
            "plotted": list(self._plotted),
            "seconds": self._seconds,
            "sessions": self._num_sessions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the epochs that were finished before."""
        self._history = History.from_state(state["history"])
        self._validations = [Measured(*one) for one in state.get("validations", ())]
        if state["schedule"] is not None:
            self._schedule.load_state_dict(state["schedule"])
        self._plotted = list(state["plotted"])
        self._earlier_seconds = float(state["seconds"])
        self._earlier_sessions = int(state["sessions"])

    @property
    def _seconds(self) -> float:
        """Time spent in all sessions of the run."""
        session = 0.0 if self._session_started is None else perf_counter() - self._session_started
        return self._earlier_seconds + session

    @property
    def _num_sessions(self) -> int:
        """Number of sessions of the run, the one that is going on included."""
        return self._earlier_sessions + (self._session_started is not None)

    def _take_in(self, context: TrainingContext) -> None:
        epoch, history = context.epoch, self._history
        history.add_loss(epoch, TRAINING, context.training_loss, context.training_metrics)
        self._take_in_validations(epoch - 1, context.training_batch_count)
        history.add_learning_rates(epoch, _learning_rates(context.learning_rates))

    def _take_in_validations(self, epochs_before: int, num_batches: int) -> None:
        """Put each validation of the epoch where it was: the end of an epoch is that of its batches."""
        validations, self._validations = self._validations, []
        for one in validations:
            place = epochs_before + one.batches_before / num_batches
            self._history.add_point(place, VALIDATION, one.loss, one.metrics)

    def _write_plots(self, context: TrainingContext) -> None:
        # matplotlib takes a second to load, and a run that ends before its first plot never needs it.
        from bz_plugin_visualization.plots import loss_figure, metrics_figure, to_png

        config, history = self._config, self._history
        folder, epoch = context.output_path(config.plot_dir), history.last_epoch
        figure = loss_figure(history, axis=config.loss_axis)
        replace_file(folder / plot_name("loss", epoch), to_png(figure, dpi=config.dpi))
        if history.metrics:
            figure = metrics_figure(history)
            replace_file(folder / plot_name("metrics", epoch), to_png(figure, dpi=config.dpi))
        self._plotted.append(epoch)
        if config.keep is not None:
            delete_plots(folder, self._plotted[: -config.keep])
            self._plotted = self._plotted[-config.keep :]

    def _write_report(self, context: TrainingContext, path: Path) -> None:
        from bz_plugin_visualization.report import Report

        report = Report(context, self._history, self._seconds, self._num_sessions, self._config.loss_axis)
        replace_file(context.output_path(path), report.page().encode())


def _learning_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the learning rates under names to be read; of very many the lowest and the highest."""
    if len(rates) > MAX_RATES:
        return {"lowest": min(rates.values()), "highest": max(rates.values())}
    return {"learning rate" if name == "lr" else name.replace("_", " "): rate for name, rate in rates.items()}
