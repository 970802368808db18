"""What the plugin needs from a way of showing the run, and the choice between the two there are."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from bz_plugin_console.plain import PlainLines

if TYPE_CHECKING:
    from bz.progress import PluginUsage
    from bz_plugin_console.summary import EpochSummary


@dataclass(frozen=True, slots=True)
class Frame:
    """One state of the progress bars.

    Attributes:
        unit: What the run is counted in: `epoch`, or `step` if it ends after a number of steps.
        position: How far it is, as in `3/10`; `3` where the end is not known.
        place: Where else it is, such as `epoch 3/10` besides a number of steps; or empty.
        run_fraction: Part of the whole run that is done, 0 to 1.
        phase: `training` or `validation`.
        done: Batches done in this loop.
        total: Batches of this loop, or None when unknown.
        speed: Throughput in words, such as `1,234 samples/s`; empty while unknown.
        time_left: Estimate in words, such as `12 s left`; empty while unknown.
        values: Loss and metrics so far.
    """

    unit: str
    position: str
    place: str
    run_fraction: float
    phase: str
    done: int
    total: int | None
    speed: str
    time_left: str
    values: Mapping[str, float]


class Display(Protocol):
    """Shows a session to a person."""

    has_bars: bool

    def open(self) -> None:
        """Begin; from here to `close`, foreign output must not get lost."""

    def close(self) -> None:
        """Take the bars away and leave the terminal as it was found; harmless when repeated."""

    def draw(self, frame: Frame) -> None:
        """Show where the run is, in place of the frame before; only where `has_bars`."""

    def show_line(self, text: str, *, lead: str = "", style: str = "") -> None:
        """Add a line that stays, beginning with `lead` in the given style."""

    def show_epoch(self, summary: EpochSummary, *, is_best: bool) -> None:
        """Add the line of an epoch, or of a validation inside it."""

    def show_usage(self, usage: Sequence[PluginUsage]) -> None:
        """Add the plugin report."""


def choose_display(*, wants_bars: bool) -> Display:
    """Return bars where standard output is a terminal that can redraw a line, else plain lines."""
    can_redraw = sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in {"", "dumb", "unknown"}
    if not (wants_bars and can_redraw):
        return PlainLines(sys.stdout)
    return _open_terminal(sys.stdout)


def _open_terminal(stream: TextIO) -> Display:
    """Load rich, which is needed only here and draws a random number when it is imported."""
    state = random.getstate()
    try:
        from bz_plugin_console.terminal import Terminal
    finally:
        random.setstate(state)
    return Terminal(stream)
