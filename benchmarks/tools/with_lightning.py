"""Lightning: the module and the trainer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class _Module(LightningModule):
    """Computes the loss."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._own = task

    def configure_optimizers(self) -> Any:
        return self._own.optimizer

    def training_step(self, batch: Any) -> Any:
        inputs, targets = batch
        return self._own.loss_fn(self.model(inputs), targets)


class _LoggingModule(_Module):
    """Hands loss and accuracy to the trainer, which averages and shows them."""

    def training_step(self, batch: Any) -> Any:
        inputs, targets = batch
        outputs = self.model(inputs)
        loss = self._own.loss_fn(outputs, targets)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        accuracy = (outputs.argmax(1) == targets).float().mean()
        self.log("accuracy", accuracy, prog_bar=True, on_step=True, on_epoch=True)
        return loss


def _fit(task: Task, module: Any, **options: Any) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=task.epochs, **options)
    trainer.fit(module, task.batches)


def bare(task: Task) -> None:
    """Train with all optional features off, which is its `barebones`."""
    _fit(task, _Module(task), barebones=True)


def metrics(task: Task) -> None:
    """Log loss and accuracy at every step, without a logger, a bar or checkpoints."""
    _fit(
        task,
        _LoggingModule(task),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def everything(task: Task) -> None:
    """Train as it does by default: bar, TensorBoard and checkpoint."""
    _fit(
        task,
        _LoggingModule(task),
        default_root_dir=task.folder,
        logger=TensorBoardLogger(task.folder),
        callbacks=[TQDMProgressBar(), ModelCheckpoint(task.folder / "saved")],
        log_every_n_steps=LOGGED_EVERY,
    )


WAYS: Final[Ways] = {"lightning": {"bare": bare, "metrics": metrics, "everything": everything}}
