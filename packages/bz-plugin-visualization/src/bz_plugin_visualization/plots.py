"""The pictures, drawn with matplotlib's objects alone: no pyplot, no window, no global setting changed.

What a user's style says about fonts and background is kept; the colours of the curves are fixed, and
are told apart by people who are colour-blind (Okabe and Ito) on white and on black.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bz_plugin_visualization.history import TRAINING, VALIDATION, Curve, Curves, History
from bz_plugin_visualization.scale import AxisKind, epoch_label, epoch_scale, is_log
from bz_plugin_visualization.thinning import Points, thin
from bz_plugin_visualization.wording import number, one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 10.0, 6.0
MAX_PANELS: Final = 12
FEW_POINTS: Final = 30
MARGIN: Final = 0.95
TOP: Final = 0.55
BOTTOM: Final = 0.6
PANEL_HEIGHT: Final = 2.3
POINTS_PER_INCH: Final = 72
LINE_WIDTH: Final = 1.4
CHARACTERS_PER_INCH: Final = 12
MAX_GROUP_NAME: Final = 14
BEST_COLOR: Final = "#009E73"


class Style(NamedTuple):
    """How the curve of a phase looks; the thinner line is drawn over the thicker one."""

    color: str
    marker: str
    width: float


STYLES: Final = {TRAINING: Style("#0072B2", "o", LINE_WIDTH), VALIDATION: Style("#D55E00", "s", 1.8)}
GROUP_COLORS: Final = ("#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#0072B2", "#D55E00")


def loss_figure(history: History, *, axis: AxisKind = "auto") -> Figure:
    """Return a figure with the losses and, below them, the learning rate.

    Args:
        history: At least one epoch.
        axis: Kind of the axis of the losses.
    """
    figure = _figure(WIDTH, HEIGHT)
    has_rates = bool(history.learning_rates)
    panels = figure.subplots(
        1 + has_rates, 1, sharex=True, squeeze=False, height_ratios=[3, 1] if has_rates else None,
        gridspec_kw=_margins(WIDTH, HEIGHT, hspace=0.25),
    )[:, 0]  # fmt: skip
    losses = panels[0]
    lines = _draw_curves(losses, history.losses, axis, _columns(losses))
    labels = [f"{phase} {number(history.losses[phase].last)}" for phase in lines]
    handles = [*lines.values(), *_mark_best(losses, history)]
    if best := history.best():
        labels.append(f"best {number(best.loss)} (epoch {epoch_label(best.epoch)})")
    losses.set_ylabel("Loss")
    _set_title(figure, _loss_title(history), handles, labels)
    if has_rates:
        _draw_learning_rates(panels[1], history.learning_rates, _columns(losses))
    _set_epochs(panels[-1], history.losses.values())
    return figure


def metrics_figure(history: History) -> Figure:
    """Return a figure with a panel for each metric, the first `MAX_PANELS` of them.

    Args:
        history: At least one metric.
    """
    names = list(history.metrics)[:MAX_PANELS]
    num_columns = math.ceil(math.sqrt(len(names)))
    num_rows = math.ceil(len(names) / num_columns)
    width = max(WIDTH, 3.6 * num_columns)
    height = HEIGHT if num_rows == 1 else TOP + BOTTOM + num_rows * (PANEL_HEIGHT + 0.75)
    figure = _figure(width, height)
    spacing = _margins(width, height, hspace=0.55, wspace=0.25, top=0.5)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False, gridspec_kw=spacing).flat)
    lines: dict[str, Line2D] = {}
    for name, panel in zip(names, panels, strict=False):
        lines |= _draw_metric(panel, name, history.metrics[name], width / num_columns)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    left_out = len(history.metrics) - len(names)
    title = f"Metrics (the first {len(names)} of {len(history.metrics):,})" if left_out else "Metrics"
    _set_title(figure, title, list(lines.values()), list(lines))
    return figure


def to_png(figure: Figure, *, dpi: int) -> bytes:
    """Return the picture and leave nothing of the figure behind."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # no font has every script a metric may be named in
        figure.savefig(buffer, format="png", dpi=dpi)
    figure.clear()
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _margins(width: float, height: float, *, top: float = 0.0, **spacing: float) -> dict[str, float]:
    """Return margins in parts of the figure. They are fixed, which saves drawing everything twice to measure it."""
    return {
        "left": MARGIN / width,
        "right": 1 - 0.25 / width,
        "bottom": BOTTOM / height,
        "top": 1 - (TOP + top) / height,
        **spacing,
    }


def _columns(panel: Axes) -> int:
    """Return the width of a panel in lines: what is narrower than the line cannot be seen in any resolution."""
    figure: Any = panel.figure
    return int(panel.get_position().width * figure.get_figwidth() * POINTS_PER_INCH / LINE_WIDTH)


def _loss_title(history: History) -> str:
    return "Training and Validation Loss" if VALIDATION in history.losses else "Training Loss"


def _draw_curves(panel: Axes, curves: Curves, axis: AxisKind, num_columns: int) -> dict[str, Line2D]:
    """Draw the curves of the phases; return the line of each."""
    log = is_log(axis, curves.values())
    points = {phase: thin(curves[phase], num_columns, positive=log) for phase in STYLES if phase in curves}
    lines = {phase: _draw_curve(panel, points[phase], STYLES[phase]) for phase in points}
    if log:
        panel.set_yscale("log")
    _decorate(panel)
    if not any(one.finite.size for one in points.values()):
        panel.text(0.5, 0.5, "no finite value", transform=panel.transAxes, ha="center", va="center")
        panel.set_yticks([])
    return lines


def _draw_curve(panel: Axes, points: Points, style: Style) -> Line2D:
    """Draw one curve, with a marker on each of few points and on those that no line reaches."""
    marked = slice(None) if len(points.epochs) <= FEW_POINTS else points.lonely().tolist()
    [line] = panel.plot(
        points.epochs, points.values, color=style.color, linewidth=style.width, linestyle="-", marker=style.marker,
        markersize=4.5, markevery=marked, zorder=4 - style.width / 10,
    )  # fmt: skip
    return line


def _mark_best(panel: Axes, history: History) -> list[Line2D]:
    best = history.best()
    if best is None:
        return []
    return panel.plot(
        [best.epoch], [best.loss], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=BEST_COLOR,
        markeredgewidth=1.8, linestyle="none", zorder=5,
    )  # fmt: skip


def _draw_learning_rates(panel: Axes, rates: Curves, num_columns: int) -> None:
    log = is_log("auto", rates.values())
    for (name, curve), color in zip(rates.items(), GROUP_COLORS, strict=False):
        marker = "o" if len(curve) == 1 else ""
        line = _draw_curve(panel, thin(curve, num_columns, positive=log), Style(color, marker, LINE_WIDTH))
        line.set_label(one_line(name, MAX_GROUP_NAME).lstrip("_"))
    if log:
        panel.set_yscale("log")
    panel.set_title("Learning rate", loc="left", fontsize="medium")
    _decorate(panel)
    if len(rates) > 1:
        legend = panel.legend(loc="upper right", bbox_to_anchor=(1, -0.2), ncols=6, fontsize="small", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _draw_metric(panel: Axes, name: str, curves: Curves, width: float) -> dict[str, Line2D]:
    lines = _draw_curves(panel, curves, "linear", _columns(panel))
    shown = one_line(name, int((width - MARGIN) * CHARACTERS_PER_INCH))
    panel.set_title(shown, loc="left", fontsize="medium", pad=17, parse_math=False, usetex=False)
    values = "   ".join(f"{phase} {number(curves[phase].last)}" for phase in lines)
    panel.annotate(values, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize="small")
    _set_epochs(panel, curves.values(), num_ticks=3)
    return lines


def _decorate(panel: Axes) -> None:
    panel.grid(visible=True, alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _set_epochs(panel: Axes, curves: Collection[Curve], num_ticks: int = 8) -> None:
    """Let the lower axis show the epochs, as many as there are."""
    scale = epoch_scale(
        min(curve.epochs[0] for curve in curves), max(curve.epochs[-1] for curve in curves), num_ticks=num_ticks
    )
    room = (scale.high - scale.low) * 0.02
    panel.set_xlim(scale.low - room, scale.high + room)
    panel.set_xticks([epoch for epoch, _ in scale.ticks], [label for _, label in scale.ticks])
    panel.set_xlabel("Epoch", loc="left")


def _set_title(figure: Figure, title: str, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    """Write the title to the left and the legend to the right, above all curves."""
    height = figure.get_figheight()
    figure.text(MARGIN / figure.get_figwidth(), 1 - 0.35 / height, title, fontsize="large", va="center")
    figure.legend(
        handles, labels, loc="center right", bbox_to_anchor=(1, 1 - 0.35 / height), ncols=len(labels), frameon=False,
        fontsize="medium",
    )  # fmt: skip
