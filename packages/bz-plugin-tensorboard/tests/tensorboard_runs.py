"""A tiny training whose every number is a pure function of the step, and its curves read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bz import Trainer
from bz_plugin_tensorboard import TensorBoardPlugin

if TYPE_CHECKING:
    from pathlib import Path

    from bz.training.result import TrainingResult

BATCHES = 12


class MeanOutput:
    """A metric: the mean of all outputs."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.total = self.total + preds.detach().sum().cpu()
        self.count += preds.numel()

    def compute(self) -> torch.Tensor:
        return self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


def batches(number: int = BATCHES) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(number)]


def train(*plugins: object, epochs: int = 3, validates: bool = True, **options: Any) -> TrainingResult:
    """Train a linear model for some epochs of 12 steps, with the loss, a metric and a decaying learning rate."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(strict_plugins=True)
    for plugin in plugins:
        trainer.add_plugin(plugin)
    return trainer.train(
        options.pop("model", model),
        options.pop("optimizer", optimizer),
        torch.nn.MSELoss(),
        options.pop("training_loader", batches()),
        batches(2) if validates else None,
        epochs=epochs,
        device="cpu",
        metrics={"mean_output": MeanOutput()},
        lr_scheduler=options.pop("lr_scheduler", torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)),
        **options,
    )


def board(**settings: Any) -> TensorBoardPlugin:
    return TensorBoardPlugin(**{"log_every": 5, **settings})


def load(folder: Path) -> EventAccumulator:
    """Read a folder as TensorBoard's own loader does, without thinning anything out."""
    accumulator = EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(("scalars", "tensors", "images", "histograms"), 0)
    )
    accumulator.Reload()
    return accumulator


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = load(folder)
    tags = accumulator.Tags()["scalars"]
    return {tag: [(point.step, point.value) for point in accumulator.Scalars(tag)] for tag in tags}
