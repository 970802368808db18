"""Tiny but real training runs that take milliseconds on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz.spec import TrainingSpec
from bz.training.trainer import Trainer

if TYPE_CHECKING:
    from bz.training.result import TrainingResult

NUM_SAMPLES, NUM_FEATURES, NUM_CLASSES, BATCH_SIZE = 12, 4, 3, 4


def tiny_spec(*, seed: int = 0, **changes: Any) -> TrainingSpec:
    """Return a spec of three training batches and two validation batches per epoch.

    A dropout layer, a shuffled loader and momentum make it sensitive to every random number and to
    every bit of state. Seeds torch.

    Args:
        seed: Decides data, initial weights and all random numbers of the run.
        changes: Fields of `TrainingSpec` to set or replace.
    """
    torch.manual_seed(seed)
    data = TensorDataset(torch.randn(NUM_SAMPLES, NUM_FEATURES), torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,)))
    model = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, NUM_CLASSES))
    fields: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loss_fn": nn.CrossEntropyLoss(),
        "training_loader": DataLoader(data, BATCH_SIZE, shuffle=True),
        "validation_loader": DataLoader(data, NUM_SAMPLES // 2),
        "hyperparameters": {"lr": 0.1, "model_name": "tiny"},
    }
    return TrainingSpec(**fields | changes)


def train(spec: TrainingSpec, *plugins: object, epochs: int | None = 2, **options: Any) -> TrainingResult:
    """Train `spec` on the CPU with these plugins.

    Args:
        spec: What to train; trained in place.
        plugins: Called in this order.
        epochs: Passes over the training data; None to leave the end to a limit among the options.
        options: Further keyword arguments of `Trainer.train`, and `strict_plugins`.
    """
    trainer = Trainer(strict_plugins=options.pop("strict_plugins", False))
    for plugin in (*spec.plugins, *plugins):
        trainer.add_plugin(plugin)
    return trainer.train(
        spec.model,
        spec.optimizer,
        spec.loss_fn,
        spec.training_loader,
        spec.validation_loader,
        epochs=epochs,
        device="cpu",
        metrics=spec.metrics,
        hyperparameters=spec.hyperparameters,
        lr_scheduler=spec.lr_scheduler,
        training_step=spec.training_step,
        validation_step=spec.validation_step,
        manual_optimization=spec.manual_optimization,
        **options,
    )
