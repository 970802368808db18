"""What stands in the tables: a line for an epoch or a validation, and the report about plugins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bz_plugin_console.columns import Column
from bz_plugin_console.wording import duration, number, one_line, rate

if TYPE_CHECKING:
    from bz.progress import PluginUsage

STEP_WIDTH = 7


class Best(NamedTuple):
    """The lowest loss so far.

    Attributes:
        epoch: Number of the epoch that it was measured in.
        name: Which loss: `val loss`, or `loss` without validation.
        value: The loss.
        step: Optimizer steps done, for a validation inside an epoch; else None.
    """

    epoch: int
    name: str
    value: float
    step: int | None = None

    def beats(self, other: Best | None) -> bool:
        """Whether the loss is lower; a NaN never is, nor is that of the untrained model.

        As soon as there is a validation loss, training losses do not count any more.
        """
        if math.isnan(self.value) or not self.epoch:
            return False
        if other is None or other.name != self.name:
            return other is None or self.name == "val loss"
        return self.value < other.value


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSummary:
    """The values of one epoch, or those so far at a validation inside it.

    Attributes:
        epoch: Its number, of `epochs` planned, if that is known.
        step: Optimizer steps done, where they are shown.
        is_inside: Whether the epoch goes on.
        training: `loss` and the metrics, over the training batches; empty without any.
        validation: The same over the batches of a validation that has just been.
        names: All values that the run has shown so far; those that are not there now leave a gap.
        rate: Samples per second in the training loop, or batches where the batch size is unknown.
        rate_unit: `samples/s` or `batches/s`.
        seconds: Time the epoch took in this process.
    """

    epoch: int
    epochs: int | None
    step: int | None
    is_inside: bool
    training: Mapping[str, float]
    validation: Mapping[str, float]
    names: Sequence[str]
    rate: float | None
    rate_unit: str
    seconds: float

    def best(self) -> Best:
        """Return the loss by which this moment of the run is compared with others."""
        name, values = ("val loss", self.validation) if self.validation else ("loss", self.training)
        return Best(self.epoch, name, values.get("loss", float("nan")), self.step if self.is_inside else None)

    def cells(self) -> list[tuple[Column, str]]:
        """Return the columns and what stands in them; nothing for a value that is missing."""
        values = shown_values(self.training, self.validation)
        width = len("epoch") if self.epochs is None else 2 * len(str(self.epochs)) + 1
        step = [] if self.step is None else [(Column("step", 1, STEP_WIDTH), str(self.step))]
        return [
            (Column("epoch", 0, width), out_of(self.epoch, self.epochs)),
            *step,
            *(
                (Column(one_line(name), _rank(name), 8), number(values[name]) if name in values else "")
                for name in self.names
            ),
            (Column(self.rate_unit, 6), rate(self.rate)),
            (Column("time", 4, 10), duration(self.seconds)),
        ]


def shown_values(training: Mapping[str, float], validation: Mapping[str, float]) -> dict[str, float]:
    """Return all values under the names they are shown by."""
    return {**training, **{f"val {name}": value for name, value in validation.items()}}


def all_names(names: Sequence[str], values: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names with those of further values, first those of training, then those of validation."""
    return tuple(sorted(dict.fromkeys((*names, *values)), key=lambda name: name.startswith("val ")))


def out_of(number: int, total: int | None) -> str:
    """Return `3/10`, or `3` where the total is not known."""
    return str(number) if total is None else f"{number}/{total}"


def _rank(name: str) -> int:
    """Return how soon a value is left out where the room is short: what tells epochs apart stays longest."""
    order = {"val loss": 1, "loss": 2}
    return order.get(name, 3 if name.startswith("val ") else 5)


USAGE_TITLES = ("plugin", "calls", "seconds", "share", "failures")
USAGE_RANKS = (0, 4, 3, 2, 1)


def usage_columns(rows: Sequence[Sequence[str]]) -> list[Column]:
    """Return the columns of the plugin report, wide enough for `rows`."""
    widths = (max(map(len, cells), default=0) for cells in zip(*rows, strict=True))
    facts = zip(USAGE_TITLES, USAGE_RANKS, widths, strict=True)
    return [Column(title, rank, width, left=title == "plugin") for title, rank, width in facts]


def usage_rows(usage: Sequence[PluginUsage]) -> list[tuple[str, ...]]:
    """Return one row of the report per plugin, in the order in which they run."""
    return [
        (
            one_line(plugin.name, 30),
            f"{plugin.calls:,}",
            f"{plugin.seconds:.3f}",
            f"{plugin.share:.1%}".replace("%", " %"),
            f"{plugin.failures:,}" + (", switched off" if plugin.is_quarantined else ""),
        )
        for plugin in usage
    ]
