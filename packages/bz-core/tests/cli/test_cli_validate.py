"""`bz validate` gives the numbers that the run gave, and leaves the run as it is."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from digit_runs import BUILD, train, write_script

from bz.testing import tiny_spec
from bz.testing import train as train_tiny

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from typer.testing import Result

ACCURACY = ["--set", 'metrics.accuracy={"task": "multiclass", "num_classes": 10}']
STEP = """
def validation_step(context, batch):
    inputs, targets = batch
    outputs = context.model(inputs)
    return StepResult(2 * context.loss_fn(outputs, targets), outputs, targets)
"""


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


def validated(bz: Callable[..., Result], *arguments: str) -> dict[str, Any]:
    """Return what `bz validate --json` prints."""
    result = bz("validate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert isinstance(record, dict)
    return record


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_numbers_are_equal_to_those_of_the_run(precision: str, bz: Callable[..., Result]) -> None:
    write_script()
    record = train(bz, *ACCURACY, "--set", f"training.precision={precision}")
    before = content_of(Path("runs"))
    result = validated(bz)
    assert result.pop("seconds") > 0
    assert result == {
        "run": "a",
        "checkpoint": "runs/a/state/epoch_2_step_26.pth",
        "epoch": 2,
        "global_step": 26,
        "weights": "trained",
        "batches": 5,
        "validation_loss": record["validation_loss"],
        "metrics": record["validation_metrics"],
    }
    assert content_of(Path("runs")) == before


def test_checkpoint_of_an_earlier_epoch_has_the_numbers_of_that_epoch(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz, *ACCURACY, epochs=3)
    for path in Path("runs/a/state").iterdir():
        state = torch.load(path, weights_only=True)
        result = validated(bz, str(path))
        assert (result["run"], result["epoch"]) == ("a", state["epoch"])
        assert result["validation_loss"] == state["validation_loss"]
        assert result["metrics"] == state["validation_metrics"]
    assert validated(bz, "a")["epoch"] == 3


def test_settings_of_the_run_count_and_not_those_of_the_file_as_it_is_now(bz: Callable[..., Result]) -> None:
    script = write_script(BUILD.replace("batch_size=32)", 'batch_size=hyperparameters["size"])'))
    settings = {"training": {"limit_validation_batches": 3}, "hyperparameters": {"size": 25}}
    Path("bz.json").write_text(json.dumps(settings))
    record = train(bz)
    Path("bz.json").write_text(json.dumps({"hyperparameters": {"size": 50}}))
    assert (validated(bz)["batches"], validated(bz)["validation_loss"]) == (3, record["validation_loss"])
    assert validated(bz, "--config", "bz.json")["batches"] == 3  # of 150 samples
    assert validated(bz, "--set", "hyperparameters.size=75", "--limit-batches", "1")["batches"] == 1
    Path("bz.json").unlink()
    script.rename("moved.py")
    assert validated(bz, "--script", "moved.py")["validation_loss"] == record["validation_loss"]


def test_own_step_of_the_script_counts_and_no_hook_fires(bz: Callable[..., Result]) -> None:
    hooks = """
    def start_training_session(context):
        print("a hook")

    def end_validation_batch(context):
        print("a hook")
    """
    write_script(BUILD, STEP, hooks)
    record = train(bz)
    result = bz("validate", "--json")
    assert json.loads(result.stdout)["validation_loss"] == record["validation_loss"]
    assert "a hook" not in result.output
    assert bz("validate", "--set", "training.epochs=1").exit_code == 0


def test_state_that_a_step_reads_is_that_of_the_checkpoint(bz: Callable[..., Result]) -> None:
    reading = """
    def validation_step(context, batch):
        print("moments of", len(context.state_dict()["optimizer_state_dict"]["state"]), "parameters")
        return context.loss_fn(context.model(batch[0]), batch[1])
    """
    write_script(BUILD, reading)
    train(bz)
    assert "moments of 6 parameters" in bz("validate").output


PLUGIN = """
from pathlib import Path

from bz import StepResult
from bz.plugins import Plugin

class Watching(Plugin):
    def __init__(self):
        Path("built").touch()

    def end_epoch(self, context):
        pass

class Doubling(Plugin):
    def __init__(self, factor=2.0):
        self.factor, self.seen = factor, 0

    def end_training_batch(self, context):
        self.seen += 1

    def validation_step(self, context, batch):
        outputs = context.model(batch[0])
        return StepResult((self.factor + self.seen) * context.loss_fn(outputs, batch[1]), outputs, batch[1])

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
"""


def test_step_of_a_plugin_counts_with_its_settings_and_state_and_others_are_not_built(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-steps", {"doubling": "steps_module:Doubling", "watching": "steps_module:Watching"}, PLUGIN)
    write_script()
    options = ["--plugin", "doubling", "--plugin", "watching", "--set", "plugins.doubling.config.factor=3.0"]
    record = train(bz, *options)
    Path("built").unlink()
    assert validated(bz)["validation_loss"] == record["validation_loss"]
    assert not Path("built").exists()
    other = validated(bz, "--set", "plugins.doubling.config.factor=4.0")["validation_loss"]
    assert other / (4 + 26) == pytest.approx(record["validation_loss"] / (3 + 26))


AVERAGING = """
from bz.plugins import Plugin

class Last(Plugin):
    weights = None

    def end_training_loop(self, context):
        self.weights = {name: value / 2 for name, value in context.model.state_dict().items()}

    def evaluation_weights(self, context):
        return self.weights

    def state_dict(self):
        return {"evaluation_weights": self.weights}

plugins = [Last()]
"""
MODULE = """
model = nn.Linear(64, 10)
optimizer = torch.optim.Adam(model.parameters())
loss_fn = nn.CrossEntropyLoss()
training_loader = DataLoader(training_set, batch_size=40, shuffle=True)
validation_loader = DataLoader(validation_set, batch_size=50)
"""


def test_weights_that_the_run_was_validated_with_are_used_unless_the_trained_ones_are_asked_for(
    bz: Callable[..., Result],
) -> None:
    write_script(MODULE, AVERAGING)
    record = train(bz)
    result = validated(bz)
    assert (result["weights"], result["validation_loss"]) == ("evaluation", record["validation_loss"])
    assert "evaluation weights of plugin last." in bz("validate").stdout.splitlines()[0]
    trained = validated(bz, "--weights", "trained")
    assert trained["weights"] == "trained"
    assert trained["validation_loss"] != record["validation_loss"]
    write_script(MODULE)
    without = train(bz, "--seed", str(record["seed"]), name="without")
    assert trained["validation_loss"] == without["validation_loss"]
    refused = bz("validate", "--weights", "evaluation")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        "`--weights evaluation`: no plugin keeps weights for evaluation in runs/without/state/epoch_2_step_20.pth; "
        "leave the option out.\n"
    )


def test_plain_lines_in_a_pipe(bz: Callable[..., Result]) -> None:
    write_script()
    record = train(bz, *ACCURACY)
    lines = bz("validate").stdout.splitlines()
    assert lines[0] == "Run a: runs/a/state/epoch_2_step_26.pth, epoch 2, step 26, trained weights."
    assert lines[1].split() == ["MEASURED", "VALUE"]
    assert lines[2].split() == ["validation", "loss", f"{record['validation_loss']:.4g}"]
    assert lines[3].split() == ["accuracy", f"{record['validation_metrics']['accuracy']:.4g}"]
    assert lines[4].startswith("5 batches in ")
    assert len(lines) == 5


def test_newest_run_with_a_checkpoint_is_taken(bz: Callable[..., Result]) -> None:
    write_script()
    none = bz("validate")
    assert (none.exit_code, none.stderr) == (2, "There is no run with a checkpoint in runs. Make one with: bz train\n")
    train(bz)
    train(bz, "--set", "training.checkpoint_interval=0", name="without")
    assert validated(bz)["run"] == "a"
    refused = bz("validate", "without")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Run without has no checkpoint of its own, as when `training.checkpoint_interval`")
    unknown = bz("validate", "b")
    assert unknown.stderr == "There is no run 'b' in runs; the latest: a, without.\n"
    assert unknown.exit_code == 2


def test_checkpoint_of_a_script_needs_only_the_script(bz: Callable[..., Result]) -> None:
    result = train_tiny(tiny_spec(), run_dir="there", epochs=2)
    code = "from bz.testing import tiny_spec\ndef build():\n    return tiny_spec()\n"
    Path("train.py").write_text(code)
    shutil.move("there/state/epoch_2_step_6.pth", "one.pth")
    record = validated(bz, "one.pth")
    assert (record["run"], record["validation_loss"]) == (None, result.validation_loss)


def test_no_validation_loader_is_one_sentence(bz: Callable[..., Result]) -> None:
    write_script(BUILD.replace("        validation_loader=DataLoader(validation_set, batch_size=32),\n", ""))
    train(bz)
    result = bz("validate")
    assert (result.exit_code, result.stderr) == (
        2,
        "train.py has no validation_loader, so there is nothing to validate on.\n",
    )


def test_validation_that_the_run_left_out_can_be_made(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz, "--set", "training.limit_validation_batches=0", "--set", "training.validation_interval=0")
    assert validated(bz)["batches"] == 5


def test_checkpoint_of_another_model_is_refused_with_names_and_shapes(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    write_script(
        BUILD.replace("nn.Linear(64, 32)", "nn.Linear(64, 16)")
        .replace("m1d(32)", "m1d(16)")
        .replace("(32, 10)", "(16, 10)")
    )
    result = bz("validate")
    assert result.exit_code == 1
    changed, refused = result.stderr.splitlines()
    assert changed == "train.py was changed since the checkpoint was written; results may differ"
    assert refused.startswith(
        "The checkpoint runs/a/state/epoch_2_step_26.pth is of another model: 0.bias is (32,) there"
    )


def test_damaged_checkpoint_is_named_left_alone_and_the_one_before_is_used(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    newest, before = Path("runs/a/state/epoch_2_step_26.pth"), Path("runs/a/state/epoch_1_step_13.pth")
    newest.write_bytes(newest.read_bytes()[:-40])
    result = bz("validate", "--json")
    assert json.loads(result.stdout)["epoch"] == 1
    damaged = f"The checkpoint {newest} is damaged, or was not written by bz."
    assert f"{damaged} Going back to the one before.\n" in result.stderr
    one = bz("validate", str(newest))
    assert (one.exit_code, one.stderr) == (1, f"{damaged}\n")
    before.write_bytes(b"")
    result = bz("validate")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"All checkpoints are damaged in runs/a/state. {damaged}")
    assert newest.exists()


def test_error_of_the_model_is_the_users_traceback(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    write_script(BUILD, 'def validation_step(context, batch):\n    raise ValueError("no such image")\n')
    result = bz("validate")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "The validation failed: ValueError: no such image"
    assert 'train.py", line ' in result.stderr
    assert "bz/training" not in result.stderr
    write_script("raise OSError('no data')")
    result = bz("validate")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "train.py raised OSError at train.py, line 14: no data.",
    )


def test_secret_hyperparameter_has_to_be_given_again(
    bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(BUILD.replace("model = nn", 'assert hyperparameters["api_key"] == "canary-7"\n    model = nn'))
    monkeypatch.setenv("MAIL_SECRET", "canary-8")
    secret = "hyperparameters.api_key=canary-7"
    record = train(
        bz,
        "--set",
        secret,
        "--set",
        "plugins.email.config.password=${MAIL_SECRET}",
        "--set",
        "plugins.email.enabled=false",
    )
    monkeypatch.delenv("MAIL_SECRET")
    assert "`hyperparameters.api_key` of the run is a secret, which is not kept" in bz("validate").stderr
    result = bz("validate", "--set", secret, "--json")
    assert json.loads(result.stdout)["validation_loss"] == record["validation_loss"]
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "best"], "`--weights` must be evaluation or trained, got 'best'."),
        (["--limit-batches", "0"], "`--limit-batches` must be at least 1, got 0."),
    ],
    ids=["weights", "limit"],
)
def test_wrong_option_is_one_sentence(arguments: list[str], sentence: str, bz: Callable[..., Result]) -> None:
    result = bz("validate", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"{sentence}\n")


def test_device_that_is_not_there_is_named(bz: Callable[..., Result]) -> None:
    write_script()
    train(bz)
    result = bz("validate", "--device", "cuda:77")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'cuda:77', which is not there" in result.stderr


def test_run_that_is_going_on_can_be_validated(
    bz: Callable[..., Result], bz_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    look = """
    import subprocess, sys

    def start_epoch(context):
        if context.epoch == 2:
            command = [sys.executable, "-m", "bz", "validate", "a", "--json"]
            with open("seen.json", "w") as file:
                subprocess.run(command, stdout=file, check=True)
    """
    write_script(BUILD, look)
    assert bz_process("train", "--no-plugins", "--name", "a", "--epochs", "2").returncode == 0
    assert json.loads(Path("seen.json").read_text())["epoch"] == 1
    assert json.loads(Path("runs/a/run.json").read_text())["status"] == "completed"
