"""Where a run is: the record that the trainer keeps, and that `TrainingContext` shows to plugins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import torch

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


_PARTS_IN_WORDS: Final = {
    "startup": "start-up",
    "data": "waiting for data",
    "transfer": "moving data",
    "framework": "bz itself",
}


class TimeUsage(NamedTuple):
    """Where the time of a session went, in seconds; the parts add up to the total.

    On an accelerator `forward`, `backward` and `optimizer` are the time to hand that work over; the
    wait for it is in whatever reads from the device.

    Attributes:
        startup: Up to the first training batch: imports, the script, building, loading a checkpoint.
        data: Waiting for training batches.
        transfer: Handing them to the device.
        forward: The training steps: model and loss.
        backward: Gradients.
        optimizer: Optimizer steps, clipping included.
        metrics: Updating the metrics of training.
        validation: All of it but plugins.
        checkpoints: Collecting and writing them; those that a thread writes, only collecting.
        plugins: Hooks of plugins.
        framework: What is left: bz itself, learning rate schedulers, reading losses and metrics.
    """

    startup: float = 0.0
    data: float = 0.0
    transfer: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0
    metrics: float = 0.0
    validation: float = 0.0
    checkpoints: float = 0.0
    plugins: float = 0.0
    framework: float = 0.0

    @property
    def total(self) -> float:
        """Length of the session, with what came before it."""
        return sum(self)

    def shares(self, least: float = 0.01) -> list[tuple[str, float]]:
        """Return the parts in words with their share of the total, 0 to 1, largest first; none below `least`."""
        shares = (
            (_PARTS_IN_WORDS.get(name, name), value / self.total) for name, value in self._asdict().items() if value
        )
        return sorted((share for share in shares if share[1] >= least), key=lambda share: -share[1])

    def describe_shares(self) -> str:
        """Return the shares as a sentence has them: `forward 61 %, waiting for data 9 %`."""
        return ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares())


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
        add: Adds a loss: its number, or a 0-d tensor that nobody writes to again, which does not wait for
            the device. The `append` of a list, since it is called for each batch.
        first_nonfinite: Index of the first loss that was NaN or infinite, among those read; else None.
    """

    __slots__ = ("_chunks", "_number_read", "_number_stacked", "_pending", "_total", "add", "first_nonfinite")

    def __init__(self) -> None:
        self._pending: list[torch.Tensor | float] = []
        self._chunks: list[torch.Tensor] = []
        self._total = 0.0
        self._number_stacked = 0
        self._number_read = 0
        self.add: Callable[[torch.Tensor | float], None] = self._pending.append
        self.first_nonfinite: int | None = None

    @property
    def batch_count(self) -> int:
        """How many losses were added."""
        return self._number_stacked + len(self._pending)

    def stack(self) -> None:
        """Add up what are numbers, and put tensors that are kept one by one into one; to be called now and then."""
        import torch

        if not self._pending:
            return
        self._number_stacked += len(self._pending)
        if isinstance(self._pending[0], torch.Tensor):
            self._chunks.append(torch.stack(cast("list[torch.Tensor]", self._pending)))
        else:
            self._add_up(cast("list[float]", self._pending))
        self._pending.clear()

    def restore(self, total: float, batch_count: int) -> None:
        """Go on from a saved sum."""
        self._pending.clear()
        self._chunks.clear()
        self._total = total
        self._number_stacked = self._number_read = batch_count

    @property
    def total(self) -> float:
        """The sum; waits for the device if there were batches since the last time."""
        self.stack()
        if self._chunks:
            self._read_chunks()
        return self._total

    def _read_chunks(self) -> None:
        import torch

        self._add_up(torch.cat(self._chunks).tolist())
        self._chunks.clear()

    def _add_up(self, losses: list[float]) -> None:
        for loss in losses:
            self._total += loss
            if self.first_nonfinite is None and not math.isfinite(loss):
                self.first_nonfinite = self._number_read
            self._number_read += 1

    @property
    def mean(self) -> float:
        """The sum over the number of batches; NaN before the first one."""
        return self.total / self.batch_count if self.batch_count else math.nan


@dataclass(slots=True)
class Progress:
    """Where the run is; written by the trainer alone.

    `loss` may hold on to the graph that it was computed with, which its backward pass has emptied.
    `limit` says which limit of the settings was reached, `started` is when this session began on the
    clock of `time.perf_counter`, `seconds_before` is the length of all sessions before it.
    """

    training_metrics: MetricValues
    validation_metrics: MetricValues
    epoch: int = 0
    epochs_done: int = 0
    global_step: int = 0
    batch_index: int = 0
    batches_done: int = 0
    batch: Any = None
    outputs: Any = None
    loss: torch.Tensor | None = None
    grad_norm: torch.Tensor | None = None
    training_loss: LossTotal = field(default_factory=LossTotal)
    validation_loss: LossTotal = field(default_factory=LossTotal)
    status: Status = "running"
    error: BaseException | None = None
    stop: StopRequest | None = None
    limit: str | None = None
    started: float = field(default_factory=time.perf_counter)
    seconds_before: float = 0.0
    checkpoint_path: Path | None = None
    checkpoint_requests: list[CheckpointRequest] = field(default_factory=list)
    resumed_from: Path | None = None

    @property
    def seconds(self) -> float:
        """Length of this session."""
        return time.perf_counter() - self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is settled before the session starts and never changes in it.

    Attributes:
        device: Where the model and the batches are.
        reads_wait: Whether reading a number on it waits for it.
        epochs: Planned number of epochs, or None when only a time, or steps of unknown number per epoch, end the run.
        max_steps: Optimizer steps after which the run is complete, if that is set.
        max_seconds: Training time after which the run is complete, over all of its sessions, if that is set.
        clip_grad_norm: The largest norm of all gradients together, if that is set.
        training_batches: Batches of one training loop, or None when the loader has no length.
        validation_batches: The same for validation; None also without validation.
        batch_size: Samples in a full training batch, or None when the loader does not say.
        run_dir: Folder of the run, or None in a script that named none.
        settings: Resolved settings without secrets; empty in a script.
        redact: Takes the secrets of the settings out of a text.
        provenance: What the run is made with: `versions`, and of `bz train` also `git` and `script_sha256`.
        rank: Number of this process among `world_size`.
        world_size: Number of processes that train together.
        started_at: When the session began, with time zone.
    """

    device: torch.device
    reads_wait: bool
    epochs: int | None
    max_steps: int | None = None
    max_seconds: float | None = None
    clip_grad_norm: float | None = None
    training_batches: int | None = None
    validation_batches: int | None = None
    batch_size: int | None = None
    run_dir: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    redact: Callable[[str], str] = str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC).astimezone())
