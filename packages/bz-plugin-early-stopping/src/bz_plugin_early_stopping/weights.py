"""A copy of a model's weights in the memory of the host."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def copy_weights(model: torch.nn.Module) -> dict[str, Any]:
    """Return a copy of all parameters and buffers on the CPU; waits for the device."""
    import torch

    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }
