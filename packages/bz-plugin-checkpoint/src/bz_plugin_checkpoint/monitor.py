"""The value that checkpoints are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bz.errors import suggestion
from bz.monitoring import named_directions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz.context import TrainingContext

VALIDATION_LOSS: Final = "validation_loss"
TRAINING_LOSS: Final = "training_loss"


def is_higher_better(monitor: str) -> bool | None:
    """Return what the name of a value says, or None if it says nothing that is known; of both, lower wins."""
    directions = named_directions(monitor)
    if directions.lower:
        return False
    return True if directions.higher else None


def is_of_validation(monitor: str) -> bool:
    """Return whether a value is measured by the validation, not in training."""
    return monitor.startswith("validation_")


def measured_in_training(context: TrainingContext) -> dict[str, float]:
    """Return name to value over the training batches of the epoch; waits for the device."""
    values = {f"training_{name}": value for name, value in context.training_metrics.items()}
    return values | {TRAINING_LOSS: context.training_loss}


def measured_in_validation(context: TrainingContext) -> dict[str, float]:
    """Return name to value of the last validation in the epoch, empty if there was none; waits for the device."""
    if not context.validation_batch_count:
        return {}
    values = {f"validation_{name}": value for name, value in context.validation_metrics.items()}
    return values | {VALIDATION_LOSS: context.validation_loss}


def unknown_monitor(monitor: str, names: Iterable[str]) -> str:
    """Return the sentence about a name that is not among those measured."""
    known = sorted(names)
    return (
        f"Cannot monitor {monitor!r}; this run has {', '.join(known)}.{suggestion(monitor, known)} "
        "Until `monitor` is set right, checkpoints are written at every turn and none is the best."
    )
