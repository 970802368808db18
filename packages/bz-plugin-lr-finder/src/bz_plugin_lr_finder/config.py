"""Which learning rates are tried, and when the test ends."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RangeTestConfig(BaseModel):
    """Settings of the learning rate range test."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    min_lr: float = Field(default=1e-7, gt=0)
    """Learning rate of the first step."""

    max_lr: float = Field(default=10.0, gt=0)
    """Learning rate of the last step, if the loss does not diverge before."""

    steps: int = Field(default=100, ge=20, le=1_000_000)
    """Optimizer steps, each with a learning rate of its own."""

    mode: Literal["exponential", "linear"] = "exponential"
    """How the learning rate grows: by the same factor, or by the same amount, from step to step."""

    smoothing: float = Field(default=0.8, ge=0, lt=1)
    """Weight of the earlier losses in the running mean, which the suggestion is read from; 0 for no mean."""

    stop_factor: float = Field(default=4.0, gt=1)
    """The test ends when the smoothed loss is so many times its lowest value, and above where it began."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.max_lr <= self.min_lr:
            raise ValueError(f"must have a `max_lr` above its `min_lr`, got {self.max_lr:g} and {self.min_lr:g}")
        return self

    def learning_rate(self, index: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        share = index / (self.steps - 1)
        if self.mode == "linear":
            return self.min_lr + share * (self.max_lr - self.min_lr)
        return float(self.min_lr * (self.max_lr / self.min_lr) ** share)
