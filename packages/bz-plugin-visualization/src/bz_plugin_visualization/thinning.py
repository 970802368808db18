"""From any number of epochs to as many points as a picture can show, without losing a peak.

In each column of the picture the first, the lowest, the highest and the last point are kept: the line
through them covers the same columns as the line through all ("M4", Jugel et al., VLDB 2014). The
first value that is no number is kept too, so that a gap stays a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bz_plugin_visualization.history import Curve

POINTS_PER_COLUMN: Final = 5
LARGEST: Final = 1e100
"""A loss beyond this has exploded; it is drawn as a gap, so that the others can be seen."""


class Points(NamedTuple):
    """The points of a curve that are drawn: epochs, and values in which NaN makes a gap."""

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def finite(self) -> NDArray[np.float64]:
        """The values without the gaps."""
        return self.values[~np.isnan(self.values)]

    def lonely(self) -> NDArray[np.intp]:
        """Return the indexes of points with a gap on both sides, which no line shows."""
        is_there = np.pad(~np.isnan(self.values), 1)
        return np.flatnonzero(is_there[1:-1] & ~is_there[:-2] & ~is_there[2:])


def thin(curve: Curve, num_columns: int, *, positive: bool = False) -> Points:
    """Return at most `POINTS_PER_COLUMN * num_columns` points of a curve.

    Args:
        curve: With at least one value.
        num_columns: Width of the picture, in columns that are not told apart in it.
        positive: Whether only values above 0 can be drawn, as on a logarithmic axis.
    """
    epochs = np.frombuffer(curve.epochs, dtype=np.float64)
    values = np.frombuffer(curve.values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        drawable = (values > 0 if positive else values >= -LARGEST) & (values <= LARGEST)
    values = np.where(drawable, values, np.nan)
    if len(epochs) > POINTS_PER_COLUMN * num_columns:
        kept = _kept(epochs, values, num_columns)
        epochs, values = epochs[kept], values[kept]
    return Points(epochs.copy(), values)


def _kept(epochs: NDArray[np.float64], values: NDArray[np.float64], num_columns: int) -> NDArray[np.intp]:
    """Return the indexes of the points to keep, ascending."""
    share = (epochs[-1] - epochs[0]) / (len(epochs) - 1)  # of the axis, for the last of the points
    column = ((epochs - epochs[0]) * num_columns / (epochs[-1] - epochs[0] + share)).astype(np.int64)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    lengths = np.diff(starts, append=len(epochs))
    lowest = np.repeat(np.fmin.reduceat(values, starts), lengths)
    highest = np.repeat(np.fmax.reduceat(values, starts), lengths)
    firsts = [_first_in_column(column, mask) for mask in (values == lowest, values == highest, np.isnan(values))]
    return np.unique(np.concatenate([starts, starts + lengths - 1, *firsts]))


def _first_in_column(column: NDArray[np.int64], mask: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index of the first true value of each column that has one."""
    indexes = np.flatnonzero(mask)
    _, first = np.unique(column[indexes], return_index=True)
    return indexes[first]
