"""After a power failure at any moment, whatever was not synced is lost or not, the last durable checkpoint is found."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bz import CheckpointError
from bz.lock import hold
from bz.training.checkpoint import RollingCheckpoints, find_checkpoint, write_checkpoint
from faults.crash_states import Disk, build
from faults.disk import Moment, Operation, watched

# Step and value of each save; the fourth writes over a file that is there, as a session does that goes on before it.
RUN = "runs/one"
SAVES = [(1, 10.0), (2, 20.0), (3, 30.0), (3, 31.0), (4, 40.0)]


class Durable(NamedTuple):
    """The mark that a checkpoint was reported to be on disk."""

    step: int
    value: float


class History:
    """Operations and marks in their order."""

    def __init__(self) -> None:
        self.events: list[Operation | Durable] = []

    def __call__(self, operation: Operation, moment: Moment) -> None:
        if moment == "after":
            self.events.append(operation)


def save_all(root: Path) -> list[Operation | Durable]:
    """Save and prune as a session does in a new run folder; return what happened."""
    history = History()
    rolling = RollingCheckpoints(root / RUN / "state")
    with watched(root, history), hold(root / RUN):
        for step, value in SAVES:
            state = {"weights": torch.full((2000,), value), "bz": {"global_step": step}}
            write_checkpoint(state, rolling.path_for(1, step))
            history.events.append(Durable(step, value))
            rolling.prune()
    return history.events


def found_step(run_dir: Path, written: dict[int, set[float]]) -> int:
    """Return the step of the checkpoint that a resume would use, 0 for none; its values must be right ones."""
    try:
        state: dict[str, Any] = find_checkpoint(run_dir).state
    except CheckpointError:
        return 0
    step, weights = state["bz"]["global_step"], state["weights"]
    assert weights.shape == (2000,)
    assert set(weights.tolist()) in [{value} for value in written[step]]
    return int(step)


def test_every_crash_state_resumes_at_least_from_the_last_durable_checkpoint(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    numbers = itertools.count()
    disk, durable, seen = Disk(root), 0, set()
    written = {step: {value for other, value in SAVES if other == step} for step, _ in SAVES}
    for event in save_all(root):
        if isinstance(event, Durable):
            durable = event.step
            written[durable] = {value for step, value in SAVES if step == durable and value >= event.value}
        else:
            disk.apply(event)
        for state in disk.states():
            key = (durable, frozenset(state.items()))
            if key in seen:
                continue
            seen.add(key)
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            build(state, root, folder)
            assert found_step(folder / RUN, written) >= durable, (event, sorted(path.name for path in state))
    assert len(seen) > 80
