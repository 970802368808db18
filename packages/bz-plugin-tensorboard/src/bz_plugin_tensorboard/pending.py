"""Scalars that wait on the device until they are read, all at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        self._values: list[torch.Tensor | float] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, tag: str, step: int, value: torch.Tensor | float) -> None:
        """Keep a number, or a 0-d tensor that nobody writes to again."""
        self._labels.append((tag, step, time.time()))
        self._values.append(value)

    def take(self) -> Iterator[Point]:
        """Yield the points so far, in order, and keep them no longer; waits for the device once."""
        labels, values = self._labels, self._values
        self._labels, self._values = [], []
        for label, value in zip(labels, _read(values), strict=True):
            yield Point(*label, value)


def _read(values: Sequence[torch.Tensor | float]) -> list[float]:
    """Return the numbers, in single precision those that are on a device, which is waited for once."""
    import torch

    tensors = [value.float() for value in values if isinstance(value, torch.Tensor)]
    numbers: Iterator[float] = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(numbers) if isinstance(value, torch.Tensor) else value for value in values]
