"""Scalars that wait on the device until they are read, all at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


class Point(NamedTuple):
    """One point of a curve."""

    tag: str
    step: int
    wall_time: float
    value: float


class PendingScalars:
    """Scalars with their steps and times; only `take` waits for the device."""

    def __init__(self) -> None:
        self._labels: list[tuple[str, int, float]] = []
        self._values: list[torch.Tensor] = []

    def add(self, tag: str, step: int, value: torch.Tensor) -> None:
        """Keep a 0-d tensor, copied on its device: a captured graph would overwrite it at its next replay."""
        self._labels.append((tag, step, time.time()))
        self._values.append(value.clone())

    def take(self) -> Iterator[Point]:
        """Yield the points so far, in order, and keep them no longer; waits for the device once."""
        import torch

        if not self._values:
            return
        values: list[float] = torch.stack([value.float() for value in self._values]).tolist()
        labels = self._labels
        self._labels, self._values = [], []
        for label, value in zip(labels, values, strict=True):
            yield Point(*label, value)
