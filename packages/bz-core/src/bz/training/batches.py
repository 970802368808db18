"""What a batch holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bz.errors import TrainingError


def count_samples(batch: Any) -> int:
    """Return the length of the first dimension of the first tensor in a batch, however deep it lies.

    Raises:
        TrainingError: If there is none.
    """
    for tensor in _tensors(batch):
        if tensor.dim():
            return tensor.shape[0]
    raise TrainingError(
        f"How many samples a {type(batch).__name__} holds is not known, and accumulation has to know; "
        "let the training_step return bz.StepResult(loss, weight=...)."
    )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))
