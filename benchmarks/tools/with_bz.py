"""bz itself: a trainer in a script, with the plugins that were added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torchmetrics.classification import MulticlassAccuracy

from bz import Plugin, Trainer
from bz.plugins.discovery import discover_plugins
from bz.plugins.loading import load_plugins
from bz.plugins.selection import PluginRequest, choose_plugins
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_tensorboard import TensorBoardPlugin
from harness.workloads import NUM_CLASSES
from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from bz import TrainingContext
    from bz.spec import Metric
    from bz.training.result import TrainingResult
    from harness.workloads import Task
    from tools import Ways

MAIL: Final = {
    "smtp_server": "127.0.0.1",
    "smtp_port": 9,  # nobody listens, so the mail waits in the run folder
    "security": "none",
    "from_email": "bz@example.com",
    "to_email": "you@example.com",
}


class Accuracy:
    """Share of the samples whose largest output is that of their class."""

    joins_batches = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._num_right: torch.Tensor | int = 0
        self._num_seen = 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Take in logits (sample, class) and classes (sample)."""
        self._num_right = self._num_right + (preds.argmax(1) == target).sum()
        self._num_seen += len(target)

    def compute(self) -> float:
        """Return the share; waits for the device."""
        return float(self._num_right) / self._num_seen


class ReadEveryStep(Plugin):
    """Reads loss and accuracy after every batch, as a loop with `.item()` does."""

    def end_training_batch(self, context: TrainingContext) -> None:
        """Wait for both."""
        _ = context.training_loss, context.training_metrics


def run(task: Task, *plugins: object, metrics: Mapping[str, Metric] | None = None, **options: Any) -> TrainingResult:
    """Train the task with these plugins."""
    trainer = Trainer()
    for plugin in plugins:
        trainer.add_plugin(plugin)
    parts = task.model, task.optimizer, task.loss_fn, task.batches
    return trainer.train(*parts, epochs=task.epochs, device="cpu", metrics=metrics, **options)


def bare(task: Task) -> None:
    """Train without plugins; loss and its finiteness are kept an eye on all the same."""
    run(task)


def metrics(task: Task) -> None:
    """Take in loss and accuracy at every step; they are read at the end of the epoch."""
    run(task, metrics={"accuracy": Accuracy()})


def metrics_read(task: Task) -> None:
    """Take them in and read them at every step."""
    run(task, ReadEveryStep(), metrics={"accuracy": Accuracy()})


def torchmetrics(task: Task) -> None:
    """Leave the accuracy to torchmetrics, as settings do."""
    run(task, metrics={"accuracy": MulticlassAccuracy(NUM_CLASSES, average="micro")})


def bar_events_checkpoint(task: Task) -> None:
    """Add the plugins for the terminal and TensorBoard, and the core's own checkpoint."""
    plugins = ConsoleOutPlugin(), TensorBoardPlugin(log_every=LOGGED_EVERY)
    run(task, *plugins, metrics={"accuracy": Accuracy()}, run_dir=task.folder / "run")


def all_plugins() -> list[object]:
    """Return every installed plugin that `bz train` runs by itself, and the one for mail, on their defaults."""
    choices = choose_plugins(discover_plugins(), {"email": {"config": MAIL}}, PluginRequest())
    return [plugin for _, plugin in load_plugins(choices).plugins]


def everything(task: Task) -> None:
    """Train with all plugins, and the core's own checkpoint."""
    run(task, *all_plugins(), metrics={"accuracy": Accuracy()}, run_dir=task.folder / "run")


WAYS: Final[Ways] = {
    "bz": {"bare": bare, "metrics": metrics, "everything": bar_events_checkpoint},
    "bz, all plugins": {"everything": everything},
    "bz, read at every step": {"metrics": metrics_read},
    "bz, torchmetrics": {"metrics": torchmetrics},
}
