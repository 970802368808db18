"""How far a run goes besides its number of epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings
    from bz.progress import Progress


class Limits:
    """The most steps and the most time of a run; reaching one completes it."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._max_steps, self._max_time = settings.max_steps, settings.max_time

    def __bool__(self) -> bool:
        return self._max_steps is not None or self._max_time is not None

    def reached(self, progress: Progress) -> str | None:
        """Return which limit is reached, in words, or None; the time of earlier sessions counts."""
        if self._max_steps is not None and progress.global_step >= self._max_steps:
            return f"max_steps {self._max_steps} reached"
        if self._max_time is not None:
            assert self._max_time.seconds is not None
            if progress.seconds_before + progress.seconds >= self._max_time.seconds:
                return f"max_time {self._max_time} reached"
        return None
