"""Settings of the plugin, and what its README says about them."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bz.errors import ConfigError
from bz.plugins import ProfilerPlugin as ResolvedPlugin
from bz.plugins.discovery import discover_plugins
from bz.plugins.selection import PluginRequest, choose_plugins
from bz_plugin_profiler import ProfilerPlugin
from bz_plugin_profiler.config import ProfilerConfig
from bz_plugin_profiler.steps import Steps

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_plugin_is_found_by_its_class_name() -> None:
    assert ResolvedPlugin is ProfilerPlugin


@pytest.mark.parametrize(("settings", "state"), [({}, "off"), ({"profiler": {}}, "on")])
def test_plugin_runs_only_when_it_is_named(settings: dict[str, Any], state: str) -> None:
    [choice] = [one for one in choose_plugins(discover_plugins(), settings, PluginRequest()) if one.name == "profiler"]
    assert choice.state == state


def test_settings_have_the_defaults_of_the_signature() -> None:
    parameters = inspect.signature(ProfilerPlugin).parameters
    assert ProfilerConfig().model_dump() == {name: parameter.default for name, parameter in parameters.items()}


def test_settings_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.*) \|$", README, re.MULTILINE)
    fields = ProfilerConfig.model_fields
    assert rows == [(name, json.dumps(field.default), field.description) for name, field in fields.items()]


def test_hooks_are_documented_as_they_are() -> None:
    hooks = [name for name in vars(ProfilerPlugin) if re.match(r"(start|end|load|save)_", name)]
    section = README.partition("## Hooks used")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == [name for name in hooks if name != "load_state_dict"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("6-8", [[6, 7, 8]]),
        (6, [[6]]),
        ("1-2, 3, 500-501", [[1, 2], [3], [500, 501]]),
        ("6-6,7", [[6], [7]]),
    ],
)
def test_steps_are_read(written: object, expected: list[list[int]]) -> None:
    assert [list(one) for one in Steps.read(written).ranges] == expected
    assert Steps.read(str(Steps.read(written))) == Steps.read(written)


@pytest.mark.parametrize("written", ["", "00", "8-6", "6-8, 8", "7, 3", "6 - 8", "six", "-1", 0, -3, True, 2.5, [6, 8]])
def test_steps_that_are_none_are_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        ProfilerConfig.model_validate({"steps": written})


@pytest.mark.parametrize(
    "settings",
    [
        {"devices_every": "5 steps"},
        {"devices_every": 3},
        {"devices_every": "0.01 s"},
        {"profile_dir": ""},
        {"memory_snapshot": "always"},
        {"step": "6-8"},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProfilerConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"steps": "8-6"},
            (
                "ProfilerPlugin: `steps` must be steps in rising order, counted from 1, "
                'such as "6-8", "6-8, 500-502" or 100, got "8-6".'
            ),
        ),
        (
            {"devices_every": "5 epochs"},
            (
                'ProfilerPlugin: `devices_every` must be a time of at least 0.1 s, such as "2 s" or "1 min", or null, '
                'got "5 epochs".'
            ),
        ),
    ],
)
def test_bad_argument_in_a_script_gives_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        ProfilerPlugin(**arguments)
    assert str(error.value) == sentence


def test_plugin_is_built_from_its_settings() -> None:
    config = ProfilerConfig.model_validate({"steps": 100, "devices_every": "10 s", "profile_dir": "p"})
    plugin = ProfilerPlugin.from_config(config)
    assert plugin._settings == config


def test_import_loads_none_of_the_heavy_ones() -> None:
    code = "import sys, bz_plugin_profiler; print({'psutil', 'pynvml', 'torch'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"
