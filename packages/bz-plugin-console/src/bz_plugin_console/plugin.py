"""The plugin: watches the hooks and says what a person wants to see."""

from __future__ import annotations

import atexit
import math
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from bz.plugins import Plugin, hookimpl
from bz_plugin_console.course import Course
from bz_plugin_console.display import Display, Frame, choose_display
from bz_plugin_console.sentences import best_sentence, closing_sentence, opening_sentence, time_sentence
from bz_plugin_console.summary import Best, EpochSummary, all_names, out_of, shown_values
from bz_plugin_console.timing import Loop, Pace
from bz_plugin_console.wording import duration, rate

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.spec import TrainingSpec

STATUS_STYLES = {"completed": "bold green", "stopped": "bold yellow", "interrupted": "bold yellow"}


class ConsoleOutConfig(BaseModel):
    """Settings of the console plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    progress_bar: bool = True
    """Whether bars are drawn on a terminal; without them the output is the plain lines of a pipe."""

    refresh_seconds: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    """Least time between two drawings of the bars, in seconds; a drawing waits for the device once."""

    show_metrics: bool = True
    """Whether metrics are shown besides the loss."""

    summary_interval: int = Field(default=1, ge=1)
    """Epochs from one summary line to the next; the last epoch always has one."""


class ConsoleOutPlugin(Plugin):
    """Shows epochs, batches, loss, metrics, samples per second and time left, and a report at the end.

    Args:
        progress_bar: Whether bars are drawn on a terminal.
        refresh_seconds: Least time between two drawings of the bars.
        show_metrics: Whether metrics are shown besides the loss.
        summary_interval: Epochs from one summary line to the next.
    """

    name: ClassVar[str] = "console_out"
    Config: ClassVar[type[BaseModel] | None] = ConsoleOutConfig

    def __init__(
        self,
        *,
        progress_bar: bool = True,
        refresh_seconds: float = 0.2,
        show_metrics: bool = True,
        summary_interval: int = 1,
    ) -> None:
        self._wants_bars = progress_bar
        self._refresh_seconds = refresh_seconds
        self._show_metrics = show_metrics
        self._summary_interval = summary_interval
        self._forget()

    @classmethod
    def init(cls, training_spec: TrainingSpec) -> Self:  # noqa: ARG003 - the context tells all that the spec does
        """Return the plugin with its defaults, for the run of the given spec."""
        return cls()

    def _forget(self) -> None:
        """Begin a run about which nothing is known."""
        self._display: Display | None = None
        self._best: Best | None = None
        self._earlier_seconds = 0.0
        self._session_started: float | None = None
        self._loop = Loop("training", 0, None, 0.0)
        self._paused: tuple[Loop, dict[str, float]] | None = None
        self._is_training = False
        self._validates_inside = False
        self._validated_step: int | None = None
        self._names: tuple[str, ...] = ()
        self._seen_batches = (0, 0)
        self._rate: float | None = None
        self._unshown: EpochSummary | None = None
        self._course = Course()
        self._pace = Pace(self._refresh_seconds)
        self._metrics_pace = Pace(self._refresh_seconds)
        self._metrics: dict[str, float] = {}

    def start_training_session(self, context: TrainingContext) -> None:
        """Say what is going to be trained, and take over the terminal."""
        self._forget()
        self._session_started = perf_counter()
        display = choose_display(wants_bars=self._wants_bars)
        display.show_line(opening_sentence(context))
        atexit.register(display.close)
        display.open()
        if not display.has_bars:
            self._pace.due = math.inf
        self._display = display

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Say where the run goes on."""
        if self._display:
            step = f"epoch {context.epoch}, step {context.global_step:,}"
            self._display.show_line(f"resumed from {context.checkpoint_path} ({step})")

    def start_epoch(self, context: TrainingContext) -> None:
        """Start the clock of the epoch; the bars are there before a loader forks its workers, which may print."""
        self._course.start_epoch(perf_counter(), self._epoch_fraction(context), context.global_step)
        self._show_training(context)

    def start_training_loop(self, context: TrainingContext) -> None:
        """Show the bar of the training batches."""
        self._is_training = True
        self._show_training(context)

    def end_training_batch(self, context: TrainingContext) -> None:
        """Redraw when it is time; else nothing is read, so that the device is not waited for."""
        if perf_counter() >= self._pace.due:
            self._draw(context)

    def end_training_loop(self, context: TrainingContext) -> None:
        """Take the throughput, once the device has done its work."""
        self._is_training = False
        _ = context.training_loss
        self._rate = self._loop.rate(context.training_batch_count, perf_counter())

    def start_validation_loop(self, context: TrainingContext) -> None:
        """Show the bar of the validation batches; one inside the epoch makes the training pause."""
        if self._is_training:
            self._paused = self._loop, self._metrics
            self._validates_inside = True
        total = context.validation_batches or self._seen_batches[1] or None
        self._start_loop(context, "validation", context.validation_batch_count, total)

    def end_validation_batch(self, context: TrainingContext) -> None:
        """Redraw when it is time."""
        if perf_counter() >= self._pace.due:
            self._draw(context)

    def end_validation_loop(self, context: TrainingContext) -> None:
        """After a validation inside the epoch, or before the first, add its line; go on with the bar from before."""
        self._seen_batches = (self._seen_batches[0], context.validation_batch_count)
        if context.validation_batch_count:
            self._validated_step = context.global_step
        validation, paused, self._paused = self._loop, self._paused, None
        if paused is not None:
            self._loop, self._metrics = paused[0].after_pause(perf_counter() - validation.started), paused[1]
            self._rate = self._loop.rate(context.training_batch_count, perf_counter())
        is_shown = not _is_last_batch(context) if paused is not None else not context.epoch
        if is_shown and self._is_due(context) and context.validation_batch_count:
            since = self._course.epoch_seconds(perf_counter()) if context.epoch else perf_counter() - validation.started
            self._show(self._summarise(context, since, is_inside=True))

    def end_epoch(self, context: TrainingContext) -> None:
        """Add the line of the epoch."""
        summary = self._summarise(context, self._course.end_epoch(perf_counter()), is_inside=False)
        self._seen_batches = (context.training_batch_count, self._seen_batches[1])
        self._unshown = None if self._is_due(context) else summary
        self._show(summary, is_due=self._unshown is None)

    def _show(self, summary: EpochSummary, *, is_due: bool = True) -> None:
        """Add a line if it is due, marked if it is the best so far."""
        is_best = summary.best().beats(self._best)
        if is_best:
            self._best = summary.best()
        if self._display and is_due:
            self._display.show_epoch(summary, is_best=is_best)

    @hookimpl(trylast=True)
    def end_training_session(self, context: TrainingContext) -> None:
        """Give the terminal back and say how it went; last, so that the report counts all plugins."""
        if self._display is None:
            return
        display, self._display = self._display, None
        atexit.unregister(display.close)
        display.close()
        if self._unshown:
            display.show_epoch(self._unshown, is_best=self._unshown.best() == self._best)
        self._show_closing(display, context)

    def state_dict(self) -> dict[str, Any]:
        """Return what the closing report of a resumed run needs: the best epoch and the time spent."""
        return {
            "best": None if self._best is None else list(self._best),
            "seconds": self._run_seconds,
            "validated_step": self._validated_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the best epoch and the time of the run before the resume."""
        self._best = None if state["best"] is None else Best(*state["best"])
        self._earlier_seconds = float(state["seconds"])
        self._validated_step = state.get("validated_step")

    @property
    def _run_seconds(self) -> float:
        """Time spent in this run, over all of its sessions."""
        session = 0.0 if self._session_started is None else perf_counter() - self._session_started
        return self._earlier_seconds + session

    def _show_training(self, context: TrainingContext) -> None:
        total = context.training_batches or self._seen_batches[0] or None
        self._start_loop(context, "training", context.training_batch_count, total)

    def _start_loop(self, context: TrainingContext, phase: str, done: int, total: int | None) -> None:
        self._loop = Loop(phase, done, total, perf_counter())
        self._metrics = {}
        if perf_counter() >= self._pace.due:
            self._draw(context)

    def _draw(self, context: TrainingContext) -> None:
        """Draw the bars. Waiting for the device is its own work, so only the rest counts as the cost."""
        is_training = self._loop.phase == "training"
        done = context.training_batch_count if is_training else context.validation_batch_count
        values = {}
        if done:
            values["loss"] = context.training_loss if is_training else context.validation_loss
            values.update(self._read_metrics(context))
        started = perf_counter()
        if self._display:
            self._display.draw(self._frame(context, done, values))
        self._pace.spend(started, perf_counter())

    def _read_metrics(self, context: TrainingContext) -> dict[str, float]:
        """Return the metrics so far, computed anew only as often as they are cheap; none while they fail."""
        started = perf_counter()
        if self._show_metrics and started >= self._metrics_pace.due:
            is_training = self._loop.phase == "training"
            try:
                self._metrics = context.training_metrics if is_training else context.validation_metrics
            except Exception:  # noqa: BLE001 - a metric of the user's may need more batches than there are yet
                self._metrics = {}
            self._metrics_pace.spend(started, perf_counter())
        return self._metrics

    def _frame(self, context: TrainingContext, done: int, values: dict[str, float]) -> Frame:
        now, seconds = perf_counter(), self._run_seconds
        fraction = self._epoch_fraction(context)
        left = self._course.seconds_left(context, fraction, seconds, now)
        batches = self._loop.rate(done, now)
        epoch = out_of(context.epoch, context.epochs)
        counts_steps = context.max_steps is not None
        return Frame(
            unit="step" if counts_steps else "epoch",
            position=out_of(context.global_step, context.max_steps) if counts_steps else epoch,
            place=f"epoch {epoch}" if counts_steps else "",
            run_fraction=self._course.fraction(context, fraction, seconds),
            phase=self._loop.phase,
            done=done,
            total=self._loop.total,
            speed="" if batches is None else f"{rate(batches * (context.batch_size or 1))} {_rate_unit(context)}",
            time_left="" if left is None else f"{duration(left)} left",
            values=values,
        )

    def _epoch_fraction(self, context: TrainingContext) -> float:
        """Return the part of the epoch's batches that is done, 0 to 1; 0 while their number is unknown.

        Validations inside the epoch do not count: how many there will be is unknown.
        """
        training = context.training_batches or self._seen_batches[0]
        if not training or not context.epoch:
            return 0.0
        planned, done = training, context.training_batch_count
        if not self._validates_inside:
            planned += context.validation_batches or self._seen_batches[1]
            done += context.validation_batch_count
        return min(done / planned, 1.0)

    def _summarise(self, context: TrainingContext, seconds: float, *, is_inside: bool) -> EpochSummary:
        training, validation = {}, {}
        if context.training_batch_count:
            training = {"loss": context.training_loss, **(context.training_metrics if self._show_metrics else {})}
        if context.validation_batch_count and self._validated_step == context.global_step:
            validation = {"loss": context.validation_loss, **(context.validation_metrics if self._show_metrics else {})}
        self._names = all_names(self._names, shown_values(training, validation))
        shows_step = context.max_steps is not None or self._validates_inside
        return EpochSummary(
            epoch=context.epoch,
            epochs=context.epochs,
            step=context.global_step if shows_step else None,
            is_inside=is_inside,
            training=training,
            validation=validation,
            names=self._names,
            rate=None if self._rate is None else self._rate * (context.batch_size or 1),
            rate_unit=_rate_unit(context),
            seconds=seconds,
        )

    def _is_due(self, context: TrainingContext) -> bool:
        """Whether this epoch gets its line now rather than at the end of the session."""
        return context.epoch % self._summary_interval == 0 or context.epoch == context.epochs

    def _show_closing(self, display: Display, context: TrainingContext) -> None:
        sentence = closing_sentence(context, self._earlier_seconds)
        display.show_line("")
        style = STATUS_STYLES.get(context.status, "bold red")
        display.show_line(sentence.removeprefix(context.status), lead=context.status, style=style)
        if self._best:
            display.show_line(best_sentence(self._best))
        display.show_line(time_sentence(context.time_usage()))
        if usage := context.plugin_usage():
            display.show_line("")
            display.show_usage(usage)


def _is_last_batch(context: TrainingContext) -> bool:
    """Return whether nothing more is trained in this epoch, so that its own line is about to come."""
    is_last_step = context.max_steps is not None and context.global_step >= context.max_steps
    return is_last_step or context.training_batch_count == context.training_batches


def _rate_unit(context: TrainingContext) -> str:
    return "batches/s" if context.batch_size is None else "samples/s"
