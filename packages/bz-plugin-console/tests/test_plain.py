"""What a pipe or a file gets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("training_script.py")


def output_of(
    scenario: str, settings: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run a scenario of the training script in a pipe and return its lines."""
    finished = subprocess.run(
        [sys.executable, SCRIPT, scenario, json.dumps(settings or {})],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        timeout=120,
        check=False,
    )
    return finished.stdout.decode().splitlines()


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "40", "FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_pipe_gets_whole_lines_without_control_codes(environment: Mapping[str, str]) -> None:
    lines = output_of("completed", environment=environment)
    epochs = [line for line in lines if line.startswith("epoch ")]
    shape = r"epoch \d/3  loss \S+  accuracy \S+  val loss \S+  val accuracy \S+  samples/s \S+  time \S+ s"
    assert len(epochs) == 3
    assert all(re.fullmatch(shape, line) for line in epochs)
    assert all(line.isprintable() for line in lines)


def test_pipe_gets_opening_closing_and_report_in_order() -> None:
    lines = output_of("completed")
    assert lines[0] == "training Sequential on cpu: 3 epochs of 8 batches, 4 samples each"
    assert re.fullmatch(r"completed 3 epochs in \d+\.\d+ s", lines[5])
    assert re.fullmatch(r"time: \d+(\.\d+)? s, of it ([a-z -]+ \d+ %(, )?)+", lines[7])
    assert lines[9].split() == ["plugin", "calls", "seconds", "share", "failures"]
    assert lines[10].startswith("console_out")
    assert lines[-1] == "streams as before: True"


def test_long_metric_names_are_not_cut() -> None:
    assert "val μ" + "a_very_long_metric_name" * 3 + "_3 " in output_of("long_names")[1]


def test_output_without_unicode_does_not_end_the_run() -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    lines = output_of("long_names", environment=environment)
    assert "val ?" + "a_very_long_metric_name" * 3 + "_3 " in lines[1]
    assert re.fullmatch(r"console_out .* 0", lines[10])


def test_metrics_can_be_left_out() -> None:
    lines = output_of("completed", {"show_metrics": False})
    assert re.fullmatch(r"epoch 1/3  loss \S+  val loss \S+  samples/s \S+  time \S+ s", lines[1])


def test_summary_interval_leaves_epochs_out_but_never_the_last() -> None:
    lines = output_of("completed", {"summary_interval": 2})
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["2/3", "3/3"]


def test_summary_interval_shows_the_last_epoch_of_a_run_that_was_stopped() -> None:
    lines = output_of("stopped", {"summary_interval": 5})
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["2/3"]


def test_validation_without_batches_is_not_shown() -> None:
    lines = output_of("empty_validation")
    assert all("val" not in line for line in lines if line.startswith("epoch "))


def epochs_of(lines: list[str]) -> list[dict[str, str]]:
    """Return name to value of each line of an epoch or validation."""
    pairs = [[pair.rpartition(" ")[::2] for pair in re.sub(r"  time .*", "", line).split("  ")] for line in lines]
    return [dict(row) for row, line in zip(pairs, lines, strict=True) if line.startswith("epoch ")]


def test_validation_inside_an_epoch_has_a_line_and_its_values_are_not_repeated() -> None:
    rows = epochs_of(output_of("inner"))
    assert [(row["epoch"], row["step"], "val loss" in row) for row in rows] == [
        ("1/3", "3", True), ("1/3", "6", True), ("1/3", "8", False), ("2/3", "9", True), ("2/3", "12", True),
        ("2/3", "15", True), ("2/3", "16", False), ("3/3", "18", True), ("3/3", "21", True), ("3/3", "24", True),
    ]  # fmt: skip
    assert all("loss" in row and "samples/s" in row for row in rows)


def test_best_validation_is_told_with_its_step() -> None:
    lines = output_of("inner")
    rows = [row for row in epochs_of(lines) if "val loss" in row]
    best = min(rows, key=lambda row: float(row["val loss"]))
    step = "" if best["step"] == "24" else f", step {best['step']}"
    assert f"best epoch {best['epoch'][0]}{step}: val loss {best['val loss']}" in lines


def test_epochs_without_validation_have_no_validation_values_and_are_not_the_best() -> None:
    lines = output_of("sparse")
    assert ["val loss" in row for row in epochs_of(lines)] == [False, True, False, True, False]
    assert any(re.match(r"best epoch [24]: val loss", line) for line in lines)


def test_validation_of_the_untrained_model_has_a_line() -> None:
    lines = output_of("validate_first")
    assert re.fullmatch(r"epoch 0/3  val loss \S+  val accuracy \S+  samples/s -  time \S+ s", lines[1])
    assert any(re.match(r"best epoch [123]: val loss", line) for line in lines)


@pytest.mark.parametrize(
    ("scenario", "opening", "epochs", "closing"),
    [
        (
            "steps",
            "at most 20 steps in 3 epochs of 8 batches, 4 samples each",
            ["1/3", "2/3", "3/3"],
            "3 of 3, step 20",
        ),
        ("steps_of_unknown_length", "at most 20 steps in epochs", ["1", "2", "3"], "3, step 20"),
        ("windows", "at most 5 steps in 2 epochs of 8 batches, 4 samples each", ["1/2", "2/2"], "2 of 2, step 5"),
    ],
)
def test_run_that_ends_by_a_number_of_steps_says_so(
    scenario: str, opening: str, epochs: list[str], closing: str
) -> None:
    lines = output_of(scenario)
    assert lines[0] == f"training Sequential on cpu: {opening}"
    rows = epochs_of(lines)
    assert [row["epoch"] for row in rows] == epochs
    assert rows[-1]["step"] == closing.rsplit(maxsplit=1)[-1]
    assert any(re.fullmatch(rf"completed at epoch {closing}, in \S+ s: max_steps \d+ reached", line) for line in lines)


def test_run_that_ends_by_time_says_so() -> None:
    lines = output_of("time")
    assert lines[0] == "training Sequential on cpu: epochs of 8 batches, 4 samples each"
    assert any(re.match(r"completed at epoch \d+, step \d+, in .*: max_time 2 s reached", line) for line in lines)


def test_reader_that_goes_away_does_not_end_the_run() -> None:
    command = f"({sys.executable} {SCRIPT} slow; echo exit $? >&2) | head -1"
    finished = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert finished.stdout.startswith("training Sequential")
    assert "Traceback" not in finished.stderr
    assert "streams as before: True" in finished.stderr


def test_device_is_read_once_per_loop() -> None:
    bare = subprocess.run(
        [sys.executable, SCRIPT, "many_batches", "{}", "--bare"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert device_reads(output_of("many_batches")) <= device_reads(bare.stderr.splitlines()) + 4


def device_reads(lines: list[str]) -> int:
    return next(int(line.rpartition(" ")[2]) for line in lines if line.startswith("device reads: "))
