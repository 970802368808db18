"""When checkpoints are written during a session, and what happens when the disk refuses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from bz.context import CheckpointRequest
from bz.errors import CheckpointError
from bz.training.checkpoint import STATE_FOLDER, RollingCheckpoints, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bz.context import Progress
    from bz.training.state import RunState

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes the core's own checkpoints and those that plugins ask for.

    A failure is logged and remembered, and never ends the run; the next checkpoint to the same
    folder is the next try.

    Args:
        state: What is written.
        progress: Where the run is, and the requests of plugins.
        run_dir: Folder of the run, or None.
        interval: Epochs between the core's own checkpoints; 0 for none.
        announce: Called after each checkpoint that is safely on disk.
    """

    def __init__(
        self, state: RunState, progress: Progress, run_dir: Path | None, interval: int, announce: Callable[[], None]
    ) -> None:
        self._state = state
        self._progress = progress
        self._interval = interval
        self._rolling = RollingCheckpoints(run_dir / STATE_FOLDER) if run_dir is not None and interval else None
        self._announce = announce
        self._unwritten: dict[Path, CheckpointError] = {}

    def moment(self, *, is_training_done: bool) -> Mapping[str, Any] | None:
        """Return the state of this moment for a later `save_inside_epoch`, or None if it would not be used."""
        if self._rolling is None:
            return None
        batches_done = self._progress.training_loss.batch_count
        return self._state.moment(batches_done=batches_done, is_training_done=is_training_done)

    def write_requested(self, *, is_inside_epoch: bool) -> None:
        """Write the checkpoints that plugins asked for."""
        requests, self._progress.checkpoint_requests = self._progress.checkpoint_requests, []
        for request in requests:
            self._write(request, self._state.moment(batches_done=self._batches_done(is_inside_epoch)))

    def save_after_epoch(self, *, is_last: bool) -> None:
        """Write what is due between two epochs."""
        self.write_requested(is_inside_epoch=False)
        if self._rolling is not None and (is_last or self._progress.epoch % self._interval == 0):
            self._write_rolling(self._rolling, self._state.moment(batches_done=None))

    def save_inside_epoch(self, moment: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of a run that ends inside an epoch.

        Args:
            moment: Where the run has to go on from; by default after the last batch.
        """
        if self._rolling is not None:
            self._write_rolling(self._rolling, moment or self._state.moment(batches_done=self._batches_done(True)))

    def _batches_done(self, is_inside_epoch: bool) -> int | None:  # noqa: FBT001 - private, and named at each call
        return self._progress.training_loss.batch_count if is_inside_epoch else None

    def _write_rolling(self, rolling: RollingCheckpoints, moment: Mapping[str, Any]) -> None:
        path = rolling.path_for(self._progress.epoch, self._progress.global_step)
        if self._write(CheckpointRequest(path, {}), moment):
            rolling.prune()

    def _write(self, request: CheckpointRequest, moment: Mapping[str, Any]) -> bool:
        """Write one checkpoint; return whether it is on disk."""
        try:
            write_checkpoint(self._state.collect(moment, request.extra), request.path)
        except CheckpointError as error:
            logger.error("%s Training goes on.", error)  # noqa: TRY400 - the sentence says all
            self._unwritten[request.path.parent] = error
            return False
        self._unwritten.pop(request.path.parent, None)
        self._progress.checkpoint_path = request.path
        self._announce()
        return True

    def missing_files(self) -> tuple[str, ...]:
        """Return a sentence for each folder whose last checkpoint could not be written."""
        return tuple(str(error) for error in self._unwritten.values())
