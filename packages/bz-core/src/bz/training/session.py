"""One training session, from `start_training_session` to `end_training_session`."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from bz.context import TrainingContext
from bz.durable import remove_leftovers
from bz.errors import TrainingError
from bz.lock import FolderLock, hold
from bz.progress import LossTotal, Progress, Status
from bz.training.checkpoint import FoundCheckpoint, find_checkpoint
from bz.training.data import doubt_about
from bz.training.device import resolve_device
from bz.training.finite import refuse_nonfinite
from bz.training.interrupts import Interrupts
from bz.training.isolation import watched_states
from bz.training.loop import TrainingLoop, ValidationLoop
from bz.training.metrics import MetricSet, check_metrics
from bz.training.precision import Precision
from bz.training.preparation import gather_facts, prepare_model
from bz.training.result import TrainingResult
from bz.training.saving import CheckpointWriter
from bz.training.state import RunState
from bz.training.step import make_step

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bz.config.models import TrainingSettings
    from bz.plugins.manager import PluginManager
    from bz.spec import TrainingSpec

logger = logging.getLogger(__name__)

LONG_RUN_SECONDS: Final = 60.0
SIGNAL_SECONDS: Final = 0.2
"""How long a signal to a process group takes to reach all of its processes, and more."""
LARGE_SHARE: Final = 0.1


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
    ) -> None:
        self.result: TrainingResult | None = None
        self._lock: FolderLock | None = None
        self._spec = spec
        self._epochs = settings.epochs
        self._plugins = plugins
        device = resolve_device(settings.device)
        facts = replace(
            gather_facts(spec, settings, device),
            run_dir=run_dir,
            settings=record,
            redact=redact,
            provenance=provenance,
        )
        check_metrics(spec.metrics or {})
        self._metrics = {phase: MetricSet(spec.metrics or {}, device) for phase in ("training", "validation")}
        self._progress = Progress(self._metrics["training"], self._metrics["validation"])
        self._precision = Precision(settings.precision, device)
        self._state = RunState(spec, facts, self._progress, plugins, self._precision, self._metrics)
        self._context = TrainingContext(
            spec, facts, self._progress, collect_state=self._state.collect, collect_usage=plugins.usage
        )
        self._on_nonfinite = settings.on_nonfinite
        self._checkpoints = CheckpointWriter(
            self._state,
            self._progress,
            run_dir,
            settings,
            announce=lambda: self._fire("save_checkpoint"),
        )
        self._interrupts = Interrupts(self._stop_for_signal)
        prepare_model(spec, settings, device)
        self._hooks = plugins.bind(watched_states(spec.model, device))
        self._training_loop = self._make_training_loop()
        self._validation_loop = self._make_validation_loop()

    def _make_training_loop(self) -> TrainingLoop:
        own = [self._spec.training_step] if self._spec.training_step else []
        return TrainingLoop(
            context=self._context,
            progress=self._progress,
            hooks=self._hooks,
            step=make_step([*own, *self._plugins.step_functions("training_step")], self._precision),
            metrics=self._metrics["training"],
            precision=self._precision,
            checkpoints=self._checkpoints,
            on_nonfinite=self._on_nonfinite,
        )

    def _make_validation_loop(self) -> ValidationLoop:
        own = [self._spec.validation_step] if self._spec.validation_step else []
        return ValidationLoop(
            context=self._context,
            progress=self._progress,
            hooks=self._hooks,
            step=make_step([*own, *self._plugins.step_functions("validation_step")], self._precision),
            metrics=self._metrics["validation"],
        )

    def run(self, resume: Path | FoundCheckpoint | None = None) -> TrainingResult:
        """Train until the last epoch is done or a stop takes effect.

        Args:
            resume: A checkpoint or a run folder to go on from.

        Raises:
            ConfigError: If another process works in the run folder.
            CheckpointError: If there is nothing to resume from, or it is of another model.
            Exception: Whatever the user's code raised, after `end_training_session`.
        """
        with self._locked_folder() as self._lock, self._interrupts:
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
        progress = self._progress
        self._warn_of_inexact_loader()
        self._fire("start_training_session")
        if found is not None:
            self._resume(found)
        while progress.epoch < self._epochs and progress.stop is None:
            progress.epoch += 1
            self._run_epoch()
        progress.status = self._closing_status()

    def _warn_of_inexact_loader(self) -> None:
        doubt = doubt_about(self._spec.training_loader)
        if doubt and self._checkpoints.is_on:
            logger.warning("if the run is stopped inside an epoch: the training_loader of type %s", doubt)

    def _closing_status(self) -> Status:
        if self._interrupts.received is not None:
            is_done = len(self._state.history) >= self._epochs
            return "completed" if is_done else "interrupted"
        return "completed" if self._progress.stop is None else "stopped"

    def _resume(self, found: FoundCheckpoint) -> None:
        """Put the saved state in place, and finish the epoch if it was taken inside one."""
        self._state.restore(found.state)
        self._progress.checkpoint_path = found.path
        self._fire("load_checkpoint")
        position = found.state["bz"]
        found.state.clear()  # else the weights of back then would stay in memory as long as the session
        if position["batches_done"] is not None:
            self._finish_epoch(position)

    def _run_epoch(self) -> None:
        """Run one epoch from its beginning."""
        self._progress.training_loss, self._progress.validation_loss = LossTotal(), LossTotal()
        self._progress.batch_index = self._progress.batches_done = 0
        for metrics in self._metrics.values():
            metrics.reset()
        self._fire("start_epoch")
        if self._train_batches(self._state.data.begin(self._progress.epoch), 0):
            self._end_epoch()

    def _finish_epoch(self, position: Mapping[str, Any]) -> None:
        """Run what a resumed run has left of its epoch."""
        self._fire("start_epoch")
        if position["is_training_done"]:
            self._end_epoch()
            return
        batches_done = position["batches_done"]
        batches = self._state.data.go_on(position["data"], self._progress.epoch, batches_done)
        if self._train_batches(batches, batches_done):
            self._end_epoch()

    def _train_batches(self, batches: Iterator[Any], first_index: int) -> bool:
        """Train on the batches; return False when a stop took effect after one of them."""
        self._spec.model.train()
        self._fire("start_training_loop")
        if not self._training_loop.run(self._unless_interrupted(batches), first_index):
            self._checkpoints.save_inside_epoch()
            return False
        if self._progress.batches_done == 0:
            raise TrainingError(
                f"The training_loader gave no batches in epoch {self._progress.epoch}; "
                "it must be iterable again in every epoch, as a DataLoader or a list is."
            )
        if self._on_nonfinite == "stop":
            refuse_nonfinite(self._progress)
        self._fire("end_training_loop")
        return True

    def _unless_interrupted(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches; when a signal to the process group has ended the loader's workers, no more follow."""
        try:
            for batch in batches:
                yield batch
                if self._lock is not None:
                    self._lock.note(self._progress.epoch, self._progress.global_step)
        except RuntimeError:
            time.sleep(SIGNAL_SECONDS)  # the workers may have died of it before it came here
            if self._interrupts.received is None:
                raise

    def _end_epoch(self) -> None:
        """Validate, and do what belongs between two epochs."""
        if self._spec.validation_loader is not None and not self._validate():
            return
        self._state.history.append(self._row())
        self._fire("end_epoch")
        self._step_scheduler()
        is_last = self._progress.epoch >= self._epochs or self._progress.stop is not None
        self._checkpoints.after_epoch(is_last=is_last)

    def _validate(self) -> bool:
        """Validate; return False when a stop took effect after a batch."""
        before = self._checkpoints.moment(is_training_done=True)
        self._spec.model.eval()
        with torch.no_grad():
            self._fire("start_validation_loop")
            batches = self._state.validation_data.begin(self._progress.epoch)
            is_complete = self._validation_loop.run(self._unless_interrupted(batches))
            if is_complete:
                self._fire("end_validation_loop")
        self._spec.model.train()
        if not is_complete:
            self._checkpoints.save_inside_epoch(before)
        return is_complete

    def _row(self) -> dict[str, float]:
        """Return the epoch's row of the history."""
        progress = self._progress
        row: dict[str, float] = {"epoch": progress.epoch, "training_loss": progress.training_loss.mean}
        row |= {f"training_{name}": value for name, value in progress.training_metrics.values().items()}
        if progress.validation_loss.batch_count:
            row["validation_loss"] = progress.validation_loss.mean
            row |= {f"validation_{name}": value for name, value in progress.validation_metrics.values().items()}
        return row

    def _step_scheduler(self) -> None:
        scheduler: Any = self._spec.lr_scheduler
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            row = self._state.history[-1]
            scheduler.step(row.get("validation_loss", row["training_loss"]))
        elif scheduler is not None:
            scheduler.step()

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

    def _sum_up(self) -> TrainingResult:
        progress, context = self._progress, self._context
        failed = (f"Plugin {name!r} is required and failed." for name in self._plugins.failed_required())
        return TrainingResult(
            status=progress.status,
            stop_reason=context.stop_reason,
            signal=self._interrupts.received if progress.status == "interrupted" else None,
            epochs=len(self._state.history),
            global_step=progress.global_step,
            training_loss=progress.training_loss.mean,
            validation_loss=progress.validation_loss.mean,
            training_metrics=progress.training_metrics.values(),
            validation_metrics=progress.validation_metrics.values(),
            history=self._state.history,
            seconds=context.elapsed_seconds,
            plugin_usage=context.plugin_usage(),
            run_dir=context.run_dir,
            missing_files=(*self._checkpoints.missing_files(), *failed),
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
