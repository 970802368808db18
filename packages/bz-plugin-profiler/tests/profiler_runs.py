"""A tiny training of 12 steps an epoch, and what the profiler wrote about it.

Run as a script it trains into a folder and is killed at a step: `profiler_runs.py FOLDER STEP`.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bz import Trainer
from bz.plugins import Plugin
from bz_plugin_profiler import ProfilerPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bz.context import TrainingContext
    from bz.training.result import TrainingResult

BATCHES = 12


class AtBatch(Plugin):
    """Does something at the end of a step."""

    def __init__(self, step: int, action: Callable[[TrainingContext], object]) -> None:
        self.step = step
        self.action = action

    def end_training_batch(self, context: TrainingContext) -> None:
        if context.global_step == self.step:
            self.action(context)


def stop_at(step: int) -> AtBatch:
    return AtBatch(step, lambda context: context.request_stop("enough", when="batch"))


def batches(number: int = BATCHES) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(number)]


class SlowLoader:
    """Waits before each batch."""

    def __init__(self, seconds: float, number: int = BATCHES) -> None:
        self.seconds = seconds
        self.batches = batches(number)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            time.sleep(self.seconds)
            yield batch


def profiler(**settings: Any) -> ProfilerPlugin:
    """Return a plugin of which only what the settings name is on."""
    return ProfilerPlugin(**{"steps": None, "data_wait": False, "devices_every": None, **settings})


def train(
    *plugins: object, loader: Any = None, validation: Any = None, epochs: int = 2, strict: bool = True, **options: Any
) -> TrainingResult:
    """Train a linear model for some epochs of 12 steps."""
    torch.manual_seed(0)
    model = options.pop("model", None) or torch.nn.Linear(3, 1)
    trainer = Trainer(strict_plugins=strict)
    for plugin in plugins:
        trainer.add_plugin(plugin)
    return trainer.train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        options.pop("loss_fn", torch.nn.MSELoss()),
        batches() if loader is None else loader,
        batches(2) if validation is None else validation,
        epochs=epochs,
        device=options.pop("device", "cpu"),
        **options,
    )


def names(run_dir: Path) -> list[str]:
    """Return the names of all that is in the profile."""
    return sorted(path.name for path in (run_dir / "profile").iterdir())


def events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return found


def event_names(path: Path) -> set[str]:
    return {event["name"] for event in events(path)}


def marks(path: Path) -> list[str]:
    """Return the marks of steps in a trace, in the order of time."""
    marked = [event for event in events(path) if event["name"].startswith("ProfilerStep") and event["ph"] == "X"]
    return [event["name"] for event in sorted(marked, key=lambda event: event["ts"])]


def summary(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "profile" / "summary.json").read_text(encoding="utf-8"))
    return content


def samples(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "profile" / "devices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def kill_at(step: int, folder: Path) -> None:
    """Train into the folder in a process that is killed after a batch."""
    finished = subprocess.run([sys.executable, __file__, str(folder), str(step)], check=False, timeout=120)
    assert finished.returncode == -signal.SIGKILL


if __name__ == "__main__":
    train(
        ProfilerPlugin(steps="6-8, 15-17", devices_every="0.1 s"),
        AtBatch(int(sys.argv[2]), lambda context: os.kill(os.getpid(), signal.SIGKILL)),
        run_dir=Path(sys.argv[1]),
        loader=SlowLoader(0.02),
        checkpoint_interval="5 steps",
    )
