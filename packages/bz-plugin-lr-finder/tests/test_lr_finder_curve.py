"""What a curve suggests, and the picture of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bz.errors import ConfigError
from bz_plugin_lr_finder import LRCurve, RangeTestConfig
from bz_plugin_lr_finder.smoothing import RunningMean

if TYPE_CHECKING:
    from bz_plugin_lr_finder.curve import Ending


def curve_of(
    losses: list[float], ending: Ending = "steps", sizes: list[float] | None = None, **settings: Any
) -> LRCurve:
    config = RangeTestConfig(**{"steps": max(20, len(losses)), **settings})
    mean = RunningMean(config.smoothing)
    return LRCurve(
        config=config,
        learning_rates=tuple(config.learning_rate(index) for index in range(len(losses))),
        losses=tuple(losses),
        sizes=tuple(sizes or [32.0] * len(losses)),
        smoothed_losses=tuple(map(mean.add, losses, sizes or [32.0] * len(losses))),
        ending=ending,
    )


def losses_of(shape: Callable[[float], float], count: int = 100, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Return losses over the decades from -7 to 1, with noise."""
    generator = random.Random(seed)
    return [shape(-7 + 8 * index / (count - 1)) + generator.gauss(0, noise) for index in range(count)]


def well(decade: float) -> float:
    """A loss of 2.3 that falls to 0.3, fastest at a rate of 0.01, and rises again from 0.3 on."""
    return 2.3 - 2 / (1 + math.exp(-6 * (decade + 2))) + math.exp(8 * (decade + 0.3))


def test_running_mean_has_no_bias_of_its_beginning() -> None:
    mean = RunningMean(0.9)
    assert [mean.add(value) for value in (2.0, 2.0, 5.0)] == pytest.approx([2.0, 2.0, 2.0 + 3 * 0.1 / 0.271])


def test_running_mean_counts_sizes() -> None:
    mean = RunningMean(0.5)
    assert [mean.add(1.0, 3.0), mean.add(5.0, 2.0)] == pytest.approx([1.0, (0.75 + 5) / 1.75])


def test_no_smoothing_leaves_the_losses() -> None:
    mean = RunningMean(0.0)
    assert [mean.add(value) for value in (3.0, 1.0, 2.0)] == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(("noise", "smoothing"), [(0.0, 0.0), (0.0, 0.8), (0.02, 0.8), (0.1, 0.8), (0.1, 0.95)])
def test_steepest_is_where_the_loss_falls_fastest(noise: float, smoothing: float) -> None:
    curve = curve_of(losses_of(well, noise=noise), "diverged", smoothing=smoothing)
    assert curve.suggestion == pytest.approx(0.01, rel=1.0)
    assert curve.suggestions["steepest"] == curve.suggestion


def test_minimum_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    curve = curve_of(losses_of(well), "diverged", smoothing=0.0)
    lowest = curve.learning_rates[curve.losses.index(min(curve.losses))]
    assert curve.suggestions["minimum / 10"] == lowest / 10
    assert curve.remark == ""


def test_loss_that_still_falls_has_no_minimum() -> None:
    curve = curve_of(losses_of(lambda decade: 1 / (1 + math.exp(decade))), smoothing=0.0)
    assert list(curve.suggestions) == ["steepest"]
    assert curve.remark == "The loss still falls at 10; with a higher max_lr more can be seen."


def test_suggestions_that_are_far_apart_have_a_caution() -> None:
    curve = curve_of(losses_of(lambda decade: well(decade) + 0.05 * abs(decade - 0.4), 400), "diverged", max_lr=1e9)
    assert curve.suggestions["steepest"] < curve.suggestions["minimum / 10"] / 5
    assert curve.remark == "The suggestions are far apart; the lower one is the safer."


def test_linear_range_has_slopes_over_the_rate_itself() -> None:
    losses = [1 - 0.3 / (1 + math.exp(-(index - 70) / 3)) for index in range(99)] + [2.0]
    curve = curve_of(losses, mode="linear", max_lr=1.0, smoothing=0.0)
    assert curve.suggestion == pytest.approx(0.707, abs=0.02)


def test_noise_alone_suggests_nothing() -> None:
    found = [curve_of(losses_of(lambda _: 1.0, noise=0.3, seed=seed)).suggestion for seed in range(200)]
    assert sum(rate is not None for rate in found) <= 6


def test_batch_of_one_sample_does_not_decide() -> None:
    losses, sizes = losses_of(well, noise=0.02), [32.0] * 100
    expected = curve_of(losses, "diverged").suggestions["minimum / 10"]
    for index in range(11, 100, 12):
        losses[index], sizes[index] = random.Random(index).choice((0.0, 3.0)), 1.0
    found = curve_of(losses, "diverged", sizes).suggestions
    assert found["minimum / 10"] == pytest.approx(expected, rel=0.3)
    assert 0.004 < found["steepest"] < 0.025


def test_flat_loss_suggests_nothing() -> None:
    curve = curve_of([0.5] * 100)
    assert curve.suggestions == {}
    assert curve.remark.startswith("The loss never falls between 1e-07 and 10 by more than it varies")


def test_loss_that_only_rises_suggests_nothing() -> None:
    curve = curve_of([1.1**index for index in range(30)], "diverged", steps=100)
    assert curve.suggestion is None
    assert curve.remark.startswith("The loss only rises between 1e-07 and ")


@pytest.mark.parametrize(
    ("losses", "ending", "remark"),
    [
        ([], "nonfinite", "The loss is NaN or infinite before the first step, so no learning rate is to blame"),
        ([1.0] * 3, "nonfinite", "The loss became NaN or infinite at once, after 3 steps, at 1.75e-07;"),
        ([1.0, 2.0, 9.0], "diverged", "The loss diverged at once, after 3 steps, at 1.45e-07;"),
    ],
)
def test_curve_that_is_too_short_says_why(losses: list[float], ending: Ending, remark: str) -> None:
    curve = curve_of(losses, ending, steps=100)
    assert curve.suggestions == {}
    assert curve.remark.startswith(remark)


def test_learning_rates_go_from_the_first_to_the_last() -> None:
    exponential = RangeTestConfig(min_lr=1e-4, max_lr=1.0, steps=21)
    assert [exponential.learning_rate(index) for index in (0, 5, 20)] == pytest.approx([1e-4, 1e-3, 1.0])
    linear = RangeTestConfig(min_lr=0.5, max_lr=2.5, steps=21, mode="linear")
    assert [linear.learning_rate(index) for index in (0, 5, 20)] == pytest.approx([0.5, 1.0, 2.5])


def test_record_is_json() -> None:
    record = curve_of(losses_of(well), "diverged").as_record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == ["suggestion", "suggestions", "remark", "ending", "settings", "curve"]


PICTURED = {"well": losses_of(well), "flat": [0.5] * 100, "short": [1.0], "huge": [-1e30, 1e30] * 10}


@pytest.mark.parametrize("name", ["curve.png", "curve.svg"])
@pytest.mark.parametrize("losses", PICTURED.values(), ids=PICTURED)
def test_picture_is_of_the_kind_of_its_suffix(tmp_path: Path, name: str, losses: list[float]) -> None:
    path = curve_of(losses, "diverged").save(tmp_path / "folder" / name, title="a $ and a _ and an ä")
    content = path.read_bytes()
    assert path == tmp_path / "folder" / name
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert list(path.parent.iterdir()) == [path]


def test_picture_says_what_is_drawn(tmp_path: Path) -> None:
    import matplotlib as mpl

    curve = curve_of(losses_of(well), "diverged")
    with mpl.rc_context({"svg.fonttype": "none"}):
        text = curve.save(tmp_path / "curve.svg").read_text(encoding="utf-8")
    for words in ("Learning rate of a step (logarithmic axis)", "Training loss", f"steepest: {curve.suggestion:.3g}"):
        assert words in text


def test_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a \.png or \.svg file or a folder, got '.*curve\.pdf'"):
        curve_of([1.0] * 30).save(tmp_path / "curve.pdf")
