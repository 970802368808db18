"""Finding a loss that became NaN or infinite, without waiting for the device at every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bz.errors import TrainingError

if TYPE_CHECKING:
    from bz.progress import Progress


def refuse_nonfinite(progress: Progress) -> None:
    """Look at the losses of the epoch so far; waits for the device.

    Raises:
        TrainingError: If one is NaN or infinite, with the epoch and the step of the first.
    """
    losses = progress.training_loss
    if math.isfinite(losses.total):
        return
    assert losses.first_nonfinite is not None
    step = progress.global_step - (losses.batch_count - losses.first_nonfinite) + 1
    raise TrainingError(
        f"The loss is NaN or infinite since epoch {progress.epoch}, step {step}; the checkpoints are from before. "
        "Lower the learning rate or clip the gradients, or set `training.on_nonfinite` to skip or ignore."
    )
