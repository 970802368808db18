"""The number format of the forward pass, through torch's autocast and gradient scaler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PrecisionName = Literal["fp32", "bf16", "fp16"]
_AUTOCAST_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How forward passes are made in one number format.

    Attributes:
        device_type: `cpu`, `cuda` and so on.
        scaler: The gradient scaler of `fp16`, or None.
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self._dtype = _AUTOCAST_DTYPES.get(name)
        self.device_type = device.type
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def is_full(self) -> bool:
        """Whether nothing has to be cast, so that the forward pass needs no context."""
        return self._dtype is None

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of one forward pass; not for `fp32`."""
        context: AbstractContextManager[None] = torch.autocast(self.device_type, dtype=self._dtype)
        return context
