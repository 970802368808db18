"""What a curve suggests, and when it suggests nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from bz_plugin_lr_finder.smoothing import RunningMean

if TYPE_CHECKING:
    from bz_plugin_lr_finder.curve import LRCurve

BEGINNING: Final = 0.2
"""Part of the curve whose mean is the loss to begin with; its learning rates are so low that little is learned."""

LEAST_FALL: Final = 1e-3
"""As a part of the loss to begin with; a fall that is less is none."""

NOISES: Final = 4.0
"""So many times its own noise the smoothed loss must fall; pure noise does so in one test of a hundred."""

FAR_APART: Final = 5.0
"""Ratio of two suggestions from which on there is a caution."""

_FEWEST: Final = 10
"""Steps that a suggestion needs."""


class Finding(NamedTuple):
    """What was found.

    Attributes:
        suggestions: Learning rates by the name of the way in which they were found.
        remark: Why there are none, or a caution about them; may be empty.
    """

    suggestions: Mapping[str, float]
    remark: str


class _Fall(NamedTuple):
    """The part of a curve that a suggestion is read from.

    Attributes:
        begin: Index of the last step before which the loss was still what it had been at the beginning.
        lowest: Index of the lowest smoothed loss.
        losses: Smoothed losses up to the lowest, without delay.
    """

    begin: int
    lowest: int
    losses: Sequence[float]


def find(curve: LRCurve) -> Finding:
    """Return what the curve suggests.

    `steepest` is where the smoothed loss falls fastest along the axis of the picture (the logarithm of the learning
    rate, or the rate itself where it grows linearly) on the way from its first level to its lowest value.
    `minimum / 10` is a tenth of the rate of the lowest smoothed loss. fastai calls these two `steep` and `minimum`.

    A running mean comes late: the loss has fallen before it does. So the slope is that of the mean of the means in
    the opposite direction, which is late by as much the other way.
    """
    count = len(curve.losses)
    if count < _FEWEST:
        return Finding({}, _too_short(curve))
    fall = _fall(curve)
    if fall is None:
        return Finding({}, _no_fall(curve))
    rates, axis = curve.learning_rates, _axis(curve)
    steepest = min(range(fall.begin, fall.lowest + 1), key=lambda index: _slope(axis, fall.losses, index))
    suggestions = {"steepest": rates[steepest]}
    if fall.lowest == count - 1:
        return Finding(suggestions, f"The loss still falls at {rates[-1]:.3g}; with a higher max_lr more can be seen.")
    suggestions["minimum / 10"] = rates[fall.lowest] / 10
    ratio = rates[steepest] / suggestions["minimum / 10"]
    is_doubtful = not 1 / FAR_APART <= ratio <= FAR_APART
    return Finding(suggestions, "The suggestions are far apart; the lower one is the safer." if is_doubtful else "")


def _axis(curve: LRCurve) -> list[float]:
    is_linear = curve.config.mode == "linear"
    return [rate if is_linear else math.log10(rate) for rate in curve.learning_rates]


def _slope(axis: Sequence[float], values: Sequence[float], index: int) -> float:
    """Return the slope between the neighbours of a point; at the ends, between it and its one neighbour."""
    before, after = max(index - 1, 0), min(index + 1, len(values) - 1)
    return (values[after] - values[before]) / (axis[after] - axis[before])


def _fall(curve: LRCurve) -> _Fall | None:
    """Return where the loss falls by more than chance lets it, or None if it does not."""
    num_first = max(_FEWEST // 2, math.ceil(len(curve.losses) * BEGINNING))
    level = _mean(curve.losses[:num_first], curve.sizes[:num_first])
    lowest = min(range(num_first, len(curve.losses)), key=curve.smoothed_losses.__getitem__)
    noise = _noise(curve, lowest)
    if level - curve.smoothed_losses[lowest] <= max(NOISES * noise, LEAST_FALL * abs(level)):
        return None
    mean = RunningMean(curve.config.smoothing)
    losses = [mean.add(loss) for loss in reversed(curve.smoothed_losses[: lowest + 1])][::-1]
    begin = max((index for index in range(lowest) if losses[index] >= level - NOISES / 2 * noise), default=0)
    return _Fall(begin, lowest, losses)


def _mean(values: Sequence[float], sizes: Sequence[float]) -> float:
    return math.fsum(value * size for value, size in zip(values, sizes, strict=True)) / math.fsum(sizes)


def _noise(curve: LRCurve, lowest: int) -> float:
    """Return the standard deviation that the smoothed loss has because batches differ.

    It is estimated from step to step, so that a fall is not taken for noise (J. von Neumann, 1941), and the variance
    of a loss is taken to be that of one sample over the number of samples.
    """
    steps = pairwise(zip(curve.losses[: lowest + 1], curve.sizes, strict=False))
    variances = [(after - before) ** 2 / (1 / one + 1 / other) for (before, one), (after, other) in steps]
    weight, usual_size = curve.config.smoothing, statistics.median(curve.sizes)
    return math.sqrt(statistics.fmean(variances) / usual_size * (1 - weight) / (1 + weight))


def _too_short(curve: LRCurve) -> str:
    if curve.ending == "nonfinite" and not curve.losses:
        return (
            "The loss is NaN or infinite before the first step, so no learning rate is to blame: "
            "look at the data, the model and the loss function."
        )
    what = "became NaN or infinite" if curve.ending == "nonfinite" else "diverged"
    steps = f"after {len(curve.losses)} steps, at {curve.last_rate:.3g}"
    return f"The loss {what} at once, {steps}; begin with a lower min_lr."


def _no_fall(curve: LRCurve) -> str:
    rates = curve.learning_rates
    where = f"between {rates[0]:.3g} and {rates[-1]:.3g}"
    if curve.ending == "steps":
        return (
            f"The loss never falls {where} by more than it varies from batch to batch. Does the model learn at all? "
            "Else try more steps, larger batches or a higher max_lr."
        )
    return (
        f"The loss only rises {where}, so there is nothing to suggest; begin with a lower min_lr, or take more steps."
    )
