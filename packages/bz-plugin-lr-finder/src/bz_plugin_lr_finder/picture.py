"""The curve as a picture, drawn with matplotlib's objects alone: no pyplot, no window, no global setting changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bz.durable import make_folder, replacing

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bz_plugin_lr_finder.curve import LRCurve

DPI: Final = 150

# Told apart by people who are colour-blind (Okabe and Ito).
_CURVE: Final = "#0072B2"
_RAW: Final = "#7FB4D6"
_MARKS: Final = {"steepest": ("#D55E00", "-", "o"), "minimum / 10": ("#009E73", "--", "s")}
_INK: Final = "#333333"


def draw(curve: LRCurve, title: str) -> Figure:
    """Return the curve, with the suggestions marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.plot(
        curve.learning_rates,
        curve.losses,
        color=_RAW,
        linewidth=0.8,
        marker=".",
        markersize=3.5,
        label="loss of a step",
    )
    axes.plot(curve.learning_rates, curve.smoothed_losses, color=_CURVE, linewidth=2.2, label="smoothed loss")
    for name, rate in curve.suggestions.items():
        _mark(axes, curve, name, rate)
    _decorate(axes, curve, title)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, whole or not at all; its folder is made if it is not there.

    Raises:
        OSError: If that cannot be done.
    """
    make_folder(path.parent)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lower().removeprefix("."), dpi=DPI)


def _mark(axes: Axes, curve: LRCurve, name: str, rate: float) -> None:
    color, line, marker = _MARKS[name]
    axes.axvline(rate, color=color, linestyle=line, linewidth=1.2)
    nearest = min(range(len(curve.learning_rates)), key=lambda index: abs(curve.learning_rates[index] - rate))
    loss = curve.smoothed_losses[nearest]
    axes.plot(
        [rate], [loss], color=color, linestyle=line, marker=marker, markersize=8, label=f"{name}: {rate:.3g}", zorder=4
    )


def _decorate(axes: Axes, curve: LRCurve, title: str) -> None:
    is_linear = curve.config.mode == "linear"
    if not is_linear:
        axes.set_xscale("log")
    axes.set_ylim(*_bounds(curve))
    axes.set_xlabel("Learning rate of a step" + ("" if is_linear else " (logarithmic axis)"), color=_INK)
    axes.set_ylabel("Training loss", color=_INK)
    axes.set_title(title, loc="left", color=_INK, parse_math=False)
    axes.tick_params(colors=_INK)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", frameon=True, facecolor="white", edgecolor="none", labelcolor=_INK)
    if not curve.suggestions:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        axes.text(0.5, 0.5, "no suggestion", transform=axes.transAxes, ha="center", color=_INK, fontsize=16, bbox=box)


def _bounds(curve: LRCurve) -> tuple[float, float]:
    """Return the ends of the axis of the losses: a loss that explodes leaves the picture, and the rest can be seen."""
    if not curve.losses:
        return 0.0, 1.0
    first, lowest = curve.smoothed_losses[0], min(*curve.smoothed_losses, *curve.losses)
    height = (first - lowest) or abs(first) or 1.0
    highest = max(first, min(max(curve.losses), first + height))
    room = 0.06 * (highest - lowest or height)
    return lowest - room, highest + room
