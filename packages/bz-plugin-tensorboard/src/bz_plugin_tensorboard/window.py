"""The losses of the batches that make one optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


class WindowLosses:
    """Collects losses on their device until the step is made, and then has their mean.

    Args:
        step: The last step of which the loss was taken.
        losses: Those of the batches since then, as they were saved.
    """

    def __init__(self, step: int = 0, losses: Iterable[float] = ()) -> None:
        self._step = step
        self._earlier = list(losses)
        self._losses: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor | None, step: int) -> bool:
        """Add the loss of a batch; return whether a step was made since the last time."""
        is_step = step != self._step
        self._step = step
        if loss is not None:
            # A captured graph would overwrite it; one that is taken at once is copied by whoever takes it.
            self._losses.append(loss if is_step else loss.clone())
        return is_step

    def take(self) -> torch.Tensor | None:
        """Return the mean loss of the step that was made, on its device; None if no loss is known."""
        losses, self._losses = self._losses, []
        if len(losses) == 1 and not self._earlier:
            return losses[0]
        import torch

        device = losses[0].device if losses else None
        losses = [*torch.tensor(self._earlier, device=device), *losses]
        self._earlier = []
        return torch.stack([loss.float() for loss in losses]).mean() if losses else None

    def state_dict(self) -> dict[str, Any]:
        """Return what was not taken yet as plain numbers; waits for the device."""
        return {"step": self._step, "window": [*self._earlier, *(loss.item() for loss in self._losses)]}
