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
    assert lines[8].split() == ["plugin", "calls", "seconds", "share", "failures"]
    assert lines[9].startswith("console_out")
    assert lines[-1] == "streams as before: True"


def test_long_metric_names_are_not_cut() -> None:
    assert "val μ" + "a_very_long_metric_name" * 3 + "_3 " in output_of("long_names")[1]


def test_output_without_unicode_does_not_end_the_run() -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    lines = output_of("long_names", environment=environment)
    assert "val ?" + "a_very_long_metric_name" * 3 + "_3 " in lines[1]
    assert re.fullmatch(r"console_out .* 0", lines[9])


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
