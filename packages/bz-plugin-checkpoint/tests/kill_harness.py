"""Runs once without a kill, then kills a run before its Nth change of a file, resumes it, and compares; for every N.

Arguments: a folder, and the settings of the plugin as JSON, those of the training under `training`. Writes one line
of JSON for each kill that left something else behind than the undisturbed run, and last the number of kills.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoint_runs import scripted_run

from bz.errors import CheckpointError
from bz.training.checkpoint import read_checkpoint
from bz_plugin_checkpoint import SmartCheckpointPlugin

LOSSES = [0.9, 0.5, 0.7, 0.6, 0.4, 0.8]
LOSSES_BY_STEP = {step: abs(9.5 - step) + 0.1 * (step % 4) for step in range(19)}
CHANGES = {"os.rename", "os.remove", "os.link"}


def in_a_process(action: Callable[[], object]) -> int:
    """Return the exit status of a forked process that does it."""
    process = os.fork()
    if process == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - a child must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(run_dir: Path, settings: dict[str, Any]) -> None:
    options = {"epochs": len(LOSSES), **settings.get("training", {})}
    losses = LOSSES_BY_STEP if "validation_interval" in options else LOSSES
    plugin = SmartCheckpointPlugin(**{name: value for name, value in settings.items() if name != "training"})
    try:
        scripted_run(losses, plugin, run_dir=run_dir, resume=run_dir if run_dir.exists() else None, **options)
    except CheckpointError:  # killed before there was anything to go on from
        scripted_run(losses, plugin, run_dir=run_dir, **options)


def killed_before_change(number: int, action: Callable[[], object]) -> Callable[[], object]:
    """Return the action, which kills its process before its Nth rename, link or delete."""
    changes = 0

    def watch(event: str, _arguments: Any) -> None:
        nonlocal changes
        changes += event in CHANGES
        if event in CHANGES and changes == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        sys.addaudithook(watch)
        action()

    return watched


def contents(run_dir: Path) -> dict[str, Any]:
    """Return name to epoch, step and weights of every checkpoint of the plugin."""
    paths = sorted((run_dir / "checkpoints").glob("*.pth"))
    states = {path.name: read_checkpoint(path) for path in paths}
    return {
        name: [state["epoch"], state["bz"]["global_step"], [w.tolist() for w in state["model_state_dict"].values()]]
        for name, state in states.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    train(root / "imports", settings)  # what torch imports when it is first used, for all processes at once
    assert in_a_process(lambda: train(root / "undisturbed", settings)) == 0
    expected = contents(root / "undisturbed")
    number = 1
    while True:
        run_dir = root / str(number)
        if in_a_process(killed_before_change(number, lambda: train(run_dir, settings))) == 0:  # noqa: B023 - called at once
            break
        status = in_a_process(lambda: train(run_dir, settings))  # noqa: B023 - called at once
        if status != 0 or contents(run_dir) != expected:
            print(
                json.dumps(
                    {"kill": number, "status": status, "left": sorted(contents(run_dir)), "expected": sorted(expected)}
                )
            )
        number += 1
    print(json.dumps({"kills": number - 1}))


if __name__ == "__main__":
    main()
