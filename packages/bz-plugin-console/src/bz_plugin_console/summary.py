"""What is said at the end of an epoch and at the end of the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bz_plugin_console.columns import Column
from bz_plugin_console.wording import duration, number, one_line, rate

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.progress import PluginUsage

LONGEST_TITLE = 18


class Best(NamedTuple):
    """The epoch with the lowest loss so far.

    Attributes:
        epoch: Its number.
        name: Which loss: `val loss`, or `loss` without validation.
        value: The loss.
    """

    epoch: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class EpochSummary:
    """The values of one epoch.

    Attributes:
        epoch: Its number, of `epochs` planned.
        training: `loss` and the metrics, over the training batches; empty without any.
        validation: The same over the validation batches.
        rate: Samples per second in the training loop, or batches where the batch size is unknown.
        rate_unit: `samples/s` or `batches/s`.
        seconds: Time the epoch took in this process.
    """

    epoch: int
    epochs: int
    training: Mapping[str, float]
    validation: Mapping[str, float]
    rate: float | None
    rate_unit: str
    seconds: float

    def best(self) -> Best:
        """Return the loss by which this epoch is compared with others."""
        name, values = ("val loss", self.validation) if self.validation else ("loss", self.training)
        return Best(self.epoch, name, values.get("loss", float("nan")))

    def values(self) -> dict[str, float]:
        """Return all values under the names they are shown by."""
        return {**self.training, **{f"val {name}": value for name, value in self.validation.items()}}

    def cells(self) -> list[tuple[Column, str]]:
        """Return the columns and what stands in them."""
        epoch_width = 2 * len(str(self.epochs)) + 1
        return [
            (Column("epoch", 0, epoch_width), f"{self.epoch}/{self.epochs}"),
            *((Column(one_line(name), _rank(name), 8), number(value)) for name, value in self.values().items()),
            (Column(self.rate_unit, 6), rate(self.rate)),
            (Column("time", 4, 10), duration(self.seconds)),
        ]


def _rank(name: str) -> int:
    """Return how soon a value is left out where the room is short: what tells epochs apart stays longest."""
    order = {"val loss": 1, "loss": 2}
    return order.get(name, 3 if name.startswith("val ") else 5)


def closing_sentence(context: TrainingContext, earlier_seconds: float) -> str:
    """Return how the session ended, where, and after what time.

    Args:
        context: The session, ended.
        earlier_seconds: Time spent in this run before it was resumed.
    """
    time = duration(earlier_seconds + context.elapsed_seconds)
    if earlier_seconds:
        time += f" ({duration(context.elapsed_seconds)} since the resume)"
    place = f"epoch {context.epoch} of {context.epochs}"
    match context.status:
        case "completed":
            return f"completed {context.epoch} epoch{'' if context.epoch == 1 else 's'} in {time}"
        case "stopped":
            return f"stopped at {place} after {time}: {one_line(context.stop_reason or 'no reason given')}"
        case "failed":
            return f"failed at {place} after {time}: {context.error_text}"
        case status:
            return f"{status} at {place} after {time}"


def best_sentence(best: Best) -> str:
    """Return which epoch was the best one, and by what."""
    return f"best epoch {best.epoch}: {best.name} {number(best.value)}"


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
