"""Small trainings with the e-mail plugin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from bz import Trainer
from bz.plugins import Plugin, hookimpl
from bz_plugin_email import EmailNotificationPlugin

if TYPE_CHECKING:
    from bz.training.result import TrainingResult


class Accuracy:
    """Right answers over all answers."""

    def __init__(self) -> None:
        self.reset()

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.right += int((preds.argmax(1) == target).sum())
        self.total += len(target)

    def compute(self) -> float:
        return self.right / self.total

    def reset(self) -> None:
        self.right = self.total = 0


class At(Plugin):
    """Calls a function once, after a batch of an epoch, or at its end."""

    def __init__(self, action: Any, epoch: int, batch: int | None = None) -> None:
        self.action, self.epoch, self.batch = action, epoch, batch

    @hookimpl(tryfirst=True)
    def end_training_batch(self, context: Any) -> None:
        if context.epoch == self.epoch and context.batch_index == self.batch:
            self.action(context)

    @hookimpl(trylast=True)
    def end_epoch(self, context: Any) -> None:
        if self.batch is None and context.epoch == self.epoch:
            self.action(context)


def train(
    settings: dict[str, Any] | EmailNotificationPlugin, *others: Plugin, run_dir: Path | None = None, **changes: Any
) -> TrainingResult:
    """Train a tiny model with the plugin."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 4, generator=generator)
    loader = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=8)
    trainer = Trainer()
    trainer.add_plugin(settings if isinstance(settings, EmailNotificationPlugin) else EmailNotificationPlugin(settings))
    for other in others:
        trainer.add_plugin(other)
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.5),
        "loss_fn": torch.nn.CrossEntropyLoss(),
        "training_loader": loader,
        "validation_loader": loader,
        "epochs": 2,
        "device": "cpu",
        "metrics": {"accuracy": Accuracy()},
        "hyperparameters": {"model_name": "digits"},
    }
    return trainer.train(**arguments | changes, run_dir=run_dir)
