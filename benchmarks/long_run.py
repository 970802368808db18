"""Whether a long run stays as fast and as small as it began: 100,000 steps of the tiny model with all plugins.

At each tenth of the run, what the process holds in memory and the time of a step; the last line compares the last one
with the second, since the first still fills caches. Ends with what each plugin cost. matplotlib, which the plots
load in the fifth epoch, stays in memory.

    python benchmarks/long_run.py [--steps 100000] [--epochs 10] [--terminal pty|null] [--clock wall|cpu] [--markdown]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from bz import Trainer
from harness.report import microseconds, print_machine, print_table
from harness.terminal import output_sent_to
from harness.workloads import CLOCKS, WORKLOADS, TaskMaker
from tools.with_bz import Accuracy, all_plugins

if TYPE_CHECKING:
    from bz.training.result import TrainingResult
    from harness.workloads import Batch, Task

PARTS: Final = 10


class Mark(NamedTuple):
    """Where the process was after some steps."""

    steps: int
    seconds: float
    resident_bytes: int


class WatchedBatches:
    """Batches of one epoch, that look at the process each time a tenth of the whole run is done.

    Attributes:
        marks: What they saw, the beginning included.
    """

    def __init__(self, batches: list[Batch], *, length: int, total: int, now: Callable[[], float]) -> None:
        self._batches = batches
        self._length = length
        self._looks_at = {*range(0, total, total // PARTS), total - 1}
        self._now = now
        self._done = 0
        self.marks: list[Mark] = []

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        for batch in islice(cycle(self._batches), self._length):
            if self._done in self._looks_at:
                self.marks.append(Mark(self._done, self._now(), resident_bytes()))
            self._done += 1
            yield batch


def resident_bytes() -> int:
    """Return the memory that the process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def train(task: Task, batches: WatchedBatches, epochs: int) -> TrainingResult:
    """Train with all plugins, an accuracy, and the core's checkpoint after each epoch."""
    trainer = Trainer()
    for plugin in all_plugins():
        trainer.add_plugin(plugin)
    return trainer.train(
        task.model,
        task.optimizer,
        task.loss_fn,
        batches,
        epochs=epochs,
        device="cpu",
        metrics={"accuracy": Accuracy()},
        run_dir=task.folder / "run",
    )


def print_parts(marks: list[Mark], *, markdown: bool) -> None:
    """Print a line for each tenth."""
    rows = [
        [
            f"{before.steps:,} to {after.steps:,}",
            microseconds((after.seconds - before.seconds) / (after.steps - before.steps)),
            f"{after.resident_bytes / 2**20:.1f}",
            f"{(after.resident_bytes - before.resident_bytes) / 2**20:+.1f}",
        ]
        for before, after in pairwise(marks)
    ]
    print_table(["steps", "us a step", "MiB at the end", "change"], rows, markdown=markdown)
    second, last = marks[1:3], marks[-2:]
    pace = [(after.seconds - before.seconds) / (after.steps - before.steps) for before, after in (second, last)]
    grown = last[1].resident_bytes - second[1].resident_bytes
    print(f"\nlast tenth over second: {pace[1] / pace[0]:.3f} of the time a step, {grown / 2**20:+.1f} MiB since")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--terminal", choices=["pty", "null"], default="pty" if sys.platform != "win32" else "null")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_machine()
    maker = TaskMaker(WORKLOADS["tiny"], 256)
    with tempfile.TemporaryDirectory(prefix="bz-benchmark-") as folder:
        task = maker.make(Path(folder))
        length, now = arguments.steps // arguments.epochs, CLOCKS[arguments.clock]
        batches = WatchedBatches(list(task.batches), length=length, total=length * arguments.epochs, now=now)
        with output_sent_to(arguments.terminal):
            result = train(task, batches, arguments.epochs)
    print_parts(batches.marks, markdown=arguments.markdown)
    usage = [
        [one.name, f"{one.calls:,}", f"{one.seconds:.2f}", f"{one.share:.1%}", f"{one.failures}"]
        for one in result.plugin_usage
    ]
    print_table(["plugin", "calls", "seconds", "share", "failures"], usage, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
