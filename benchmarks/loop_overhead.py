"""What bz's bare loop costs over a loop written by hand, on a tiny model.

Both run on the same batches in one process, round after round in turn; the weights must come out
equal. Prints the time of a step and the ratio of the medians.

    python benchmarks/loop_overhead.py [--rounds 7] [--batches 1000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from bz import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

Batches: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]


def make_batches(number: int) -> Batches:
    """Return random classification batches: 32 samples of 64 features, 10 classes."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(32, 64, generator=generator), torch.randint(0, 10, (32,), generator=generator))
        for _ in range(number)
    ]


def make_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a small network and its optimizer, the same at each call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train_by_hand(batches: Batches) -> nn.Module:
    """Train for one epoch with the plain loop that everybody writes."""
    model, optimizer = make_model()
    loss_fn = nn.CrossEntropyLoss()
    model.train()
    for inputs, targets in batches:
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def train_with_bz(batches: Batches) -> nn.Module:
    """Train for one epoch with a trainer that has no plugins."""
    model, optimizer = make_model()
    Trainer().train(model, optimizer, nn.CrossEntropyLoss(), batches, device="cpu")
    return model


def seconds_per_step(train: Callable[[Batches], nn.Module], batches: Batches) -> tuple[float, nn.Module]:
    """Return the mean CPU time of a step, which other programs on the machine disturb least, and the trained model."""
    started = time.process_time()
    model = train(batches)
    return (time.process_time() - started) / len(batches), model


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batches = make_batches(arguments.batches)
    for train in (train_by_hand, train_with_bz):
        train(batches)
    by_hand, with_bz = [], []
    for _ in range(arguments.rounds):
        seconds, expected = seconds_per_step(train_by_hand, batches)
        by_hand.append(seconds)
        seconds, model = seconds_per_step(train_with_bz, batches)
        with_bz.append(seconds)
        assert all(torch.equal(*pair) for pair in zip(expected.parameters(), model.parameters(), strict=True))
    hand, bz = statistics.median(by_hand), statistics.median(with_bz)
    print(f"hand-written loop  {hand * 1e6:7.1f} us a step  ({min(by_hand) * 1e6:.1f} to {max(by_hand) * 1e6:.1f})")
    print(f"bz, no plugins     {bz * 1e6:7.1f} us a step  ({min(with_bz) * 1e6:.1f} to {max(with_bz) * 1e6:.1f})")
    print(f"ratio              {bz / hand:7.3f}     weights equal")


if __name__ == "__main__":
    main()
