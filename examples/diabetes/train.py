"""Predicts how diabetes goes on within a year, from ten measurements of each of 442 patients (scikit-learn's data)."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from bz import TrainingSpec


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what `bz train` trains; the plateau watches the validation loss, as it does unless told otherwise."""
    training_set, validation_set = load_datasets()
    model = make_model(training_set.tensors[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=hyperparameters["lr"], weight_decay=0.1)
    return TrainingSpec(
        model=model,
        optimizer=optimizer,
        loss_fn=nn.MSELoss(),
        training_loader=DataLoader(training_set, hyperparameters["batch_size"], shuffle=True),
        validation_loader=DataLoader(validation_set, batch_size=len(validation_set)),
        lr_scheduler=ReduceLROnPlateau(optimizer, factor=0.5, patience=5),
    )


def load_datasets() -> tuple[TensorDataset, TensorDataset]:
    """Return 353 patients to learn from and 89 to check on, always the same ones."""
    diabetes = load_diabetes()
    measurements = torch.from_numpy(diabetes.data).float() * len(diabetes.data) ** 0.5  # mean 0, variance 1
    progression = torch.from_numpy(diabetes.target).float().unsqueeze(1)  # (patient, 1), from 25 to 346
    training, validation = train_test_split(range(len(progression)), test_size=0.2, random_state=0)
    return (
        TensorDataset(measurements[training], progression[training]),
        TensorDataset(measurements[validation], progression[validation]),
    )


class Scale(nn.Module):
    """Brings predictions of mean 0 and variance 1 to the scale of the targets."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, targets: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", targets.mean())
        self.register_buffer("deviation", targets.std())

    def forward(self, predictions: torch.Tensor) -> torch.Tensor:
        """Return the predictions in the unit of the targets."""
        return predictions * self.deviation + self.mean


def make_model(targets: torch.Tensor) -> nn.Module:
    """Return a small network: (patient, 10) to (patient, 1), in the unit of the targets."""
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1), Scale(targets))
