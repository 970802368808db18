"""Settings of the plugin, and what its README says about them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bz.errors import ConfigError
from bz.plugins import TensorBoardPlugin as ResolvedPlugin
from bz_plugin_tensorboard import TensorBoardPlugin
from bz_plugin_tensorboard.plugin import TensorBoardConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_plugin_is_found_by_its_class_name() -> None:
    assert ResolvedPlugin is TensorBoardPlugin


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(TensorBoardPlugin).parameters
    assert TensorBoardConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README, re.MULTILINE)
    written = {None: "null", False: "false"}
    fields = TensorBoardConfig.model_fields
    described = [
        (name, written.get(field.default, str(field.default)), field.description) for name, field in fields.items()
    ]
    assert rows == described


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(TensorBoardPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.partition("## Hooks used")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == [name for name in hooks if name != "load_state_dict"]


@pytest.mark.parametrize(
    "settings",
    [{"log_every": 0}, {"log_dir": ""}, {"histograms_every": 0}, {"histograms_every": "5 parsecs"}, {"logdir": "x"}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TensorBoardConfig.model_validate(settings)


def test_bad_argument_in_a_script_gives_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^TensorBoardPlugin: `log_every` must be at least 1, got 0\.$"):
        TensorBoardPlugin(log_every=0)


def test_plugin_is_built_from_its_settings() -> None:
    config = TensorBoardConfig.model_validate({"log_every": 7, "histograms_every": "20 steps"})
    plugin = TensorBoardPlugin.from_config(config)
    assert plugin._log_every == 7
    assert str(plugin._histograms_every) == "20 steps"


def test_import_loads_neither_tensorboard_nor_torch() -> None:
    code = "import sys, bz_plugin_tensorboard; print({'numpy', 'tensorboard', 'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"
