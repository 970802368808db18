"""Settings, the file of the average, and what the plugin says."""

from __future__ import annotations

import inspect
import json
import logging
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from averaging_runs import BATCHES, DECAY, EPOCHS, averaged, averaging_spec, read, run, same, validation_loss
from torch import nn

from bz import ConfigError
from bz.plugins import AveragingPlugin as ResolvedPlugin
from bz.plugins.discovery import discover_plugins
from bz.plugins.selection import PluginRequest, choose_plugins
from bz.plugins.settings import build_plugin
from bz.testing import RecordingPlugin, tiny_spec
from bz_plugin_averaging import AveragingPlugin
from bz_plugin_averaging.plugin import AveragingConfig

README = Path(__file__).parents[1] / "README.md"


def test_plugin_is_found_under_its_name_and_runs_only_when_named() -> None:
    [point] = entry_points(group="bz.plugins", name="averaging")
    assert point.load() is ResolvedPlugin is AveragingPlugin
    assert (AveragingPlugin.name, AveragingPlugin.required) == ("averaging", True)

    def state(settings: dict[str, Any], *only: str) -> str:
        choices = choose_plugins(discover_plugins(), settings, PluginRequest(only=only))
        return next(choice.state for choice in choices if choice.name == "averaging")

    assert state({}) == "off"
    assert state({"averaging": {}}) == "on"
    assert state({}, "averaging") == "on"


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(AveragingPlugin).parameters
    assert AveragingConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    fields = AveragingConfig.model_json_schema()["properties"]
    described = [(name, json.dumps(field["default"]), field["description"]) for name, field in fields.items()]
    assert rows == described


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(AveragingPlugin) if re.match(r"(start|end|load|save)_|evaluation", name)]
    section = README.read_text(encoding="utf-8").partition("## Hooks used")[2].partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == sorted(set(hooks) - {"load_state_dict"})


def test_import_does_not_load_torch() -> None:
    code = "import sys, bz_plugin_averaging as b; b.AveragingPlugin(); print({'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mean"}, "`method` must be one of 'ema' or 'swa', got \"mean\"."),
        ({"decay": 1.5}, "`decay` must be at most 1.0, got 1.5."),
        ({"decay": -0.1}, "`decay` must be at least 0.0, got -0.1."),
        ({"start": 0}, "a bare number means epochs, got 0."),
        ({"every": "2 weeks"}, 'a bare number means epochs, got "2 weeks".'),
        ({"buffers": "perhaps"}, '`buffers` must be true or false, got "perhaps".'),
        ({"output": ""}, "`output` must have at least 1 characters"),
    ],
    ids=repr,
)
def test_bad_argument_is_one_clear_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^AveragingPlugin: .*{re.escape(message)}") as caught:
        AveragingPlugin(**settings)
    assert len(caught.value.faults) == 1
    with pytest.raises(ConfigError, match=r"^`plugins\.averaging\.config"):
        build_plugin("averaging", AveragingPlugin, settings)


def test_plugin_is_built_from_settings() -> None:
    plugin = build_plugin("averaging", AveragingPlugin, {"method": "swa", "every": "2 epochs", "output": None})
    run(plugin)
    assert isinstance(plugin, AveragingPlugin)
    assert plugin.state_dict()["count"] == EPOCHS // 2


def test_decay_decides_how_much_stays() -> None:
    none, all_of_it = AveragingPlugin(decay=0, output=None), AveragingPlugin(decay=1, every="1 epoch", output=None)
    _, spec = run(none)
    assert same(averaged(none), spec.model.state_dict())
    _, after_one_epoch = run(epochs=1)
    run(all_of_it)
    assert torch.equal(averaged(all_of_it)["0.weight"], after_one_epoch.model.state_dict()["0.weight"])


def test_time_is_an_interval_too() -> None:
    often, late = AveragingPlugin(every="0.000001 s", output=None), AveragingPlugin(start="8 h", output=None)
    seldom = AveragingPlugin(every="8 h", output=None)
    for plugin in (often, late, seldom):
        run(plugin)
    assert often.state_dict()["count"] == EPOCHS * BATCHES
    assert "count" not in late.state_dict()
    assert "count" not in seldom.state_dict()


def test_interval_in_epochs_costs_the_batches_nothing() -> None:
    result, _ = run(AveragingPlugin("swa", output=None))
    [usage] = result.plugin_usage
    assert usage.calls <= 2 + 2 * EPOCHS  # the session's two, and for each epoch the end of the loop and a validation


def test_trained_weights_are_those_of_a_run_without_it() -> None:
    _, without = run()
    for plugin in (AveragingPlugin(decay=DECAY, output=None), AveragingPlugin("swa", output=None)):
        _, spec = run(plugin)
        assert same(spec.model.state_dict(), without.model.state_dict())
        assert not same(averaged(plugin), spec.model.state_dict())


def test_before_the_start_the_validation_is_that_of_the_trained_weights() -> None:
    with_plugin, without = run(AveragingPlugin(start="3 epochs", output=None))[0], run()[0]
    losses = [[row["validation_loss"] for row in result.history] for result in (with_plugin, without)]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][3:] != losses[1][3:]


def test_file_loads_into_the_model_and_gives_the_last_validation_loss(tmp_path: Path) -> None:
    result, spec = run(AveragingPlugin(decay=DECAY), run_dir=tmp_path)
    fresh = averaging_spec()
    fresh.model.load_state_dict(read(tmp_path / "averaged.pth"))
    assert validation_loss(fresh, fresh.model) == result.validation_loss
    assert validation_loss(fresh, spec.model) != result.validation_loss
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".pth", ".tmp"}] == ["averaged.pth"]


def test_file_of_a_model_with_a_state_of_its_own_loads_too(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        told = 3

        def get_extra_state(self) -> dict[str, int]:
            return {"told": self.told}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.told = state["told"]

    model = Counting(4, 3)
    spec = tiny_spec(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    run(AveragingPlugin(), spec, run_dir=tmp_path)
    other = Counting(4, 3)
    other.told = 0
    other.load_state_dict(read(tmp_path / "averaged.pth"))
    assert other.told == 3


@pytest.mark.parametrize("output", ["weights/ema.pth", None])
def test_file_is_where_the_settings_say(tmp_path: Path, output: str | None) -> None:
    run(AveragingPlugin(output=output), run_dir=tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/*.pth") if path.parent.name != "state"] == [
        name for name in [output] if name
    ]


def test_file_is_in_the_working_directory_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(AveragingPlugin())
    assert [path.name for path in tmp_path.iterdir()] == ["averaged.pth"]


@pytest.mark.parametrize(("when", "is_there"), [("epoch", True), ("batch", True), ("error", False)])
def test_file_is_written_unless_the_run_failed(tmp_path: Path, when: Any, *, is_there: bool) -> None:
    def end(hook: str, context: Any) -> None:
        if hook == "end_training_batch" and context.global_step == 5:
            context.request_stop("enough", when=when)

    def failing_step(context: Any, batch: Any) -> Any:
        if when == "error" and context.global_step == 5:
            raise RuntimeError("the user's step")
        inputs, targets = batch
        return context.loss_fn(context.model(inputs), targets)

    spec = averaging_spec()
    spec.plugins, spec.training_step = ([] if when == "error" else [RecordingPlugin(end)]), failing_step
    if when == "error":
        with pytest.raises(RuntimeError, match="the user's step"):
            run(AveragingPlugin(), spec, run_dir=tmp_path)
    else:
        run(AveragingPlugin(), spec, run_dir=tmp_path)
    assert (tmp_path / "averaged.pth").exists() is is_there


def test_file_that_cannot_be_written_makes_the_run_incomplete_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "averaged.pth").mkdir()
    result, _ = run(AveragingPlugin(), run_dir=tmp_path, strict_plugins=False)
    assert (result.status, result.missing_files) == ("completed", ("Plugin 'averaging' is required and failed.",))
    assert list(tmp_path.glob(".*.tmp")) == []


def test_run_too_short_to_average_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result, _ = run(AveragingPlugin(start="5 epochs"), run_dir=tmp_path)
    assert caplog.messages == ["nothing was averaged: the run ended before `start` and `every` were over"]
    assert not (tmp_path / "averaged.pth").exists()
    assert result.history == run()[0].history


def test_decay_with_swa_is_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    run(AveragingPlugin("swa", decay=0.9, output=None))
    assert caplog.messages == ["`decay` has no effect with the method 'swa', which weighs all weights alike"]


def test_average_that_hardly_left_its_beginning_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    run(AveragingPlugin(decay=0.98, output=None))
    [message] = caplog.messages
    first, second = "80 % of the average are the very first weights", "it was made 12 times with the decay 0.98"
    assert message == f"{first}: {second}; lower `decay`, or train longer"


@pytest.mark.parametrize("settings", [{"decay": DECAY}, {"method": "swa"}], ids=str)
def test_average_that_left_its_beginning_is_not_reported(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    run(AveragingPlugin(**settings, output=None))
    assert caplog.messages == []


def test_plugin_says_where_the_file_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bz_plugin_averaging"):
        run(AveragingPlugin(), run_dir=tmp_path)
    assert f"the averaged weights are in {tmp_path / 'averaged.pth'}" in caplog.messages
