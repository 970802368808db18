"""The losses of a run as a picture."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bz_plugin_email.record import EpochLosses

WIDTH: Final = 560
"""Width in the mail, in CSS pixels; the file has twice as many for fine screens."""

_INK: Final = "#52514e"
_GRID: Final = "#e4e3df"
_SERIES: Final = (("Training loss", "#2a78d6", 1), ("Validation loss", "#eb6834", 2))


def draw_losses(losses: Sequence[EpochLosses]) -> bytes | None:
    """Return a PNG with the losses over the epochs; None without matplotlib or with nothing to draw."""
    if len(losses) < 2 or not any(math.isfinite(one.training) for one in losses):  # noqa: PLR2004 - a line has two ends
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return None
    figure = Figure(figsize=(WIDTH / 100, 2.8), dpi=200, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # the figure keeps it
    axes = figure.add_subplot()
    marker = "o" if len(losses) <= 40 else ""  # noqa: PLR2004 - where dots begin to touch
    for label, color, column in _SERIES:
        points = [(one.epoch, one[column]) for one in losses if one[column] is not None]  # joined over what is missing
        if points:
            epochs, values = zip(*points, strict=True)
            numbers = [value if math.isfinite(value) else math.nan for value in values]
            marked = marker or ("o" if len(points) == 1 else "")
            axes.plot(epochs, numbers, label=label, color=color, linewidth=2, marker=marked, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Epoch", color=_INK)
    axes.set_ylabel("Loss", color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.legend(facecolor="white", edgecolor="none", labelcolor=_INK)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
