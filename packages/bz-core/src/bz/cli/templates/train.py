"""Recognises handwritten digits. `bz train` calls `build` and trains what it returns."""

from __future__ import annotations

from typing import Any

import torch
from bz import TrainingSpec
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

try:
    from sklearn.datasets import load_digits
except ModuleNotFoundError:
    raise ModuleNotFoundError("The images come with scikit-learn; install it with: pip install scikit-learn") from None


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what is trained; `hyperparameters` is that section of bz.json."""
    training_set, validation_set = load_images()
    model = make_model()
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=hyperparameters["lr"]),
        loss_fn=nn.CrossEntropyLoss(),
        training_loader=DataLoader(training_set, batch_size=hyperparameters["batch_size"], shuffle=True),
        validation_loader=DataLoader(validation_set, batch_size=256),
        metrics={"accuracy": Accuracy()},
    )


def load_images() -> tuple[Any, Any]:
    """Return four fifths of the images to learn from and the others to check on; always the same split."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0  # (image, 1, 8, 8), from 0 to 1
    labels = torch.from_numpy(digits.target).long()
    training_set, validation_set = random_split(
        TensorDataset(images, labels), [0.8, 0.2], generator=torch.Generator().manual_seed(0)
    )
    return training_set, validation_set


def make_model() -> nn.Module:
    """Return a small convolutional network: (image, 1, 8, 8) to (image, 10), one score a digit."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Accuracy:
    """Share of the images that were recognised; anything with these three methods is a metric, also torchmetrics'."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.num_right = torch.tensor(0)
        self.num_images = 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Count one batch: scores (image, 10) and digits (image,)."""
        self.num_right = self.num_right.to(preds.device) + (preds.argmax(dim=1) == target).sum()
        self.num_images += len(target)

    def compute(self) -> torch.Tensor:
        """Return the share over all batches so far."""
        return self.num_right / self.num_images
