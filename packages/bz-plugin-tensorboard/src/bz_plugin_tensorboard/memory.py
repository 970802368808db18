"""How much of the accelerator's memory is in use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

MIB: Final = 2**20
READINGS: Final = {
    "allocated": ("memory_allocated", "current_allocated_memory"),
    "allocated_peak": ("max_memory_allocated",),
    "reserved": ("memory_reserved", "driver_allocated_memory"),
}


def device_memory(device: torch.device) -> Iterator[tuple[str, float]]:
    """Yield tag and MiB for what torch counts on this device; nothing for a CPU. Does not wait for the device."""
    import torch

    if device.type == "cpu":
        return
    module = torch.get_device_module(device)
    for name, functions in READINGS.items():
        for function in functions:
            if hasattr(module, function):
                yield f"device_memory_mib/{name}", getattr(module, function)() / MIB
                break
