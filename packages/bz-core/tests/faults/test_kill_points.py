"""Killed before, in or after any change of a file: resumed to the same bits, and nothing is left lying about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

needs_fork = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc for open files")


def run_script(name: str, folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """Run a module of this package, which is given the folder first; return the lines that it prints.

    Its processes are a group, which is ended as a whole: a loader worker whose trainer is killed before the worker
    has looked who that is stays for ever. Nor may such a worker hold a pipe that somebody reads to its end.
    """
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    output, errors = folder / "output.txt", folder / "errors.txt"
    with output.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", f"faults.{name}", str(folder), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        code = process.wait(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert code == 0, errors.read_text()
    return [json.loads(line) for line in output.read_text().splitlines()]


@needs_fork
@pytest.mark.parametrize("options", [[], ["--async"]], ids=["on the training thread", "off the training thread"])
def test_kill_at_every_point_is_resumed_bit_equal(options: list[str], tmp_path: Path) -> None:
    points = run_script("kill_points", tmp_path, *options)
    assert [point for point in points if not point["is_equal"]] == []
    assert {"open after", "write halfway", "fsync before", "replace before", "fsync_folder before", "unlink before"} < {
        point["where"] for point in points
    }
    assert [point for point in points if any(".tmp" in str(name) for name in point["left"])] == []
