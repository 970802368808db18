"""What a session came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from bz.progress import PluginUsage, Status, TimeUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a session came to.

    Attributes:
        status: `completed`, `stopped`, `interrupted` or `failed`.
        stop_reason: Why it was stopped early, if it was.
        signal: The signal that interrupted it, or None.
        epochs: Epochs done.
        global_step: Optimizer steps done.
        training_loss: Mean of the last epoch, NaN if there was no batch.
        validation_loss: The same for validation.
        training_metrics: Name to value over the last epoch.
        validation_metrics: The same for validation.
        history: A row for each epoch, and for each validation inside or before one: `epoch`, `global_step`,
            `training_loss`, `validation_loss`, and each metric as `training_NAME` and `validation_NAME`; what
            was not measured is missing.
        seconds: Length of the session.
        plugin_usage: What each plugin cost.
        time_usage: Where the time went.
        run_dir: Folder of the run, if it has one.
        missing_files: Sentences about files that should be on disk and are not.
    """

    status: Status
    stop_reason: str | None
    signal: signal.Signals | None
    epochs: int
    global_step: int
    training_loss: float
    validation_loss: float
    training_metrics: dict[str, float]
    validation_metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    plugin_usage: tuple[PluginUsage, ...]
    time_usage: TimeUsage
    run_dir: Path | None
    missing_files: tuple[str, ...] = field(default=())
