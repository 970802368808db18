"""Settings, state and cost of the plugin."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError

from bz import Trainer
from bz.plugins import ConsoleOutPlugin as ResolvedPlugin
from bz.spec import TrainingSpec
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_console.plugin import ConsoleOutConfig

if TYPE_CHECKING:
    from bz.context import TrainingContext

README = Path(__file__).parents[1] / "README.md"


def test_plugin_is_found_under_the_name_of_the_guide() -> None:
    assert ResolvedPlugin is ConsoleOutPlugin


def test_init_takes_the_training_spec() -> None:
    model = torch.nn.Linear(2, 1)
    spec = TrainingSpec(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss(), [])
    assert isinstance(ConsoleOutPlugin.init(spec), ConsoleOutPlugin)


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(ConsoleOutPlugin).parameters
    assert ConsoleOutConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    fields = ConsoleOutConfig.model_fields
    described = [(name, str(field.default).lower(), field.description) for name, field in fields.items()]
    assert rows == described


@pytest.mark.parametrize(
    "settings",
    [{"refresh_seconds": 0}, {"refresh_seconds": float("inf")}, {"summary_interval": 0}, {"refresh": 1}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConsoleOutConfig.model_validate(settings)


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(ConsoleOutPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.read_text(encoding="utf-8").partition("## Hooks used")[2].partition("## ")[0]
    assert sorted(re.findall(r"`(\w+_\w+)`", section)) == sorted(set(hooks) - {"load_state_dict"})


def test_import_loads_neither_rich_nor_torch() -> None:
    code = "import sys, bz_plugin_console; print({'rich', 'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"


def test_state_of_a_fresh_plugin_can_be_loaded() -> None:
    plugin = ConsoleOutPlugin()
    plugin.load_state_dict(plugin.state_dict())
    assert plugin.state_dict() == {"best": None, "seconds": 0.0, "validated_step": None}


def test_state_is_handed_on() -> None:
    plugin = ConsoleOutPlugin()
    state = {"best": [3, "val loss", 0.25, 120], "seconds": 12.5, "validated_step": 150}
    plugin.load_state_dict(state)
    assert plugin.state_dict() == state


def train(
    plugin: ConsoleOutPlugin,
    *,
    epochs: int,
    run_dir: Path | None = None,
    resume: Path | None = None,
    stop_in_epoch: int | None = None,
    loss: float | None = None,
) -> None:
    """Train with losses that are the number of the epoch, or `loss`."""

    def step(context: TrainingContext, batch: torch.Tensor) -> torch.Tensor:
        if context.epoch == stop_in_epoch and context.batch_index == 1:
            context.request_stop("enough", when="batch")
        zero: torch.Tensor = context.model(batch).sum() * 0
        return zero + (context.epoch if loss is None else loss)

    model = torch.nn.Linear(2, 1)
    trainer = Trainer()
    trainer.add_plugin(plugin)
    trainer.train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        None,
        [torch.ones(4, 2)] * 3,
        training_step=step,
        epochs=epochs,
        run_dir=run_dir,
        resume=resume,
        device="cpu",
    )


def test_resumed_run_reports_on_the_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(ConsoleOutPlugin(), epochs=2, run_dir=tmp_path)
    capsys.readouterr()
    train(ConsoleOutPlugin(), epochs=3, run_dir=tmp_path, resume=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"resumed from .*state.* \(epoch 2, step 6\)", lines[1])
    assert lines[2].startswith("epoch 3/3  loss 3.0000")
    assert re.fullmatch(r"completed 3 epochs in \S+ s \(\S+ s since the resume\)", lines[4])
    assert lines[5] == "best epoch 1: loss 1.0000"


def test_run_resumed_inside_an_epoch_goes_on_with_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(ConsoleOutPlugin(), epochs=3, run_dir=tmp_path, stop_in_epoch=2)
    assert "stopped at epoch 2 of 3" in capsys.readouterr().out
    train(ConsoleOutPlugin(), epochs=3, run_dir=tmp_path, resume=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines if line.startswith("epoch ")] == [
        ["epoch 2/3", "loss 2.0000"],
        ["epoch 3/3", "loss 3.0000"],
    ]


def test_second_run_of_one_instance_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    plugin = ConsoleOutPlugin()
    train(plugin, epochs=1, loss=1.0)
    train(plugin, epochs=1, loss=2.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("best")] == [
        "best epoch 1: loss 1.0000",
        "best epoch 1: loss 2.0000",
    ]
