"""Validations inside an epoch, epochs without one, and runs that end by a limit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz.spec import StepResult
from bz.testing import RecordingPlugin, tiny_spec, train
from bz_plugin_visualization import VisualizationPlugin
from bz_plugin_visualization.chart import Chart, draw_chart
from bz_plugin_visualization.history import TRAINING, VALIDATION, Curve, History
from bz_plugin_visualization.plots import loss_figure
from bz_plugin_visualization.scale import epoch_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Unsized:
    """Batches that do not say how many they are."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


def run(
    run_dir: Path, losses: Mapping[int, float], *others: object, spec: Any = None, **options: Any
) -> VisualizationPlugin:
    """Train three batches an epoch, with validation losses by step."""

    def validation_step(context: Any, batch: Any) -> StepResult:
        return StepResult(torch.tensor(losses[context.global_step], dtype=torch.float64))

    plugin = VisualizationPlugin(dpi=30)
    spec = spec or tiny_spec()
    spec.validation_step = validation_step
    train(spec, plugin, *others, run_dir=run_dir, strict_plugins=True, **options)
    return plugin


def validation(plugin: VisualizationPlugin) -> list[tuple[float, float]]:
    curve = plugin.state_dict()["history"]["losses"]["validation"]
    return list(zip(curve["epochs"], curve["values"], strict=True))


def page(run_dir: Path) -> str:
    text = re.sub(r"<[^>]*>", " ", (run_dir / "report.html").read_text(encoding="utf-8"))
    return " ".join(text.split())


def test_each_validation_is_a_point_where_it_was(tmp_path: Path) -> None:
    plugin = run(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, validation_interval="2 steps")
    assert dict(validation(plugin)) == {2 / 3: 0.5, 1 + 1 / 3: 0.3, 2.0: 0.4}
    assert plugin.state_dict()["history"]["losses"]["training"]["epochs"] == [1, 2]
    assert plugin.state_dict()["validations"] == []
    assert "Best epoch 1.33 lowest validation loss" in page(tmp_path)
    assert "Best epoch (1.33)" in page(tmp_path)


def test_place_in_an_epoch_of_unknown_length_is_known_at_its_end(tmp_path: Path) -> None:
    spec = tiny_spec()
    spec.training_loader = Unsized(list(spec.training_loader))
    plugin = run(tmp_path, {2: 0.5, 4: 0.3, 6: 0.4}, spec=spec, validation_interval="2 steps")
    assert dict(validation(plugin)) == {2 / 3: 0.5, 1 + 1 / 3: 0.3, 2.0: 0.4}


def test_epoch_without_validation_repeats_none(tmp_path: Path) -> None:
    plugin = run(tmp_path, {6: 0.5, 12: 0.3}, validation_interval="2 epochs", epochs=5)
    assert validation(plugin) == [(2, 0.5), (4, 0.3)]
    assert "Last validation loss 0.3000 epoch 4" in page(tmp_path)


def test_validation_of_the_untrained_model_is_at_zero_and_never_the_best(tmp_path: Path) -> None:
    plugin = run(tmp_path, {0: 0.1, 3: 0.5, 6: 0.3}, validate_first=True)
    assert validation(plugin) == [(0, 0.1), (1, 0.5), (2, 0.3)]
    assert list(plugin.state_dict()["history"]["losses"]) == ["training", "validation"]
    assert "Best epoch 2 lowest validation loss" in page(tmp_path)


@pytest.mark.parametrize("max_steps", [4, 6])
def test_run_that_ends_by_a_limit_says_how_far_it_came_and_why(tmp_path: Path, max_steps: int) -> None:
    plugin = run(tmp_path, {3: 0.5, max_steps: 0.3}, epochs=None, max_steps=max_steps)
    assert validation(plugin) == [(1, 0.5), (2, 0.3)]
    text = page(tmp_path)
    assert f"completed after 2 of 2 epochs, {max_steps} of {max_steps} steps, in " in text
    assert f"max_steps {max_steps} reached" in text


def test_run_of_unknown_length_says_how_far_it_came(tmp_path: Path) -> None:
    spec = tiny_spec()
    spec.training_loader = Unsized(list(spec.training_loader))
    run(tmp_path, {3: 0.5, 5: 0.3}, spec=spec, epochs=None, max_steps=5)
    assert "completed after 2 epochs, 5 of 5 steps, in " in page(tmp_path)


@pytest.mark.parametrize("hook", ["end_training_batch", "end_validation_batch", "end_epoch"])
@pytest.mark.parametrize("step", [2, 3, 4, 5])
@pytest.mark.parametrize("options", [{}, {"validate_first": True}, {"accumulate_batches": 2}], ids=repr)
def test_resumed_run_has_each_point_once(tmp_path: Path, hook: str, step: int, options: dict[str, Any]) -> None:
    def stop(fired: str, context: Any) -> None:
        if fired == hook and context.global_step == step:
            context.request_stop("enough", "batch")

    losses = {index: 1 / (1 + index % 4) for index in range(13)}
    options = {"validation_interval": "2 steps", "epochs": 3, "seed": 1, **options}
    whole = run(tmp_path / "whole", losses, **options)
    run(tmp_path / "a", losses, RecordingPlugin(stop), **options)
    resumed = run(tmp_path / "a", losses, resume=tmp_path / "a", **options)
    assert resumed.state_dict()["history"] == whole.state_dict()["history"]


def history_of(points: Mapping[float, float]) -> History:
    history = History()
    for place, loss in points.items():
        history.add_point(place, VALIDATION, loss, {})
    for epoch in range(1, math.ceil(max(points)) + 1):
        history.add_loss(epoch, TRAINING, 1 / epoch, {})
    return history


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[-1].get_xticklabels()]


def test_plot_has_points_inside_the_epochs() -> None:
    figure = loss_figure(history_of({0.5: 3.0, 1.5: 2.0, 2.5: 1.5, 3.0: 1.75}))
    line: Any = figure.axes[0].lines[1]
    assert line.get_xdata().tolist() == [0.5, 1.5, 2.5, 3.0]
    assert ticks(figure) == ["1", "2", "3"]
    assert figure.legends[0].get_texts()[-1].get_text() == "best 1.5000 (epoch 2.50)"


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0.25, 1.0, ["0.4", "0.6", "0.8", "1.0"]),
        (0.1, 1.0, ["0.5", "1.0"]),
        (0, 1, ["0", "1"]),
        (0.5, 2, ["1", "2"]),
        (0.2, 10, ["1", "5", "10"]),
        (2 / 3, 2.9, ["1", "2"]),
    ],
)
def test_axis_of_parts_of_epochs_has_ticks(first: float, last: float, expected: list[str]) -> None:
    scale = epoch_scale(first, last)
    assert [label for _, label in scale.ticks] == expected
    assert all(0 <= scale.position(place) <= 1 for place, _ in scale.ticks)


def test_chart_says_points_and_in_which_epoch_a_value_is_no_number() -> None:
    curve = Curve([0.5, 1.0, 1.5, 2.0], [3.0, 2.0, math.nan, 1.0])
    text = str(draw_chart(Chart("loss", "Loss", {VALIDATION: curve})))
    assert "validation: 4 points, from 3.0000 to 1.0000" in text
    assert "not a finite number in epoch 2." in text
