"""Tells whether two images show the same digit: a model with two inputs, on the digits that come with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bz import StepResult, TrainingSpec

if TYPE_CHECKING:
    from bz import TrainingContext


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what `bz train` trains; a batch has three parts, so the step says what becomes of them."""
    training_set, validation_set = load_datasets()
    batch_size = hyperparameters["batch_size"]
    model = Comparison()
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=hyperparameters["lr"]),
        loss_fn=None,
        training_loader=DataLoader(training_set, batch_size, shuffle=True),
        validation_loader=DataLoader(drawn_once(validation_set), batch_size),
        training_step=step,
        validation_step=step,
    )


def step(context: TrainingContext, batch: list[torch.Tensor]) -> StepResult:
    """Return the loss of a batch; bz computes the gradients and steps the optimizer."""
    left, right, is_same = batch
    logits = context.model(left, right)
    return StepResult(binary_cross_entropy_with_logits(logits, is_same), logits, is_same)


class Comparison(nn.Module):
    """Describes both images with the same layers, and judges by how the descriptions differ."""

    def __init__(self) -> None:
        super().__init__()
        self.description = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 64),
        )
        self.judgement = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return a logit for each pair of images: (pair, 1, 8, 8) and the same to (pair,)."""
        difference = self.description(left) - self.description(right)
        logits: torch.Tensor = self.judgement(difference.abs()).squeeze(1)
        return logits


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Each image with another one drawn at random, which shows the same digit half of the time."""

    def __init__(self, images: torch.Tensor, digits: torch.Tensor) -> None:
        self.images, self.digits = images, digits

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return two images and whether they show the same digit, as 0.0 or 1.0; another pair each time."""
        is_same = torch.randint(2, ()).bool()
        partners = torch.nonzero((self.digits == self.digits[index]) == is_same).flatten()
        partner = partners[torch.randint(len(partners), ())]
        return self.images[index], self.images[partner], is_same.float()


def load_datasets() -> tuple[Pairs, Pairs]:
    """Return pairs of 1,437 images to learn from, and of 360 others to check on."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0  # (image, 1, 8, 8), from 0 to 1
    labels = torch.from_numpy(digits.target)
    training, validation = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return Pairs(images[training], labels[training]), Pairs(images[validation], labels[validation])


def drawn_once(pairs: Pairs) -> TensorDataset:
    """Return pairs that stay as they are, the same ones in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [pairs[index] for index in range(len(pairs))]
    return TensorDataset(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))
