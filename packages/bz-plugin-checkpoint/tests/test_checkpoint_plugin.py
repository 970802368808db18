"""Settings, monitored values, full disks and names of the plugin, in real runs."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_runs import names, saved, scripted_run

from bz import ConfigError, Trainer, TrainingContext
from bz.plugins import SmartCheckpointPlugin as ResolvedPlugin
from bz.plugins.manager import PluginManager
from bz.plugins.settings import build_plugin
from bz.spec import StepResult
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import read_checkpoint
from bz_plugin_checkpoint import SmartCheckpointPlugin
from bz_plugin_checkpoint.monitor import is_higher_better
from bz_plugin_checkpoint.plugin import SmartCheckpointConfig

README = Path(__file__).parents[1] / "README.md"


class Shown:
    """A metric whose value is the last output that is a number."""

    value = 0.0

    def update(self, preds: Any, target: Any) -> None:
        self.value = preds if isinstance(preds, float) else self.value

    def compute(self) -> float:
        return self.value

    def reset(self) -> None:
        self.value = 0.0


def scores_step(scores: list[float]) -> Any:
    """Return a step whose outputs in epoch N are the Nth of `scores`."""

    def step(context: Any, batch: Any) -> StepResult:
        score = scores[context.epoch - 1]
        return StepResult(torch.tensor(0.5), score, score)

    return step


def test_plugin_is_found_under_the_name_of_the_guide() -> None:
    assert ResolvedPlugin is SmartCheckpointPlugin
    assert (SmartCheckpointPlugin.name, SmartCheckpointPlugin.required) == ("checkpoint", True)


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(SmartCheckpointPlugin).parameters
    assert SmartCheckpointConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_guide_gives_the_first_three_arguments_by_position() -> None:
    assert list(inspect.signature(SmartCheckpointPlugin).parameters)[:3] == [
        "save_dir",
        "max_checkpoints",
        "save_best_only",
    ]


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    fields = SmartCheckpointConfig.model_json_schema()["properties"]
    described = [(name, json.dumps(field["default"]), field["description"]) for name, field in fields.items()]
    assert rows == described


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(SmartCheckpointPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.read_text(encoding="utf-8").partition("## Hooks used")[2].partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == sorted(set(hooks) - {"load_state_dict"})


def test_import_does_not_load_torch() -> None:
    code = "import sys, bz_plugin_checkpoint; print({'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_checkpoints": -1}, "`max_checkpoints` must be at least 0, got -1."),
        ({"max_checkpoints": "many"}, '`max_checkpoints` must be a whole number, got "many".'),
        ({"every": "2 weeks"}, 'a bare number means epochs, got "2 weeks".'),
        ({"milestones": 0}, "a bare number means epochs, got 0."),
        ({"mode": "lowest"}, "`mode` must be one of 'auto', 'min' or 'max', got \"lowest\"."),
        (
            {"monitor": "validation_quux"},
            '`mode` must be "min" or "max", since the name \'validation_quux\' does not say',
        ),
        ({"max_checkpoints": 0}, "has nothing to save: set `max_checkpoints`, `keep_best` or `keep_last` above 0"),
        ({"save_dir": ""}, "`save_dir` must have at least 1 characters"),
    ],
    ids=repr,
)
def test_bad_argument_is_one_clear_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^SmartCheckpointPlugin: .*{re.escape(message)}") as caught:
        SmartCheckpointPlugin(**settings)
    assert len(caught.value.faults) == 1
    with pytest.raises(ConfigError, match=r"^`plugins\.checkpoint\.config"):
        build_plugin("checkpoint", SmartCheckpointPlugin, settings)


def test_unknown_setting_is_refused_with_the_close_match() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'keep_best'"):
        build_plugin("checkpoint", SmartCheckpointPlugin, {"keep_bset": 1})


def test_settings_of_a_file_reach_the_plugin(tmp_path: Path) -> None:
    plugin = build_plugin(
        "checkpoint", SmartCheckpointPlugin, {"save_dir": "kept", "every": "2 epochs", "keep_last": 1}
    )
    scripted_run([0.5, 0.4, 0.3], plugin, run_dir=tmp_path)
    assert names(tmp_path / "kept") == ["2"]


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("validation_loss", False),
        ("validation_accuracy", True),
        ("validation_accuracy_loss", False),
        ("validation_thing", None),
    ],
)
def test_direction_is_taken_from_the_name_and_lower_wins(monitor: str, expected: bool | None) -> None:  # noqa: FBT001 - an expected value
    assert is_higher_better(monitor) is expected


def test_metric_can_be_monitored(tmp_path: Path) -> None:
    plugin = SmartCheckpointPlugin(monitor="validation_accuracy", max_checkpoints=1)
    spec = tiny_spec(metrics={"accuracy": Shown()}, validation_step=scores_step([0.2, 0.9, 0.5]))
    train(spec, plugin, epochs=3, run_dir=tmp_path, strict_plugins=True)
    assert names(tmp_path / "checkpoints") == ["2"]
    state = read_checkpoint(tmp_path / "checkpoints" / "best.pth")
    assert state["bz"]["extra"] == {"monitor": "validation_accuracy", "value": 0.9}


def test_training_loss_stands_in_for_a_validation_that_is_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(
        tiny_spec(validation_loader=None), SmartCheckpointPlugin(max_checkpoints=1), epochs=4, run_dir=tmp_path
    )
    best = min(result.history, key=lambda row: row["training_loss"])
    assert names(tmp_path / "checkpoints") == [str(best["epoch"])]
    assert (
        tmp_path / "checkpoints" / f"checkpoint_epoch_{best['epoch']}_loss_{best['training_loss']:.4f}.pth"
    ).exists()
    said = [record.message for record in caplog.records if record.name.startswith("bz_plugin_checkpoint")]
    assert said == ["this run has no validation: the best checkpoint is the one with the lowest training loss"]


def test_unknown_monitor_is_one_sentence_and_files_are_saved_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = SmartCheckpointPlugin(monitor="validation_acuracy", mode="max", max_checkpoints=2)
    result = train(
        tiny_spec(metrics={"accuracy": Shown()}, validation_step=scores_step([0.5] * 5)),
        plugin,
        epochs=5,
        run_dir=tmp_path,
    )
    (message,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert (
        "ConfigError: Cannot monitor 'validation_acuracy'; this run has training_accuracy, training_loss, " in message
    )
    assert "validation_accuracy, validation_loss. Did you mean 'validation_accuracy'? Until" in message
    assert names(tmp_path / "checkpoints") == ["4", "5"]
    assert not (tmp_path / "checkpoints" / "best.pth").exists()
    assert result.missing_files == ("Plugin 'checkpoint' is required and failed.",)
    assert not result.plugin_usage[0].is_quarantined


def test_interval_of_steps_saves_inside_epochs_and_once_where_two_rules_meet(tmp_path: Path) -> None:
    written: list[str] = []

    def note(hook: str, context: TrainingContext) -> None:
        if hook == "save_checkpoint" and context.checkpoint_path is not None:
            written.append(context.checkpoint_path.name)

    spy = RecordingPlugin(note)
    plugin = SmartCheckpointPlugin(every="2 steps", milestones="1 epoch", keep_best=1, keep_last=1)
    scripted_run([0.5, 0.4], plugin, spy, run_dir=tmp_path, checkpoint_interval=0)
    assert written == [
        "checkpoint_epoch_1_step_2.pth",
        "checkpoint_epoch_1_loss_0.5000.pth",
        "checkpoint_epoch_2_step_4.pth",
        "checkpoint_epoch_2_loss_0.4000.pth",
    ]


def test_step_at_the_end_of_an_epoch_of_unknown_length_is_saved_there(tmp_path: Path) -> None:
    spec = tiny_spec()
    batches = list(spec.training_loader)
    spec.training_loader = Endless(batches)
    train(spec, SmartCheckpointPlugin(every="3 steps", save_best_only=False), epochs=2, run_dir=tmp_path)
    assert names(tmp_path / "checkpoints") == ["1@3", "2@6"]


class Endless:
    """An iterable of batches that does not say how many."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


def test_interval_of_time_saves_inside_epochs(tmp_path: Path) -> None:
    assert saved(tmp_path, [0.5], every="0.000000001 s", save_best_only=False, max_checkpoints=9) == ["1@1", "1@2", "1"]


@pytest.mark.parametrize(
    ("settings", "is_called"), [({}, False), ({"every": "5 steps"}, True), ({"milestones": "5 min"}, True)]
)
def test_batches_cost_nothing_unless_an_interval_ends_inside_an_epoch(settings: Any, *, is_called: bool) -> None:
    manager = PluginManager()
    manager.add(SmartCheckpointPlugin(**settings))
    assert bool(manager.bind()["end_training_batch"]) == is_called


def test_relative_folder_is_under_the_run_or_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = RecordingPlugin(lambda hook, _: os.chdir(tmp_path.parent) if hook == "start_epoch" else None)
    scripted_run([0.5], SmartCheckpointPlugin(), elsewhere)
    scripted_run([0.5], SmartCheckpointPlugin(tmp_path / "absolute"), run_dir=tmp_path / "run")
    assert [names(tmp_path / folder) for folder in ("checkpoints", "absolute")] == [["1"], ["1"]]


def test_folder_that_leaves_the_run_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result, _ = scripted_run([0.5], SmartCheckpointPlugin("../out"), run_dir=tmp_path / "run", strict_plugins=False)
    assert "'../out' leads out of the run folder" in caplog.text
    assert result.missing_files == ("Plugin 'checkpoint' is required and failed.",)
    assert not (tmp_path / "out").exists()


def test_plugin_serves_a_second_run(tmp_path: Path) -> None:
    plugin = SmartCheckpointPlugin()
    scripted_run([0.5], plugin, run_dir=tmp_path / "one")
    scripted_run([0.6], plugin, run_dir=tmp_path / "two")
    assert names(tmp_path / "two" / "checkpoints") == ["1"]


def test_file_that_could_not_be_written_is_tried_again_at_the_next_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint_epoch_2_loss_0.3000.pth").mkdir(parents=True)
    plugin = SmartCheckpointPlugin(max_checkpoints=1)
    seen = []
    spy = RecordingPlugin(
        lambda hook, _: seen.append(len(list(folder.glob("*_loss_0.9*")))) if hook == "start_epoch" else None
    )
    result, _ = scripted_run([0.9, 0.3, 0.5], plugin, spy, run_dir=tmp_path, checkpoint_interval=0)
    assert "Is a directory. Training goes on." in caplog.text
    assert seen == [0, 1, 1]
    (folder / "checkpoint_epoch_2_loss_0.3000.pth").rmdir()
    assert names(folder) == ["3"]
    assert read_checkpoint(folder / "best.pth")["epoch"] == 3
    assert result.missing_files == ()


def test_best_that_cannot_be_pointed_is_said_and_makes_the_run_incomplete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    (folder / "best.pth" / "in the way").mkdir(parents=True)
    result, _ = scripted_run(
        [0.9, 0.8, 0.7, 0.6, 0.5], SmartCheckpointPlugin(max_checkpoints=1), run_dir=tmp_path, strict_plugins=False
    )
    assert names(folder) == ["5"]
    assert read_checkpoint(folder / "last.pth")["epoch"] == 5
    assert caplog.text.count("trying again after the next checkpoint") == 1
    assert result.missing_files == ("Plugin 'checkpoint' is required and failed.",)
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"] == []


def test_names_that_could_be_pointed_in_the_end_make_the_run_complete(tmp_path: Path) -> None:
    obstacle = tmp_path / "checkpoints" / "best.pth" / "in the way"
    obstacle.mkdir(parents=True)

    def clear(hook: str, context: Any) -> None:
        if hook == "start_epoch" and context.epoch == 3:
            obstacle.rmdir()
            obstacle.parent.rmdir()

    result, _ = scripted_run([0.9, 0.5, 0.6], SmartCheckpointPlugin(), RecordingPlugin(clear), run_dir=tmp_path)
    assert result.missing_files == ()
    assert read_checkpoint(obstacle.parent)["epoch"] == 2


def test_state_is_plain_and_goes_on(tmp_path: Path) -> None:
    plugin = SmartCheckpointPlugin(every="2 steps", milestones="2 epochs")
    scripted_run([0.9, math.nan], plugin, run_dir=tmp_path)
    other = SmartCheckpointPlugin(every="2 steps", milestones="2 epochs")
    other.load_state_dict(plugin.state_dict())
    assert repr(other.state_dict()) == repr(plugin.state_dict())


def test_trainer_takes_it_as_in_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = tiny_spec()
    trainer = Trainer()
    trainer.add_plugin(SmartCheckpointPlugin("kept", 3, False))
    trainer.train(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, spec.validation_loader, epochs=5)
    state = torch.load(tmp_path / "kept" / "last.pth", weights_only=True)
    assert state["epoch"] == 5
    assert len(names(tmp_path / "kept")) == 3
