"""The value that is watched: what its name says, and how it is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bz.errors import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz.context import TrainingContext

VALIDATION_LOSS: Final = "validation_loss"
TRAINING_LOSS: Final = "training_loss"

_LOWER_IS_BETTER: Final = {
    "loss", "error", "err", "mae", "mse", "rmse", "mape", "smape", "perplexity", "wer", "cer", "mer", "ter", "fid",
    "nll", "brier", "divergence", "distance", "hinge", "entropy",
}  # fmt: skip
_HIGHER_IS_BETTER: Final = {
    "accuracy", "acc", "auc", "auroc", "roc", "ap", "map", "precision", "recall", "sensitivity", "specificity",
    "f1", "fbeta", "dice", "iou", "jaccard", "kappa", "mcc", "corrcoef", "correlation", "pearson", "spearman", "r2",
    "bleu", "rouge", "meteor", "psnr", "ssim", "ndcg", "mrr", "score", "similarity", "reward",
}  # fmt: skip
_PHASES: Final = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation", "validation": "validation",
    "eval": "validation", "test": "validation", "dev": "validation",
}  # fmt: skip


def is_higher_better(monitor: str) -> bool | None:
    """Return what the name of a value says, or None if it says nothing that is known, or both."""
    words = {word.lower() for word in re.findall(r"[A-Z]+[0-9]*(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+", monitor)}
    is_lower, is_higher = bool(words & _LOWER_IS_BETTER), bool(words & _HIGHER_IS_BETTER)
    return None if is_lower is is_higher else is_higher


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
