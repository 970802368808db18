"""`bz train --dry-run` does all that a training does, and keeps nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from digit_runs import BUILD, write_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

METRICS = ["--set", 'metrics.accuracy={"task": "multiclass", "num_classes": 10}']
NO_VALIDATION = BUILD.replace("        validation_loader=DataLoader(validation_set, batch_size=32),\n", "")


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which is to be empty after a dry run."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def rehearsed(bz: Callable[..., Result], *arguments: str) -> dict[str, Any]:
    result = bz("train", "--dry-run", "--no-plugins", "--json", *arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert isinstance(record, dict)
    return record


def everything(folder: Path) -> list[str]:
    """Return all there is but what torch keeps for itself."""
    return sorted(str(path) for path in folder.rglob("*") if not path.name.startswith("torchinductor"))


def test_says_what_was_checked_and_leaves_nothing_behind(bz: Callable[..., Result], temporary: Path) -> None:
    write_script()
    result = bz("train", "--dry-run", "--no-plugins", "--epochs", "90", *METRICS)
    assert (result.exit_code, result.stderr) == (0, "")
    first, *lines = result.stdout.splitlines()
    assert first.startswith("Plugins: none.")
    numbers = [re.sub(r"\d+\.\d+(e-\d+)?", "N", line) for line in lines]
    assert numbers == [
        "Trained on 2 batches on cpu: loss N, accuracy N.",
        "Validated on 2 batches: loss N, accuracy N.",
        "Wrote a checkpoint of N kB, read it back and loaded it: equal to the bit.",
        "Nothing of it is left.",
    ]
    assert everything(Path()) == ["train.py"]
    assert everything(temporary) == []


def test_limits_and_intervals_of_the_run_are_not_waited_for(bz: Callable[..., Result]) -> None:
    write_script()
    slow = ["validation_interval=500 steps", "checkpoint_interval=0", "max_steps=1", "accumulate_batches=4"]
    record = rehearsed(bz, *(part for text in slow for part in ("--set", f"training.{text}")))
    assert (record["status"], record["training_batches"], record["validation_batches"]) == ("completed", 2, 2)
    assert record["checkpoint_bytes"] > 10_000
    assert (record["plugins_left_out"], record["failures"]) == ([], [])
    assert rehearsed(bz, "--limit-batches", "1")["training_batches"] == 1


@pytest.mark.parametrize("setting", ["validation_interval", "limit_validation_batches"])
def test_without_validation_it_says_so(setting: str, bz: Callable[..., Result]) -> None:
    write_script()
    assert rehearsed(bz, "--set", f"training.{setting}=0")["validation_batches"] == 0
    write_script(NO_VALIDATION)
    assert "There is no validation." in bz("train", "--dry-run", "--no-plugins").stdout.splitlines()


PLUGINS = """
from bz.plugins import Plugin

class Sending(Plugin):
    def __init__(self, address):
        print("built with", address)

    def start_training_session(self, context):
        print("sent")

class Writing(Plugin):
    def end_epoch(self, context):
        context.output_path("notes.txt").write_text("here")
        print("wrote in", context.output_path("notes.txt").parent.name)

class Failing(Plugin):
    required = True

    def end_epoch(self, context):
        raise ValueError("cannot")
"""


def test_plugins_run_but_those_that_talk_to_a_network_are_only_built(
    bz: Callable[..., Result], install: Callable[..., None], temporary: Path
) -> None:
    install("bz-plugin-sending", {"sending": "sending_module:Sending"}, PLUGINS, metadata="Keywords: bz,bz-network\n")
    install("bz-plugin-writing", {"writing": "writing_module:Writing"}, PLUGINS, metadata="Keywords: bz-opt-in\n")
    write_script()
    options = ["--plugin", "sending", "--plugin", "writing", "--set", "plugins.sending.config.address=here"]
    result = bz("train", "--dry-run", *options)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert "Built and not called, because they talk to a network: sending." in lines
    assert {"built with here", "wrote in dry-run"} <= set(lines)
    assert "sent" not in lines
    assert everything(Path()) == ["train.py"]
    assert everything(temporary) == []
    wrong = bz("train", "--dry-run", "--plugin", "sending")
    assert (wrong.exit_code, "needs the settings" in wrong.stderr or "address" in wrong.stderr) == (2, True)


def test_required_plugin_that_fails_has_the_exit_code_of_a_training(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-failing", {"failing": "failing_module:Failing"}, PLUGINS)
    write_script()
    result = bz("train", "--dry-run", "--plugin", "failing")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-2:] == [
        "Plugin 'failing' is required and failed.",
        "Plugin 'failing' failed in 1 call.",
    ]


def test_error_of_the_script_is_the_users_traceback(bz: Callable[..., Result], temporary: Path) -> None:
    write_script(BUILD.replace("nn.Linear(32, 10)", "nn.Linear(33, 10)"))
    result = bz("train", "--dry-run", "--no-plugins")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("The dry run failed: RuntimeError: mat1 and mat2 shapes")
    assert everything(temporary) == []
    write_script("def build():\n    raise ValueError('no data')\n")
    result = bz("train", "--dry-run", "--no-plugins")
    assert (result.exit_code, result.stderr.splitlines()[-1].startswith("build() in train.py raised ValueError")) == (
        2,
        True,
    )
    assert bz("train", "--dry-run", "--set", "training.epoch=3").exit_code == 2


def test_state_that_does_not_come_back_is_named(bz: Callable[..., Result]) -> None:
    model = """
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, inputs):
            self.calls += 1
            return self.layer(inputs)

        def load_state_dict(self, state_dict, *arguments, **options):
            state_dict = {**state_dict, "calls": torch.zeros(())}
            return super().load_state_dict(state_dict, *arguments, **options)
    """
    build = re.sub(r"model = .*", "model = Forgetful()", BUILD)
    write_script(model, build)
    result = bz("train", "--dry-run", "--no-plugins")
    assert result.exit_code == 1
    assert "and model_state_dict/calls is not the same when it is loaded" in result.stderr


def test_run_that_a_plugin_stops_is_compared_as_far_as_it_came(bz: Callable[..., Result]) -> None:
    write_script(BUILD, 'def end_training_batch(context):\n    context.request_stop("enough", when="batch")\n')
    result = bz("train", "--dry-run", "--no-plugins")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].startswith("Trained on 1 batch on cpu")
    assert "The run was stopped: enough." in lines
    assert lines[-2].endswith("read it back and loaded it: equal to the bit.")


def test_mode_of_ones_own_and_half_precision_are_compared_too(bz: Callable[..., Result]) -> None:
    gan = """
    def training_step(context, batch):
        one, two = context.optimizer["one"], context.optimizer["two"]
        for optimizer in (one, two):
            optimizer.zero_grad()
        loss = context.loss_fn(context.model(batch[0]), batch[1])
        context.backward(loss)
        context.step_optimizer(one)
        context.step_optimizer(two)
        return loss
    """
    optimizers = "optimizer={n: torch.optim.Adam(m.parameters()) for n, m in (('one', model[0]), ('two', model[4]))},"
    write_script(re.sub(r"optimizer=.*", optimizers, BUILD), gan)
    for precision in ("fp32", "bf16", "fp16"):
        assert rehearsed(bz, "--set", f"training.precision={precision}")["status"] == "completed"


@pytest.mark.parametrize("option", ["--resume", "--fresh"])
def test_option_without_effect_is_refused(option: str, bz: Callable[..., Result]) -> None:
    write_script()
    result = bz("train", "--dry-run", "--name", "a", option)
    assert (result.exit_code, result.stderr) == (
        2,
        f"`--dry-run` keeps nothing, so `{option}` has no effect; leave it out.\n",
    )


def test_interrupt_ends_it_and_leaves_nothing_behind(
    bz_process: Callable[..., subprocess.CompletedProcess[str]], temporary: Path
) -> None:
    kill = """
    import os, signal

    def end_training_batch(context):
        os.kill(os.getpid(), signal.SIGINT)
    """
    write_script(BUILD, kill)
    done = bz_process("train", "--dry-run", "--no-plugins")
    assert done.returncode == 130
    assert everything(Path()) == ["train.py"]
    assert everything(temporary) == []
