"""Runs once without a kill, then kills a run at its Nth hook, resumes it, and compares; for every N.

Arguments: a folder, the settings of the plugin and the options of `Trainer.train`, both as JSON. Writes one line of
JSON for each kill after which the run came to something else, and last the number of kills.
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
from early_stopping_runs import scripted_spec, weights

from bz.errors import CheckpointError
from bz.testing import RecordingPlugin, train
from bz.training.checkpoint import find_checkpoint
from bz_plugin_early_stopping import EarlyStoppingPlugin

BEST_STEP = 5


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


def run(run_dir: Path, settings: dict[str, Any], options: dict[str, Any], *, kill_at: int = 0) -> None:
    """Train, or go on; write what it came to beside the folder."""
    calls = 0

    def count(hook: str, context: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    plugin = EarlyStoppingPlugin(**settings)
    spec = scripted_spec(lambda context: 0.5 + abs(context.global_step - BEST_STEP) / 100)

    def go(resume: Path | None) -> Any:
        return train(
            spec, plugin, RecordingPlugin(count), run_dir=run_dir, resume=resume, strict_plugins=True, **options
        )

    try:
        result = go(run_dir if run_dir.exists() else None)
    except CheckpointError:  # killed before there was anything to go on from
        result = go(None)
    outcome = {
        "status": result.status,
        "reason": result.stop_reason,
        "history": result.history,
        "weights": weights(spec),
        "watched": {key: value for key, value in plugin.state_dict().items() if key != "weights"},
        "saved": [value.tolist() for value in find_checkpoint(run_dir).state["model_state_dict"].values()],
    }
    run_dir.with_suffix(".json").write_text(json.dumps(outcome))


def outcome(run_dir: Path) -> Any:
    """Return what a run came to, or None if it never got there."""
    path = run_dir.with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    """Kill, resume, compare."""
    torch.set_num_threads(1)
    root, settings, options = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    run(root / "imports", settings, options)  # what torch imports when it is first used, for all processes at once
    assert in_a_process(lambda: run(root / "undisturbed", settings, options)) == 0
    expected = outcome(root / "undisturbed")
    number = 1
    while True:
        run_dir = root / str(number)
        if in_a_process(lambda: run(run_dir, settings, options, kill_at=number)) == 0:  # noqa: B023 - called at once
            break
        run_dir.with_suffix(".json").unlink(missing_ok=True)
        status = in_a_process(lambda: run(run_dir, settings, options))  # noqa: B023 - called at once
        came_to = outcome(run_dir)
        if status != 0 or came_to != expected:
            different = sorted(key for key in expected if came_to is None or came_to[key] != expected[key])
            print(json.dumps({"kill": number, "status": status, "different": different}))
        number += 1
    print(json.dumps({"kills": number - 1, **{key: expected[key] for key in ("status", "reason")}}))


if __name__ == "__main__":
    main()
