"""Tiny real runs whose validation losses are given; tests and the kill harness share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from bz.testing import tiny_spec, train
from bz_plugin_checkpoint import SmartCheckpointPlugin


def scripted_run(
    losses: Sequence[float] | Mapping[int, float],
    *plugins: object,
    run_dir: Path | None = None,
    resume: Path | None = None,
    **changes: Any,
) -> Any:
    """Train three batches an epoch.

    The validation loss of epoch N is the Nth of `losses`; as a mapping they go by the step.
    """

    def validation_step(context: Any, batch: Any) -> torch.Tensor:
        is_by_step = isinstance(losses, Mapping)
        loss = losses[context.global_step if is_by_step else context.epoch - 1]
        return torch.tensor(loss, dtype=torch.float64)

    loader = DataLoader(TensorDataset(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long)))
    spec = tiny_spec(validation_loader=loader, validation_step=validation_step)
    options = {"strict_plugins": True, "epochs": len(losses), **changes}
    return train(spec, *plugins, run_dir=run_dir, resume=resume, **options), spec


def saved(run_dir: Path, losses: Sequence[float], **settings: Any) -> list[str]:
    """Run with these settings and return the names of the checkpoints that are left."""
    scripted_run(losses, SmartCheckpointPlugin(**settings), run_dir=run_dir)
    return names(run_dir / "checkpoints")


def names(folder: Path) -> list[str]:
    """Return the short names of the checkpoints in order: `3` for the end of an epoch, `3@8` for a step inside it."""
    places = []
    for path in folder.glob("checkpoint_*.pth"):
        words = path.stem.split("_")
        places.append((int(words[2]), words[3] == "loss", "" if words[3] == "loss" else f"@{words[4]}"))
    return [
        f"{epoch}{step}" for epoch, _, step in sorted(places, key=lambda place: (*place[:2], len(place[2]), place[2]))
    ]
