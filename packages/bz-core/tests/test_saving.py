"""When checkpoints are written: intervals, the thread of its own, and losses that are not finite."""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bz import TrainingContext, TrainingError
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.background import BackgroundWriter
from bz.training.checkpoint import read_checkpoint

if TYPE_CHECKING:
    import torch


def files(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "state").iterdir())


def test_interval_in_steps_writes_inside_epochs_and_at_the_end(tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=3, run_dir=tmp_path, checkpoint_interval="2 steps")
    assert plugin.events.count("save_checkpoint") == 5
    assert files(tmp_path) == ["epoch_3_step_8.pth", "epoch_3_step_9.pth"]


def test_interval_in_time_writes_when_it_is_over(tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=2, run_dir=tmp_path, checkpoint_interval="1 h")
    assert plugin.events.count("save_checkpoint") == 1
    assert files(tmp_path) == ["epoch_2_step_6.pth"]


@pytest.mark.parametrize("interval", ["1 epoch", "2 steps"])
def test_background_writes_the_same_files(interval: str, tmp_path: Path) -> None:
    states = []
    for is_async in (False, True):
        run_dir = tmp_path / str(is_async)
        plugin = RecordingPlugin()
        train(tiny_spec(), plugin, epochs=3, run_dir=run_dir, checkpoint_interval=interval, async_checkpoint=is_async)
        assert plugin.events[-2:] == ["save_checkpoint", "end_training_session"]
        state = read_checkpoint(run_dir / "state" / files(run_dir)[-1])
        states.append((files(run_dir), [tensor.tolist() for tensor in state["model_state_dict"].values()]))
    assert states[0] == states[1]


def test_background_snapshot_is_not_changed_by_later_steps(tmp_path: Path) -> None:
    weights: list[list[float]] = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch" and context.global_step == 1:
            context.save_checkpoint("one.pth")
            weights.append(context.model.state_dict()["0.bias"].tolist())

    train(tiny_spec(), RecordingPlugin(look), epochs=1, run_dir=tmp_path, async_checkpoint=True)
    assert read_checkpoint(tmp_path / "one.pth")["model_state_dict"]["0.bias"].tolist() == weights[0]


def test_background_failure_surfaces_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    result = train(tiny_spec(), epochs=2, run_dir=tmp_path, async_checkpoint=True)
    assert result.status == "completed"
    assert [sentence.startswith("Cannot write the checkpoint ") for sentence in result.missing_files] == [True]
    assert all(message.endswith("Training goes on.") for message in caplog.messages)


def test_background_leaves_no_thread(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=2, run_dir=tmp_path, async_checkpoint=True)
    assert [thread.name for thread in threading.enumerate() if thread.name == "bz-checkpoint"] == []


def test_background_raises_what_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    writer = BackgroundWriter()
    writer.submit({}, tmp_path / "x\0.pth", lambda: None)
    with pytest.raises(ValueError, match=r"null (byte|character)"):
        writer.collect(wait=True)


def poison(at_call: int, value: float = math.nan) -> Any:
    """Return a step whose loss is `value` the at_call-th time."""
    calls = itertools.count(1)

    def training_step(context: TrainingContext, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        assert context.loss_fn is not None
        loss = context.loss_fn(context.model(inputs), targets)
        return loss * value if next(calls) == at_call else loss

    return training_step


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_the_run_before_it_is_saved(value: float, tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    with pytest.raises(TrainingError, match="The loss is NaN or infinite since epoch 2, step 5; the checkpoints"):
        train(tiny_spec(training_step=poison(5, value)), plugin, epochs=3, run_dir=tmp_path)
    assert files(tmp_path) == ["epoch_1_step_3.pth"]
    assert plugin.events[-2:] == ["end_training_batch", "end_training_session"]


def test_loss_that_is_not_finite_is_found_inside_a_long_epoch() -> None:
    spec = tiny_spec(training_step=poison(6))
    spec.training_loader = [next(iter(spec.training_loader))] * 1000
    plugin = RecordingPlugin()
    with pytest.raises(TrainingError, match=r"since epoch 1, step 6;"):
        train(spec, plugin, epochs=1)
    assert plugin.events.count("end_training_batch") == 100


def test_loss_that_is_not_finite_reaches_no_checkpoint_that_a_plugin_asks_for(tmp_path: Path) -> None:
    def ask(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch":
            context.save_checkpoint(f"step_{context.global_step}.pth")

    with pytest.raises(TrainingError, match="since epoch 1, step 3"):
        train(tiny_spec(training_step=poison(3)), RecordingPlugin(ask), epochs=1, run_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["step_1.pth", "step_2.pth"]


def test_skip_leaves_the_step_out(caplog: pytest.LogCaptureFixture) -> None:
    spec = tiny_spec(training_step=poison(5))
    result = train(spec, epochs=2, on_nonfinite="skip")
    assert (result.global_step, result.status) == (5, "completed")
    assert math.isfinite(result.training_loss)
    assert all(bool(parameter.isfinite().all()) for parameter in spec.model.parameters())
    assert caplog.messages == ["the loss is nan in epoch 2, batch 2; this step is skipped"]


def test_ignore_goes_on() -> None:
    result = train(tiny_spec(training_step=poison(2)), epochs=2, on_nonfinite="ignore")
    assert result.status == "completed"
    assert math.isnan(result.history[0]["training_loss"])
