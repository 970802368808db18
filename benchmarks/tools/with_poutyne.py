"""Poutyne: the Keras-like model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poutyne import Model, ModelCheckpoint, TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


def _fit(task: Task, *callbacks: object, has_bar: bool = False, **options: Any) -> None:
    model = Model(task.model, task.optimizer, task.loss_fn, **options)
    model.fit_generator(task.batches, epochs=task.epochs, verbose=has_bar, callbacks=list(callbacks))


def bare(task: Task) -> None:
    """Train without output."""
    _fit(task)


def metrics(task: Task) -> None:
    """Compute its accuracy batch by batch; the loss it always has."""
    _fit(task, batch_metrics=["accuracy"])


def everything(task: Task) -> None:
    """Show its bar, write its events (once an epoch) and its checkpoint."""
    writer = SummaryWriter(task.folder)
    checkpoint = ModelCheckpoint(str(task.folder / "last.pth"))
    _fit(task, TensorBoardLogger(writer), checkpoint, has_bar=True, batch_metrics=["accuracy"])
    writer.close()


WAYS: Final[Ways] = {"poutyne": {"bare": bare, "metrics": metrics, "everything": everything}}
