"""Which part of a number line an axis shows, whether it is logarithmic, and where its ticks are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz_plugin_visualization.history import Curve

AxisKind = Literal["auto", "linear", "log"]

DECADES_FOR_LOG: Final = 2
"""From this many powers of ten between the smallest and the largest value on, `auto` is logarithmic."""

_MARGIN: Final = 0.05
_NICE: Final = (1, 2, 5, 10)
_HALFWAY: Final = 1.5
"""About the way from one nice step to the middle between it and the next, as a factor."""
_LEAST_DECADES: Final = 0.6
_LEAST_DISTANCE: Final = 0.64
"""Between two epochs with a label, in parts of an even share: with four, six digits have room on a phone."""
_TINY: Final = 1e-290
_RELATIVE_TINY: Final = 1e-6
"""Values that differ by less are drawn as a flat line; their labels would not fit."""
_PLAIN_DECADES: Final = range(-4, 6)


def is_log(kind: AxisKind, curves: Iterable[Curve]) -> bool:
    """Return whether the values are drawn on a logarithmic axis.

    `auto` takes one when all finite values are above 0 and span two decades or more; `log` falls back to
    a linear one when there is nothing above 0 to draw.
    """
    if kind == "linear":
        return False
    values = np.concatenate([np.zeros(0), *(np.frombuffer(curve.values) for curve in curves)])
    finite = values[np.isfinite(values)]
    if kind == "log":
        return bool((finite > 0).any())
    lowest, highest = finite.min(initial=np.inf), finite.max(initial=0)
    return bool(_TINY < lowest < np.inf and math.log10(highest) - math.log10(lowest) >= DECADES_FOR_LOG)


class Scale(NamedTuple):
    """An axis from `low` to `high`; on a logarithmic one these are powers of ten.

    Attributes:
        low: Lower end.
        high: Upper end; above `low`.
        log: Whether positions go by the logarithm.
        ticks: Value and label, ascending.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def position(self, value: float) -> float:
        """Return where a value is, 0 at the lower end and 1 at the upper one."""
        place = math.log10(value) if self.log else value
        return (place - self.low) / (self.high - self.low)


def value_scale(lowest: float, highest: float, *, log: bool, num_ticks: int = 5) -> Scale:
    """Return the axis for values between two finite bounds, with some room around them."""
    if log:
        return _log_scale(math.log10(lowest), math.log10(highest), num_ticks)
    low, high = _with_room(lowest, highest)
    step = _nice_step((high - low) / num_ticks / _HALFWAY)
    return Scale(low, high, log=False, ticks=_linear_ticks(low, high, step))


def epoch_scale(first: float, last: float, *, num_ticks: int = 4) -> Scale:
    """Return the axis for epochs, with whole numbers as ticks; where it is shorter than an epoch, with parts of one."""
    if first == last:
        return Scale(first - 0.5, first + 0.5, log=False, ticks=((first, epoch_label(first)),))
    if last - first < 1:
        step = _nice_step((last - first) / num_ticks)
        return Scale(first, last, log=False, ticks=_linear_ticks(first, last, step))
    lowest, highest = math.ceil(first), math.floor(last)
    step = max(1, round(_nice_step((last - first) / num_ticks)))
    between = range((lowest // step + 1) * step, highest, step)
    least = (last - first) * _LEAST_DISTANCE / num_ticks
    numbers = dict.fromkeys(
        [lowest, *(number for number in between if min(number - lowest, highest - number) >= least), highest]
    )
    return Scale(first, last, log=False, ticks=tuple((number, f"{number:,}") for number in numbers))


def epoch_label(epoch: float) -> str:
    """Return `3` for the end of an epoch, `2.50` inside one."""
    return f"{epoch:,.0f}" if epoch == round(epoch) else f"{epoch:,.2f}"


def _with_room(lowest: float, highest: float) -> tuple[float, float]:
    size = max(abs(lowest), abs(highest))
    room = (highest - lowest) * _MARGIN
    if highest - lowest <= max(size * _RELATIVE_TINY, _TINY):
        room = size * _MARGIN if size > _TINY else 0.5
    return lowest - room, highest + room


def _nice_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in _NICE if factor * power >= rough * (1 - 1e-9)), 10 * power)


def _linear_ticks(low: float, high: float, step: float) -> tuple[tuple[float, str], ...]:
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    size = max(abs(low), abs(high))
    is_plain = digits <= -_PLAIN_DECADES.start and size < 10.0**_PLAIN_DECADES.stop
    significant = math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9) + 1
    form = f",.{digits}f" if is_plain else f".{significant}g"
    return tuple((number * step, format(number * step, form)) for number in numbers)


def _log_scale(lowest: float, highest: float, num_ticks: int) -> Scale:
    lacking = max(0.0, _LEAST_DECADES - (highest - lowest)) / 2
    low, high = _with_room(lowest - lacking, highest + lacking)
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = math.ceil(len(decades) / num_ticks) or 1
    factors = (1,) if len(decades) > num_ticks // 2 else (1, 2, 5)
    ticks = [
        (factor * 10.0**decade, _power_label(factor, decade))
        for decade in range(math.floor(low), math.floor(high) + 1)
        for factor in factors
        if decade % every == 0 and low <= decade + math.log10(factor) <= high
    ]
    return Scale(low, high, log=True, ticks=tuple(ticks))


def _power_label(factor: int, decade: int) -> str:
    if decade in _PLAIN_DECADES:
        return f"{factor * 10**decade:,}" if decade >= 0 else f"{factor * 10.0**decade:.{-decade}f}"
    return f"{factor}e{decade}"
