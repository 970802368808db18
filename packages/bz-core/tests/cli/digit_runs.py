"""Scripts that train on scikit-learn's digits, for the tests of what is done with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

DATA = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz import StepResult, TrainingSpec

digits = load_digits()
images = torch.from_numpy(digits.data).float() / 16.0
labels = torch.from_numpy(digits.target)
training_set = TensorDataset(images[:400], labels[:400])
validation_set = TensorDataset(images[400:550], labels[400:550])
"""
BUILD = """
def build(hyperparameters):
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=hyperparameters.get("lr", 0.01)),
        loss_fn=nn.CrossEntropyLoss(),
        training_loader=DataLoader(training_set, batch_size=32, shuffle=True),
        validation_loader=DataLoader(validation_set, batch_size=32),
    )
"""


def write_script(*code: str, path: str = "train.py") -> Path:
    """Write a script of the data and this code; by default one with a function `build`."""
    script = Path(path)
    script.write_text(DATA + "".join(map(dedent, code or (BUILD,))))
    return script


def train(bz: Callable[..., Result], *options: str, name: str = "a", epochs: int = 2) -> dict[str, Any]:
    """Train with no installed plugin and return `run.json`."""
    arguments = ["--name", name, "--epochs", str(epochs), *options]
    plugins = [] if "--plugin" in options else ["--no-plugins"]
    result = bz("train", *plugins, *arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(Path("runs", name, "run.json").read_text())
    assert isinstance(record, dict)
    return record
