"""One training session, from `start_training_session` to `end_training_session`."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from bz.context import TrainingContext
from bz.durable import remove_leftovers
from bz.errors import ScriptError, TrainingError
from bz.hookspecs import LIFECYCLE_HOOKS, WEIGHT_HOOKS
from bz.intervals import Schedule
from bz.lock import FolderLock, hold
from bz.progress import LossTotal, Progress, Status, TimeUsage
from bz.training.backends import backends
from bz.training.checkpoint import FoundCheckpoint, find_checkpoint
from bz.training.clock import Block, PartClock
from bz.training.data import doubt_about
from bz.training.device import resolve_device
from bz.training.finite import refuse_nonfinite
from bz.training.interrupts import Interrupts
from bz.training.isolation import watched_states
from bz.training.limits import Limits
from bz.training.loop import Step, TrainingLoop, ValidationLoop
from bz.training.metrics import MetricSet, check_metrics
from bz.training.optimization import ManualOptimization, make_optimization
from bz.training.precision import Precision
from bz.training.preparation import gather_facts, prepare_model, prepare_spec
from bz.training.result import TrainingResult
from bz.training.saving import CheckpointWriter
from bz.training.schedulers import Schedulers
from bz.training.state import NextPart, RunState
from bz.training.step import make_step
from bz.training.validation import Validation
from bz.training.weights import check_weights

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bz.config.models import TrainingSettings
    from bz.plugins.manager import PluginManager
    from bz.spec import StepFunction, TrainingSpec

logger = logging.getLogger(__name__)

VALIDATION_HOOKS: Final = (
    *(name for name in LIFECYCLE_HOOKS if "_validation_" in name),
    *WEIGHT_HOOKS,
)
LONG_RUN_SECONDS: Final = 60.0
SIGNAL_SECONDS: Final = 0.2
"""How long a signal to a process group takes to reach all of its processes, and more."""
LARGE_SHARE: Final = 0.1
LARGE_WAIT: Final = 0.3


class Session:
    """Runs a spec once.

    Args:
        spec: What is trained.
        settings: How.
        plugins: Whose hooks are called.
        run_dir: Folder of the run, or None.
        record: Resolved settings without secrets.
        redact: Takes the secrets out of a text.
        provenance: What the run is made with.
        startup_seconds: How long the program ran before.

    Attributes:
        result: Set at the end, however it ended; None if the session never started.

    Raises:
        ConfigError: If the device is not there or a metric is none.
        ScriptError: If a loader is empty or no loader.
    """

    def __init__(  # noqa: PLR0913 - a session has that many parts, each used once
        self,
        spec: TrainingSpec,
        settings: TrainingSettings,
        plugins: PluginManager,
        *,
        run_dir: Path | None,
        record: Mapping[str, Any],
        redact: Callable[[str], str],
        provenance: Mapping[str, Any],
        startup_seconds: float = 0.0,
    ) -> None:
        self.result: TrainingResult | None = None
        self._lock: FolderLock | None = None
        self._clock = PartClock()
        self._startup_before = startup_seconds
        self._startup_seconds: float | None = None
        self._cut: Mapping[str, Any] | None = None
        self._go_on_from: Mapping[str, Any] | None = None
        self._settings = settings
        self._plugins = plugins
        device = resolve_device(settings.device)
        facts = replace(
            gather_facts(spec, settings, device),
            run_dir=run_dir,
            settings=record,
            redact=redact,
            provenance=provenance,
        )
        self._spec = spec = prepare_spec(spec, settings)
        check_metrics(spec.metrics or {})
        self._metrics = {phase: MetricSet(spec.metrics or {}, device) for phase in ("training", "validation")}
        self._progress = Progress(self._metrics["training"], self._metrics["validation"])
        self._precision = Precision(settings.precision, device)
        self._optimization = make_optimization(spec, settings, self._progress, self._precision, facts.training_batches)
        self._limits = Limits(settings)
        self._schedulers = Schedulers(spec, settings)
        self._state = RunState(
            spec,
            facts,
            self._progress,
            plugins,
            self._precision,
            self._optimization,
            self._schedulers,
            self._metrics,
        )
        self._context = TrainingContext(
            spec,
            facts,
            self._progress,
            collect_state=self._state.collect,
            collect_usage=plugins.usage,
            collect_time=self._time_usage,
            optimization=self._optimization if isinstance(self._optimization, ManualOptimization) else None,
        )
        self._checkpoints = CheckpointWriter(
            self._state,
            self._progress,
            run_dir,
            settings,
            clock=self._clock,
            announce=lambda: self._fire("save_checkpoint"),
        )
        self._interrupts = Interrupts(self._stop_for_signal)
        prepare_model(spec, settings, device)
        self._hooks = plugins.bind(
            watched_states(spec.model, device), check_weights=lambda weights: check_weights(spec.model, weights)
        )
        self._validation = self._make_validation()
        self._training_loop = self._make_training_loop()

    def _make_training_loop(self) -> TrainingLoop:
        return TrainingLoop(
            context=self._context,
            progress=self._progress,
            hooks=self._hooks,
            step=self._step("training_step", self._spec.training_step),
            metrics=self._metrics["training"],
            optimization=self._optimization,
            on_nonfinite=self._settings.on_nonfinite,
            between=self._between_batches,
            clock=self._clock,
            is_always_due=self._checkpoints.watches_batches
            or self._validation.is_inside_epoch
            or self._schedulers.watches_steps
            or bool(self._limits),
        )

    def _make_validation(self) -> Validation:
        interval = self._settings.validation_interval
        schedule = Schedule(interval) if interval and self._spec.validation_loader is not None else None
        if schedule is not None:
            self._state.schedules["validation"] = schedule
        return Validation(
            spec=self._spec,
            loop=ValidationLoop(
                context=self._context,
                progress=self._progress,
                hooks=self._hooks,
                step=self._step("validation_step", self._spec.validation_step),
                metrics=self._metrics["validation"],
            ),
            data=self._state.validation_data,
            schedule=schedule,
            limit=self._settings.limit_validation_batches,
            context=self._context,
            progress=self._progress,
            plugins=self._plugins,
            fire=self._fire,
            watch=lambda batches: self._unless_interrupted(batches, "validation_data"),
        )

    def _step(self, hook: str, own: StepFunction | None) -> Step:
        """Return how a batch becomes a loss: by the script, a plugin, or the default.

        Raises:
            ScriptError: If bz would have to step the optimizers and cannot.
        """
        steps = [*([own] if own else []), *self._plugins.step_functions(hook)]
        if hook == "training_step" and self._spec.steps_itself and not steps:
            raise ScriptError(
                "The script steps its optimizers itself, but has no training_step(context, batch) that does so."
            )
        return make_step(self._spec, steps, self._precision)

    def run(self, resume: Path | FoundCheckpoint | None = None) -> TrainingResult:
        """Train until the last epoch is done or a stop takes effect.

        Args:
            resume: A checkpoint or a run folder to go on from.

        Raises:
            ConfigError: If another process works in the run folder.
            CheckpointError: If there is nothing to resume from, or it is of another model.
            Exception: Whatever the user's code raised, after `end_training_session`.
        """
        with self._locked_folder() as self._lock, self._interrupts, backends(self._settings):
            if self._context.run_dir is not None:
                remove_leftovers(self._context.run_dir)
            found = self._find(resume) if resume is not None else None
            self._checkpoints.set_aside_newer(*_position(found))
            try:
                self._train(found)
            except BaseException as error:
                self._progress.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                self._progress.error = error
                raise
            finally:
                self._progress.batch = self._progress.outputs = None
                self._optimization.close()
                self._state.data.close()
                self._state.validation_data.close()
                try:
                    self._close()
                finally:
                    self.result = self._sum_up()
        return self.result

    def _locked_folder(self) -> AbstractContextManager[FolderLock | None]:
        folder = self._context.run_dir
        return nullcontext() if folder is None else hold(folder)

    def _find(self, resume: Path | FoundCheckpoint) -> FoundCheckpoint:
        found = resume if isinstance(resume, FoundCheckpoint) else find_checkpoint(resume)
        self._state.check(found.state, found.path)
        self._progress.resumed_from = found.path
        return found

    def _train(self, found: FoundCheckpoint | None) -> None:
        self._warn_of_inexact_loader()
        self._fire("start_training_session")
        if found is not None:
            self._resume(found)
        elif self._settings.validate_first and self._validate():
            self._state.history.append(self._row())
        while not self._is_done():
            self._progress.epoch += 1
            self._run_epoch()
        self._progress.status = self._closing_status()

    def _is_done(self) -> bool:
        return self._is_complete() or self._progress.stop is not None

    def _is_complete(self) -> bool:
        """Whether the last epoch is done, or a limit of the settings is reached."""
        last = self._settings.epoch_limit
        return (last is not None and self._progress.epochs_done >= last) or self._progress.limit is not None

    def _has_reached_limit(self) -> bool:
        self._progress.limit = self._progress.limit or self._limits.reached(self._progress)
        return self._progress.limit is not None

    def _warn_of_inexact_loader(self) -> None:
        doubt = doubt_about(self._spec.training_loader)
        if doubt and self._checkpoints.is_on:
            logger.warning("if the run is stopped inside an epoch: the training_loader of type %s", doubt)

    def _closing_status(self) -> Status:
        if self._interrupts.received is not None:
            return "completed" if self._is_complete() else "interrupted"
        return "completed" if self._progress.stop is None else "stopped"

    def _resume(self, found: FoundCheckpoint) -> None:
        """Put the saved state in place, and finish the epoch if it was taken inside one."""
        self._state.restore(found.state)
        self._progress.checkpoint_path = found.path
        self._fire("load_checkpoint")
        position = found.state["bz"]
        found.state.clear()  # else the weights of back then would stay in memory as long as the session
        is_reached = self._has_reached_limit()
        if position["batches_done"] is not None and not (is_reached and position["next_part"] == "cut"):
            self._finish_epoch(position)

    def _run_epoch(self) -> None:
        """Run one epoch from its beginning."""
        progress = self._progress
        progress.training_loss, progress.validation_loss = LossTotal(), LossTotal()
        progress.batch_index = progress.batches_done = 0
        for metrics in self._metrics.values():
            metrics.reset()
        self._fire("start_epoch")
        batches = self._state.data.begin(progress.epoch, self._settings.limit_train_batches)
        is_complete = self._train_batches(batches, 0) and self._end_epoch()
        if not is_complete:
            self._checkpoints.save_inside_epoch(self._go_on_from)

    def _finish_epoch(self, position: Mapping[str, Any]) -> None:
        """Run what a resumed run has left of its epoch."""
        self._fire("start_epoch")
        if position["next_part"] == "closing_validation":
            is_complete = self._end_epoch(is_validation_due=True)
        else:
            done, limit = position["batches_done"], self._settings.limit_train_batches
            batches = self._state.data.go_on(position["data"], self._progress.epoch, done, limit)
            is_validation_due = position["next_part"] == "validation"
            is_complete = self._train_batches(batches, done, is_validation_due=is_validation_due) and self._end_epoch()
        if not is_complete:
            self._checkpoints.save_inside_epoch(self._go_on_from)

    def _train_batches(self, batches: Iterator[Any], first_index: int, *, is_validation_due: bool = False) -> bool:
        """Train on the batches; return False when a stop took effect after one of them."""
        self._spec.model.train()
        self._fire("start_training_loop")
        if self._startup_seconds is None:
            self._startup_seconds = self._seconds_up_to_now()
        is_over = first_index > 0 and (self._has_reached_limit() or self._training_loop.must_stop())
        if is_validation_due:
            is_over = not self._between_batches(is_validation_due=True)
        if not self._training_loop.run(() if is_over else self._unless_interrupted(batches), first_index):
            return False
        if self._progress.batches_done == 0:
            raise TrainingError(
                f"The training_loader gave no batches in epoch {self._progress.epoch}; "
                "it must be iterable again in every epoch, as a DataLoader or a list is."
            )
        if self._settings.on_nonfinite == "stop":
            refuse_nonfinite(self._progress)
        # Before the hooks that end the epoch: a run that is given more steps later has not ended it.
        self._cut = self._moment_of_cut()
        self._fire("end_training_loop")
        return True

    def _moment_of_cut(self) -> Mapping[str, Any] | None:
        """Return where a run has to go on from whose epoch a limit has ended early, or None."""
        progress = self._progress
        if progress.limit is None or progress.batches_done == self._context.training_batches:
            return None
        return self._state.moment(batches_done=progress.batches_done, next_part="cut")

    def _between_batches(self, *, is_validation_due: bool = False) -> bool:
        """Do what is due after a batch; return whether more batches follow."""
        if not self._optimization.is_window_open:
            if (is_validation_due or self._validation.is_due_after_step()) and not self._validate_inside_epoch():
                return False
            self._schedulers.after_step(self._progress, self._row)
        self._checkpoints.after_batch()
        is_limit_reached = not self._optimization.is_window_open and self._has_reached_limit()
        return not is_limit_reached and not self._training_loop.must_stop()

    def _unless_interrupted(self, batches: Iterator[Any], block: Block = "data") -> Iterator[Any]:
        """Yield the batches, and time the wait for them; none follow when a signal has ended those who load them."""
        nanoseconds, waiting_since = self._clock.nanoseconds, perf_counter_ns()
        try:
            for batch in batches:
                nanoseconds[block] += perf_counter_ns() - waiting_since
                yield batch
                if self._lock is not None:
                    self._lock.note(self._progress.epoch, self._progress.global_step)
                waiting_since = perf_counter_ns()
        except RuntimeError:
            time.sleep(SIGNAL_SECONDS)  # the workers may have died of it before it came here
            if self._interrupts.received is None:
                raise

    def _end_epoch(self, *, is_validation_due: bool = False) -> bool:
        """Validate, and do what belongs between two epochs; return False when a stop took effect in between."""
        progress = self._progress
        cut = self._cut or self._moment_of_cut()
        if (is_validation_due or self._validation.is_due_after_epoch()) and not self._validate("closing_validation"):
            return False
        self._state.history.append(self._row())
        progress.epochs_done += 1
        self._fire("end_epoch")
        if cut is None:
            self._schedulers.after_epoch(progress, self._row)
        is_last = self._has_reached_limit() or self._is_done()
        self._checkpoints.after_epoch(is_last=is_last, moment=cut)
        return True

    def _validate_inside_epoch(self) -> bool:
        is_complete = self._validate("validation")
        if is_complete:
            self._state.history.append(self._row())
        return is_complete

    def _validate(self, next_part: NextPart | None = None) -> bool:
        """Validate; return False when a stop took effect after a batch: the run has to go on from before it."""
        before = self._checkpoints.moment(next_part) if next_part is not None else None
        with self._clock.measuring("validation"):
            is_complete = self._validation.run()
        if not is_complete:
            self._go_on_from = before
        return is_complete

    def _row(self) -> dict[str, float]:
        """Return what was measured so far in this epoch, as a row of the history."""
        progress = self._progress
        row: dict[str, float] = {"epoch": progress.epoch, "global_step": progress.global_step}
        if progress.training_loss.batch_count:
            row["training_loss"] = progress.training_loss.mean
            row |= {f"training_{name}": value for name, value in progress.training_metrics.values().items()}
        if progress.validation_loss.batch_count:
            row["validation_loss"] = progress.validation_loss.mean
            row |= {f"validation_{name}": value for name, value in progress.validation_metrics.values().items()}
        return row

    def _stop_for_signal(self, number: signal.Signals) -> None:
        self._context.request_stop(f"{number.name} received", when="batch")
        logger.warning("%s received: stopping after this batch; a second one ends at once", number.name)

    def _fire(self, hook: str) -> None:
        self._hooks[hook](self._context)

    def _close(self) -> None:
        """Wait for the last checkpoint and fire the last hook."""
        try:
            self._checkpoints.close()
        finally:
            self._fire("end_training_session")
        self._warn_of_slow_plugins()
        self._warn_of_waiting()

    def _sum_up(self) -> TrainingResult:
        progress, context = self._progress, self._context
        failed = (f"Plugin {name!r} is required and failed." for name in self._plugins.failed_required())
        return TrainingResult(
            status=progress.status,
            stop_reason=context.stop_reason,
            signal=self._interrupts.received if progress.status == "interrupted" else None,
            epochs=progress.epochs_done,
            global_step=progress.global_step,
            training_loss=progress.training_loss.mean,
            validation_loss=progress.validation_loss.mean,
            training_metrics=progress.training_metrics.values(),
            validation_metrics=progress.validation_metrics.values(),
            history=self._state.history,
            seconds=context.elapsed_seconds,
            plugin_usage=context.plugin_usage(),
            time_usage=context.time_usage(),
            run_dir=context.run_dir,
            missing_files=(*self._checkpoints.missing_files(), *failed),
        )

    def _seconds_up_to_now(self) -> float:
        """Return the time before the first batch without plugins and validation, which are counted apart."""
        own = self._progress.seconds - self._plugins.seconds() - self._validation_seconds()
        return self._startup_before + max(0.0, own)

    def _validation_seconds(self) -> float:
        measured = self._clock.seconds()["validation"]
        return max(0.0, measured - self._plugins.seconds(*VALIDATION_HOOKS))

    def _time_usage(self) -> TimeUsage:
        """Return where the time went so far."""
        seconds = self._clock.seconds()
        usage = TimeUsage(
            startup=self._seconds_up_to_now() if self._startup_seconds is None else self._startup_seconds,
            data=seconds["data"],
            transfer=seconds["transfer"],
            forward=seconds["forward"],
            backward=seconds["backward"],
            optimizer=seconds["optimizer"],
            metrics=seconds["metrics"],
            validation=self._validation_seconds(),
            checkpoints=seconds["checkpoints"],
            plugins=self._plugins.seconds(),
        )
        return usage._replace(framework=max(0.0, self._startup_before + self._progress.seconds - usage.total))

    def _warn_of_waiting(self) -> None:
        seconds, total = self._clock.seconds(), self._time_usage().total
        waited = seconds["data"] + seconds["validation_data"]
        if total >= LONG_RUN_SECONDS and waited > LARGE_WAIT * total:
            logger.warning(
                "the training waited for data during %.0f %% of the run; try a larger num_workers of the DataLoader, "
                "persistent_workers=True, or pin_memory=True",
                100 * waited / total,
            )

    def _warn_of_slow_plugins(self) -> None:
        if self._context.elapsed_seconds < LONG_RUN_SECONDS:
            return
        for usage in self._context.plugin_usage():
            if usage.share > LARGE_SHARE:
                logger.warning("plugin %r took %.0f %% of the run", usage.name, 100 * usage.share)


def _position(found: FoundCheckpoint | None) -> tuple[int, int]:
    """Return the epoch and the step that a session begins after."""
    return (0, 0) if found is None else (found.state["epoch"], found.state["bz"]["global_step"])
