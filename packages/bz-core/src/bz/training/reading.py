"""Checkpoints that are looked at and left as they are, also while their run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from bz.errors import CheckpointError
from bz.training.checkpoint import STATE_FOLDER, FoundCheckpoint, RollingCheckpoints, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

TRIES: Final = 5
"""A run that goes on may delete a checkpoint between the look into the folder and the reading."""

EVALUATION_WEIGHTS: Final = "evaluation_weights"
"""Key in the state of a plugin."""


class PluginWeights(NamedTuple):
    """Weights that a plugin keeps for evaluation: its name, and tensors by the names of the model's state."""

    plugin: str
    tensors: Mapping[str, Tensor]


def newest_checkpoint(run_dir: Path) -> FoundCheckpoint:
    """Return the newest checkpoint of a run that is whole.

    Raises:
        CheckpointError: If there is none.
    """
    stored = _StoredCheckpoints(run_dir / STATE_FOLDER)
    skipped: list[CheckpointError] = []
    for _ in range(TRIES):
        skipped.clear()
        for path in stored.paths():
            try:
                return FoundCheckpoint(path, read_checkpoint(path), tuple(skipped))
            except CheckpointError as error:
                skipped.append(error)
        if not any(isinstance(error.__cause__, FileNotFoundError) for error in skipped):
            break
    what = "All checkpoints are damaged" if skipped else "There is no checkpoint"
    raise CheckpointError(" ".join([f"{what} in {stored.folder}.", *map(str, skipped)]), path=stored.folder)


def has_checkpoint(run_dir: Path) -> bool:
    """Return whether a run has written a checkpoint of its own."""
    return bool(_StoredCheckpoints(run_dir / STATE_FOLDER).paths())


def plugin_weights(state: Mapping[str, Any]) -> PluginWeights | None:
    """Return the weights that the run was validated with in place of those trained, or None."""
    for plugin, own in state["bz"]["plugins"].items():
        tensors = own.get(EVALUATION_WEIGHTS) if isinstance(own, Mapping) else None
        if not isinstance(tensors, Mapping) or not tensors:
            continue
        if all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            return PluginWeights(plugin, tensors)
    return None


class _StoredCheckpoints(RollingCheckpoints):
    """The checkpoints of a run that somebody else may be writing: none is renamed or deleted."""

    def paths(self) -> list[Path]:
        """Return the files, newest first."""
        return self._newest_first()
