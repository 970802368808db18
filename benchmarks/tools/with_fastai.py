"""fastai: the learner and its own optimizer; its events cannot be had with one of torch's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastai.basics import SGD, CastToTensor, DataLoaders, Learner, Recorder, TrainEvalCallback, accuracy
from fastai.callback.progress import ProgressCallback
from fastai.callback.tensorboard import TensorBoardCallback
from fastai.callback.tracker import SaveModelCallback

from harness.workloads import LEARNING_RATE, MOMENTUM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.workloads import Task
    from tools import Ways


class _Loader:
    """What the learner asks of a loader, around batches that are made elsewhere."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.dataset = batches
        self.device = None

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def to(self, device: object) -> _Loader:  # noqa: ARG002 - its signature
        return self


def _fit(task: Task, *callbacks: object, metrics: Any = None) -> None:
    learner = Learner(
        DataLoaders(_Loader(task.batches), _Loader([])),
        task.model,
        loss_func=task.loss_fn,
        opt_func=partial(SGD, mom=MOMENTUM),
        lr=LEARNING_RATE,
        metrics=metrics,
        default_cbs=False,
        cbs=[TrainEvalCallback(), *callbacks],
        path=task.folder,
    )
    learner.fit(task.epochs)


def bare(task: Task) -> None:
    """Train with the one callback that sets the mode of the model."""
    _fit(task)


def metrics(task: Task) -> None:
    """Record loss and accuracy of the training batches."""
    _fit(task, CastToTensor(), Recorder(train_metrics=True, valid_metrics=False), metrics=accuracy)


def everything(task: Task) -> None:
    """Add its bar, its events and its checkpoint."""
    _fit(
        task,
        CastToTensor(),
        Recorder(train_metrics=True, valid_metrics=False),
        ProgressCallback(),
        TensorBoardCallback(task.folder, trace_model=False, log_preds=False),
        SaveModelCallback(monitor="train_loss", every_epoch=True),
        metrics=accuracy,
    )


WAYS: Final[Ways] = {"fastai": {"bare": bare, "metrics": metrics, "everything": everything}}
