"""The result of a range test: losses over learning rates, and what they suggest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bz_plugin_lr_finder.suggestion import Finding, find

if TYPE_CHECKING:
    from bz_plugin_lr_finder.config import RangeTestConfig

Ending = Literal["steps", "diverged", "nonfinite", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class LRCurve:
    """Losses over learning rates.

    Attributes:
        config: What was asked for.
        learning_rates: That of each step, ascending; in the parameter group with the highest rate.
        losses: Loss of each step, before the step; the mean over its samples where batches are accumulated.
        sizes: Samples of each step; a step of few, such as the last batch of an epoch, says less.
        smoothed_losses: Running mean of the losses up to this step, each with its size as its weight.
        ending: Why there are no more: all `steps` were made, the loss `diverged` or became `nonfinite`.
    """

    config: RangeTestConfig
    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    sizes: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    ending: Ending

    @property
    def last_rate(self) -> float:
        """The learning rate of the step that ended the test, which has no loss where that is not finite."""
        return self.config.learning_rate(len(self.losses) - (self.ending != "nonfinite"))

    @cached_property
    def finding(self) -> Finding:
        """What the curve suggests, or why it suggests nothing."""
        return find(self)

    @property
    def suggestion(self) -> float | None:
        """The learning rate at which the loss falls fastest; None if the curve does not show one."""
        return self.finding.suggestions.get("steepest")

    @property
    def suggestions(self) -> dict[str, float]:
        """All suggested learning rates, by the name of the way in which they were found; empty if there are none."""
        return dict(self.finding.suggestions)

    @property
    def remark(self) -> str:
        """Why there is no suggestion, or a caution about it, in a sentence; may be empty."""
        return self.finding.remark

    def save(self, path: str | Path, title: str = "Learning rate range test") -> Path:
        """Draw the curve into a file, PNG or SVG by its suffix, or into `lr_find.png` of a folder; return the file.

        Raises:
            ConfigError: If the file can be neither.
            OSError: If it cannot be written; nothing is left behind.
        """
        from bz_plugin_lr_finder.picture import draw, save
        from bz_plugin_lr_finder.target import picture_path

        target = picture_path(Path(path))
        save(draw(self, title), target)
        return target

    def as_record(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "suggestion": self.suggestion,
            "suggestions": self.suggestions,
            "remark": self.remark or None,
            "ending": self.ending,
            "settings": self.config.model_dump(),
            "curve": {
                "learning_rate": list(self.learning_rates),
                "loss": list(self.losses),
                "samples": list(self.sizes),
                "smoothed_loss": list(self.smoothed_losses),
            },
        }
