"""The learning rates of an optimizer's parameter groups, set together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz.errors import ScriptError

if TYPE_CHECKING:
    import torch


class GroupRates:
    """Sets the learning rate of every group, in the ratio that the groups were built with.

    The group with the highest rate gets the rate itself. A scheduler that was built over the optimizer may have
    changed the rates already; what they were is in `initial_lr`, where torch's schedulers keep it.

    Attributes:
        base: The highest rate that a group was built with.

    Raises:
        ScriptError: If a group has no learning rate that is a number.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._groups: list[dict[str, Any]] = optimizer.param_groups
        rates = [_built_with(optimizer, group) for group in self._groups]
        self.base = max(rates)
        # Groups that all begin at 0 wait for a scheduler of the script's own, which does not act here.
        self._ratios = [rate / self.base if self.base else 1.0 for rate in rates]
        self._expected: list[float] = []

    def set(self, rate: float) -> None:
        """Give each group its part of this rate; one that is a tensor stays the same tensor."""
        for group, ratio in zip(self._groups, self._ratios, strict=True):
            if _is_tensor(group["lr"]):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio
        self._expected = self._read()

    def is_untouched(self) -> bool:
        """Return whether nobody else has changed a rate since `set`."""
        return self._read() == self._expected

    def _read(self) -> list[float]:
        return [float(group["lr"]) for group in self._groups]


def _built_with(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    rate = group.get("initial_lr", group.get("lr"))
    if "lr" not in group or isinstance(rate, bool) or not (_is_tensor(rate) or isinstance(rate, int | float)):
        raise ScriptError(
            f"The optimizer {type(optimizer).__name__} has the learning rate {group.get('lr')!r} in a parameter group; "
            "lr-find needs one that is a number."
        )
    return float(rate)  # type: ignore[arg-type]  # which was just checked


def _is_tensor(rate: object) -> bool:
    return hasattr(rate, "fill_")
