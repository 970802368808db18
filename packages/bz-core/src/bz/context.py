"""What a hook is given: a read-only view of the run, and the few things it may ask for.

`Progress` is the trainer's own record and the only thing that changes while a run goes on;
`TrainingContext` shows it. A plugin can therefore read everything and disturb nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from bz.spec import Scheduler, TrainingSpec

Status = Literal["running", "completed", "stopped", "interrupted", "failed"]
StopPoint = Literal["epoch", "batch"]


class PluginUsage(NamedTuple):
    """What one plugin cost the run so far.

    Attributes:
        name: Name of the plugin.
        calls: Hook calls made.
        seconds: Time spent in its hooks.
        share: That time as a part of the session, 0 to 1.
        failures: Calls that raised.
        is_quarantined: Whether it is no longer called.
    """

    name: str
    calls: int
    seconds: float
    share: float
    failures: int
    is_quarantined: bool


class StopRequest(NamedTuple):
    """A wish to end the run early: why, and after the epoch or after the batch that is under way."""

    reason: str
    when: StopPoint


class CheckpointRequest(NamedTuple):
    """A wish for a checkpoint at `path`, with what the caller wants to find in it under `extra`."""

    path: Path
    extra: dict[str, Any]


class MetricValues(Protocol):
    """The metrics of one phase; `values` computes them and waits for the device."""

    def values(self) -> dict[str, float]:
        """Return name to value over the batches so far; empty before the first batch."""


class LossTotal:
    """Sum of the losses of one phase, on the device until it is read.

    Reading adds the losses one after the other, in double precision: the sum is the one of the loop
    that everybody writes, `total += loss.item()`, no matter when and how often it is read.

    Attributes:
        batch_count: Losses added.
        first_nonfinite: Index of the first loss that was NaN or infinite, among those read; else None.
    """

    __slots__ = ("_chunks", "_number_read", "_pending", "_total", "batch_count", "first_nonfinite")

    CHUNK: Final = 256
    """Losses that are kept one by one, before they are stacked into one tensor."""

    def __init__(self) -> None:
        self.batch_count = 0
        self._pending: list[torch.Tensor] = []
        self._chunks: list[torch.Tensor] = []
        self._total = 0.0
        self._number_read = 0
        self.first_nonfinite: int | None = None

    def add(self, loss: torch.Tensor) -> None:
        """Add a detached 0-d loss; does not wait for the device."""
        self._pending.append(loss)
        self.batch_count += 1
        if len(self._pending) == self.CHUNK:
            self._stack_pending()

    def _stack_pending(self) -> None:
        import torch

        self._chunks.append(torch.stack(self._pending))
        self._pending.clear()

    def restore(self, total: float, batch_count: int) -> None:
        """Go on from a saved sum."""
        self._pending, self._chunks = [], []
        self._total, self._number_read, self.batch_count = total, batch_count, batch_count

    @property
    def total(self) -> float:
        """The sum; waits for the device if there were batches since the last time."""
        if self._pending:
            self._stack_pending()
        if self._chunks:
            self._read_chunks()
        return self._total

    def _read_chunks(self) -> None:
        import torch

        for loss in torch.cat(self._chunks).tolist():
            self._total += loss
            if self.first_nonfinite is None and not math.isfinite(loss):
                self.first_nonfinite = self._number_read
            self._number_read += 1
        self._chunks.clear()

    @property
    def mean(self) -> float:
        """The sum over the number of batches; NaN before the first one."""
        return self.total / self.batch_count if self.batch_count else math.nan


@dataclass(slots=True)
class Progress:
    """Where the run is; written by the trainer alone."""

    training_metrics: MetricValues
    validation_metrics: MetricValues
    epoch: int = 0
    global_step: int = 0
    batch_index: int = 0
    batches_done: int = 0
    batch: Any = None
    outputs: Any = None
    loss: torch.Tensor | None = None
    training_loss: LossTotal = field(default_factory=LossTotal)
    validation_loss: LossTotal = field(default_factory=LossTotal)
    status: Status = "running"
    error: BaseException | None = None
    stop: StopRequest | None = None
    checkpoint_path: Path | None = None
    checkpoint_requests: list[CheckpointRequest] = field(default_factory=list)
    resumed_from: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is settled before the session starts and never changes in it.

    Attributes:
        device: Where the model and the batches are.
        epochs: Planned number of epochs.
        training_batches: Batches of one training loop, or None when the loader has no length.
        validation_batches: The same for validation; None also without validation.
        batch_size: Samples in a full training batch, or None when the loader does not say.
        run_dir: Folder of the run, or None in a script that named none.
        settings: Resolved settings without secrets; empty in a script.
        rank: Number of this process among `world_size`.
        world_size: Number of processes that train together.
        started_at: When the session began, with time zone.
    """

    device: torch.device
    epochs: int
    training_batches: int | None = None
    validation_batches: int | None = None
    batch_size: int | None = None
    run_dir: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC).astimezone())


class TrainingContext:
    """One object for the whole session, handed to every hook.

    Losses and metrics stay on the device until somebody reads them: reading one waits for the
    device, the number is then kept until the next batch.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        facts: RunFacts,
        progress: Progress,
        *,
        collect_state: Callable[[], dict[str, Any]],
        collect_usage: Callable[[float], tuple[PluginUsage, ...]],
    ) -> None:
        self.extra: dict[str, Any] = {}
        self.hyperparameters: dict[str, Any] = dict(spec.hyperparameters)
        self._spec = spec
        self._facts = facts
        self._progress = progress
        self._collect_state = collect_state
        self._collect_usage = collect_usage
        self._started = time.perf_counter()

    @property
    def model(self) -> torch.nn.Module:
        """The module being trained, on `device`."""
        return self._spec.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over the parameters of `model`."""
        return self._spec.optimizer

    @property
    def loss_fn(self) -> Callable[..., torch.Tensor] | None:
        """The loss function, or None when the model or a step of the user's computes the loss."""
        return self._spec.loss_fn

    @property
    def lr_scheduler(self) -> Scheduler | None:
        """The learning rate scheduler, if any."""
        return self._spec.lr_scheduler

    @property
    def device(self) -> torch.device:
        """Where the model and the batches are."""
        return self._facts.device

    @property
    def epochs(self) -> int:
        """Planned number of epochs."""
        return self._facts.epochs

    @property
    def training_batches(self) -> int | None:
        """Planned batches of one training loop, or None when the loader has no length."""
        return self._facts.training_batches

    @property
    def validation_batches(self) -> int | None:
        """Planned batches of one validation loop, or None when unknown or without validation."""
        return self._facts.validation_batches

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
        return time.perf_counter() - self._started

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
        return self._progress.loss

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
    def stop_reason(self) -> str | None:
        """The reason of the first stop that was asked for, if any."""
        return self._progress.stop.reason if self._progress.stop else None

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

    def plugin_usage(self) -> tuple[PluginUsage, ...]:
        """Return what each plugin cost so far, in the order in which they run."""
        return self._collect_usage(self.elapsed_seconds)
