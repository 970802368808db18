"""Kills a training at the n-th point at which it changes a file, resumes it, and compares; for every n.

    python -m faults.kill_points FOLDER [--async] [--epochs 2]

Prints a line of JSON for each point: where it was, whether the final state is bit-equal to that of a run that nobody
killed, and what else is left in the folder of checkpoints.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from faults.disk import KillAt, watched
from faults.runs import in_a_process, outcome_in_a_process, train_on


def kill_at(number: int, run_dir: Path, options: dict[str, Any]) -> str | None:
    """Train until the n-th point; return where the process died, or None if it came to its end before."""
    reader, writer = os.pipe()

    def run() -> None:
        with watched(run_dir, KillAt(number, writer)):
            train_on(run_dir, **options)

    code = in_a_process(run)
    os.close(writer)
    point = os.read(reader, 100).decode()
    os.close(reader)
    if code == 0:
        return None
    assert code == -signal.SIGKILL, code
    return point


def walk_points(root: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what came of a kill at each point."""
    train_on(root / "imports", **options)  # what torch imports when it is first used, for all processes at once
    expected = outcome_in_a_process(root / "whole", **options)
    number = 1
    while (point := kill_at(number, run_dir := root / str(number), options)) is not None:
        outcome = outcome_in_a_process(run_dir, **options)
        left = sorted(path.name for path in (run_dir / "state").iterdir())
        yield {"point": number, "where": point, "is_equal": outcome == expected, "left": left}
        number += 1


def main() -> None:
    """Walk all points."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--async", dest="is_async", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for line in walk_points(arguments.folder, {"async_checkpoint": arguments.is_async, "epochs": arguments.epochs}):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
