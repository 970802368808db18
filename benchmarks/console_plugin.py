"""What the console plugin costs a run of short steps: the same run with and without it, in turns.

    python benchmarks/console_plugin.py

Run it on a terminal to measure the bars, in a pipe to measure the plain lines.
"""

from __future__ import annotations

import sys
from time import process_time
from typing import TYPE_CHECKING

import torch

from bz import Trainer
from bz_plugin_console import ConsoleOutPlugin

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.progress import PluginUsage

STEP_SECONDS, BATCHES, ROUNDS = 200e-6, 10_000, 5


def work(size: int) -> None:
    """Keep the processor busy."""
    for _ in range(size):
        pass


def calibrate() -> int:
    """Return the size of work that takes `STEP_SECONDS` here; work, since waiting would hide the cost of the plugin."""
    started = process_time()
    work(1_000_000)
    return round(STEP_SECONDS / (process_time() - started) * 1_000_000)


WORK = calibrate()


def step(context: TrainingContext, batch: torch.Tensor) -> torch.Tensor:
    """Take `STEP_SECONDS`, and the time of a very small model."""
    work(WORK)
    loss: torch.Tensor = context.model(batch).sum()
    return loss


def run(plugin: ConsoleOutPlugin | None) -> tuple[float, tuple[PluginUsage, ...]]:
    """Train one epoch; return the processor seconds it took, and what the plugin cost by bz's own account."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(4, 1)
    trainer = Trainer()
    if plugin:
        trainer.add_plugin(plugin)
    batches = [torch.ones(8, 4)] * BATCHES
    started = process_time()
    result = trainer.train(model, torch.optim.SGD(model.parameters(), lr=0.0), None, batches, training_step=step)
    return process_time() - started, result.plugin_usage


def main() -> None:
    """Measure in turns, then compare the fastest rounds, which other processes disturbed least."""
    rounds = [(run(None)[0], *run(ConsoleOutPlugin())) for _ in range(ROUNDS)]
    bare, watched = (min(times) for times in ([one[0] for one in rounds], [one[1] for one in rounds]))
    seconds = min(usage[0].seconds for _, _, usage in rounds)
    print(f"bars: {sys.stdout.isatty()}; {BATCHES} batches of {bare / BATCHES * 1e6:.0f} us without the plugin")
    print(f"run with the plugin / without: {watched / bare:.4f} (rounds {[f'{w / b:.4f}' for b, w, _ in rounds]})")
    print(f"time in the plugin's hooks: {seconds / BATCHES * 1e6:.2f} us a batch, {seconds / watched:.2%} of the run")


if __name__ == "__main__":
    main()
