"""Tiny real runs, and the loop that people write by hand with torch's own `AveragedModel`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.optim import swa_utils
from torch.optim.swa_utils import AveragedModel

from bz.testing import tiny_spec, train

if TYPE_CHECKING:
    from bz import TrainingSpec
    from bz_plugin_averaging import AveragingPlugin

EPOCHS = 4
BATCHES = 3
DECAY = 0.7
"""So low that a few steps show."""

Weights = dict[str, torch.Tensor]


def averaging_spec(**changes: Any) -> TrainingSpec:
    """Return a spec of three batches an epoch, whose model has statistics, a counter and a frozen weight."""
    spec = tiny_spec(**changes)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    model[0].bias.requires_grad_(False)
    spec.model = model
    spec.optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    if "validation_loader" not in changes:
        spec.validation_loader = [(torch.randn(6, 4), torch.randint(0, 3, (6,))) for _ in range(2)]
    return spec


def run(plugin: object | None = None, spec: TrainingSpec | None = None, **options: Any) -> tuple[Any, TrainingSpec]:
    """Train with a plugin and return the result and the spec; the random numbers are always the same."""
    spec = spec or averaging_spec()
    torch.manual_seed(1)
    options = {"epochs": EPOCHS, "strict_plugins": True, **options}
    return train(spec, *([plugin] if plugin else []), **options), spec


def torch_average(method: str) -> Any:
    """Return torch's function for a method."""
    untyped: Any = swa_utils
    return untyped.get_swa_multi_avg_fn() if method == "swa" else untyped.get_ema_multi_avg_fn(DECAY)


class ByHand(NamedTuple):
    """What a loop by hand came to.

    Attributes:
        trained: The weights trained.
        averaged: Their average.
        validation_losses: Of the average, for each epoch; of the trained weights before it begins.
    """

    trained: Weights
    averaged: Weights
    validation_losses: list[float]


def train_by_hand(
    method: str,
    *,
    after_step: Callable[[int], bool] = lambda step: False,
    after_epoch: Callable[[int], bool] = lambda epoch: False,
    use_buffers: bool = False,
) -> ByHand:
    """Train as `run` does, and average when the functions say so."""
    spec: Any = averaging_spec()
    model, averaged = spec.model, AveragedModel(spec.model, multi_avg_fn=torch_average(method), use_buffers=use_buffers)
    losses, step = [], 0
    torch.manual_seed(1)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for inputs, targets in spec.training_loader:
            spec.optimizer.zero_grad()
            spec.loss_fn(model(inputs), targets).backward()
            spec.optimizer.step()
            step += 1
            if after_step(step):
                averaged.update_parameters(model)
        if after_epoch(epoch):
            averaged.update_parameters(model)
        losses.append(validation_loss(spec, averaged.module if averaged.n_averaged else model))
    return ByHand(model.state_dict(), averaged.module.state_dict(), losses)


def validation_loss(spec: TrainingSpec, model: nn.Module) -> float:
    """Return the mean validation loss of a model."""
    assert spec.loss_fn is not None
    assert isinstance(spec.validation_loader, list)
    model.eval()
    with torch.no_grad():
        losses = [spec.loss_fn(model(inputs), targets).item() for inputs, targets in spec.validation_loader]
    return float(sum(losses) / len(losses))


def same(one: Weights, other: Weights, *, but: str = "nothing") -> bool:
    """Whether both have the same names and the same bits, in the same dtype; `but` is left out."""
    names = [name for name in one if but not in name]
    is_equal = all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in names)
    return list(one) == list(other) and is_equal


def averaged(plugin: AveragingPlugin) -> Weights:
    """Return the average that a plugin holds."""
    weights: Weights = plugin.state_dict()["evaluation_weights"]
    return weights


def read(path: Path) -> Weights:
    """Return what is in a file of weights."""
    weights: Weights = torch.load(path, weights_only=True)
    return weights
