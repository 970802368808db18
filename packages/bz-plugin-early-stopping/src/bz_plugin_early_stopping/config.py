"""The settings of the plugin, and what is accepted."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bz_plugin_early_stopping.monitor import VALIDATION_LOSS, has_phase, in_our_words, is_higher_better
from bz_plugin_early_stopping.watch import Rules

_MAX_COUNT = 1_000_000_000


class EarlyStoppingConfig(BaseModel):
    """Settings of the early stopping plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    monitor: str = VALIDATION_LOSS
    """What is watched: `training_loss`, `validation_loss`, or a metric such as `validation_accuracy`."""

    mode: Literal["auto", "min", "max"] = Field(default="auto", validate_default=True)
    """Whether lower (`min`) or higher (`max`) is better; `auto` takes it from the name of the value."""

    patience: int = Field(default=5, ge=1, le=_MAX_COUNT)
    """How many measurements in a row may bring no improvement: validations, or epochs for a training value."""

    min_delta: float = Field(default=0.0, ge=0)
    """What is better by no more than this is no improvement."""

    min_epochs: int = Field(default=0, ge=0, le=_MAX_COUNT)
    """Nothing here stops the run before as many epochs are done."""

    restore_best_weights: bool = False
    """Whether the model has its best weights when the run is over, rather than its last ones."""

    stopping_threshold: float | None = None
    """Goal: the run stops when the value is as good as this; null for none."""

    divergence_threshold: float | None = None
    """Bound: the run stops at once when the value is worse than this; null for none."""

    check_finite: bool = True
    """Whether the run stops at once when the value is NaN or infinite."""

    @field_validator("monitor")
    @classmethod
    def _check_monitor(cls, monitor: str) -> str:
        if not has_phase(monitor):
            raise ValueError(f'must begin with "training_" or "validation_", as in "{in_our_words(monitor)}"')
        return monitor

    @field_validator("mode")
    @classmethod
    def _check_mode(cls, mode: str, info: ValidationInfo) -> str:
        monitor = info.data.get("monitor", VALIDATION_LOSS)
        if mode == "auto" and is_higher_better(monitor) is None:
            raise ValueError(f'must say "min" or "max" as `mode`: the name {monitor!r} does not tell which is better')
        return mode

    @field_validator("divergence_threshold")
    @classmethod
    def _check_threshold(cls, bound: float | None, info: ValidationInfo) -> float | None:
        goal = info.data.get("stopping_threshold")
        if bound is None or goal is None or not {"monitor", "mode"} <= info.data.keys():
            return bound
        is_higher = _is_higher_better(info.data["monitor"], info.data["mode"])
        if (bound >= goal) if is_higher else (bound <= goal):
            raise ValueError(f"must be {'below' if is_higher else 'above'} the `stopping_threshold` {goal:.6g}")
        return bound

    def rules(self) -> Rules:
        """Return when the run stops."""
        return Rules(
            is_higher_better=_is_higher_better(self.monitor, self.mode),
            patience=self.patience,
            min_delta=self.min_delta,
            min_epochs=self.min_epochs,
            stopping_threshold=self.stopping_threshold,
            divergence_threshold=self.divergence_threshold,
            check_finite=self.check_finite,
        )


def _is_higher_better(monitor: str, mode: str) -> bool:
    return is_higher_better(monitor) is True if mode == "auto" else mode == "max"
