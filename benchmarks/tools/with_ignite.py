"""PyTorch-Ignite: the supervised trainer, and what is attached to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ignite.engine import Events, create_supervised_trainer
from ignite.handlers import ModelCheckpoint, ProgressBar, TensorboardLogger
from ignite.metrics import Accuracy, RunningAverage

from tools import LOGGED_EVERY

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


def _with_metrics(task: Task) -> Any:
    trainer = create_supervised_trainer(
        task.model,
        task.optimizer,
        task.loss_fn,
        output_transform=lambda _inputs, targets, outputs, loss: (loss.item(), outputs, targets),
    )
    RunningAverage(output_transform=lambda output: output[0]).attach(trainer, "loss")
    Accuracy(output_transform=lambda output: output[1:]).attach(trainer, "accuracy")
    return trainer


def _run(trainer: Any, task: Task) -> None:
    trainer.run(task.batches, max_epochs=task.epochs)


def bare(task: Task) -> None:
    """Train with nothing attached."""
    _run(create_supervised_trainer(task.model, task.optimizer, task.loss_fn), task)


def metrics(task: Task) -> None:
    """Attach a running average of the loss, and the accuracy."""
    _run(_with_metrics(task), task)


def everything(task: Task) -> None:
    """Attach its bar, its logger and its checkpoints."""
    trainer = _with_metrics(task)
    ProgressBar().attach(trainer, ["loss"])
    with TensorboardLogger(log_dir=task.folder) as logger:
        logger.attach_output_handler(
            trainer,
            event_name=Events.ITERATION_COMPLETED(every=LOGGED_EVERY),
            tag="training",
            output_transform=lambda output: {"loss": output[0]},
        )
        checkpoint = ModelCheckpoint(task.folder, "last", n_saved=1, require_empty=False)
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, checkpoint, {"model": task.model, "optimizer": task.optimizer}
        )
        _run(trainer, task)


WAYS: Final[Ways] = {"ignite": {"bare": bare, "metrics": metrics, "everything": everything}}
