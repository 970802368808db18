"""Settings, state and cost of the plugin."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bz.plugins import ConsoleOutPlugin as ResolvedPlugin
from bz.spec import TrainingSpec
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_console.plugin import ConsoleOutConfig

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
    assert plugin.state_dict() == {"best": None, "seconds": 0.0}


def test_state_is_handed_on() -> None:
    plugin = ConsoleOutPlugin()
    plugin.load_state_dict({"best": [3, "val loss", 0.25], "seconds": 12.5})
    assert plugin.state_dict() == {"best": [3, "val loss", 0.25], "seconds": 12.5}
