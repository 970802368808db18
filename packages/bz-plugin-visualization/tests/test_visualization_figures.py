"""What is on the pictures."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import colors

from bz_plugin_visualization.history import TRAINING, VALIDATION, History
from bz_plugin_visualization.plots import loss_figure, metrics_figure, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history_of(
    training: Sequence[float], validation: Sequence[float] = (), metrics: Sequence[str] = (), num_rates: int = 1
) -> History:
    history = History()
    for epoch, loss in enumerate(training, 1):
        history.add_loss(epoch, TRAINING, loss, dict.fromkeys(metrics, loss))
        history.add_learning_rates(epoch, {f"group {index}": 0.1 for index in range(num_rates)})
    for epoch, loss in enumerate(validation, 1):
        history.add_loss(epoch, VALIDATION, loss, dict.fromkeys(metrics, loss))
    return history


def texts(figure: Figure) -> list[str]:
    """Return the title and the legend above the panels."""
    return [text.get_text() for text in (*figure.texts, *figure.legends[0].get_texts())]


def epochs(line: Any) -> list[float]:
    return [float(epoch) for epoch in line.get_xdata()]


def values(line: Any) -> list[float]:
    return [float(value) for value in line.get_ydata()]


def test_loss_figure_has_every_epoch_of_both_phases() -> None:
    figure = loss_figure(history_of([3.0, 2.0, 1.0], [3.5, 2.5, 2.0]))
    training, validation = figure.axes[0].lines[:2]
    assert epochs(training) == [1, 2, 3]
    assert (values(training), values(validation)) == ([3.0, 2.0, 1.0], [3.5, 2.5, 2.0])
    assert texts(figure) == [
        "Training and Validation Loss",
        "training 1.0000",
        "validation 2.0000",
        "best 2.0000 (epoch 3)",
    ]


def test_loss_figure_without_validation_has_one_curve() -> None:
    figure = loss_figure(history_of([3.0, 2.0]))
    assert texts(figure) == ["Training Loss", "training 2.0000", "best 2.0000 (epoch 2)"]
    assert len(figure.axes[0].lines) == 2


def test_learning_rate_has_a_panel_of_its_own() -> None:
    figure = loss_figure(history_of([3.0, 2.0], num_rates=2))
    assert figure.axes[1].get_title("left") == "Learning rate"
    assert [values(line) for line in figure.axes[1].lines] == [[0.1, 0.1], [0.1, 0.1]]
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["group 0", "group 1"]


@pytest.mark.parametrize("num_epochs", [1, 2, 10, 1_000])
def test_epoch_axis_has_whole_numbers(num_epochs: int) -> None:
    figure = loss_figure(history_of([1.0] * num_epochs))
    ticks = figure.axes[-1].get_xticks()
    assert [tick for tick in ticks if tick != round(tick)] == []
    assert (min(ticks), max(ticks)) == (1, num_epochs)


def test_single_epoch_has_a_marker() -> None:
    line = loss_figure(history_of([1.0])).axes[0].lines[0]
    assert (line.get_marker(), line.get_markevery()) == ("o", slice(None))


def test_values_that_are_no_number_make_a_gap_and_the_lonely_one_has_a_marker() -> None:
    losses = [1.0] * 40
    losses[10], losses[12], losses[20] = math.nan, math.inf, -math.inf
    line = loss_figure(history_of(losses)).axes[0].lines[0]
    assert np.flatnonzero(np.isnan(values(line))).tolist() == [10, 12, 20]
    assert line.get_markevery() == [11]


def test_figure_of_nothing_but_nan_says_so() -> None:
    figure = loss_figure(history_of([math.nan, math.inf]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite value"]
    assert texts(figure) == ["Training Loss", "training inf"]


@pytest.mark.parametrize(("axis", "expected"), [("auto", "log"), ("linear", "linear"), ("log", "log")])
def test_axis_follows_the_setting(axis: Any, expected: str) -> None:
    assert loss_figure(history_of([10.0, 0.01]), axis=axis).axes[0].get_yscale() == expected


def test_best_epoch_has_a_ring() -> None:
    ring = loss_figure(history_of([3.0, 1.0, 2.0])).axes[0].lines[-1]
    assert (epochs(ring), values(ring)) == ([2], [1.0])


@pytest.mark.parametrize("num_epochs", [10, 1_000, 100_000])
def test_number_of_points_drawn_is_bounded_by_the_width_of_the_line(num_epochs: int) -> None:
    losses = np.random.default_rng(0).random(num_epochs).tolist()
    figure = loss_figure(history_of(losses, losses, ["accuracy"]))
    drawn = [len(epochs(line)) for panel in figure.axes for line in panel.lines]
    assert max(drawn) == num_epochs if num_epochs <= 1_000 else max(drawn) <= 5 * 500
    assert max(values(figure.axes[0].lines[0])) == max(losses)
    assert min(values(figure.axes[0].lines[0])) == min(losses)


def test_metrics_figure_has_a_panel_for_each_metric() -> None:
    figure = metrics_figure(history_of([0.1, 0.2], [0.3, 0.4], ["accuracy", "f1", "recall"]))
    assert [panel.get_title("left") for panel in figure.axes] == ["accuracy", "f1", "recall", ""]
    assert [values(line) for line in figure.axes[0].lines] == [[0.1, 0.2], [0.3, 0.4]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["training 0.2000   validation 0.4000"]
    assert [panel.axison for panel in figure.axes] == [True, True, True, False]
    assert texts(figure) == ["Metrics", "training", "validation"]


def test_metrics_figure_of_very_many_metrics_says_how_many_it_shows() -> None:
    figure = metrics_figure(history_of([0.1], metrics=[f"class_{index}" for index in range(100)]))
    assert len(figure.axes) == 12
    assert texts(figure)[0] == "Metrics (the first 12 of 100)"


@pytest.mark.parametrize("name", ["$x", "_hidden", "a\nb", "精度", "x" * 300, "%s {0} \\frac"])
def test_any_name_of_a_metric_can_be_drawn(name: str) -> None:
    figure = metrics_figure(history_of([0.1], metrics=[name]))
    assert to_png(figure, dpi=30).startswith(b"\x89PNG")


def test_same_numbers_give_the_same_picture() -> None:
    pictures = {to_png(loss_figure(history_of([2.0, 1.0])), dpi=30) for _ in range(2)}
    assert len(pictures) == 1


def test_nothing_of_a_figure_is_left() -> None:
    figure = loss_figure(history_of([2.0, 1.0]))
    reference = weakref.ref(figure)
    to_png(figure, dpi=30)
    del figure
    gc.collect()
    assert reference() is None


def test_phases_differ_in_colours_of_okabe_and_ito_and_in_width() -> None:
    lines = loss_figure(history_of([2.0], [1.0])).axes[0].lines
    assert [colors.to_hex(line.get_color()).upper() for line in lines[:2]] == ["#0072B2", "#D55E00"]
    assert lines[0].get_linewidth() < lines[1].get_linewidth()
