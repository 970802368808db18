"""Settings, monitored values and stops of the plugin, in real runs."""

from __future__ import annotations

import inspect
import json
import logging
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from early_stopping_runs import Weights, run, scripted_spec, weights

from bz import ConfigError, Trainer
from bz.plugins import EarlyStoppingPlugin as ResolvedPlugin
from bz.plugins import Plugin
from bz.plugins.discovery import discover_plugins
from bz.plugins.manager import PluginManager
from bz.plugins.selection import PluginRequest, choose_plugins
from bz.plugins.settings import build_plugin
from bz.testing import RecordingPlugin, tiny_spec, train
from bz_plugin_early_stopping import EarlyStoppingPlugin
from bz_plugin_early_stopping.config import EarlyStoppingConfig

README = Path(__file__).parents[1] / "README.md"
WORSE = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]


def test_plugin_is_found_by_name_and_as_a_class() -> None:
    assert ResolvedPlugin is EarlyStoppingPlugin
    assert EarlyStoppingPlugin.name == "early_stopping"


@pytest.mark.parametrize(
    ("settings", "request_", "expected"),
    [
        ({}, PluginRequest(), ("off", "runs only when the settings name it")),
        ({"early_stopping": {}}, PluginRequest(), ("on", "named in the settings")),
        ({"bz-plugin-early-stopping": {}}, PluginRequest(), ("on", "named in the settings")),
        ({}, PluginRequest(only=("early_stopping",)), ("on", "asked for")),
        ({"early_stopping": {"enabled": False}}, PluginRequest(), ("off", "disabled in the settings")),
    ],
    ids=repr,
)
def test_plugin_runs_only_where_it_is_named(settings: Any, request_: PluginRequest, expected: tuple[str, str]) -> None:
    choices = choose_plugins(discover_plugins(), settings, request_)
    assert [(choice.state, choice.reason) for choice in choices if choice.name == "early_stopping"] == [expected]


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(EarlyStoppingPlugin).parameters
    assert EarlyStoppingConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    fields = EarlyStoppingConfig.model_json_schema()["properties"]
    assert rows == [(name, json.dumps(field["default"]), field["description"]) for name, field in fields.items()]


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(EarlyStoppingPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.read_text(encoding="utf-8").partition("## Hooks used")[2].partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == sorted(set(hooks) - {"load_state_dict"})


def test_import_does_not_load_torch() -> None:
    code = "import sys, bz_plugin_early_stopping; print({'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


@pytest.mark.parametrize("hook", ["start_training_batch", "end_training_batch", "end_validation_batch"])
def test_batches_cost_nothing(hook: str) -> None:
    manager = PluginManager()
    manager.add(EarlyStoppingPlugin())
    assert not manager.bind()[hook]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "`patience` must be at least 1, got 0."),
        ({"patience": "5 epochs"}, '`patience` must be a whole number, got "5 epochs".'),
        ({"min_delta": -0.1}, "`min_delta` must be at least 0.0, got -0.1."),
        ({"min_delta": math.nan}, "`min_delta` must be a finite number"),
        ({"min_epochs": -1}, "`min_epochs` must be at least 0, got -1."),
        ({"mode": "lowest"}, "`mode` must be one of 'auto', 'min' or 'max', got \"lowest\"."),
        (
            {"monitor": "val_loss"},
            '`monitor` must begin with "training_" or "validation_", as in "validation_loss", got "val_loss".',
        ),
        (
            {"monitor": "validation_quux"},
            'must say "min" or "max" as `mode`: the name \'validation_quux\' does not tell which is better',
        ),
        ({"monitor": "validation_accuracy_loss"}, "does not tell which is better"),
        (
            {"stopping_threshold": 0.5, "divergence_threshold": 0.5},
            "`divergence_threshold` must be above the `stopping_threshold` 0.5, got 0.5.",
        ),
        (
            {"monitor": "validation_accuracy", "stopping_threshold": 0.5, "divergence_threshold": 0.6},
            "`divergence_threshold` must be below the `stopping_threshold` 0.5, got 0.6.",
        ),
        ({"check_finite": "perhaps"}, '`check_finite` must be true or false, got "perhaps".'),
    ],
    ids=repr,
)
def test_bad_argument_is_one_clear_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^EarlyStoppingPlugin: .*{re.escape(message)}") as caught:
        EarlyStoppingPlugin(**settings)
    assert len(caught.value.faults) == 1
    with pytest.raises(ConfigError, match=r"^`plugins\.early_stopping\.config"):
        build_plugin("early_stopping", EarlyStoppingPlugin, settings)


def test_unknown_setting_is_refused_with_the_close_match() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'patience'"):
        build_plugin("early_stopping", EarlyStoppingPlugin, {"patienc": 1})


def test_run_without_improvement_is_stopped_after_the_patience() -> None:
    result, _ = run(WORSE, EarlyStoppingPlugin())
    assert (result.status, result.epochs) == ("stopped", 6)
    assert result.stop_reason == "validation_loss has not improved for 5 validations; best 0.5 in epoch 1, step 3"


def test_run_that_improves_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    result, _ = run([0.5, 0.6, 0.4, 0.6, 0.3, 0.6], EarlyStoppingPlugin(patience=2))
    assert (result.status, result.epochs, result.stop_reason) == ("completed", 6, None)
    assert said(caplog) == [
        "watching validation_loss: lower is better; patience: 2 validations",
        "validation_loss: best 0.3 in epoch 5, step 15",
    ]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("bz_plugin_early_stopping")]


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 6),
        ({"patience": 2}, 3),
        ({"patience": 2, "min_epochs": 5}, 5),
        ({"patience": 2, "mode": "max"}, None),
        ({"patience": 2, "monitor": "validation_accuracy"}, None),
        ({"patience": 2, "monitor": "validation_accuracy", "mode": "min"}, 3),
        ({"patience": 2, "mode": "max", "min_delta": 0.15}, None),
        ({"patience": 1, "mode": "max", "min_delta": 0.15}, 2),
        ({"stopping_threshold": 0.5}, 1),
        ({"mode": "max", "stopping_threshold": 0.75}, 4),
        ({"mode": "max", "stopping_threshold": 0.75, "min_epochs": 6}, 6),
        ({"divergence_threshold": 0.85}, 5),
        ({"divergence_threshold": 0.85, "min_epochs": 6}, 6),
    ],
    ids=repr,
)
def test_each_setting_has_an_effect(settings: dict[str, Any], epochs: int | None) -> None:
    result, _ = run(WORSE, build_plugin("early_stopping", EarlyStoppingPlugin, settings))
    assert (result.status, result.epochs) == (("completed", 8) if epochs is None else ("stopped", epochs))


@pytest.mark.parametrize(("check_finite", "epochs"), [(True, 2), (False, 4)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_not_finite_stops_the_run_or_counts_as_no_improvement(
    value: float, epochs: int, *, check_finite: bool
) -> None:
    values = [0.5, value, value, value, 0.4]
    result, _ = run(values, EarlyStoppingPlugin(patience=3, check_finite=check_finite))
    assert (result.status, result.epochs) == ("stopped", epochs)


def test_direction_that_was_chosen_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    result, _ = run([0.1, 0.2, 0.1], EarlyStoppingPlugin("validation_accuracy", patience=1))
    assert said(caplog) == [
        "watching validation_accuracy: higher is better; patience: 1 validation",
        "stopping: validation_accuracy has not improved for 1 validation; best 0.2 in epoch 2, step 6",
        "validation_accuracy: best 0.2 in epoch 2, step 6",
    ]
    assert result.stop_reason == "validation_accuracy has not improved for 1 validation; best 0.2 in epoch 2, step 6"


@pytest.mark.parametrize("monitor", ["training_loss", "training_accuracy"])
def test_training_value_is_measured_at_the_end_of_each_epoch(monitor: str) -> None:
    plugin = EarlyStoppingPlugin(monitor, patience=99)
    spec = scripted_spec(lambda context: 0.0)
    result = train(spec, plugin, epochs=3, strict_plugins=True)
    best = min if monitor == "training_loss" else max
    expected = best(result.history, key=lambda row: row[monitor])
    watched = plugin.state_dict()
    assert (watched["best"]["value"], watched["best"]["epoch"]) == (expected[monitor], expected["epoch"])
    assert watched["last"]["epoch"] == 3


def test_training_loss_stands_in_for_a_validation_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    spec = tiny_spec(validation_loader=None)
    result = train(spec, EarlyStoppingPlugin(min_delta=10.0, patience=2), epochs=9, strict_plugins=True)
    assert (result.status, result.epochs) == ("stopped", 3)
    assert re.match("training_loss has not improved for 2 epochs; best ", result.stop_reason or "")
    assert said(caplog) == ["this run has no validation: early stopping watches the training loss"]


def by_step(start: float, step: float) -> Any:
    return scripted_spec(lambda context: start + step * context.global_step)


def test_patience_counts_validations_however_rare() -> None:
    result = train(by_step(0.5, 0.01), EarlyStoppingPlugin(patience=2), epochs=9, validation_interval="2 epochs")
    assert (result.status, result.epochs) == ("stopped", 6)
    assert result.stop_reason == "validation_loss has not improved for 2 validations; best 0.56 in epoch 2, step 6"


def test_validation_inside_an_epoch_ends_the_run_at_once() -> None:
    recorder = RecordingPlugin()
    plugin = EarlyStoppingPlugin(patience=3)
    result = train(by_step(0.5, 0.01), plugin, recorder, epochs=9, validation_interval="1 step", strict_plugins=True)
    assert (result.status, result.epochs, result.global_step) == ("stopped", 1, 4)
    assert recorder.events[-2:] == ["end_validation_loop", "end_training_session"]
    assert result.stop_reason == "validation_loss has not improved for 3 validations; best 0.51 in epoch 1, step 1"


def test_validation_after_the_last_batch_lets_the_epoch_be_closed() -> None:
    recorder = RecordingPlugin()
    plugin = EarlyStoppingPlugin(patience=2)
    result = train(by_step(0.5, 0.01), plugin, recorder, epochs=9, validation_interval="1 step", strict_plugins=True)
    assert (result.status, result.epochs, result.global_step) == ("stopped", 1, 3)
    assert recorder.events[-4:] == ["end_validation_loop", "end_training_loop", "end_epoch", "end_training_session"]


@pytest.mark.parametrize(("min_epochs", "step"), [(0, 2), (1, 3), (2, 6)])
def test_epoch_that_is_not_done_does_not_count_for_min_epochs(min_epochs: int, step: int) -> None:
    plugin = EarlyStoppingPlugin(patience=1, min_epochs=min_epochs)
    result = train(by_step(0.5, 0.01), plugin, epochs=9, validation_interval="1 step", strict_plugins=True)
    assert (result.status, result.global_step) == ("stopped", step)


def test_untrained_model_is_the_first_to_beat() -> None:
    plugin = EarlyStoppingPlugin(patience=2, restore_best_weights=True)
    spec = by_step(0.5, 0.01)
    before = weights(spec)
    result = train(spec, plugin, epochs=9, validate_first=True, strict_plugins=True)
    assert result.stop_reason == "validation_loss has not improved for 2 validations; best 0.5 in epoch 0, step 0"
    assert weights(spec) == before


def test_goal_that_the_untrained_model_reaches_ends_the_run_before_it_begins() -> None:
    plugin = EarlyStoppingPlugin(stopping_threshold=0.5)
    result = train(by_step(0.5, 0.01), plugin, epochs=9, validate_first=True, strict_plugins=True)
    assert (result.status, result.epochs, result.global_step) == ("stopped", 0, 0)


def test_weights_that_were_validated_are_those_that_are_put_back() -> None:
    class HalfWeights(Plugin):
        def evaluation_weights(self, context: Any) -> Any:
            return {name: value / 2 for name, value in context.model.state_dict().items()}

    notes = Weights()
    plugin = EarlyStoppingPlugin(restore_best_weights=True)
    _, spec = run([0.5, 0.6], notes, HalfWeights(), plugin)
    assert weights(spec) == [(torch.tensor(value) / 2).tolist() for value in notes.after_epoch[1]]


@pytest.mark.parametrize(
    "options",
    [{"limit_validation_batches": 0}, {"validation_interval": 0}],
    ids=repr,
)
def test_training_loss_stands_in_for_a_validation_that_is_switched_off(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    plugin = EarlyStoppingPlugin(min_delta=10.0, patience=2)
    result = train(by_step(0.5, 0.01), plugin, epochs=9, strict_plugins=True, **options)
    assert (result.status, result.epochs) == ("stopped", 3)
    assert said(caplog) == ["this run has no validation: early stopping watches the training loss"]


def test_run_that_ends_before_its_first_validation_has_measured_nothing(caplog: pytest.LogCaptureFixture) -> None:
    train(by_step(0.5, 0.01), EarlyStoppingPlugin(), epochs=2, validation_interval="5 epochs", strict_plugins=True)
    assert said(caplog) == ["early stopping has had no value of validation_loss to go by"]


@pytest.mark.parametrize(
    ("monitor", "validation", "known"),
    [
        (
            "validation_acuracy",
            {},
            (
                "training_accuracy, training_loss, validation_accuracy, validation_loss. "
                "Did you mean 'validation_accuracy'?"
            ),
        ),
        (
            "training_acuracy",
            {},
            "training_accuracy, training_loss, validation_accuracy, validation_loss. Did you mean 'training_accuracy'?",
        ),
        (
            "validation_accuracy",
            {"validation_loader": None},
            "training_accuracy, training_loss. Did you mean 'training_accuracy'?",
        ),
    ],
)
def test_unknown_monitor_is_one_sentence_that_lists_what_is_measured(
    caplog: pytest.LogCaptureFixture, monitor: str, validation: dict[str, Any], known: str
) -> None:
    spec = scripted_spec(lambda context: 0.5, **validation)
    result = train(spec, EarlyStoppingPlugin(monitor, mode="max"), epochs=5)
    (message,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert f"ConfigError: Cannot monitor {monitor!r}; this run has {known} Until" in message
    assert (result.status, result.plugin_usage[0].is_quarantined) == ("completed", False)
    assert said(caplog) == []


def test_best_weights_are_put_back_before_other_plugins_look(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notes, at_end = Weights(), []
    look = RecordingPlugin(
        lambda hook, context: at_end.append(weights(context)) if hook == "end_training_session" else None
    )
    plugin = EarlyStoppingPlugin(patience=2, restore_best_weights=True)
    result, spec = run([0.5, 0.3, 0.4, 0.6, 0.7], notes, look, plugin)
    assert (result.status, result.epochs) == ("stopped", 4)
    assert weights(spec) == notes.after_epoch[2] == at_end[0]
    assert notes.after_epoch[2] != notes.after_epoch[4]
    assert said(caplog)[-1] == "the model has the weights measured in epoch 2, step 6"


def test_best_weights_are_put_back_also_when_all_epochs_are_done() -> None:
    notes = Weights()
    result, spec = run([0.5, 0.3, 0.4], notes, EarlyStoppingPlugin(restore_best_weights=True))
    assert result.status == "completed"
    assert weights(spec) == notes.after_epoch[2]


def test_buffers_are_part_of_the_best_weights() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    spec = scripted_spec(lambda context: float(context.epoch), model=model)
    spec.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(spec, EarlyStoppingPlugin(restore_best_weights=True), epochs=3)
    assert model.state_dict()["0.num_batches_tracked"].item() == 3


def test_last_weights_stay_without_restore_best_weights() -> None:
    notes, plugin = Weights(), EarlyStoppingPlugin(patience=2)
    _, spec = run([0.5, 0.6, 0.7], notes, plugin)
    assert weights(spec) == notes.after_epoch[3]
    assert plugin.state_dict()["weights"] is None


def test_failed_run_keeps_its_last_weights() -> None:
    def step(context: Any, batch: Any) -> torch.Tensor:
        if context.epoch == 3:
            raise RuntimeError("the user's step")
        return torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])

    notes = Weights()
    spec = scripted_spec(lambda context: float(context.epoch), training_step=step, metrics=None)
    with pytest.raises(RuntimeError, match="the user's step"):
        train(spec, notes, EarlyStoppingPlugin(restore_best_weights=True), epochs=3)
    assert weights(spec) == notes.after_epoch[2] != notes.after_epoch[1]


def test_run_without_a_finite_value_keeps_its_last_weights(caplog: pytest.LogCaptureFixture) -> None:
    notes, plugin = Weights(), EarlyStoppingPlugin(restore_best_weights=True, check_finite=False)
    result, spec = run([math.nan, math.nan], notes, plugin)
    assert weights(spec) == notes.after_epoch[2]
    assert result.status == "completed"
    assert said(caplog) == ["early stopping has had no value of validation_loss to go by"]


def test_training_is_not_changed_until_it_stops(tmp_path: Path) -> None:
    notes = [Weights(), Weights()]
    for note, plugins in zip(notes, ([], [EarlyStoppingPlugin(patience=2, restore_best_weights=True)]), strict=True):
        torch.manual_seed(1)
        run([0.5, 0.6, 0.7], note, *plugins)
    assert notes[0].after_epoch == notes[1].after_epoch


def test_plugin_serves_a_second_run() -> None:
    plugin = EarlyStoppingPlugin(patience=2)
    assert [run(WORSE, plugin)[0].epochs for _ in range(2)] == [3, 3]


def test_stop_of_somebody_else_keeps_its_reason() -> None:
    other = RecordingPlugin(lambda hook, context: context.request_stop("enough") if hook == "start_epoch" else None)
    result, _ = run(WORSE, other, EarlyStoppingPlugin(stopping_threshold=1.0))
    assert (result.stop_reason, result.epochs) == ("enough", 1)


def test_trainer_of_a_script_takes_it_with_an_argument_by_position() -> None:
    spec = tiny_spec()
    trainer = Trainer()
    trainer.add_plugin(EarlyStoppingPlugin("training_loss", patience=1, min_delta=100.0))
    trainer.train(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, epochs=9)
    assert trainer.result is not None
    assert (trainer.result.status, trainer.result.epochs) == ("stopped", 2)
