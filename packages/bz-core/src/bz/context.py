"""What a hook is given: a read-only view of the run, and the few things it may ask for.

`Progress` is the trainer's own record and the only thing that changes while a run goes on;
`TrainingContext` shows it. A plugin can therefore read everything and disturb nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bz.errors import TrainingError, describe_error
from bz.progress import CheckpointRequest, StopRequest, TimeUsage

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import torch

    from bz.progress import PluginUsage, Progress, RunFacts, Status, StopPoint
    from bz.spec import TrainingSpec


class ManualOptimization(Protocol):
    """What a step that optimizes by itself may use."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, scaled as the precision asks."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of the optimizer's parameters, and step it."""


class TrainingContext:
    """One object for the whole session, handed to every hook.

    Losses and metrics stay on the device until somebody reads them: reading one waits for the
    device, the number is then kept until the next batch.
    """

    def __init__(  # noqa: PLR0913 - what a context shows and what it asks, each given once
        self,
        spec: TrainingSpec,
        facts: RunFacts,
        progress: Progress,
        *,
        collect_state: Callable[[], dict[str, Any]],
        collect_usage: Callable[[float], tuple[PluginUsage, ...]],
        collect_time: Callable[[], TimeUsage] | None = None,
        optimization: ManualOptimization | None = None,
    ) -> None:
        self.extra: dict[str, Any] = {}
        self.hyperparameters: dict[str, Any] = dict(spec.hyperparameters)
        self._spec = spec
        self._facts = facts
        self._progress = progress
        self._collect_state = collect_state
        self._collect_usage = collect_usage
        self._collect_time = collect_time
        self._optimization = optimization

    @property
    def model(self) -> torch.nn.Module:
        """The module being trained, on `device`."""
        return self._spec.model

    @property
    def optimizer(self) -> Any:
        """The optimizer over the parameters of `model`; a mapping if there are several."""
        return self._spec.optimizer

    @property
    def learning_rates(self) -> dict[str, float]:
        """Name to learning rate: `lr`, with several parameter groups their `name`, or `group_0` and so on.

        With several optimizers the name is that of the optimizer, or `generator_0` and so on.
        """
        optimizer = self._spec.optimizer
        named = optimizer if isinstance(optimizer, Mapping) else {"": optimizer}
        return {
            _rate_name(name, group.get("name") or index, len(one.param_groups)): float(group["lr"])
            for name, one in named.items()
            for index, group in enumerate(one.param_groups)
            if "lr" in group
        }

    @property
    def loss_fn(self) -> Callable[..., torch.Tensor] | None:
        """The loss function, or None when the model or a step of the user's computes the loss."""
        return self._spec.loss_fn

    @property
    def lr_scheduler(self) -> Any:
        """The learning rate scheduler as the script gave it: one, a `bz.LRSchedule`, a list, or None."""
        return self._spec.lr_scheduler

    @property
    def device(self) -> torch.device:
        """Where the model and the batches are."""
        return self._facts.device

    @property
    def reads_wait(self) -> bool:
        """Whether reading a number on `device` waits for it; False on the CPU, where it may be read at every batch."""
        return self._facts.reads_wait

    @property
    def epochs(self) -> int | None:
        """Planned number of epochs; None when only `max_time`, or `max_steps` of unknown length, ends the run."""
        return self._facts.epochs

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps after which the run is complete, if that is set."""
        return self._facts.max_steps

    @property
    def max_seconds(self) -> float | None:
        """Training time after which the run is complete, over all of its sessions, if that is set."""
        return self._facts.max_seconds

    @property
    def clip_grad_norm(self) -> float | None:
        """The largest norm of all gradients together, above which they are scaled down, if that is set."""
        return self._facts.clip_grad_norm

    @property
    def training_batches(self) -> int | None:
        """Planned batches of one training loop, or None when the loader has no length."""
        return self._facts.training_batches

    @property
    def validation_batches(self) -> int | None:
        """Planned batches of one validation loop, or None when unknown or without validation."""
        return self._facts.validation_batches

    @property
    def has_validation(self) -> bool:
        """Whether the model is validated in this run at all, also with a loader whose length is unknown."""
        return self._spec.validation_loader is not None

    @property
    def batch_size(self) -> int | None:
        """Samples in a full training batch, or None when the loader does not say."""
        return self._facts.batch_size

    @property
    def run_dir(self) -> Path | None:
        """Folder of this run, or None in a script that named none."""
        return self._facts.run_dir

    @property
    def settings(self) -> Mapping[str, Any]:
        """Resolved settings without secrets; empty in a script."""
        return self._facts.settings

    @property
    def rank(self) -> int:
        """Number of this process among `world_size`, from 0."""
        return self._facts.rank

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self._facts.world_size

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that writes files and talks to people."""
        return self._facts.rank == 0

    @property
    def started_at(self) -> datetime:
        """When the session began, with time zone."""
        return self._facts.started_at

    @property
    def elapsed_seconds(self) -> float:
        """Time since the session began."""
        return self._progress.seconds

    @property
    def epoch(self) -> int:
        """Number of the epoch that is running or was finished last, from 1; 0 before the first."""
        return self._progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps done since the beginning of the run."""
        return self._progress.global_step

    @property
    def batch_index(self) -> int:
        """Index of the batch within the loop that is running or ran last, from 0."""
        return self._progress.batch_index

    @property
    def batch(self) -> Any:
        """The batch, on `device`; None outside the batch hooks."""
        return self._progress.batch

    @property
    def outputs(self) -> Any:
        """What the model returned for the batch; None before the step and outside the batch hooks."""
        return self._progress.outputs

    @property
    def loss(self) -> torch.Tensor | None:
        """The detached loss of the last batch, a 0-d tensor on `device`; `float()` waits for the device."""
        loss = self._progress.loss
        return loss if loss is None else loss.detach()

    @property
    def grad_norm(self) -> torch.Tensor | None:
        """Total 2-norm of the gradients, a 0-d tensor on `device`; reading it does not wait.

        With `clip_grad_norm` that of the last step, before it was clipped; else that of the gradients
        as they are now. None where there are none.
        """
        if self._progress.grad_norm is not None:
            return self._progress.grad_norm
        from torch.nn.utils import get_total_norm

        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return get_total_norm(gradients) if gradients else None

    @property
    def training_loss_total(self) -> float:
        """Sum of the training losses of the epoch's batches; waits for the device."""
        return self._progress.training_loss.total

    @property
    def validation_loss_total(self) -> float:
        """Sum of the validation losses of the epoch's batches; waits for the device."""
        return self._progress.validation_loss.total

    @property
    def training_batch_count(self) -> int:
        """Training batches done in this epoch."""
        return self._progress.training_loss.batch_count

    @property
    def validation_batch_count(self) -> int:
        """Validation batches done in this epoch; 0 without validation."""
        return self._progress.validation_loss.batch_count

    @property
    def training_loss(self) -> float:
        """Mean training loss over the batches of this epoch, NaN before the first; waits for the device."""
        return self._progress.training_loss.mean

    @property
    def validation_loss(self) -> float:
        """Mean validation loss over the batches of this epoch, NaN before the first; waits for the device."""
        return self._progress.validation_loss.mean

    @property
    def training_metrics(self) -> dict[str, float]:
        """Name to value over the training batches of this epoch; a copy; waits for the device."""
        return self._progress.training_metrics.values()

    @property
    def validation_metrics(self) -> dict[str, float]:
        """Name to value over the validation batches of this epoch; a copy; waits for the device."""
        return self._progress.validation_metrics.values()

    @property
    def status(self) -> Status:
        """`running` until the end, then how it ended."""
        return self._progress.status

    @property
    def error(self) -> BaseException | None:
        """What ended the run, if it failed."""
        return self._progress.error

    @property
    def error_text(self) -> str:
        """Type and message of `error` in one line, without the secrets of the settings; empty without one."""
        error = self._progress.error
        return "" if error is None else self._facts.redact(describe_error(error))

    @property
    def stop_reason(self) -> str | None:
        """The reason of the first stop that was asked for, or the limit that was reached, if any."""
        return self._progress.stop.reason if self._progress.stop else self._progress.limit

    @property
    def checkpoint_path(self) -> Path | None:
        """The checkpoint that was written or loaded last in this session, if any."""
        return self._progress.checkpoint_path

    @property
    def resumed_from(self) -> Path | None:
        """The checkpoint that this session went on from, if it did."""
        return self._progress.resumed_from

    @property
    def should_stop_training(self) -> bool:
        """Whether somebody asked for a stop."""
        return self._progress.stop is not None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, scaled as the precision asks; for a step that optimizes by itself.

        Raises:
            TrainingError: If bz steps the optimizer in this run.
        """
        self._manual().backward(loss)

    def step_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip as the settings say and step; for a step that optimizes by itself. Gradients stay as they are.

        Raises:
            TrainingError: If bz steps the optimizer in this run.
        """
        self._manual().step(optimizer)

    def _manual(self) -> ManualOptimization:
        if self._optimization is None:
            raise TrainingError(
                "bz itself computes the gradients and steps the optimizer; "
                "set manual_optimization = True in the script where the training_step does that."
            )
        return self._optimization

    def request_stop(self, reason: str, when: StopPoint = "epoch") -> None:
        """End the run after the epoch, or after the batch, that is under way.

        The reason of the first request is kept; `batch` is sooner than `epoch`.
        """
        earlier = self._progress.stop
        if earlier is None:
            self._progress.stop = StopRequest(str(reason), when)
        elif when == "batch":
            self._progress.stop = earlier._replace(when=when)

    def save_checkpoint(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Ask for a checkpoint at `path`, relative to the run folder.

        It is written as soon as every plugin has seen the event that is under way: after
        `end_training_batch` of a batch, after `end_epoch` otherwise. Hook `save_checkpoint` fires
        when it is safely on disk; a failure is reported and does not end the run.

        Raises:
            ValueError: If the path leaves the run folder.
        """
        self._progress.checkpoint_requests.append(CheckpointRequest(self.output_path(path), dict(extra or {})))

    def output_path(self, path: str | Path) -> Path:
        """Return where a plugin writes `path`: under the run folder, else under the working directory.

        An absolute path stays as it is. No folder is created.

        Raises:
            ValueError: If a relative path leads out of the run folder.
        """
        base = Path.cwd() if self.run_dir is None else self.run_dir.absolute()
        target = base / path
        if (
            self.run_dir is not None
            and not Path(path).is_absolute()
            and not target.resolve().is_relative_to(base.resolve())
        ):
            message = (
                f"{str(path)!r} leads out of the run folder {str(base)!r}; use a path inside it or an absolute one."
            )
            raise ValueError(message)
        return target

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint written now would hold, tensors not copied."""
        return self._collect_state()

    def time_usage(self) -> TimeUsage:
        """Return where the time of this session went so far, in seconds."""
        return self._collect_time() if self._collect_time is not None else TimeUsage()

    def plugin_usage(self) -> tuple[PluginUsage, ...]:
        """Return what each plugin cost so far, in the order in which they run."""
        return self._collect_usage(self.elapsed_seconds)


def _rate_name(optimizer: str, group: str | int, num_groups: int) -> str:
    """Return the name of a learning rate: that of the group if it has one, else made from the index of the group."""
    if isinstance(group, str):
        return f"{optimizer}_{group}" if optimizer else group
    return (optimizer or "lr") if num_groups == 1 else f"{optimizer or 'group'}_{group}"
