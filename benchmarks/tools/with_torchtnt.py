"""TorchTNT: its unit that makes the step itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torchtnt.framework.auto_unit import AutoUnit
from torchtnt.framework.callbacks import DistributedCheckpointSaver, TQDMProgressBar
from torchtnt.framework.train import train
from torchtnt.utils.loggers import TensorBoardLogger

from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


class _Unit(AutoUnit):
    """Computes the loss."""

    def __init__(self, task: Task) -> None:
        super().__init__(module=task.model, device=torch.device("cpu"))
        self._own = task

    def configure_optimizers_and_lr_scheduler(self, module: Any) -> tuple[Any, Any]:  # noqa: ARG002 - its signature
        return self._own.optimizer, None

    def compute_loss(self, state: Any, data: Any) -> tuple[Any, Any]:  # noqa: ARG002 - its signature
        inputs, targets = data
        outputs = self.module(inputs)
        return self._own.loss_fn(outputs, targets), outputs


class _CountingUnit(_Unit):
    """Adds up loss and hits, and writes them down if there is a logger."""

    def __init__(self, task: Task, logger: Any = None) -> None:
        super().__init__(task)
        self._logger = logger

    def on_train_epoch_start(self, state: Any) -> None:  # noqa: ARG002 - its signature
        self.loss_total, self.num_right, self.num_seen = 0.0, 0, 0

    def on_train_step_end(self, state: Any, data: Any, step: int, results: Any) -> None:  # noqa: ARG002 - see above
        targets = data[1]
        self.loss_total += results.loss.item()
        self.num_right += (results.outputs.argmax(1) == targets).sum().item()
        self.num_seen += len(targets)
        if self._logger is not None and (step + 1) % LOGGED_EVERY == 0:
            self._logger.log_dict({"loss": self.loss_total, "accuracy": self.num_right / self.num_seen}, step + 1)


def bare(task: Task) -> None:
    """Train without callbacks."""
    train(_Unit(task), task.batches, max_epochs=task.epochs)


def metrics(task: Task) -> None:
    """Add up loss and hits after each step."""
    train(_CountingUnit(task), task.batches, max_epochs=task.epochs)


def everything(task: Task) -> None:
    """Add its bar, its logger and its checkpoint."""
    logger = TensorBoardLogger(str(task.folder / "events"))
    callbacks = [TQDMProgressBar(), DistributedCheckpointSaver(str(task.folder / "saved"), save_every_n_epochs=1)]
    train(_CountingUnit(task, logger), task.batches, max_epochs=task.epochs, callbacks=callbacks)
    logger.close()


WAYS: Final[Ways] = {"torchtnt": {"bare": bare, "metrics": metrics, "everything": everything}}
