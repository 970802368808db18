"""A chart as inline SVG that is as wide as its page, with text that keeps its size and colours of the page.

The lines stand in a stretched coordinate system, 0 to 1000 in both directions, whose strokes do not
scale; labels and markers are placed in per cent. So the chart fits a phone as well as a screen
without a script, which one `viewBox` around everything would not: it would shrink the text too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from bz_plugin_visualization.history import TRAINING, VALIDATION, Best, Curves
from bz_plugin_visualization.markup import Markup, element
from bz_plugin_visualization.scale import AxisKind, Scale, epoch_label, epoch_scale, is_log, value_scale
from bz_plugin_visualization.thinning import Points, thin
from bz_plugin_visualization.wording import counted, epoch_ranges, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COLUMNS: Final = 300
SIZE: Final = 1000
FEW_POINTS: Final = 30
NUM_CLASSES: Final = 6
PHASE_CLASSES: Final = {TRAINING: "c1", VALIDATION: "c2"}


class Chart(NamedTuple):
    """What one chart shows.

    Attributes:
        key: Unique in the page, for references inside it.
        title: What the values are.
        curves: Name to curve, at least one.
        axis: Kind of the value axis.
        best: Epoch to mark on the curve of its phase, if any.
    """

    key: str
    title: str
    curves: Curves
    axis: AxisKind = "linear"
    best: Best | None = None


class Plane(NamedTuple):
    """The two axes; turns epochs and values into places from the upper left corner, in per cent."""

    across: Scale
    up: Scale

    def x(self, epoch: float) -> str:
        """Return the place of an epoch."""
        return f"{100 * self.across.position(epoch):.2f}%"

    def y(self, value: float) -> str:
        """Return the place of a value."""
        return f"{100 - 100 * self.up.position(value):.2f}%"

    def path(self, points: Points) -> str:
        """Return the line through the points, broken at the gaps, in the stretched coordinates."""
        parts, command = [], "M"
        for epoch, value in zip(points.epochs.tolist(), points.values.tolist(), strict=True):
            if math.isnan(value):
                command = "M"
                continue
            across, down = self.across.position(epoch), 1 - self.up.position(value)
            parts.append(f"{command}{SIZE * across:.0f} {SIZE * down:.0f}")
            command = "L"
        return "".join(parts)


def draw_chart(chart: Chart) -> Markup:
    """Return the chart as a figure, with a legend that says the last values."""
    log = is_log(chart.axis, chart.curves.values())
    points = {name: thin(curve, COLUMNS, positive=log) for name, curve in chart.curves.items()}
    caption = element("figcaption", element("h3", chart.title), _legend(chart))
    notes = _notes(chart, log=log)
    return element("figure", caption, _picture(chart, points, log=log), *(element("p", note) for note in notes))


def _class(index: int, name: str) -> str:
    return PHASE_CLASSES.get(name, f"c{(index + len(PHASE_CLASSES)) % NUM_CLASSES + 1}")


def _legend(chart: Chart) -> Markup:
    items = [
        element(
            "li", element("span", class_=f"key {_class(index, name)}"), f"{name} ", element("b", number(curve.last))
        )
        for index, (name, curve) in enumerate(chart.curves.items())
    ]
    if chart.best:
        words = (
            "best ",
            element("b", number(chart.best.loss)),
            f" ({chart.best.phase}, epoch {epoch_label(chart.best.epoch)})",
        )
        items.append(element("li", element("span", class_="key ring"), *words))
    return element("ul", *items, class_="legend")


def _picture(chart: Chart, points: dict[str, Points], *, log: bool) -> Markup:
    extremes = [one.finite for one in points.values() if one.finite.size]
    parts: Iterable[Markup]
    if extremes:
        lowest, highest = min(values.min() for values in extremes), max(values.max() for values in extremes)
        up = value_scale(float(lowest), float(highest), log=log)
        parts = _parts(Plane(_epoch_axis(chart.curves), up), points, chart.best)
    else:
        parts = [element("text", "no finite value", x="50%", y="50%", text_anchor="middle")]
    title_id, text_id = f"{chart.key}-title", f"{chart.key}-text"
    return element(
        "svg",
        element("title", chart.title, id=title_id),
        element("desc", _description(chart), id=text_id),
        *parts,
        class_="chart",
        role="img",
        aria_labelledby=f"{title_id} {text_id}",
    )


def _epoch_axis(curves: Curves) -> Scale:
    return epoch_scale(
        min(curve.epochs[0] for curve in curves.values()), max(curve.epochs[-1] for curve in curves.values())
    )


def _parts(plane: Plane, points: dict[str, Points], best: Best | None) -> Iterator[Markup]:
    """Yield grid and labels, the lines, the markers of few or lonely points, and the ring of the best epoch."""
    yield from _grid(plane)
    classes = {name: _class(index, name) for index, name in enumerate(points)}
    paths = [
        element("path", class_=classes[name], d=path, vector_effect="non-scaling-stroke")
        for name, one in reversed(points.items())  # the thinner line of training is drawn over that of validation
        if (path := plane.path(one))
    ]
    yield element("svg", *paths, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", width="100%", height="100%")
    for name, one in reversed(points.items()):
        yield from _markers(plane, one, classes[name])
    if best and (best.loss > 0 or not plane.up.log) and 0 <= plane.up.position(best.loss) <= 1:
        yield element("circle", class_="ring", cx=plane.x(best.epoch), cy=plane.y(best.loss), r=6)


def _grid(plane: Plane) -> Iterator[Markup]:
    for value, label in plane.up.ticks:
        y = plane.y(value)
        yield element("line", class_="grid", x1="0", x2="100%", y1=y, y2=y)
        yield element("text", label, x="0", y=y, dx="-8", dy="0.32em", text_anchor="end")
    for epoch, label in plane.across.ticks:
        yield element("text", label, x=plane.x(epoch), y="100%", dy="1.5em", text_anchor="middle")
    yield element("line", class_="axis", x1="0", x2="100%", y1="100%", y2="100%")


def _markers(plane: Plane, points: Points, class_: str) -> Iterator[Markup]:
    marked = range(len(points.epochs)) if len(points.epochs) <= FEW_POINTS else points.lonely().tolist()
    for index in marked:
        epoch, value = float(points.epochs[index]), float(points.values[index])
        if not math.isnan(value):
            yield element("circle", class_=class_, cx=plane.x(epoch), cy=plane.y(value), r=3)


def _description(chart: Chart) -> str:
    """Return in words what the picture shows."""
    sentences = []
    for name, curve in chart.curves.items():
        finite = [value for value in curve.values if math.isfinite(value)]
        between = f", between {number(min(finite))} and {number(max(finite))}" if finite else ""
        first, last = number(curve.values[0]), number(curve.last)
        noun = "epoch" if all(epoch.is_integer() for epoch in curve.epochs) else "point"
        sentences.append(f"{name}: {counted(len(curve), noun)}, from {first} to {last}{between}.")
    return " ".join(sentences)


def _notes(chart: Chart, *, log: bool) -> list[str]:
    """Return what a reader has to know to read the picture right."""
    notes = ["Logarithmic axis."] if log else []
    for name, curve in chart.curves.items():
        if epochs := curve.unusable_epochs():
            word = "epoch" if len(epochs) == 1 else "epochs"
            notes.append(f"The {name} value is not a finite number in {word} {epoch_ranges(epochs)}.")
    return [" ".join(notes)] if notes else []
