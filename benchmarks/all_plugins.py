"""What all six plugins together cost the digits example: by hand, with bz alone, and with the plugins, in turns.

    python benchmarks/all_plugins.py [--rounds 5] [--epochs 12]

The mail goes to a port of this machine where nobody listens, so it waits in the run folder. The
weights of all three must come out equal. Ends with the report of the last run with plugins.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bz import Trainer, TrainingSpec
from bz.script import load_script
from bz.training.seeding import seed_everything
from bz_plugin_checkpoint import SmartCheckpointPlugin
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_email import EmailNotificationPlugin
from bz_plugin_logging import LoggingPlugin
from bz_plugin_tensorboard import TensorBoardPlugin
from bz_plugin_visualization import VisualizationPlugin

if TYPE_CHECKING:
    from bz.training.result import TrainingResult

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "train.py"
MAIL = {
    "smtp_server": "127.0.0.1",
    "smtp_port": 9,
    "security": "none",
    "from_email": "bz@example.com",
    "to_email": "you@example.com",
}


def make_spec() -> TrainingSpec:
    """Return the digits example, the same at each call."""
    seed_everything(42)
    return load_script(DIGITS, {"lr": 0.001, "batch_size": 32, "model_name": "digits"}).spec


def train_by_hand(spec: TrainingSpec, epochs: int, _folder: Path) -> None:
    """Train and validate with the plain loop that everybody writes."""
    assert spec.loss_fn is not None
    assert spec.validation_loader is not None
    for _ in range(epochs):
        spec.model.train()
        for inputs, targets in spec.training_loader:
            loss = spec.loss_fn(spec.model(inputs), targets)
            spec.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            spec.optimizer.step()
        spec.model.eval()
        with torch.no_grad():
            for inputs, targets in spec.validation_loader:
                spec.loss_fn(spec.model(inputs), targets)


def train_with_bz(spec: TrainingSpec, epochs: int, _folder: Path) -> None:
    """Train with no plugins and no checkpoints."""
    run(Trainer(), spec, epochs, None)


def train_with_plugins(spec: TrainingSpec, epochs: int, folder: Path) -> TrainingResult:
    """Train with all six plugins on their defaults, and the core's checkpoint after each epoch."""
    trainer = Trainer()
    for plugin in (
        ConsoleOutPlugin(),
        LoggingPlugin(),
        SmartCheckpointPlugin(),
        VisualizationPlugin(),
        TensorBoardPlugin(),
        EmailNotificationPlugin(MAIL),
    ):
        trainer.add_plugin(plugin)
    with contextlib.redirect_stdout(io.StringIO()):
        return run(trainer, spec, epochs, folder)


def run(trainer: Trainer, spec: TrainingSpec, epochs: int, folder: Path | None) -> TrainingResult:
    """Train the spec on the CPU."""
    return trainer.train(
        spec.model,
        spec.optimizer,
        spec.loss_fn,
        spec.training_loader,
        spec.validation_loader,
        epochs=epochs,
        device="cpu",
        hyperparameters=spec.hyperparameters,
        run_dir=folder,
    )


def measure(
    train: Callable[[TrainingSpec, int, Path], TrainingResult | None], epochs: int
) -> tuple[float, list[list[float]], TrainingResult | None]:
    """Return the seconds it took, the weights, and the result."""
    spec = make_spec()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = train(spec, epochs, Path(folder))
        seconds = time.perf_counter() - started
    return seconds, [parameter.flatten().tolist() for parameter in spec.model.parameters()], result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    ways = {"by hand": train_by_hand, "bz": train_with_bz, "bz and six plugins": train_with_plugins}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    result: TrainingResult | None = None
    for train in ways.values():
        measure(train, 1)
    for _ in range(arguments.rounds):
        weights = []
        for name, train in ways.items():
            taken, values, result = measure(train, arguments.epochs)
            seconds[name].append(taken)
            weights.append(values)
        assert weights[0] == weights[1] == weights[2]
    by_hand = statistics.median(seconds["by hand"])
    for name, taken_times in seconds.items():
        median = statistics.median(taken_times)
        spread = f"{min(taken_times):.2f} to {max(taken_times):.2f}"
        print(f"{name:20} {median:7.2f} s  ({spread})  ratio {median / by_hand:.3f}")
    assert result is not None
    for usage in result.plugin_usage:
        print(f"{usage.name:20} {usage.calls:6} calls  {usage.seconds:7.3f} s  {usage.share:6.1%}")


if __name__ == "__main__":
    main()
