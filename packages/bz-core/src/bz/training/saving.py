"""When checkpoints are written during a session, and what happens when the disk refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bz.errors import CheckpointError
from bz.intervals import Schedule
from bz.progress import CheckpointRequest
from bz.training.background import BackgroundWriter
from bz.training.checkpoint import STATE_FOLDER, RollingCheckpoints, write_checkpoint
from bz.training.finite import refuse_nonfinite

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings
    from bz.progress import Progress
    from bz.training.clock import PartClock
    from bz.training.state import NextPart, RunState

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes the core's own checkpoints and those that plugins ask for.

    A failure is logged and remembered, and never ends the run; the next checkpoint to the same
    folder is the next try.

    Args:
        state: What is written.
        progress: Where the run is, and the requests of plugins.
        run_dir: Folder of the run, or None.
        settings: How often, whether by a thread of its own, and whether a loss that is not finite is in the way.
        clock: Is told how long it takes.
        announce: Called after each checkpoint that is safely on disk.
    """

    def __init__(  # noqa: PLR0913 - what it writes, where, when, and whom it tells
        self,
        state: RunState,
        progress: Progress,
        run_dir: Path | None,
        settings: TrainingSettings,
        *,
        clock: PartClock,
        announce: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._state = state
        self._progress = progress
        self._refuses_nonfinite = settings.on_nonfinite == "stop"
        self._announce = announce
        self._rolling: RollingCheckpoints | None = None
        self._schedule: Schedule | None = None
        if run_dir is not None and settings.checkpoint_interval:
            self._rolling = RollingCheckpoints(run_dir / STATE_FOLDER)
            self._schedule = Schedule(settings.checkpoint_interval)
        self._background = BackgroundWriter() if settings.async_checkpoint else None
        self._unwritten: dict[Path, CheckpointError] = {}

    @property
    def is_on(self) -> bool:
        """Whether the core writes checkpoints of its own."""
        return self._rolling is not None

    @property
    def watches_batches(self) -> bool:
        """Whether `after_batch` has work to do even when no plugin asked for a checkpoint."""
        return self._background is not None or (self._schedule is not None and self._schedule.interval.is_inside_epoch)

    def set_aside_newer(self, epoch: int, global_step: int) -> None:
        """Keep rolling checkpoints of a later position, from which this run goes another way, from being its newest."""
        if self._rolling is not None:
            self._rolling.set_aside_newer(epoch, global_step)

    def moment(self, next_part: NextPart) -> Mapping[str, Any] | None:
        """Return the state of this moment inside an epoch, for later, or None if it would not be used."""
        is_used = self._rolling is not None or self._progress.checkpoint_requests
        return self._inside(next_part) if is_used else None

    def _inside(self, next_part: NextPart = "batch") -> Mapping[str, Any]:
        return self._state.moment(batches_done=self._progress.batches_done, next_part=next_part)

    def after_batch(self) -> None:
        """Write what plugins asked for, and the core's own checkpoint if it is due inside an epoch."""
        self._collect(wait=False)
        self._write_requested(self._inside)
        if (
            self._schedule is not None
            and self._schedule.interval.is_inside_epoch
            and self._schedule.is_due(self._progress)
        ):
            self._write_rolling(self._inside())

    def after_epoch(self, *, is_last: bool, moment: Mapping[str, Any] | None = None) -> None:
        """Write what is due between two epochs.

        Args:
            is_last: Whether the session ends here.
            moment: Where a run has to go on from whose epoch was ended early, by a limit.
        """

        def now() -> Mapping[str, Any]:
            return moment or self._state.moment(batches_done=None)

        self._collect(wait=False)
        self._write_requested(now)
        if self._schedule is not None and (self._schedule.is_due(self._progress) or is_last):
            self._write_rolling(now())

    def save_inside_epoch(self, moment: Mapping[str, Any] | None = None) -> None:
        """Write what plugins asked for, and the checkpoint of a run that ends inside an epoch.

        Args:
            moment: Where the run has to go on from; by default after the last batch.
        """

        def there() -> Mapping[str, Any]:
            return moment or self._inside()

        self._write_requested(there)
        if self._rolling is not None:
            self._write_rolling(there())

    def close(self) -> None:
        """Wait for the write that is in flight."""
        self._collect(wait=True)

    def missing_files(self) -> tuple[str, ...]:
        """Return a sentence for each folder whose last checkpoint could not be written."""
        return tuple(str(error) for error in self._unwritten.values())

    def _write_requested(self, moment: Callable[[], Mapping[str, Any]]) -> None:
        requests, self._progress.checkpoint_requests = self._progress.checkpoint_requests, []
        for request in requests:
            self._write(request, moment(), done=_nothing)

    def _write_rolling(self, moment: Mapping[str, Any]) -> None:
        assert self._rolling is not None
        path = self._rolling.path_for(self._progress.epoch, self._progress.global_step)
        self._write(CheckpointRequest(path, {}), moment, done=self._rolling.prune)

    def _write(self, request: CheckpointRequest, moment: Mapping[str, Any], done: Callable[[], None]) -> None:
        """Write one checkpoint, or begin to; `done` is called once it is on disk.

        Raises:
            TrainingError: If a loss of the epoch was not finite: the state is not worth keeping.
        """
        if self._refuses_nonfinite:
            refuse_nonfinite(self._progress)
        self._collect(wait=True)
        try:
            with self._clock.measuring("checkpoints"):
                state = self._state.collect(moment, request.extra)
                if self._background is not None:
                    self._background.submit(state, request.path, done)
                    return
                write_checkpoint(state, request.path)
        except CheckpointError as error:
            self._failed(error)
        else:
            self._succeeded(request.path, done)

    def _collect(self, *, wait: bool) -> None:
        """Finish, on the training thread, what the background wrote."""
        if self._background is None:
            return
        with self._clock.measuring("checkpoints"):
            written = self._background.collect(wait=wait)
        if written is None:
            return
        if written.error is not None:
            self._failed(written.error)
        else:
            self._succeeded(written.path, written.done)

    def _failed(self, error: CheckpointError) -> None:
        logger.error("%s Training goes on.", error)
        self._unwritten[error.path.parent] = error

    def _succeeded(self, path: Path, done: Callable[[], None]) -> None:
        self._unwritten.pop(path.parent, None)
        self._progress.checkpoint_path = path
        done()
        self._announce()


def _nothing() -> None:
    """Do nothing: checkpoints that plugins asked for are theirs to delete."""
