"""A tiny training whose every number is a pure function of the step, and its curves read back.

Run as a script it trains into a folder and is killed at a step: `tensorboard_runs.py FOLDER STEP`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bz import Trainer
from bz.plugins import Plugin
from bz_plugin_tensorboard import TensorBoardPlugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from bz.context import TrainingContext
    from bz.training.result import TrainingResult

BATCHES = 12
EVERYTHING = dict.fromkeys(("scalars", "tensors", "images", "histograms"), 0)

Curves = dict[str, list[tuple[int, float]]]


class MeanOutput:
    """A metric: the mean of all outputs."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.total = self.total + preds.detach().sum()
        self.count += preds.numel()

    def compute(self) -> torch.Tensor:
        return self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


class AtBatch(Plugin):
    """Does something after one training batch."""

    def __init__(self, step: int, action: Callable[[TrainingContext], object]) -> None:
        self.step = step
        self.action = action

    def end_training_batch(self, context: TrainingContext) -> None:
        if context.global_step == self.step:
            self.action(context)


def stop_at(step: int) -> AtBatch:
    return AtBatch(step, lambda context: context.request_stop("enough", when="batch"))


def batches(number: int = BATCHES) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(number)]


def train(
    *plugins: object,
    model: torch.nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loader: Any = None,
    epochs: int | None = 3,
    validates: bool = True,
    strict: bool = True,
    **options: Any,
) -> TrainingResult:
    """Train a linear model for some epochs of 12 steps, with a metric and a decaying learning rate."""
    torch.manual_seed(0)
    model = model or torch.nn.Linear(3, 1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(strict_plugins=strict)
    for plugin in plugins:
        trainer.add_plugin(plugin)
    return trainer.train(
        model,
        optimizer,
        torch.nn.MSELoss(),
        loader or batches(),
        batches(2) if validates else None,
        epochs=epochs,
        device=options.pop("device", "cpu"),
        metrics={"mean_output": MeanOutput()},
        lr_scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        **options,
    )


def board(**settings: Any) -> TensorBoardPlugin:
    return TensorBoardPlugin(**{"log_every": 5, **settings})


def load(folder: Path) -> EventAccumulator:
    """Read a folder as TensorBoard's own loader does, without thinning anything out."""
    accumulator = EventAccumulator(str(folder), size_guidance=EVERYTHING)
    accumulator.Reload()
    return accumulator


def curves(folder: Path) -> Curves:
    accumulator = load(folder)
    tags = accumulator.Tags()["scalars"]
    return {tag: [(point.step, point.value) for point in accumulator.Scalars(tag)] for tag in tags}


def kill_at(step: int, folder: Path) -> None:
    """Train into the folder in a process that is killed after a batch."""
    finished = subprocess.run([sys.executable, __file__, str(folder), str(step)], check=False, timeout=120)
    assert finished.returncode == -signal.SIGKILL


if __name__ == "__main__":
    train(
        board(),
        AtBatch(int(sys.argv[2]), lambda context: os.kill(os.getpid(), signal.SIGKILL)),
        run_dir=Path(sys.argv[1]),
        hyperparameters={"lr": 0.1},
    )
