"""What a command imports is what it costs."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typer.testing import Result

HEAVY = ("torch", "pydantic", "rich", "numpy", "tomlkit", "asyncio")
OF_TRAININGS = ("torch", "numpy", "torchmetrics", "matplotlib", "tensorboard", "scipy", "sklearn", "pandas", "pyarrow")
LATE = (
    *("torchmetrics", "matplotlib", "tensorboard", "tensorflow", "torch.utils.tensorboard", "google.protobuf", "absl"),
    *("scipy", "sklearn", "pandas", "pyarrow", "fsspec", "safetensors", "rich.live"),
)
"""What nobody needs before the first batch, though a plugin does later."""

SCRIPT = """
import os
import sys

import torch

model = torch.nn.Linear(4, 2)
loss_fn = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


class Loader:
    def __len__(self):
        return 1

    def __iter__(self):
        print(*sys.modules, file=open("modules.txt", "w"), flush=True)
        os._exit(0)


training_loader = Loader()
"""


def imported(*arguments: str) -> set[str]:
    """Return the top-level modules that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "bz", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins", "list"],
        ["plugins", "list", "--json"],
        ["plugins", "--help"],
        ["train", "--help"],
        ["validate", "--help"],
        ["predict", "--help"],
        ["export", "--help"],
        ["doctor", "--help"],
    ],
    ids=" ".join,
)
def test_command_imports_nothing_heavy_and_no_plugin(arguments: list[str], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, "raise Exception")
    modules = imported(*arguments)
    assert "typer" in modules
    assert not modules & {*HEAVY, "mail_module"}
    assert not [name for name in modules if name.startswith("bz_plugin_")]


def test_plugins_list_with_settings_imports_no_pydantic() -> None:
    Path("bz.json").write_text('{"plugins": {"console_out": {"enabled": false}}}')
    assert not imported("plugins", "list", "--config", "bz.json") & {"torch", "pydantic", "bz_plugin_console"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "check"],
        ["config", "schema"],
        ["config", "show"],
        ["plugins", "show", "console_out"],
        ["runs", "list"],
    ],
    ids=" ".join,
)
def test_command_does_not_import_torch_or_a_plugin(arguments: list[str]) -> None:
    Path("bz.json").write_text('{"plugins": {"console_out": {}}}')
    assert not imported(*arguments) & {"torch", "bz_plugin_console"}


@pytest.mark.parametrize(
    "arguments", [["config", "check"], ["config", "show"], ["config", "schema"], ["runs", "list"]], ids=" ".join
)
def test_command_about_settings_or_runs_imports_nothing_of_trainings(arguments: list[str]) -> None:
    Path("bz.json").write_text('{"metrics": {"accuracy": {"task": "binary"}}, "plugins": {"visualization": {}}}')
    assert not imported(*arguments) & {*OF_TRAININGS}


def test_runs_list_imports_no_pydantic() -> None:
    assert not imported("runs", "list") & {"pydantic", "tomlkit", "asyncio"}


def modules_at_first_batch(settings: str) -> set[str]:
    """Return all modules that `bz train`, with every plugin on that is on by itself, has when it asks for a batch."""
    Path("train.py").write_text(SCRIPT)
    Path("bz.json").write_text(settings)
    subprocess.run([sys.executable, "-m", "bz", "train"], capture_output=True, check=True)
    return set(Path("modules.txt").read_text().split())


def test_train_imports_nothing_before_the_first_batch_that_is_needed_later() -> None:
    modules = modules_at_first_batch("{}")
    assert {"torch", "bz_plugin_tensorboard", "bz_plugin_visualization"} <= modules
    assert not modules & {*LATE}


def test_train_collects_garbage_as_usual_once_all_is_imported() -> None:
    thresholds = "import gc, os\nprint(*gc.get_threshold(), file=open('thresholds.txt', 'a'), flush=True)\n"
    Path("train.py").write_text(thresholds + SCRIPT.replace("print(", f"exec({thresholds!r})\n        print("))
    subprocess.run([sys.executable, "-m", "bz", "train"], capture_output=True, check=True)
    while_loading, in_training = Path("thresholds.txt").read_text().splitlines()
    assert while_loading.startswith("50000 ")
    assert in_training == " ".join(map(str, gc.get_threshold()))


def test_train_imports_torchmetrics_when_the_settings_name_a_metric() -> None:
    assert "torchmetrics" in modules_at_first_batch('{"metrics": {"accuracy": {"task": "binary"}}}')


def test_importing_the_app_imports_nothing_heavy() -> None:
    script = "import sys, bz.cli.app; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(eval(done.stdout)) & {*HEAVY, "importlib_metadata", "bz_plugin_console"}


def test_help_of_every_command_begins_with_a_sentence_and_is_not_cut(bz: Callable[..., Result]) -> None:
    commands = {
        "": ["train", "validate", "predict", "export", "init", "doctor"],
        "plugins": ["list", "show", "check", "enable", "disable"],
    }
    commands |= {"config": ["show", "check", "schema"], "runs": ["list", "show"]}
    for group, names in commands.items():
        listing = bz(*[group] * bool(group), "--help").stdout
        assert "..." not in listing.replace("[ARGS]...", "")
        for name in names:
            text = bz(*[group] * bool(group), name, "--help").stdout
            assert text.split("\n\n")[1].strip().endswith(".")


def test_version(bz: Callable[..., Result]) -> None:
    assert bz("--version").stdout == "bz 0.1.0\n"


def test_no_arguments_show_the_help(bz: Callable[..., Result]) -> None:
    assert bz().stdout == bz("--help").stdout
    assert bz("plugins").stdout == bz("plugins", "--help").stdout
    assert bz().exit_code == 0
