"""A run that was stopped anywhere and resumed comes to the same average as one that was not, bit by bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from averaging_runs import BATCHES, DECAY, EPOCHS, averaged, averaging_spec, read, run, same

from bz.intervals import Interval
from bz.testing import RecordingPlugin
from bz.training.checkpoint import find_checkpoint
from bz_plugin_averaging import AveragingPlugin
from bz_plugin_averaging.timetable import Timetable

SETTINGS: list[dict[str, Any]] = [
    {"method": "ema"},
    {"method": "ema", "buffers": True},
    {"method": "ema", "start": "4 steps", "every": "3 steps"},
    {"method": "ema", "start": 1},
    {"method": "swa"},
    {"method": "swa", "start": "2 epochs"},
    {"method": "swa", "every": "2 steps"},
    {"method": "swa", "every": "2 epochs", "buffers": True},
]


def make_plugin(settings: dict[str, Any]) -> AveragingPlugin:
    decay = {"decay": DECAY} if settings["method"] == "ema" else {}
    return AveragingPlugin(**settings | decay)


def stop_at(hook: str, step: int) -> RecordingPlugin:
    """Return a plugin that stops the run after the batch under way, at a hook of this step."""

    def stop(name: str, context: Any) -> None:
        if name == hook and context.global_step == step:
            context.request_stop("enough", when="batch")

    return RecordingPlugin(stop)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_run_that_reached_its_steps_and_is_given_more_has_the_average_of_an_undisturbed_one(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    undisturbed, _ = run(make_plugin(settings), run_dir=tmp_path / "undisturbed")
    run(make_plugin(settings), run_dir=tmp_path / "resumed", max_steps=4)
    resumed, _ = run(make_plugin(settings), run_dir=tmp_path / "resumed", resume=tmp_path / "resumed")
    assert same(read(tmp_path / "resumed" / "averaged.pth"), read(tmp_path / "undisturbed" / "averaged.pth"))
    assert resumed.history == undisturbed.history


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("stop", [("end_training_batch", step) for step in (1, 3, 5, 6, 8, 11)], ids=str)
def test_resumed_run_has_the_weights_and_the_average_of_an_undisturbed_one(
    tmp_path: Path, settings: dict[str, Any], stop: tuple[str, int]
) -> None:
    undisturbed, spec = run(make_plugin(settings), run_dir=tmp_path / "undisturbed")
    torch.manual_seed(1)
    first = averaging_spec()
    first.plugins = [stop_at(*stop)]
    run(make_plugin(settings), first, run_dir=tmp_path / "resumed")
    plugin, other = make_plugin(settings), averaging_spec()
    resumed, _ = run(plugin, other, run_dir=tmp_path / "resumed", resume=tmp_path / "resumed")
    assert same(other.model.state_dict(), spec.model.state_dict())
    assert same(read(tmp_path / "resumed" / "averaged.pth"), read(tmp_path / "undisturbed" / "averaged.pth"))
    assert resumed.history == undisturbed.history
    assert resumed.global_step == EPOCHS * BATCHES


@pytest.mark.parametrize("method", ["ema", "swa"])
def test_run_stopped_in_the_validation_goes_on_with_the_average(tmp_path: Path, method: Any) -> None:
    undisturbed, spec = run(AveragingPlugin(method), run_dir=tmp_path / "undisturbed")
    first = averaging_spec()
    first.plugins = [stop_at("end_validation_batch", 2 * BATCHES)]
    run(AveragingPlugin(method), first, run_dir=tmp_path / "resumed")
    saved = find_checkpoint(tmp_path / "resumed").state
    assert not same(saved["model_state_dict"], saved["bz"]["plugins"]["averaging"]["evaluation_weights"])
    other = averaging_spec()
    resumed, _ = run(
        AveragingPlugin(method),
        other,
        run_dir=tmp_path / "resumed",
        resume=tmp_path / "resumed",
    )
    assert same(other.model.state_dict(), spec.model.state_dict())
    assert same(read(tmp_path / "resumed" / "averaged.pth"), read(tmp_path / "undisturbed" / "averaged.pth"))
    assert resumed.history == undisturbed.history


def test_checkpoint_holds_the_average_by_the_names_of_the_model(tmp_path: Path) -> None:
    plugin = AveragingPlugin("ema", DECAY)
    _, spec = run(plugin, run_dir=tmp_path)
    saved = find_checkpoint(tmp_path).state["bz"]["plugins"]["averaging"]
    assert list(saved["evaluation_weights"]) == list(spec.model.state_dict())
    assert same(saved["evaluation_weights"], averaged(plugin))
    assert saved["count"] == EPOCHS * BATCHES


def test_checkpoint_before_the_start_names_no_average(tmp_path: Path) -> None:
    run(AveragingPlugin("ema", start="5 epochs"), run_dir=tmp_path)
    assert "evaluation_weights" not in find_checkpoint(tmp_path).state["bz"]["plugins"]["averaging"]


def test_state_that_was_loaded_is_kept_until_the_model_is_at_hand() -> None:
    plugin, other = AveragingPlugin("ema", DECAY, output=None), AveragingPlugin("ema", DECAY, output=None)
    run(plugin)
    state = plugin.state_dict()
    other.load_state_dict(state)
    assert same(averaged(other), averaged(plugin))
    assert other.state_dict() == state


def test_plugin_that_is_new_at_a_resume_begins_there(tmp_path: Path) -> None:
    run(epochs=2, run_dir=tmp_path)
    plugin = AveragingPlugin("swa", start=1)
    run(plugin, run_dir=tmp_path, resume=tmp_path)
    assert plugin.state_dict()["count"] == EPOCHS - 2


def test_second_run_of_the_same_plugin_begins_anew() -> None:
    plugin = AveragingPlugin("swa", output=None)
    run(plugin)
    once = {name: tensor.clone() for name, tensor in averaged(plugin).items()}
    run(plugin)
    assert same(averaged(plugin), once)
    assert plugin.state_dict()["count"] == EPOCHS


def test_time_until_the_start_goes_on_over_a_resume() -> None:
    position: Any = SimpleNamespace(epoch=1, global_step=1)
    timetable = Timetable(Interval(8, "h"), Interval(1, "steps"))
    state = timetable.state_dict()
    assert not timetable.is_due(position, is_epoch_trained=False)
    state["start"]["seconds"] += 8 * 60 * 60  # of the session before
    timetable.load_state_dict(state)
    assert timetable.is_due(position, is_epoch_trained=False)


def test_start_that_a_resumed_run_had_passed_stays_passed(tmp_path: Path) -> None:
    run(AveragingPlugin(start="0.000001 s"), epochs=1, run_dir=tmp_path)
    plugin = AveragingPlugin(start="8 h")
    run(plugin, run_dir=tmp_path, resume=tmp_path)
    assert plugin.state_dict()["count"] == EPOCHS * BATCHES
