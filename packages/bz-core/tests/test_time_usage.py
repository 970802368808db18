"""Where the time of a session goes."""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz import Plugin, TrainingContext
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training import account
from bz.training.clock import TIMED_EVERY, PartClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 10.0
"""What a slow part takes on the clock of the tests: more than a busy machine takes for all else."""
_clock = {"ahead": 0}


def take_time(seconds: float = SECONDS) -> None:
    """Let the clock of the tests go ahead."""
    _clock["ahead"] += int(seconds * 1e9)


@pytest.fixture(autouse=True)
def clock_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that is timed in a session go by a clock that `take_time` puts forward."""
    for module in ("bz.training.clock", "bz.training.session", "bz.plugins.guard"):
        monkeypatch.setattr(f"{module}.perf_counter_ns", lambda: perf_counter_ns() + _clock["ahead"])


def largest(usage: Any) -> str:
    values: dict[str, float] = usage._asdict()
    return max(values, key=values.__getitem__)


class SlowBatches:
    """A loader that takes its time."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            take_time()
            yield batch


class SlowMetric:
    """A metric that takes its time."""

    def update(self, preds: Any, target: Any) -> None:
        take_time()

    def compute(self) -> float:
        return 0.0

    def reset(self) -> None: ...


class SlowHook(Plugin):
    """A plugin that takes its time."""

    def end_training_batch(self, context: TrainingContext) -> None:
        take_time()


def slow_step(context: TrainingContext, batch: Any) -> torch.Tensor:
    take_time()
    inputs, targets = batch
    loss: torch.Tensor = torch.nn.functional.cross_entropy(context.model(inputs), targets)
    return loss


class SlowOptimizer(torch.optim.SGD):
    """An optimizer that takes its time."""

    def step(self, closure: Any = None) -> Any:
        take_time()
        return super().step(closure)


class SlowGradient(torch.autograd.Function):
    """A gradient that takes its time."""

    @staticmethod
    def forward(_context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(_context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        take_time()
        return gradients[0]


def run(part: str, **options: Any) -> Any:
    spec, plugins = tiny_spec(), []
    if part == "data":
        spec.training_loader = SlowBatches(list(spec.training_loader))
    elif part == "forward":
        spec.training_step = slow_step
    elif part == "backward":
        loss_fn = torch.nn.CrossEntropyLoss()
        slow: Any = SlowGradient
        spec.loss_fn = lambda outputs, targets: loss_fn(slow.apply(outputs), targets)
    elif part == "optimizer":
        spec.optimizer = SlowOptimizer(spec.model.parameters(), lr=0.1)
    elif part == "metrics":
        spec.metrics = {"slow": SlowMetric()}
        spec.validation_loader = None
    elif part == "validation":
        spec.validation_loader = SlowBatches(list(spec.validation_loader or []))
    elif part == "plugins":
        plugins = [SlowHook()]
    return train(spec, *plugins, epochs=10, **options)


@pytest.mark.parametrize("part", ["data", "forward", "backward", "optimizer", "metrics", "validation", "plugins"])
def test_part_that_takes_its_time_is_named(part: str) -> None:
    assert largest(run(part).time_usage) == part


@pytest.mark.parametrize("settings", [{"accumulate_batches": 2}, {"clip_grad_norm": 1.0}, {"precision": "fp16"}])
@pytest.mark.parametrize("part", ["backward", "optimizer"])
def test_part_is_named_where_steps_are_not_plain(part: str, settings: dict[str, Any]) -> None:
    assert largest(run(part, **settings).time_usage) == part


def test_checkpoints_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec()
    collect = spec.model.state_dict

    def slow_state(*arguments: Any, **options: Any) -> Any:
        take_time()
        return collect(*arguments, **options)

    monkeypatch.setattr(spec.model, "state_dict", slow_state)
    assert largest(train(spec, epochs=10, run_dir=tmp_path, checkpoint_interval="1 step").time_usage) == "checkpoints"


def test_parts_add_up_to_the_session() -> None:
    result = train(tiny_spec(), RecordingPlugin(), epochs=30)
    assert result.time_usage.total == pytest.approx(result.seconds, rel=0.2)
    assert all(seconds >= 0 for seconds in result.time_usage)


def test_startup_ends_with_the_first_batch_and_counts_what_was_before() -> None:
    seen = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook in {"start_training_batch", "end_training_session"}:
            seen.append(context.time_usage().startup)
            take_time()

    train(tiny_spec(), RecordingPlugin(look), epochs=1)
    assert len(set(seen)) == 1


def test_sample_moves_from_loop_to_loop_and_counts_for_all_batches() -> None:
    clock = PartClock()
    assert [clock.sample() for _ in range(TIMED_EVERY + 1)] == [*range(TIMED_EVERY), 0]
    timed = clock.timed("forward", take_time)
    with clock.measuring("loop"):
        timed()
        take_time(4 * SECONDS)
    clock.count(batches=4, timed=1)
    assert clock.seconds()["forward"] == 4 * clock._sampled["forward"] / 1e9 >= 4 * SECONDS


def test_sample_is_never_more_than_the_loop_was() -> None:
    clock = PartClock()
    with clock.measuring("loop"):
        clock.timed("forward", take_time)()
    clock.count(batches=100, timed=1)
    assert clock.seconds()["forward"] == pytest.approx(clock.seconds()["loop"])


@pytest.mark.parametrize(("limit_seconds", "is_warned"), [(0.0, True), (3600.0, False)])
def test_long_run_that_waits_for_data_is_told_what_to_try(
    limit_seconds: float,
    is_warned: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(account, "LONG_RUN_SECONDS", limit_seconds)
    with caplog.at_level(logging.WARNING):
        run("data")
    assert ("try a larger num_workers" in caplog.text) == is_warned
