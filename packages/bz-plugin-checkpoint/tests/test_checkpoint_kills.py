"""Killed before any rename, link or delete, and resumed: the folder is that of a run that was not killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
@pytest.mark.parametrize(
    "settings",
    [
        {"max_checkpoints": 1},
        {"max_checkpoints": 0, "keep_best": 2, "keep_last": 1, "milestones": 3},
        {"max_checkpoints": 2, "save_best_only": False, "every": "2 steps"},
        {"max_checkpoints": 2, "every": "4 steps", "milestones": "5 steps", "mode": "max"},
        {"max_checkpoints": 2, "keep_last": 1, "training": {"validation_interval": "2 steps"}},
        {"max_checkpoints": 2, "training": {"validation_interval": "2 epochs", "accumulate_batches": 2}},
        {"every": "2 steps", "keep_best": 2, "training": {"validation_interval": "1 step", "accumulate_batches": 2}},
    ],
    ids=json.dumps,
)
def test_killed_run_leaves_what_an_undisturbed_run_leaves(tmp_path: Path, settings: dict[str, Any]) -> None:
    command = [sys.executable, str(HARNESS), str(tmp_path), json.dumps(settings)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    *differences, last = [json.loads(line) for line in finished.stdout.splitlines()]
    assert differences == []
    assert last["kills"] > 20
