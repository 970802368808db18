"""Invents handwritten digits: a GAN, two networks with an optimizer each, on the digits that come with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torch.utils.data import DataLoader, TensorDataset

from bz import StepResult, TrainingSpec

if TYPE_CHECKING:
    from bz import TrainingContext

NOISE = 32


def build(hyperparameters: dict[str, Any]) -> TrainingSpec:
    """Return what `bz train` trains.

    Several optimizers tell bz that the `training_step` computes the gradients and steps them itself.
    """
    gan, betas = GAN(), (0.5, 0.999)
    return TrainingSpec(
        model=gan,
        optimizer={
            "generator": torch.optim.Adam(gan.generator.parameters(), lr=hyperparameters["lr"], betas=betas),
            "discriminator": torch.optim.Adam(gan.discriminator.parameters(), lr=hyperparameters["lr"], betas=betas),
        },
        loss_fn=None,
        training_loader=DataLoader(load_images(), hyperparameters["batch_size"], shuffle=True, drop_last=True),
        training_step=training_step,
    )


class GAN(nn.Module):
    """Two networks as one model, so that both are moved, saved and resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(NOISE, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(64, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(256, 128),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(128, 1),
        )
        self.register_buffer("always_same_noise", torch.randn(64, NOISE))


def training_step(context: TrainingContext, batch: list[torch.Tensor]) -> StepResult:
    """Teach the discriminator to tell real from invented images, then the generator to deceive it."""
    gan: Any = context.model
    optimizers = context.optimizer
    [real] = batch
    fake = gan.generator(torch.randn(len(real), NOISE, device=real.device))
    ones, zeros = real.new_ones(len(real), 1), real.new_zeros(len(real), 1)

    optimizers["discriminator"].zero_grad()
    verdicts, truth = gan.discriminator(torch.cat([real, fake.detach()])), torch.cat([ones, zeros])
    discriminator_loss = binary_cross_entropy_with_logits(verdicts, truth)
    context.backward(discriminator_loss)
    context.step_optimizer(optimizers["discriminator"])

    optimizers["generator"].zero_grad()
    generator_loss = binary_cross_entropy_with_logits(gan.discriminator(fake), ones)
    context.backward(generator_loss)
    context.step_optimizer(optimizers["generator"])
    return StepResult(discriminator_loss + generator_loss, verdicts, truth)


def load_images() -> TensorDataset:
    """Return 1,797 images: (image, 64), from -1 to 1."""
    return TensorDataset(torch.from_numpy(load_digits().data).float() / 8.0 - 1.0)


def end_epoch(context: TrainingContext) -> None:
    """Draw 64 inventions every tenth epoch, to `digits_10.png` and so on in the folder of the run."""
    if context.epoch % 10:
        return
    gan: Any = context.model
    gan.eval()
    with torch.no_grad():
        images = gan.generator(gan.always_same_noise).cpu().view(8, 8, 8, 8)
    gan.train()
    framed = pad(images, (1, 1, 1, 1), value=-1.0)  # (row, column, y, x)
    sheet = framed.transpose(1, 2).reshape(80, 80).repeat_interleave(6, 0).repeat_interleave(6, 1)
    plt.imsave(context.output_path(f"digits_{context.epoch}.png"), sheet.numpy(), cmap="gray_r")
