"""The losses of the batches, on their device until they are shown: each optimizer step has one point."""

from __future__ import annotations

import time
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bz_plugin_tensorboard.pending import PendingScalars, Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

TAG = "loss/step"


class StepLosses:
    """Keeps the loss of each batch; the mean over those that made a step becomes its point.

    Args:
        step: The step that the batches before have made.
        window: Losses of batches since then, as they were saved.
    """

    def __init__(self, step: int = 0, window: Iterable[float] = ()) -> None:
        self._step = step
        self._window = list(window)
        self._pending = PendingScalars()

    def add(self, step: int, loss: torch.Tensor | float) -> None:
        """Keep the loss of a batch.

        Args:
            step: Steps made so far, one that this batch has made included.
            loss: A number, or a 0-d tensor that nobody writes to again.
        """
        self._pending.add(TAG, step, loss)

    def take(self, step: int | None = None) -> Iterator[Point]:
        """Yield the points of the steps that were made, and keep their losses no longer; waits for the device once.

        Args:
            step: Steps made so far, if that is known: the last one may have been made when there were no more batches.
        """
        for batch in self._pending.take():
            self._window.append(batch.value)
            if batch.step != self._step:
                yield self._point(batch.step, batch.wall_time)
        if step is not None and step != self._step and self._window:
            yield self._point(step, time.time())

    def _point(self, step: int, wall_time: float) -> Point:
        self._step, window, self._window = step, self._window, []
        return Point(TAG, step, wall_time, fmean(window))

    def state_dict(self) -> dict[str, Any]:
        """Return the losses that made no step yet, and the step before them; all others must have been taken."""
        assert not self._pending
        return {"step": self._step, "window": list(self._window)}
