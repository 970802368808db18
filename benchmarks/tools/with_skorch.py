"""skorch: the scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Checkpoint,
    EpochScoring,
    EpochTimer,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    TensorBoard,
)  # fmt: skip
from torch import nn
from torch.utils.data import TensorDataset
from torch.utils.tensorboard import SummaryWriter

from harness.workloads import LEARNING_RATE, MOMENTUM

if TYPE_CHECKING:
    from harness.workloads import Batches, Task
    from tools import Ways

_UNUSED: Final = torch.zeros(2, 1)
"""It asks for data to cut into batches; it gets the batches that all others have."""


def _fit(task: Task, callbacks: Any) -> None:
    def batches(_dataset: object, **_options: object) -> Batches:
        return task.batches

    net = NeuralNetClassifier(
        task.model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LEARNING_RATE,
        optimizer__momentum=MOMENTUM,
        max_epochs=task.epochs,
        train_split=None,
        iterator_train=batches,
        classes=[0, 1],
        callbacks=callbacks,
    )
    net.set_params(**({} if callbacks == "disable" else _without_defaults(net)))
    net.fit(TensorDataset(_UNUSED, _UNUSED), None)


def _without_defaults(net: Any) -> dict[str, None]:
    """Return the settings that take the default callbacks out, since the level says which there are."""
    return {f"callbacks__{name}": None for name, _ in net._default_callbacks}  # noqa: SLF001 - named nowhere else


def _metrics() -> list[tuple[str, object]]:
    accuracy = EpochScoring("accuracy", name="train_acc", lower_is_better=False, on_train=True)
    loss = PassthroughScoring(name="train_loss", on_train=True)
    return [("timer", EpochTimer()), ("loss", loss), ("accuracy", accuracy)]


def bare(task: Task) -> None:
    """Train without callbacks."""
    _fit(task, "disable")


def metrics(task: Task) -> None:
    """Keep the loss of each batch, and score the outputs of all batches at the end of the epoch."""
    _fit(task, _metrics())


def everything(task: Task) -> None:
    """Add its bar, its events (once an epoch), its checkpoint and its table."""
    writer = SummaryWriter(task.folder)
    callbacks = [
        *_metrics(),
        ("bar", ProgressBar()),
        ("events", TensorBoard(writer)),
        ("checkpoint", Checkpoint(dirname=task.folder, monitor=None)),
        ("table", PrintLog()),
    ]
    _fit(task, callbacks)


WAYS: Final[Ways] = {"skorch": {"bare": bare, "metrics": metrics, "everything": everything}}
