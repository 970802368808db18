"""Runs every contender once a round, in an order that rotates, and compares the weights they end with."""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.terminal import output_sent_to

if TYPE_CHECKING:
    import torch

    from harness.terminal import TerminalKind
    from harness.workloads import Task, TaskMaker

Name = TypeVar("Name", bound=Hashable)
Item = TypeVar("Item")


@dataclass
class Times:
    """What one contender took, a value for each round.

    Attributes:
        step_seconds: From asking for the first batch to asking for the last one, over the steps in between.
        start_seconds: From the call to asking for the first batch.
        end_seconds: From asking for the last batch to the end of the call: one step, and what is done at the end.
        ratios: `step_seconds` over those of the reference in the same round.
        difference: Largest absolute difference of a final weight to the reference's in any round; 0 when all are
            equal bit for bit, infinite when they are not those of the same model.
    """

    step_seconds: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    end_seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    difference: float = 0.0

    @property
    def step(self) -> float:
        """Median time of a step, in seconds."""
        return statistics.median(self.step_seconds)

    @property
    def start(self) -> float:
        """Median time before the first batch, in seconds."""
        return statistics.median(self.start_seconds)

    @property
    def end(self) -> float:
        """Median time from the last batch on, in seconds."""
        return statistics.median(self.end_seconds)

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)


@dataclass(frozen=True)
class _Run:
    """What came of one training."""

    step_seconds: float
    start_seconds: float
    end_seconds: float
    weights: Mapping[str, torch.Tensor]


def measure(
    contenders: Mapping[Name, Callable[[Task], object]],
    makers: Mapping[Name, TaskMaker] | TaskMaker,
    *,
    rounds: int,
    terminal: TerminalKind = "null",
) -> dict[Name, Times]:
    """Return the times of each contender; the first one is the reference.

    One round goes ahead and is not counted: in it is loaded what is loaded late.

    Args:
        contenders: Name to a function that trains a task.
        makers: Where each gets its tasks from, or one maker for all.
        rounds: How often each is run.
        terminal: Where their output goes.
    """
    of_each = makers if isinstance(makers, Mapping) else dict.fromkeys(contenders, makers)
    times = {name: Times() for name in contenders}
    with output_sent_to(terminal):
        for number in range(rounds + 1):
            runs = {name: _run(contenders[name], of_each[name]) for name in rotated(list(contenders), number)}
            if number > 0:
                _add(times, runs)
    return times


def rotated(items: list[Item], number: int) -> list[Item]:
    """Return the items in the order of that round."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


def _run(train: Callable[[Task], object], maker: TaskMaker) -> _Run:
    with tempfile.TemporaryDirectory(prefix="bz-benchmark-") as folder:
        task = maker.make(Path(folder))
        gc.collect()
        called = maker.now()
        train(task)
        ended = maker.now()
    first, last = task.clock.first_batch, task.clock.last_batch
    assert first is not None and last is not None, "it has not walked over the batches"  # noqa: PT018 - one reason
    steps = len(task.batches) * task.epochs - 1
    weights = {name: value.detach().clone() for name, value in task.model.state_dict().items()}
    return _Run((last - first) / steps, first - called, ended - last, weights)


def _add(times: Mapping[Name, Times], runs: Mapping[Name, _Run]) -> None:
    reference = runs[next(iter(times))]
    for name, of_it in times.items():
        run = runs[name]
        of_it.step_seconds.append(run.step_seconds)
        of_it.start_seconds.append(run.start_seconds)
        of_it.end_seconds.append(run.end_seconds)
        of_it.ratios.append(run.step_seconds / reference.step_seconds)
        of_it.difference = max(of_it.difference, _difference(run.weights, reference.weights))


def _difference(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    if weights.keys() != expected.keys():
        return math.inf
    differences = ((weights[name].double() - expected[name].double()).abs().max().item() for name in expected)
    return max(differences, default=0.0)
