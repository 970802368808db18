"""A running mean of the losses."""

from __future__ import annotations


class RunningMean:
    """The exponentially weighted mean of all values so far, without the bias of having begun at zero.

    The correction is that of Kingma and Ba, "Adam", 2014, section 3: divided by the sum of the weights.

    Args:
        weight: That of the earlier values, 0 to below 1.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._sum = self._sum_of_weights = 0.0

    def add(self, value: float, size: float = 1.0) -> float:
        """Take in a value, which counts as often as its size says, and return the mean."""
        self._sum = self._weight * self._sum + (1 - self._weight) * size * value
        self._sum_of_weights = self._weight * self._sum_of_weights + (1 - self._weight) * size
        return self._sum / self._sum_of_weights
