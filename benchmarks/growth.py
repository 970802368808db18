"""How the cost of bz's loop grows: with the number of plugins, metrics, batches and epochs.

The tiny model, beside the hand-written loop on the same batches in the same rounds. Plugins are trivial ones with both
batch hooks; metrics are accuracies of plain tensors.

    python benchmarks/growth.py [--rounds 7] [--batches 1000] [--lengths 100 1000 10000] [--clock wall|cpu]
        [--markdown]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from bz import Plugin
from harness.report import equality, microseconds, print_machine, print_table, spread
from harness.rounds import measure
from harness.workloads import CLOCKS, WORKLOADS, TaskMaker
from tools.by_hand import bare
from tools.with_bz import Accuracy, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from bz import TrainingContext
    from harness.rounds import Times
    from harness.workloads import Task

NUMBERS: Final = (0, 1, 5, 20)
EPOCHS: Final = (1, 10, 100)
BY_HAND: Final = "by hand"


class Idle(Plugin):
    """Does nothing, before and after each batch."""

    def start_training_batch(self, context: TrainingContext) -> None:
        """Do nothing."""

    def end_training_batch(self, context: TrainingContext) -> None:
        """Do nothing."""


def with_plugins(number: int, task: Task) -> None:
    """Train with that many plugins."""
    run(task, *(Idle() for _ in range(number)))


def with_metrics(number: int, task: Task) -> None:
    """Train with that many metrics."""
    run(task, metrics={f"accuracy_{index}": Accuracy() for index in range(number)})


def compare_numbers(train: Callable[[int, Task], None], maker: TaskMaker, rounds: int) -> dict[str, Times]:
    """Return the times with each number of something."""
    ways: dict[str, Callable[[Task], object]] = {BY_HAND: bare}
    ways |= {f"{number}": partial(train, number) for number in NUMBERS}
    return measure(ways, maker, rounds=rounds)


def compare_tasks(makers: dict[str, TaskMaker], rounds: int) -> dict[str, Times]:
    """Return the times of bz on each task, with ratios to the hand-written loop on the same."""
    return {name: measure({BY_HAND: bare, name: run}, maker, rounds=rounds)[name] for name, maker in makers.items()}


def print_times(what: str, times: dict[str, Times], *, markdown: bool) -> None:
    """Print a line for each number."""
    rows = [
        [name, microseconds(of_it.step), f"{of_it.ratio:.3f}", spread(of_it.ratios, ".3f"), equality(of_it.difference)]
        for name, of_it in times.items()
    ]
    print_table([what, "us a step", "ratio to the loop by hand", "range", "weights"], rows, markdown=markdown)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_machine()
    tiny, options = WORKLOADS["tiny"], {"markdown": arguments.markdown}
    now = CLOCKS[arguments.clock]
    maker = TaskMaker(tiny, arguments.batches, now=now)
    print_times("plugins", compare_numbers(with_plugins, maker, arguments.rounds), **options)
    print_times("metrics", compare_numbers(with_metrics, maker, arguments.rounds), **options)
    lengths = {f"{length:,}": TaskMaker(tiny, length, now=now) for length in arguments.lengths}
    print_times("batches", compare_tasks(lengths, arguments.rounds), **options)
    epochs = {
        f"{number}": TaskMaker(tiny, max(2, arguments.batches // number), epochs=number, now=now) for number in EPOCHS
    }
    print_times("epochs, the same batches in all", compare_tasks(epochs, arguments.rounds), **options)


if __name__ == "__main__":
    main()
