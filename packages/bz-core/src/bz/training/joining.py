"""Batches that wait until metrics take in several of them as one, where that gives the same values.

An update costs a small model's step nearly as much for one batch as for sixteen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BATCHES: Final = 16
MOST_BYTES: Final = 1 << 16
"""Size of a batch, outputs and targets together, from which on copying it would cost more than is saved."""

_COUNTING_SAMPLES: Final = {"MulticlassStatScores", "MulticlassConfusionMatrix"}
"""Classes of torchmetrics, base of most for several classes, that add up whole numbers, sample by sample.

Those for two classes or several labels decide batch by batch whether they are given probabilities.
"""


def joins_batches(metric: object) -> bool:
    """Return whether a metric comes out the same when it is given several batches as one.

    It says so itself with `joins_batches`; of torchmetrics' own those are known that count samples.
    """
    own = getattr(metric, "joins_batches", None)
    if own is not None:
        return bool(own)
    bases = {base.__name__ for base in type(metric).__mro__}
    if not type(metric).__module__.startswith("torchmetrics.") or bases.isdisjoint(_COUNTING_SAMPLES):
        return False
    states: dict[str, Any] = metric.metric_state  # type: ignore[attr-defined]  # torchmetrics' base class has it
    return all(isinstance(state, torch.Tensor) for state in states.values())


class WaitingBatches:
    """Copies of batches; at most `MOST_BATCHES`, then they have to be taken in.

    They are copies since a loader may fill the same tensors again, and a captured graph overwrites
    its outputs at the next replay.
    """

    def __init__(self) -> None:
        self._outputs: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def add(self, outputs: Any, targets: Any) -> int:
        """Copy a batch on its device; return how many wait now, 0 if this one cannot: large, or not two tensors."""
        if not isinstance(outputs, torch.Tensor) or not isinstance(targets, torch.Tensor):
            return 0
        if outputs.nbytes + targets.nbytes > MOST_BYTES:
            return 0
        self._outputs.append(outputs.detach().clone())
        self._targets.append((targets.detach() if targets.requires_grad else targets).clone())
        return len(self._outputs)

    def joined(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Return outputs and targets of all as one batch, or one by one where they differ in more than their number."""
        if len(self._outputs) > 1 and _are_alike(self._outputs) and _are_alike(self._targets):
            return [(torch.cat(self._outputs), torch.cat(self._targets))]
        return zip(self._outputs, self._targets, strict=True)

    def clear(self) -> None:
        """Forget them."""
        self._outputs.clear()
        self._targets.clear()


def _are_alike(tensors: Sequence[torch.Tensor]) -> bool:
    """Return whether samples of these can stand in one tensor just as they are."""
    kinds = {(tensor.dtype, tensor.device, tensor.shape[1:]) for tensor in tensors}
    return len(kinds) == 1 and tensors[0].dim() > 0
