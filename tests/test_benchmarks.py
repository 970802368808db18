"""The benchmarks of speed run, and what they compare is the same training. How fast it is, no test says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    """Return what a benchmark prints."""
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_step_cost_compares_trainings_that_end_with_the_same_weights() -> None:
    models = "--model", "tiny", "cnn", "transformer"
    printed = run("step_cost.py", *models, "--tools", "bz", "--rounds", "1", "--batches", "12", "--terminal", "null")
    rows = re.findall(r"^(?:hand-written loop|bz).*, (?:bare|loss|progress).*$", printed, flags=re.MULTILINE)
    assert len(rows) == 3 * 9
    assert all(" equal " in row for row in rows), printed


def test_step_cost_from_a_loader_prints_markdown_and_names_the_tools() -> None:
    printed = run(
        "step_cost.py", "--tools", "bz", "keras", "--levels", "bare", "--rounds", "1", "--batches", "12",
        "--data", "loader", "--terminal", "null", "--markdown",
    )  # fmt: skip
    assert re.search(r"^(left out: keras \(not installed\)|measured: .*keras)", printed, re.MULTILINE)
    assert re.search(r"^\| ratio to the bare loop \| bare \| weights \|\n\|---\|---:\|---:\|$", printed, re.MULTILINE)
    assert re.search(r"^\| hand-written loop \| 1\.00 \| equal \|\n\| bz \| \S+ \| equal \|$", printed, re.MULTILINE)


def test_growth_compares_trainings_that_end_with_the_same_weights() -> None:
    printed = run("growth.py", "--rounds", "1", "--batches", "100", "--lengths", "10", "20")
    assert len(re.findall(r" equal$", printed, re.MULTILINE)) == 15, printed


def test_long_run_looks_at_every_tenth() -> None:
    printed = run("long_run.py", "--steps", "200", "--epochs", "2", "--terminal", "null")
    assert "180 to 199" in printed
    assert re.search(r"^console_out +\d", printed, re.MULTILINE)


def test_mutations_find_what_they_change() -> None:
    run("mutations.py", "--check")
