"""Which checkpoints are kept: values in, what to delete out; no file is touched here.

Always kept: the best one, and the newest. Besides, what any of these rules keeps:

    max_checkpoints    the newest of the regular ones, one less if the best is none of these
    keep_best          those with the best values
    keep_last          the newest of all
    milestones         each one that was written as a milestone

A value that is not finite never wins. Of equal values the earlier one is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of a run.

    Attributes:
        name: Name of the file, without its folder.
        epoch: Epoch in or after which it was written.
        step: Optimizer steps done, for one written inside an epoch; None at the end of the epoch.
        value: What it is compared by; None if nothing was measured.
        is_regular: Whether it counts for `max_checkpoints`.
        is_milestone: Whether it is kept for good.
    """

    name: str
    epoch: int
    step: int | None
    value: float | None
    is_regular: bool
    is_milestone: bool

    @property
    def position(self) -> Position:
        """Where in the run it was written; positions compare as the run goes."""
        return position_of(self.epoch, self.step)


Position = tuple[int, bool, int]


def position_of(epoch: int, step: int | None) -> Position:
    """Return a place in the run: inside an epoch after so many optimizer steps, or at its end if `step` is None."""
    return epoch, step is None, step or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is kept.

    Attributes:
        max_checkpoints: Number of regular ones; 0 for none.
        keep_best: Number of the best; 0 keeps the best one all the same.
        keep_last: Number of the newest; 0 keeps the newest one all the same.
        is_higher_better: Whether a higher value is better.
    """

    max_checkpoints: int
    keep_best: int
    keep_last: int
    is_higher_better: bool

    def best(self, checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
        """Return the one with the best value, or None if there is no finite value."""
        return next(iter(self._best_first(checkpoints)), None)

    def is_among_best(self, value: float | None, checkpoints: Iterable[Checkpoint], count: int) -> bool:
        """Whether a checkpoint with `value`, written now, would be among the `count` best."""
        if value is None or not math.isfinite(value):
            return False
        as_good = [one for one in self._best_first(checkpoints) if self._badness(one.value) <= self._badness(value)]
        return len(as_good) < count

    def surplus(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        """Return those that no rule keeps, oldest first."""
        oldest_first = sorted(checkpoints, key=lambda one: one.position)
        kept = self._kept(oldest_first[::-1])
        return [one for one in oldest_first if one not in kept]

    def _kept(self, newest_first: Sequence[Checkpoint]) -> set[Checkpoint]:
        best_first = self._best_first(newest_first)
        return {
            *newest_first[: max(self.keep_last, 1)],
            *best_first[: max(self.keep_best, 1)],
            *self._regular(newest_first, best_first[:1]),
            *(one for one in newest_first if one.is_milestone),
        }

    def _regular(self, newest_first: Sequence[Checkpoint], best: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
        newest = [one for one in newest_first if one.is_regular][: self.max_checkpoints]
        has_room_for_best = set(best) <= set(newest)
        return newest if has_room_for_best else newest[: max(self.max_checkpoints - 1, 1)]

    def _best_first(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        finite = [one for one in checkpoints if one.value is not None and math.isfinite(one.value)]
        return sorted(finite, key=lambda one: (self._badness(one.value), one.position))

    def _badness(self, value: float | None) -> float:
        assert value is not None
        return -value if self.is_higher_better else value
