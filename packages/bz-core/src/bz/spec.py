"""The live objects of a training run, as a script or `train.py` hands them over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

    from bz.context import TrainingContext

    StepFunction = Callable[[TrainingContext, Any], Any]


class StepResult(NamedTuple):
    """What a step hands back when it has more to say than its loss.

    Attributes:
        loss: Scalar tensor, with a graph in training.
        outputs: What metrics and plugins see as the predictions, or None.
        targets: What metrics compare the outputs with, or None when there is nothing to compare.
    """

    loss: torch.Tensor
    outputs: Any = None
    targets: Any = None


class Metric(Protocol):
    """Anything that is updated batch by batch and computed when read; torchmetrics fits as it is."""

    def update(self, preds: Any, target: Any) -> None:
        """Take in one batch; tensors are on the device of the run."""

    def compute(self) -> Any:
        """Return the value over all batches since the last `reset`, as a number or a one-element tensor."""

    def reset(self) -> None:
        """Forget all batches."""


class Scheduler(Protocol):
    """A learning rate scheduler of torch, or anything stepped once an epoch."""

    @property
    def step(self) -> Callable[..., object]:
        """Moves on by one epoch; that of a `ReduceLROnPlateau` takes the monitored loss."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""


@dataclass
class TrainingSpec:
    """What is trained, on what, and how a step is made.

    Attributes:
        model: The module to train; moved to the device of the run.
        optimizer: Built over the parameters of `model`.
        loss_fn: Called as `loss_fn(outputs, targets)`, returns a scalar tensor. May be None when
            the batches are mappings and the model returns its own `.loss`, or when a
            `training_step` computes it.
        training_loader: Iterable of batches, walked once an epoch.
        validation_loader: The same for validation; without one, epochs have no validation.
        metrics: Name to metric; each gets `update(outputs, targets)` once a batch. Training and
            validation use copies of their own.
        lr_scheduler: Stepped once an epoch, with the monitored loss if it is a `ReduceLROnPlateau`.
        plugins: Further plugin instances for this run.
        hyperparameters: What the run was made with; for logs, plugins and checkpoints.
        training_step: `training_step(context, batch)`, returning the loss or a `StepResult`, in
            place of the default step.
        validation_step: The same for validation batches.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: Callable[..., torch.Tensor] | None
    training_loader: Iterable[Any]
    validation_loader: Iterable[Any] | None = None
    metrics: Mapping[str, Metric] | None = None
    lr_scheduler: Scheduler | None = None
    plugins: Sequence[object] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training_step: StepFunction | None = None
    validation_step: StepFunction | None = None
