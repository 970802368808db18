"""Keras on torch: the model of torch as a layer, trained by Keras' own optimizer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from torch.utils.data import DataLoader

from harness.workloads import LEARNING_RATE, MOMENTUM, NUM_CLASSES

if TYPE_CHECKING:
    from harness.workloads import Task
    from tools import Ways


def _fit(task: Task, *callbacks: object, metrics: Any = (), verbose: int = 0) -> None:
    dtype = "int64" if task.input_dtype == torch.int64 else "float32"
    inputs = keras.Input(task.input_shape, dtype=dtype)
    layer = keras.layers.TorchModuleWrapper(task.model, output_shape=(None, NUM_CLASSES))
    model = keras.Model(inputs, layer(inputs))
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    for _ in range(task.epochs):  # an iterator is good for one epoch
        data = task.batches if isinstance(task.batches, DataLoader) else iter(task.batches)
        model.fit(data, verbose=verbose, callbacks=list(callbacks))


def bare(task: Task) -> None:
    """Train without output; the loss it always averages."""
    _fit(task)


def metrics(task: Task) -> None:
    """Compute its accuracy at every step."""
    _fit(task, metrics=["accuracy"])


def everything(task: Task) -> None:
    """Show its bar and write its checkpoint; its events need TensorFlow, so it goes without."""
    checkpoint = keras.callbacks.ModelCheckpoint(str(task.folder / "last.weights.h5"), save_weights_only=True)
    _fit(task, checkpoint, metrics=["accuracy"], verbose=1)


WAYS: Final[Ways] = {"keras": {"bare": bare, "metrics": metrics, "everything": everything}}
