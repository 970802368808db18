"""`bz lr-find`, as a user calls it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bz.cli.app import app

DIGITS = """
import torch
from bz import TrainingSpec
from sklearn.datasets import load_digits


def build(hyperparameters):
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    return TrainingSpec(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=hyperparameters["lr"]),
        loss_fn=torch.nn.CrossEntropyLoss(),
        training_loader=torch.utils.data.DataLoader(data, batch_size=64, shuffle=True),
    )
"""

MODULE_LEVEL = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_fn = nn.MSELoss()
inputs = torch.randn(512, 4)
training_loader = [(part, part.sum(1, keepdim=True)) for part in inputs.split(128)]
"""


def bz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call bz in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BZ_")}
    return subprocess.run(
        [sys.executable, "-m", "bz", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def lr_find(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Call the command in this process, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path.copy())
        result = CliRunner().invoke(app, ["lr-find", *arguments], prog_name="bz")
    return result.exit_code, result.stdout, result.stderr


def found(folder: Path, *arguments: str) -> dict[str, Any]:
    """Return what the command prints as JSON in this process."""
    code, output, errors = lr_find(folder, "--json", *arguments)
    assert code == 0, errors
    record: dict[str, Any] = json.loads(output)
    return record


def write_project(folder: Path, script: str, **settings: Any) -> Path:
    (folder / "train.py").write_text(script, encoding="utf-8")
    (folder / "bz.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_project(
        tmp_path, DIGITS, training={"epochs": 3, "seed": 1}, hyperparameters={"lr": 1e-5, "batch_size": 64}
    )


@pytest.fixture
def module_level(tmp_path: Path) -> Path:
    return write_project(tmp_path, MODULE_LEVEL)


def final_loss(folder: Path, *arguments: str) -> float:
    process = bz(folder, "train", "--no-plugins", "--json", *arguments)
    assert process.returncode == 0, process.stderr
    return float(json.loads(process.stdout)["training_loss"])


def test_suggestion_trains_better_than_the_rate_of_the_settings(digits: Path) -> None:
    process = bz(digits, "lr-find")
    assert (process.returncode, process.stderr) == (0, "")
    output = process.stdout
    [command] = re.findall(r"^Train with it: bz train (--set hyperparameters\.lr=\S+)$", output, flags=re.MULTILINE)
    rate = float(command.rpartition("=")[2])
    assert 1e-3 < rate < 0.3
    assert final_loss(digits) > 2
    assert final_loss(digits, *shlex.split(command)) < 0.5


def test_output_names_both_suggestions_the_picture_and_why_it_ended(digits: Path) -> None:
    _, output, _ = lr_find(digits)
    lines = output.splitlines()
    assert lines[0] == "Trying 100 learning rates from 1e-07 to 10 with train.py."
    assert re.fullmatch(r"Made \d+ steps; the loss diverged at [\d.]+\.", lines[1])
    assert [re.split(r"  +", line)[0] for line in lines[2:5]] == ["SUGGESTION", "steepest", "minimum / 10"]
    assert "Picture: lr_find.png" in lines


def test_project_is_left_as_it_was_but_for_the_picture(digits: Path) -> None:
    before = {path: path.read_bytes() for path in digits.rglob("*")}
    bz(digits, "lr-find")
    after = {path: path.read_bytes() for path in digits.rglob("*")}
    assert after.pop(digits / "lr_find.png").startswith(b"\x89PNG")
    assert after == before


def test_json_has_suggestion_and_curve_and_nothing_else_on_stdout(digits: Path) -> None:
    (digits / "train.py").write_text("print('hello')\n" + DIGITS, encoding="utf-8")
    code, output, errors = lr_find(digits, "--json")
    record = json.loads(output)
    assert code == 0
    assert "hello" in errors
    assert record["suggestion"] == record["suggestions"]["steepest"]
    assert record["ending"] == "diverged"
    assert record["seed"] == 1
    assert record["picture"] == "lr_find.png"
    assert record["usage"].startswith("Train with it: bz train --set hyperparameters.lr=")
    curve = record["curve"]
    assert curve["learning_rate"][0] == 1e-7
    assert len(curve["learning_rate"]) == len(curve["loss"]) == len(curve["smoothed_loss"]) < 100
    assert set(curve["samples"][:28]) == {64.0}
    assert curve["learning_rate"] == sorted(curve["learning_rate"])


def test_same_seed_gives_the_same_curve(digits: Path) -> None:
    assert found(digits) == found(digits)


def test_options_choose_the_range(digits: Path) -> None:
    record = found(digits, "--min-lr", "1e-4", "--max-lr", "0.05", "--steps", "40", "--mode", "linear")
    rates = record["curve"]["learning_rate"]
    assert record["ending"] == "steps"
    assert (len(rates), rates[0]) == (40, 1e-4)
    assert rates[-1] == pytest.approx(0.05)
    assert rates[2] - rates[1] == pytest.approx(rates[1] - rates[0])
    assert 1e-4 < record["suggestion"] <= 0.05


def test_settings_of_the_command_line_count_and_are_part_of_the_usage(digits: Path) -> None:
    (digits / "other.json").write_text((digits / "bz.json").read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ["train.py", "--config", "other.json", "--set", "training.seed=2"]
    record = found(digits, *arguments)
    assert record["seed"] == 2
    assert record["usage"].startswith(f"Train with it: bz train {' '.join(arguments)} --set hyperparameters.lr=")


def test_loader_with_few_batches_is_walked_again(module_level: Path) -> None:
    record = found(module_level, "--steps", "50", "--max-lr", "0.5")
    assert len(record["curve"]["loss"]) == 50
    assert record["ending"] == "steps"


def test_loader_of_one_walk_is_refused_with_a_sentence(module_level: Path) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write("training_loader = iter(training_loader)\n")
    code, _, errors = lr_find(module_level)
    assert code == 1
    assert "gave no batches in epoch 2; it must be iterable again in every epoch" in errors


def test_script_without_build_is_told_where_the_rate_goes(module_level: Path) -> None:
    record = found(module_level)
    assert record["usage"] == f"To train with it, write lr={record['suggestion']:.3g} where train.py makes its SGD."


def test_hyperparameter_that_is_not_the_rate_of_the_optimizer_is_not_named(digits: Path) -> None:
    script = DIGITS.replace('lr=hyperparameters["lr"]', 'lr=hyperparameters["lr"] * hyperparameters["batch_size"]')
    (digits / "train.py").write_text(script, encoding="utf-8")
    assert found(digits)["usage"].endswith("where train.py makes its Adam.")


def test_nested_hyperparameter_is_found(digits: Path) -> None:
    (digits / "train.py").write_text(DIGITS.replace('["lr"]', '["optimizer"]["learning_rate"]'), encoding="utf-8")
    (digits / "bz.json").write_text('{"hyperparameters": {"optimizer": {"learning_rate": 0.01}}}', encoding="utf-8")
    assert "--set hyperparameters.optimizer.learning_rate=" in found(digits)["usage"]


def test_loss_that_never_falls_gives_a_sentence_and_no_number(module_level: Path) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write("def loss_fn(outputs, targets): return (outputs * 0).mean() + torch.rand(())\n")
    code, output, errors = lr_find(module_level)
    assert (code, errors) == (1, "")
    assert "The loss never falls between 1e-07 and 10 by more than it varies from batch to batch." in output
    assert "SUGGESTION" not in output
    assert "Train with it" not in output
    assert "Picture: lr_find.png" in output


def test_loss_that_is_nan_from_the_start_blames_no_learning_rate(module_level: Path) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write("def loss_fn(outputs, targets): return (outputs * float('nan')).mean()\n")
    code, output, errors = lr_find(module_level)
    assert (code, errors) == (1, "")
    assert "so no learning rate is to blame: look at the data, the model and the loss function." in output
    assert not (module_level / "lr_find.png").exists()
    code, output, _ = lr_find(module_level, "--json")
    assert code == 1
    assert json.loads(output)["suggestion"] is None
    assert json.loads(output)["ending"] == "nonfinite"


def test_loss_that_diverges_at_once_asks_for_a_lower_rate(module_level: Path) -> None:
    code, output, errors = lr_find(module_level, "--min-lr", "100", "--max-lr", "1000")
    assert (code, errors) == (1, "")
    assert re.search(r"The loss diverged at once, after \d steps, at \d+; begin with a lower min_lr\.", output)


@pytest.mark.parametrize("target", ["plots", "plots/", "plots/curve.svg", "curve.PNG"])
def test_output_is_a_file_or_a_folder(module_level: Path, target: str) -> None:
    record = found(module_level, "--output", target)
    expected = "plots/lr_find.png" if target.startswith("plots") and "svg" not in target else target
    content = (module_level / expected).read_bytes()
    assert record["picture"] == expected
    assert content.startswith(b"<?xml" if expected.endswith("svg") else b"\x89PNG")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("bz.json/curve.png", "bz.json/curve.png cannot be written: Not a directory."),
        ("/proc/curve.png", "/proc/curve.png cannot be written: No such file or directory."),
        ("curve.jpg", "`--output` must be a .png or .svg file or a folder, got 'curve.jpg'."),
    ],
)
def test_output_that_cannot_be_written_is_refused_before_the_test(
    module_level: Path, target: str, sentence: str
) -> None:
    assert lr_find(module_level, "--output", target) == (2, "", f"{sentence}\n")


def test_picture_that_cannot_be_written_in_the_end_leaves_the_numbers(module_level: Path) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write("open('plots', 'w').close()\n")
    code, output, errors = lr_find(module_level, "--output", "plots/curve.png")
    assert (code, errors) == (3, "plots/curve.png cannot be written: File exists.\n")
    assert "steepest" in output
    assert "Picture" not in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", "3"], "lr-find: `--steps` must be at least 20, got 3."),
        (["--min-lr", "0"], "lr-find: `--min-lr` must be greater than 0.0, got 0.0."),
        (["--max-lr", "nan"], "lr-find: `--max-lr` must be a finite number, got NaN."),
        (["--smoothing", "1"], "lr-find: `--smoothing` must be less than 1.0, got 1.0."),
        (["--stop-factor", "1"], "lr-find: `--stop-factor` must be greater than 1.0, got 1.0."),
        (["--mode", "linaer"], "lr-find: `--mode` must be one of 'exponential' or 'linear', got \"linaer\". Did you"),
        (["--min-lr", "1", "--max-lr", "0.1"], "lr-find: the value must have a `--max-lr` above its `--min-lr`, got"),
    ],
)
def test_wrong_options_are_refused_with_one_sentence(module_level: Path, arguments: list[str], sentence: str) -> None:
    code, output, errors = lr_find(module_level, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(sentence)
    assert len(errors.splitlines()) == 1


def test_wrong_settings_are_refused_with_one_sentence(module_level: Path) -> None:
    code, output, errors = lr_find(module_level, "--set", "training.device=tpu")
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "optimizer = {'a': optimizer, 'b': optimizer}\ndef training_step(context, batch): raise SystemExit\n",
            "lr-find needs one optimizer, and here are 2; test each by itself.",
        ),
        (
            "manual_optimization = True\ndef training_step(context, batch): raise SystemExit\n",
            "lr-find needs one optimizer that bz steps; here the training_step steps it itself (manual_optimization).",
        ),
        (
            "optimizer.param_groups[0]['lr'] = None\n",
            "The optimizer SGD has the learning rate None in a parameter group; lr-find needs one that is a number.",
        ),
    ],
)
def test_optimizers_that_cannot_be_tested_are_refused(module_level: Path, change: str, sentence: str) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write(change)
    assert lr_find(module_level) == (2, "", f"{sentence}\n")


def test_error_of_the_script_is_shown_with_its_traceback(module_level: Path) -> None:
    with (module_level / "train.py").open("a", encoding="utf-8") as file:
        file.write("def loss_fn(outputs, targets): return undefined_name\n")
    code, _, errors = lr_find(module_level)
    assert code == 1
    assert errors.startswith("Traceback")
    assert "bz_plugin_lr_finder" not in errors
    assert errors.splitlines()[-1] == "The test failed: NameError: name 'undefined_name' is not defined"


def test_script_that_is_not_there_is_missed(tmp_path: Path) -> None:
    code, output, errors = lr_find(tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith("There is no script 'train.py'.")


def test_hooks_of_the_script_do_not_run_and_its_step_does(digits: Path) -> None:
    addition = """
from pathlib import Path


def start_training_session(context):
    Path("hook.txt").write_text("called")


def training_step(context, batch):
    inputs, targets = batch
    return context.loss_fn(context.model(inputs), targets) + 100
"""
    (digits / "train.py").write_text(DIGITS + addition, encoding="utf-8")
    record = found(digits)
    assert 102 < record["curve"]["loss"][0] < 103
    assert not (digits / "hook.txt").exists()


def test_ctrl_c_ends_it_without_a_picture(digits: Path) -> None:
    slow = (
        "\nimport time\n\n\ndef training_step(context, batch):\n    print('step', flush=True)\n    time.sleep(0.05)\n"
        "    inputs, targets = batch\n    return context.loss_fn(context.model(inputs), targets)\n"
    )
    (digits / "train.py").write_text(DIGITS + slow, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "bz", "lr-find"], cwd=digits, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline() != "step\n":
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "Interrupted."
    assert not (digits / "lr_find.png").exists()


HEAVY = {"bz_plugin_lr_finder", "torch", "matplotlib"}


def printed_and_imported(*arguments: str) -> tuple[str, set[str]]:
    """Call bz in a process of its own; return what it prints, and the packages that it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "bz", *arguments]
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return finished.stdout, set(re.findall(r"\| +(\w+)[\w.]*$", finished.stderr, re.MULTILINE))


def test_command_is_listed_without_being_imported() -> None:
    printed, imported = printed_and_imported("--help")
    assert "lr-find" in printed
    assert "from bz-plugin-lr-finder 0.1.0" in printed
    assert imported & HEAVY == set()


def test_help_imports_neither_torch_nor_matplotlib() -> None:
    printed, imported = printed_and_imported("lr-find", "--help")
    assert "--stop-factor" in printed
    assert imported & HEAVY == {"bz_plugin_lr_finder"}


def test_package_brings_no_plugin_to_ordinary_runs(tmp_path: Path) -> None:
    listed = json.loads(bz(tmp_path, "plugins", "list", "--json").stdout)
    assert "bz-plugin-lr-finder" not in {plugin["package"] for plugin in listed}
