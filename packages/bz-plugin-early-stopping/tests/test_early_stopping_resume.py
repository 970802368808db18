"""A run that was killed and resumed comes to what an undisturbed run comes to."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from early_stopping_runs import Weights, run, weights

from bz.testing import RecordingPlugin
from bz.training.checkpoint import find_checkpoint, read_checkpoint
from bz_plugin_early_stopping import EarlyStoppingPlugin

HARNESS = Path(__file__).with_name("early_stopping_kills.py")
WORSE = [0.5, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"patience": 2, "restore_best_weights": True}, {"checkpoint_interval": "1 step"}),
        (
            {"patience": 3, "restore_best_weights": True},
            {"checkpoint_interval": "1 step", "validation_interval": "2 steps"},
        ),
        ({"stopping_threshold": 0.515, "restore_best_weights": True}, {}),
        ({"monitor": "training_loss", "patience": 2, "min_epochs": 3, "min_delta": 10.0}, {}),
    ],
    ids=json.dumps,
)
def test_killed_run_comes_to_what_an_undisturbed_run_comes_to(
    tmp_path: Path, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    command = [sys.executable, str(HARNESS), str(tmp_path), json.dumps(settings), json.dumps({"epochs": 9, **options})]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    *differences, last = [json.loads(line) for line in finished.stdout.splitlines()]
    assert differences == []
    assert last["kills"] > 20
    assert last["status"] == "stopped"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("bz_plugin_early_stopping")]


def test_run_that_was_stopped_is_over_at_once_when_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, spec = run(WORSE, EarlyStoppingPlugin(patience=2, restore_best_weights=True), run_dir=tmp_path)
    recorder = RecordingPlugin()
    again, resumed = run(
        WORSE,
        EarlyStoppingPlugin(patience=2, restore_best_weights=True),
        recorder,
        run_dir=tmp_path,
        resume=tmp_path,
    )
    reason = "validation_loss has not improved for 2 validations; best 0.3 in epoch 2, step 6"
    assert [(one.status, one.epochs, one.stop_reason) for one in (first, again)] == [("stopped", 4, reason)] * 2
    assert recorder.events[-3:] == ["start_training_session", "load_checkpoint", "end_training_session"]
    assert weights(resumed) == weights(spec)
    assert said(caplog) == [
        "the run was over at this checkpoint; to go on, change the settings of early_stopping",
    ]


def test_run_that_was_stopped_goes_on_with_more_patience(tmp_path: Path) -> None:
    run(WORSE, EarlyStoppingPlugin(patience=2), run_dir=tmp_path)
    result, _ = run(WORSE, EarlyStoppingPlugin(patience=4), run_dir=tmp_path, resume=tmp_path)
    assert (result.status, result.epochs) == ("stopped", 6)


def test_plugin_that_is_new_at_a_resume_begins_there(tmp_path: Path) -> None:
    run(WORSE[:3], run_dir=tmp_path)
    result, _ = run(WORSE, EarlyStoppingPlugin(patience=2), run_dir=tmp_path, resume=tmp_path)
    assert result.stop_reason == "validation_loss has not improved for 2 validations; best 0.7 in epoch 4, step 12"


@pytest.mark.parametrize("changed", [{"monitor": "validation_accuracy"}, {"mode": "max"}])
def test_values_of_another_monitor_or_mode_are_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any]
) -> None:
    run(WORSE[:3], EarlyStoppingPlugin(), run_dir=tmp_path)
    plugin = EarlyStoppingPlugin(**changed)
    run([*WORSE[:3], 0.2, 0.1], plugin, run_dir=tmp_path, resume=tmp_path)
    assert said(caplog) == ["early stopping watches something else than before, and begins afresh"]
    assert plugin.state_dict()["best"]["epoch"] == 4


def test_weights_that_were_not_kept_are_said_to_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = Weights()
    run(WORSE[:3], EarlyStoppingPlugin(), run_dir=tmp_path)
    plugin = EarlyStoppingPlugin(restore_best_weights=True)
    _, spec = run(WORSE[:4], notes, plugin, run_dir=tmp_path, resume=tmp_path)
    assert weights(spec) == notes.after_epoch[4]
    assert said(caplog) == ["the weights of the best validation_loss were not kept: the model has the last ones"]


def test_weights_that_are_no_longer_wanted_are_dropped(tmp_path: Path) -> None:
    notes = Weights()
    run(WORSE[:3], EarlyStoppingPlugin(restore_best_weights=True), run_dir=tmp_path)
    plugin = EarlyStoppingPlugin()
    _, spec = run(WORSE[:4], notes, plugin, run_dir=tmp_path, resume=tmp_path)
    assert weights(spec) == notes.after_epoch[4]
    assert plugin.state_dict()["weights"] is None


def test_interrupted_run_keeps_its_last_weights_and_goes_on_to_the_best(tmp_path: Path) -> None:
    notes = Weights()
    plain, whole = run(WORSE, EarlyStoppingPlugin(patience=2, restore_best_weights=True), notes)

    def interrupt(hook: str, context: Any) -> None:
        if hook == "start_epoch" and context.epoch == 4:
            os.kill(os.getpid(), signal.SIGINT)

    at_end: list[Any] = []
    look = RecordingPlugin(lambda hook, context: at_end.append(weights(context)) if "session" in hook else None)
    options: dict[str, Any] = {"run_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        run(
            WORSE,
            EarlyStoppingPlugin(patience=2, restore_best_weights=True),
            RecordingPlugin(interrupt),
            look,
            **options,
        )
    saved = find_checkpoint(tmp_path).state
    assert [value.tolist() for value in saved["model_state_dict"].values()] == at_end[-1] != notes.after_epoch[2]
    plugin = EarlyStoppingPlugin(patience=2, restore_best_weights=True)
    result, spec = run(WORSE, plugin, resume=tmp_path, **options)
    assert (result.status, result.stop_reason, result.history) == (plain.status, plain.stop_reason, plain.history)
    assert weights(spec) == weights(whole) == notes.after_epoch[2]


def test_last_checkpoint_has_the_last_weights_and_the_best_ones_for_the_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    notes = Weights()
    run(WORSE, notes, EarlyStoppingPlugin(patience=2, restore_best_weights=True), run_dir=tmp_path)
    state = read_checkpoint(tmp_path / "state" / "epoch_4_step_12.pth")
    own = state["bz"]["plugins"]["early_stopping"]
    assert [value.tolist() for value in state["model_state_dict"].values()] == notes.after_epoch[4]
    assert [value.tolist() for value in own["weights"].values()] == notes.after_epoch[2]
    assert own["best"] == {"value": 0.3, "epoch": 2, "step": 6, "epochs_done": 2}


def test_copy_is_on_the_host_and_does_not_follow_the_model() -> None:
    plugin = EarlyStoppingPlugin(restore_best_weights=True)
    _, spec = run([0.5, 0.6], plugin)
    kept = plugin.state_dict()["weights"]
    with torch.no_grad():
        for parameter in spec.model.parameters():
            parameter.add_(1.0)
    assert {value.device.type for value in kept.values()} == {"cpu"}
    assert [value.tolist() for value in kept.values()] != weights(spec)
