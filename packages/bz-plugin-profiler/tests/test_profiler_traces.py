"""Traces hold the steps that were asked for, whole, however the run ends."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from profiler_runs import AtBatch, event_names, events, file_size_limit, marks, names, profiler, stop_at, summary, train

from bz.plugins import Plugin
from bz.testing import tiny_spec
from bz.testing import train as train_spec
from bz_plugin_profiler import ProfilerPlugin

if TYPE_CHECKING:
    from bz.context import TrainingContext

TRACE = Path("profile", "trace_6-8.json.gz")


def test_trace_holds_the_steps_and_their_operators(tmp_path: Path) -> None:
    train(profiler(steps="6-8"), run_dir=tmp_path)
    assert names(tmp_path) == ["operators_6-8.txt", "summary.json", "trace_6-8.json.gz"]
    assert marks(tmp_path / TRACE) == ["ProfilerStep#6", "ProfilerStep#7", "ProfilerStep#8"]
    found = event_names(tmp_path / TRACE)
    assert {"aten::addmm", "aten::mse_loss", "AddmmBackward0", "Optimizer.step#SGD.step"} <= found
    assert summary(tmp_path) == {"traces": ["trace_6-8.json.gz"]}


def test_table_lists_the_operators(tmp_path: Path) -> None:
    train(profiler(steps="6-8"), run_dir=tmp_path)
    text = (tmp_path / "profile" / "operators_6-8.txt").read_text(encoding="utf-8")
    assert text.startswith("Steps 6-8: operators by their own time on the cpu device, at most 30\n")
    [row] = [line for line in text.splitlines() if line.strip().startswith("aten::mse_loss ")]
    assert row.split()[-1] == "3"  # once a step


def test_default_traces_a_few_steps_behind_the_first(tmp_path: Path) -> None:
    train(ProfilerPlugin(), run_dir=tmp_path)
    assert marks(tmp_path / TRACE) == ["ProfilerStep#6", "ProfilerStep#7", "ProfilerStep#8"]


def test_each_range_has_a_trace(tmp_path: Path) -> None:
    train(profiler(steps="1, 3-4,5, 14-15"), run_dir=tmp_path)
    traces = {name: marks(tmp_path / "profile" / name) for name in summary(tmp_path)["traces"]}
    assert traces == {
        "trace_1.json.gz": ["ProfilerStep#1"],
        "trace_3-4.json.gz": ["ProfilerStep#3", "ProfilerStep#4"],
        "trace_5.json.gz": ["ProfilerStep#5"],
        "trace_14-15.json.gz": ["ProfilerStep#14", "ProfilerStep#15"],
    }


class Watch(Plugin):
    """Notes the steps in which torch's profiler is alive."""

    def __init__(self, plugin: ProfilerPlugin) -> None:
        self.plugin = plugin
        self.steps: list[int] = []

    def start_training_batch(self, context: TrainingContext) -> None:
        assert self.plugin._tracer is not None
        if self.plugin._tracer.is_running:
            self.steps.append(context.global_step + 1)


def test_profiler_is_alive_from_the_step_before_to_the_last(tmp_path: Path) -> None:
    watch = Watch(profiler(steps="6-8, 20-21"))
    train(watch.plugin, watch, stop_at(10), run_dir=tmp_path)
    assert watch.steps == [5, 6, 7, 8]
    resumed = Watch(profiler(steps="6-8, 20-21"))
    train(resumed.plugin, resumed, run_dir=tmp_path, resume=tmp_path)
    assert resumed.steps == [19, 20, 21]


def test_range_over_the_end_of_an_epoch_is_traced_without_the_validation(tmp_path: Path) -> None:
    train(profiler(steps="11-14"), run_dir=tmp_path)
    assert summary(tmp_path)["traces"] == ["trace_11-12.json.gz", "trace_13-14.json.gz"]
    forward_passes = [
        event
        for name in summary(tmp_path)["traces"]
        for event in events(tmp_path / "profile" / name)
        if event["name"] == "aten::mse_loss"
    ]
    assert len(forward_passes) == 4


def test_range_over_the_end_of_an_epoch_without_validation_is_traced_in_two(tmp_path: Path) -> None:
    train(profiler(steps="11-14"), run_dir=tmp_path, validation_interval=0)
    assert summary(tmp_path)["traces"] == ["trace_11-12.json.gz", "trace_13-14.json.gz"]


def test_range_with_a_validation_in_it_is_traced_without_it(tmp_path: Path) -> None:
    train(profiler(steps="5-8"), run_dir=tmp_path, epochs=1, validation_interval="6 steps")
    traces = {name: marks(tmp_path / "profile" / name) for name in summary(tmp_path)["traces"]}
    assert traces == {
        "trace_5-6.json.gz": ["ProfilerStep#5", "ProfilerStep#6"],
        "trace_7-8.json.gz": ["ProfilerStep#7", "ProfilerStep#8"],
    }


def test_nothing_is_written_when_nothing_is_traced(tmp_path: Path) -> None:
    train(profiler(), run_dir=tmp_path)
    assert names(tmp_path) == ["summary.json"]


def has_argument(path: Path, name: str) -> bool:
    return any(name in event.get("args", {}) for event in events(path))


@pytest.mark.parametrize(
    ("option", "is_in"),
    [
        ("record_shapes", lambda path: has_argument(path, "Input Dims")),
        ("profile_memory", lambda path: "[memory]" in event_names(path)),
        ("with_stack", lambda path: any(event.get("cat") == "python_function" for event in events(path))),
    ],
)
def test_option_adds_to_the_trace(tmp_path: Path, option: str, is_in: Any) -> None:
    train(profiler(steps="6-8", **{option: True}), run_dir=tmp_path / "with")
    train(profiler(steps="6-8"), run_dir=tmp_path / "without")
    assert is_in(tmp_path / "with" / TRACE)
    assert not is_in(tmp_path / "without" / TRACE)


def test_shapes_are_told_apart_in_the_table(tmp_path: Path) -> None:
    train(profiler(steps="6-8", record_shapes=True), run_dir=tmp_path)
    text = (tmp_path / "profile" / "operators_6-8.txt").read_text(encoding="utf-8")
    assert "[[4, 1], [4, 1], []]" in text


def test_stop_inside_the_range_keeps_what_is_there(tmp_path: Path) -> None:
    result = train(profiler(steps="6-8"), stop_at(7), run_dir=tmp_path)
    assert result.status == "stopped"
    assert marks(tmp_path / "profile" / "trace_6-7.json.gz") == ["ProfilerStep#6", "ProfilerStep#7"]


def test_signal_inside_the_range_keeps_what_is_there(tmp_path: Path) -> None:
    by_signal = AtBatch(6, lambda context: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        train(profiler(steps="6-8"), by_signal, run_dir=tmp_path)
    assert marks(tmp_path / "profile" / "trace_6.json.gz") == ["ProfilerStep#6"]


class FailingLoss(torch.nn.Module):
    """Fails in the seventh step."""

    calls = 0

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 7:
            raise RuntimeError("the user's loss")
        return torch.nn.functional.mse_loss(outputs, targets)


def test_error_inside_the_range_keeps_what_is_there(tmp_path: Path) -> None:
    plugin = profiler(steps="6-8")
    with pytest.raises(RuntimeError, match="the user's loss"):
        train(plugin, loss_fn=FailingLoss(), run_dir=tmp_path)
    assert marks(tmp_path / "profile" / "trace_6-7.json.gz") == ["ProfilerStep#6", "ProfilerStep#7"]
    train(plugin, run_dir=tmp_path / "again")  # torch's profiler was not left running
    assert marks(tmp_path / "again" / TRACE) == ["ProfilerStep#6", "ProfilerStep#7", "ProfilerStep#8"]


def test_steps_that_never_came_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(profiler(steps="6-8, 100"), run_dir=tmp_path)
    assert caplog.messages == ["the run ended after step 24; what `steps` names behind it (6-8, 100) was not traced"]


@pytest.mark.parametrize("step", [4, 5])
def test_run_that_ends_before_the_range_writes_no_trace(
    tmp_path: Path, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    train(profiler(steps="6-8"), stop_at(step), run_dir=tmp_path)
    assert names(tmp_path) == ["summary.json"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_weights_are_bit_equal_with_everything_traced(tmp_path: Path) -> None:
    traced, bare = tiny_spec(), tiny_spec()
    torch.manual_seed(1)
    train_spec(bare)
    torch.manual_seed(1)
    plugin = ProfilerPlugin(steps="1-6", record_shapes=True, profile_memory=True, with_stack=True)
    train_spec(traced, plugin, run_dir=tmp_path, strict_plugins=True)
    for mine, expected in zip(traced.model.parameters(), bare.model.parameters(), strict=True):
        assert torch.equal(mine, expected)
    assert summary(tmp_path)["traces"] == ["trace_1-3.json.gz", "trace_4-6.json.gz"]


def test_accumulated_steps_have_a_mark_for_each_batch(tmp_path: Path) -> None:
    train(profiler(steps="2"), run_dir=tmp_path, epochs=1, accumulate_batches=4)
    assert marks(tmp_path / "profile" / "trace_2.json.gz") == ["ProfilerStep#2"] * 4


def test_trace_that_does_not_fit_on_the_disk_is_reported_and_not_left_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with file_size_limit(4000):
        result = train(profiler(steps="6-8"), strict=False, run_dir=tmp_path, checkpoint_interval=0)
    assert result.status == "completed"
    [message] = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "plugin 'profiler' failed in end_training_batch (epoch 1, step 8)" in message
    assert "torch could not write the trace" in message
    assert names(tmp_path) == ["summary.json"]
