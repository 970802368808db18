"""The live objects of a training run, as a script or `train.py` hands them over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bz.intervals import Interval

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
        weight: How many items the loss is the mean of, such as tokens, a number or a 0-d tensor; by
            default the samples in the batch. It counts where gradients of several batches are
            accumulated.
    """

    loss: torch.Tensor
    outputs: Any = None
    targets: Any = None
    weight: float | torch.Tensor | None = None


class Metric(Protocol):
    """Anything that is updated batch by batch and computed when read; torchmetrics fits as it is.

    One that has the attribute `joins_batches = True` says that its value is the same when it is
    given several batches as one: it counts samples, not batches. It is then updated less often.
    """

    def update(self, preds: Any, target: Any) -> None:
        """Take in one batch; tensors are on the device of the run."""

    def compute(self) -> Any:
        """Return the value over all batches since the last `reset`, as a number or a one-element tensor."""

    def reset(self) -> None:
        """Forget all batches."""


class Scheduler(Protocol):
    """A learning rate scheduler of torch, or anything that is stepped like one."""

    @property
    def step(self) -> Callable[..., object]:
        """Moves on; that of a `ReduceLROnPlateau` takes the monitored value."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""


@dataclass(frozen=True, slots=True)
class LRSchedule:
    """A learning rate scheduler, and when it is stepped.

    Attributes:
        scheduler: One of torch's, or alike.
        every: How often: `"1 epoch"`, `"1 step"`; None for `training.scheduler_interval`.
        monitor: Name of the value that a `ReduceLROnPlateau` is stepped with, a column of the
            history such as `validation_accuracy`; None for `training.scheduler_monitor`.

    Raises:
        ValueError: If `every` is no number of epochs or steps.
    """

    scheduler: Scheduler
    every: Interval | str | int | None = None
    monitor: str | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            object.__setattr__(self, "every", Interval.parse(self.every).check_counted())


@dataclass
class TrainingSpec:
    """What is trained, on what, and how a step is made.

    Attributes:
        model: The module to train; moved to the device of the run.
        optimizer: Built over the parameters of `model`. Several by name, as for a GAN, are stepped
            by the `training_step` itself.
        loss_fn: Called as `loss_fn(outputs, targets)`, returns a scalar tensor. May be None when
            the batches are mappings and the model returns its own `.loss`, or when a
            `training_step` computes it.
        training_loader: Iterable of batches, walked once an epoch.
        validation_loader: The same for validation; without one, epochs have no validation.
        metrics: Name to metric; each gets `update(outputs, targets)` once a batch. Training and
            validation use copies of their own.
        lr_scheduler: Stepped once an epoch, or as the settings or its `LRSchedule` say; several as a list.
        plugins: Further plugin instances for this run.
        hyperparameters: What the run was made with; for logs, plugins and checkpoints.
        training_step: `training_step(context, batch)`, returning the loss or a `StepResult`, in
            place of the default step.
        validation_step: The same for validation batches.
        manual_optimization: Whether the `training_step` computes the gradients and steps the
            optimizer itself, through `context.backward` and `context.step_optimizer`.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | Any  # or a mapping; named here, everybody who has one optimizer would narrow it
    loss_fn: Callable[..., torch.Tensor] | None
    training_loader: Iterable[Any]
    validation_loader: Iterable[Any] | None = None
    metrics: Mapping[str, Metric] | None = None
    lr_scheduler: Scheduler | LRSchedule | Sequence[Scheduler | LRSchedule] | None = None
    plugins: Sequence[object] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training_step: StepFunction | None = None
    validation_step: StepFunction | None = None
    manual_optimization: bool = False

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """All optimizers, in their order."""
        return tuple(self.optimizer.values()) if isinstance(self.optimizer, Mapping) else (self.optimizer,)

    @property
    def steps_itself(self) -> bool:
        """Whether the `training_step` steps the optimizers."""
        return self.manual_optimization or isinstance(self.optimizer, Mapping)
