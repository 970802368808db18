"""Killed before, in or after any change of a file: resumed to the same bits, and nothing is left lying about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

needs_fork = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc for open files")


def run_script(name: str, *arguments: object) -> list[dict[str, Any]]:
    """Run a module of this package; return the lines that it prints."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run(
        [sys.executable, "-m", f"faults.{name}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


@needs_fork
@pytest.mark.parametrize("options", [[], ["--async"]], ids=["on the training thread", "off the training thread"])
def test_kill_at_every_point_is_resumed_bit_equal(options: list[str], tmp_path: Path) -> None:
    points = run_script("kill_points", tmp_path, *options)
    assert [point for point in points if not point["is_equal"]] == []
    assert {"open after", "write halfway", "fsync before", "replace before", "fsync_folder before", "unlink before"} < {
        point["where"] for point in points
    }
    assert [point for point in points if any(".tmp" in str(name) for name in point["left"])] == []
