"""What the plots and the report cost with few, many and very many epochs.

    python benchmarks/visualization_plugin.py

Seconds are those of the processor, so that a busy machine tells the same as an idle one; each is the
least of several, the loading of matplotlib not included.
"""

from __future__ import annotations

import random
from functools import partial
from time import process_time
from typing import TYPE_CHECKING

from bz_plugin_visualization.chart import Chart, draw_chart
from bz_plugin_visualization.history import History
from bz_plugin_visualization.plots import loss_figure, metrics_figure, to_png

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

ROUNDS = 5
METRICS = ("accuracy", "f1")


def make_history(num_epochs: int) -> History:
    """Return noisy curves of two phases, with two metrics and a learning rate."""
    generator, history = random.Random(0), History()  # noqa: S311 - noise
    for epoch in range(1, num_epochs + 1):
        for phase in ("training", "validation"):
            loss = num_epochs / epoch + generator.random()
            history.add_loss(epoch, phase, loss, {name: generator.random() for name in METRICS})
        history.add_learning_rates(epoch, {"learning rate": 0.1 / epoch})
    return history


def least_seconds(action: Callable[[], object]) -> float:
    """Return the processor time of the fastest of several calls."""
    times = []
    for _ in range(ROUNDS):
        started = process_time()
        action()
        times.append(process_time() - started)
    return min(times)


def draw_charts(history: History) -> str:
    """Return the curves of the report."""
    losses = draw_chart(Chart("loss", "Loss", history.losses, "auto", history.best()))
    metrics = (draw_chart(Chart(name, name, curves)) for name, curves in history.metrics.items())
    return "".join([losses, *metrics, draw_chart(Chart("rate", "Learning rate", history.learning_rates, "auto"))])


def measure(draw: Callable[[History], Figure], history: History, dpi: int) -> str:
    """Return seconds and size of a plot."""
    seconds = least_seconds(lambda: to_png(draw(history), dpi=dpi))
    return f"{seconds:9.3f} {len(to_png(draw(history), dpi=dpi)) / 1024:5.0f}"


def main() -> None:
    """Measure and print."""
    print(f"{'epochs':>8} {'dpi':>4} {'loss s':>9} {'KiB':>5} {'metrics s':>9} {'KiB':>5} {'report s':>9} {'KiB':>5}")
    for num_epochs in (10, 1_000, 100_000):
        history = make_history(num_epochs)
        seconds = least_seconds(partial(draw_charts, history))
        report = f"{seconds:9.3f} {len(draw_charts(history)) / 1024:5.0f}"
        for dpi in (100, 150, 300):
            plots = f"{measure(loss_figure, history, dpi)} {measure(metrics_figure, history, dpi)}"
            print(f"{num_epochs:8,} {dpi:4} {plots} {report}")


if __name__ == "__main__":
    main()
