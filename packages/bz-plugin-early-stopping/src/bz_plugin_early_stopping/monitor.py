"""The value that is watched: what its name says, and how it is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bz.errors import suggestion
from bz.monitoring import named_directions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz.context import TrainingContext

VALIDATION_LOSS: Final = "validation_loss"
TRAINING_LOSS: Final = "training_loss"

_PHASES: Final = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation", "validation": "validation",
    "eval": "validation", "test": "validation", "dev": "validation",
}  # fmt: skip


def is_higher_better(monitor: str) -> bool | None:
    """Return what the name of a value says, or None if it says nothing that is known, or both."""
    directions = named_directions(monitor)
    return None if directions.lower is directions.higher else directions.higher


def is_of_validation(monitor: str) -> bool:
    """Whether it is measured by the validation, rather than over the training batches of an epoch."""
    return monitor.startswith("validation_")


def has_phase(monitor: str) -> bool:
    """Whether the name begins as all that is measured do."""
    return re.fullmatch(r"(training|validation)_.+", monitor, re.DOTALL) is not None


def in_our_words(name: str) -> str:
    """Return the likely name of a value that is called otherwise elsewhere: `validation_loss` for `val_loss`."""
    first, _, rest = name.rpartition("/")[2].partition("_")
    phase = _PHASES.get(first.lower())
    return f"{phase}_{rest}" if phase and rest else f"validation_{name}"


def read(context: TrainingContext, monitor: str) -> float | None:
    """Return the newest value, or None if it is not measured in this run; waits for the device."""
    phase, _, name = monitor.partition("_")
    is_validation = phase == "validation"
    if name == "loss":
        return context.validation_loss if is_validation else context.training_loss
    return (context.validation_metrics if is_validation else context.training_metrics).get(name)


def measured(context: TrainingContext) -> list[str]:
    """Return the names of all that was measured in this epoch."""
    names = [TRAINING_LOSS] if context.training_batch_count else []
    names += [f"training_{name}" for name in context.training_metrics]
    if context.validation_batch_count:
        names += [VALIDATION_LOSS, *(f"validation_{name}" for name in context.validation_metrics)]
    return sorted(names)


def unknown_monitor(monitor: str, known: Iterable[str]) -> str:
    """Return the sentence about a name that is not among those measured."""
    listed = list(known)
    return (
        f"Cannot monitor {monitor!r}; this run has {', '.join(listed) or 'nothing'}.{suggestion(monitor, listed)} "
        "Until `monitor` is set right, nothing stops the run early."
    )
