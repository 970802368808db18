"""What a durable, verified checkpoint costs over plain torch, and how long training stands still for one.

On a model of about 100 MB, round after round in turn, medians:

    save     `write_checkpoint` (fsync, digest, rename) over `torch.save(state, path)`
    load     `read_checkpoint` (digest) over `torch.load(path, weights_only=True)`
    stall    how long a training stands still for a checkpoint with `async_checkpoint`, over without

    python benchmarks/checkpoint_cost.py [--megabytes 100] [--rounds 7] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bz import Trainer
from bz.plugins import Plugin
from bz.training.checkpoint import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from bz import TrainingContext

LAYER_MEGABYTES = 4
WIDTH = 1024


def make_model(megabytes: int) -> nn.Module:
    """Return a network of that size, float32."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(megabytes // LAYER_MEGABYTES)))


def seconds(action: Callable[[], object]) -> float:
    """Return how long it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Stalls(Plugin):
    """Asks for a checkpoint after some batches, and measures the time from there to the next batch."""

    def __init__(self, every: int) -> None:
        self.with_checkpoint: list[float] = []
        self.without: list[float] = []
        self._every = every
        self._ended: tuple[float, bool] | None = None

    def start_training_batch(self, context: TrainingContext) -> None:
        """Take the time since the batch before."""
        if self._ended is None or context.batch_index < 1:
            return
        ended, has_asked = self._ended
        (self.with_checkpoint if has_asked else self.without).append(time.perf_counter() - ended)

    def end_training_batch(self, context: TrainingContext) -> None:
        """Ask, now and then."""
        asks = context.batch_index % self._every == self._every - 1
        if asks:
            context.save_checkpoint("stall.pth")
        self._ended = time.perf_counter(), asks


def measure_stall(megabytes: int, folder: Path, rounds: int, *, is_async: bool) -> tuple[float, float]:
    """Return the medians, in seconds, of the gap between two batches with a checkpoint in it and without one."""
    model = make_model(megabytes)
    plugin = Stalls(every=20)
    trainer = Trainer()
    trainer.add_plugin(plugin)
    batches = [(torch.randn(4, WIDTH), torch.randn(4, WIDTH))] * (20 * rounds + 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    options: dict[str, Any] = {"device": "cpu", "checkpoint_interval": 0, "async_checkpoint": is_async}
    trainer.train(model, optimizer, nn.MSELoss(), batches, run_dir=folder, **options)
    return statistics.median(plugin.with_checkpoint), statistics.median(plugin.without)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    state: dict[str, Any] = {"model_state_dict": make_model(arguments.megabytes).state_dict()}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        plain, ours, synced = folder / "plain.pth", folder / "ours.pth", folder / "synced.pth"

        def save_and_sync() -> None:
            with synced.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())

        actions: dict[str, Callable[[], object]] = {
            "torch.save": lambda: torch.save(state, plain),
            "torch.save and fsync": save_and_sync,
            "durable save": lambda: write_checkpoint(state, ours),
            "torch.load": lambda: torch.load(plain, weights_only=True),
            "verified load": lambda: read_checkpoint(ours),
        }
        for _ in range(arguments.rounds + 1):
            for what, action in actions.items():
                times.setdefault(what, []).append(seconds(action))
        medians = {what: statistics.median(values[1:]) for what, values in times.items()}  # the first warms up
        size = ours.stat().st_size
        stalls = {
            is_async: [measure_stall(arguments.megabytes, folder, 2, is_async=is_async)] for is_async in (False, True)
        }
        for _ in range(arguments.rounds - 1):
            for is_async, values in stalls.items():
                values.append(measure_stall(arguments.megabytes, folder, 2, is_async=is_async))
    print(f"{size / 1e6:.0f} MB, {arguments.rounds} rounds, medians:")
    for what, value in medians.items():
        print(f"  {what:22}{value:8.3f} s")
    stands = {is_async: statistics.median(gap for gap, _ in values) for is_async, values in stalls.items()}
    idle = statistics.median(gap for values in stalls.values() for _, gap in values)
    print(f"  {'synchronous stall':22}{stands[False]:8.3f} s")
    print(f"  {'asynchronous stall':22}{stands[True]:8.3f} s   (between other batches {idle * 1e6:.0f} us)")
    print(f"durable save / torch.save: {medians['durable save'] / medians['torch.save']:.2f}")
    print(f"durable save / torch.save and fsync: {medians['durable save'] / medians['torch.save and fsync']:.2f}")
    print(f"verified load / torch.load: {medians['verified load'] / medians['torch.load']:.2f}")
    print(f"asynchronous stall / synchronous stall: {stands[True] / stands[False]:.3f}")


if __name__ == "__main__":
    main()
