"""A tiny training, sensitive to every random number and every bit of state, in processes that can be killed."""

from __future__ import annotations

import json
import os
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bz import CheckpointError, TrainingSpec
from bz.testing import tiny_spec, train

EPOCHS: Final = 2
BATCHES: Final = 4


class Augmented(Dataset[Any]):
    """Sixteen samples, each disturbed by Python's, NumPy's and torch's random numbers; the first number tells which."""

    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = [random.gauss(0, 1), np.random.randn(), float(torch.rand(()))]
        return torch.tensor([float(index), *noise]), torch.tensor(index % 3)


def make_spec(num_workers: int = 0) -> TrainingSpec:
    """Seed everything and return a spec with dropout, momentum, a scheduler, shuffling and augmentation."""
    random.seed(3)
    np.random.seed(3)
    loader = DataLoader(Augmented(), 4, shuffle=True, num_workers=num_workers)
    spec = tiny_spec(seed=3, training_loader=loader)
    spec.lr_scheduler = torch.optim.lr_scheduler.StepLR(spec.optimizer, 2)  # its next step depends on its state
    return spec


def train_on(run_dir: Path, *plugins: object, num_workers: int = 0, **options: Any) -> list[Any]:
    """Train to the end, from the newest checkpoint in `run_dir` if there is one; return what must be equal.

    Returns:
        Weights, momentum, learning rate, history and the next random numbers, as plain values.
    """
    defaults: dict[str, Any] = {"checkpoint_interval": "3 steps", "epochs": EPOCHS}
    options = {**defaults, **options, "run_dir": run_dir}
    spec = make_spec(num_workers)
    if has_checkpoint(run_dir):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(99)  # what a resumed process happens to have drawn must not matter
        result = train(spec, *plugins, resume=run_dir, **options)
    else:
        result = train(spec, *plugins, **options)
    state = spec.optimizer.state_dict()
    momenta = [state["state"][index]["momentum_buffer"] for index in sorted(state["state"])]
    tensors = [tensor.tolist() for tensor in (*spec.model.state_dict().values(), *momenta)]
    numbers = [random.random(), float(np.random.randn()), float(torch.rand(()))]
    return [tensors, state["param_groups"][0]["lr"], result.history, result.missing_files, numbers]


def has_checkpoint(run_dir: Path) -> bool:
    """Return whether there is a file to resume from, whole or not."""
    return any((run_dir / "state").glob("*.pth"))


def in_a_process(action: Callable[[], object]) -> int:
    """Do it in a forked process, which is a fresh one: nothing was trained in its parent.

    Returns:
        Its exit code; negative if a signal ended it.
    """
    process = os.fork()
    if process == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - a child must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def outcome_in_a_process(run_dir: Path, **options: Any) -> Any:
    """Train to the end in a fresh process and return the outcome.

    Raises:
        CheckpointError: If the process failed.
    """
    file = run_dir.with_suffix(".json")
    code = in_a_process(lambda: file.write_text(json.dumps(train_on(run_dir, **options))))
    if code != 0:
        raise CheckpointError(f"The training in {run_dir} ended with code {code}.", path=run_dir)
    return json.loads(file.read_text())
