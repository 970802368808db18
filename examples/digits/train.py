"""Recognises handwritten digits: 1,797 scanned images of 8 by 8 pixels that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz import TrainingSpec


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what `bz train` trains; `hyperparameters` is that section of bz.json."""
    training_set, validation_set = load_datasets()
    batch_size = hyperparameters["batch_size"]
    model = make_model()
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=hyperparameters["lr"]),
        loss_fn=nn.CrossEntropyLoss(),
        training_loader=DataLoader(training_set, batch_size=batch_size, shuffle=True),
        validation_loader=DataLoader(validation_set, batch_size=batch_size),
    )


def load_datasets() -> tuple[TensorDataset, TensorDataset]:
    """Return 1,437 images to learn from and 360 to check on, each digit in its share; always the same split."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0  # (image, 1, 8, 8), from 0 to 1
    labels = torch.from_numpy(digits.target)
    training, validation = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return TensorDataset(images[training], labels[training]), TensorDataset(images[validation], labels[validation])


def make_model() -> nn.Module:
    """Return a small convolutional network: (image, 1, 8, 8) to (image, 10), one logit a digit."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 10),
    )
