"""Tiny real runs whose validation values are given; the tests and the kill harness share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from bz.plugins import Plugin
from bz.spec import StepResult, TrainingSpec
from bz.testing import tiny_spec, train

if TYPE_CHECKING:
    from bz.training.result import TrainingResult


class Shown:
    """A metric whose value is the last output that is a number."""

    value = 0.0

    def update(self, preds: Any, target: Any) -> None:
        self.value = preds if isinstance(preds, float) else self.value

    def compute(self) -> float:
        return self.value

    def reset(self) -> None:
        self.value = 0.0


def scripted_spec(value_at: Callable[[Any], float], **changes: Any) -> TrainingSpec:
    """Return a spec of three batches an epoch; validation loss and accuracy are what `value_at(context)` says."""

    def validation_step(context: Any, batch: Any) -> StepResult:
        value = value_at(context)
        return StepResult(torch.tensor(value, dtype=torch.float64), value, value)

    loader = DataLoader(TensorDataset(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long)))
    fields: dict[str, Any] = {
        "validation_loader": loader,
        "validation_step": validation_step,
        "metrics": {"accuracy": Shown()},
    }
    return tiny_spec(**fields | changes)


def run(values: Sequence[float], *plugins: object, **options: Any) -> tuple[TrainingResult, TrainingSpec]:
    """Train as many epochs as there are values; the Nth of them is the validation loss and accuracy of epoch N."""
    spec = scripted_spec(lambda context: values[context.epoch - 1])
    return train(spec, *plugins, epochs=len(values), **{"strict_plugins": True, **options}), spec


def weights(owner: Any) -> list[Any]:
    """Return the weights of the model of a spec or a context as plain numbers."""
    return [value.tolist() for value in owner.model.state_dict().values()]


class Weights(Plugin):
    """A plugin that notes the weights at the end of each epoch, before they may be put back."""

    def __init__(self) -> None:
        self.after_epoch: dict[int, list[Any]] = {}

    def end_epoch(self, context: Any) -> None:
        self.after_epoch[context.epoch] = weights(context)
