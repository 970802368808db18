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
from bz.errors import ScriptError
from bz.intervals import Schedule
from bz.lock import FolderLock, hold
from bz.progress import Progress, Status
from bz.training.account import TimeAccount
from bz.training.backends import backends
from bz.training.checkpoint import FoundCheckpoint, find_checkpoint
from bz.training.clock import Block, PartClock
from bz.training.data import doubt_about
from bz.training.device import resolve_device
from bz.training.epochs import Epochs
from bz.training.interrupts import Interrupts
from bz.training.isolation import watched_states
from bz.training.limits import Limits
from bz.training.loop import Step, ValidationLoop
from bz.training.metrics import MetricSet, check_metrics
from bz.training.optimization import ManualOptimization, make_optimization
from bz.training.precision import Precision
from bz.training.preparation import gather_facts, prepare_model, prepare_spec
from bz.training.result import TrainingResult
from bz.training.saving import CheckpointWriter
from bz.training.schedulers import Schedulers
from bz.training.state import RunState, check_checkpoint
from bz.training.step import make_step, step_of_script
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

SIGNAL_SECONDS: Final = 0.2
"""How long a signal to a process group takes to reach all of its processes, and more."""


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
        self._account = TimeAccount(PartClock(), self._progress, plugins, startup_seconds)
        self._precision = Precision(settings.precision, device)
        self._optimization = make_optimization(spec, settings, self._progress, self._precision, facts.training_batches)
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
            collect_time=self._account.usage,
            optimization=self._optimization if isinstance(self._optimization, ManualOptimization) else None,
        )
        self._checkpoints = CheckpointWriter(
            self._state,
            self._progress,
            run_dir,
            settings,
            clock=self._account.clock,
            announce=lambda: self._fire("save_checkpoint"),
        )
        self._interrupts = Interrupts(self._stop_for_signal)
        prepare_model(spec, settings, device)
        self._hooks = plugins.bind(
            watched_states(spec.model, device), check_weights=lambda weights: check_weights(spec.model, weights)
        )
        self._epochs = self._make_epochs()

    def _make_epochs(self) -> Epochs:
        return Epochs(
            settings=self._settings,
            context=self._context,
            progress=self._progress,
            state=self._state,
            hooks=self._hooks,
            step=self._step("training_step", self._spec.training_step),
            optimization=self._optimization,
            schedulers=self._schedulers,
            validation=self._make_validation(),
            checkpoints=self._checkpoints,
            limits=Limits(self._settings),
            account=self._account,
            watch=self._unless_interrupted,
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
        steps = [*([step_of_script(own, hook)] if own else []), *self._plugins.step_functions(hook)]
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
        check_checkpoint(self._spec, found.state, found.path)
        self._progress.resumed_from = found.path
        return found

    def _train(self, found: FoundCheckpoint | None) -> None:
        self._warn_of_inexact_loader()
        self._fire("start_training_session")
        if found is not None:
            self._resume(found)
        elif self._settings.validate_first:
            self._epochs.validate_first()
        self._epochs.run()
        self._progress.status = self._closing_status()

    def _warn_of_inexact_loader(self) -> None:
        doubt = doubt_about(self._spec.training_loader)
        if doubt and self._checkpoints.is_on:
            logger.warning("if the run is stopped inside an epoch: the training_loader of type %s", doubt)

    def _closing_status(self) -> Status:
        if self._interrupts.received is not None:
            return "completed" if self._epochs.are_complete else "interrupted"
        return "completed" if self._progress.stop is None else "stopped"

    def _resume(self, found: FoundCheckpoint) -> None:
        """Put the saved state in place, and finish the epoch if it was taken inside one."""
        self._state.restore(found.state)
        self._progress.checkpoint_path = found.path
        self._fire("load_checkpoint")
        position = found.state["bz"]
        found.state.clear()  # else the weights of back then would stay in memory as long as the session
        self._epochs.finish(position)

    def _unless_interrupted(self, batches: Iterator[Any], block: Block = "data") -> Iterator[Any]:
        """Yield the batches, and time the wait for them; none follow when a signal has ended those who load them."""
        nanoseconds, waiting_since = self._account.clock.nanoseconds, perf_counter_ns()
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
        self._account.warn()

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


def _position(found: FoundCheckpoint | None) -> tuple[int, int]:
    """Return the epoch and the step that a session begins after."""
    return (0, 0) if found is None else (found.state["epoch"], found.state["bz"]["global_step"])
