"""Where a run computes: choosing the device and moving batches to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import torch

from bz.errors import ConfigError

stands_for_accelerator: Final[ContextVar[bool]] = ContextVar("stands_for_accelerator", default=False)
"""Whether the CPU is treated as a device that has to be waited for, to see what would be read from one."""


def reads_wait(device: torch.device) -> bool:
    """Return whether reading a number on this device waits for it, so that numbers are better collected."""
    return device.type != "cpu" or stands_for_accelerator.get()


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means; `auto` is the accelerator of this machine, else the CPU.

    Raises:
        ConfigError: If there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    available = _available_devices(accelerator)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _no_such_device(name, available) from error
    if str(device) not in available:
        raise _no_such_device(name, available)
    return device


def _available_devices(accelerator: torch.device | None) -> list[str]:
    if accelerator is None:
        return ["cpu", "cpu:0"]
    numbered = [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    return ["cpu", "cpu:0", accelerator.type, *numbered]


def _no_such_device(name: str, available: list[str]) -> ConfigError:
    listed = ", ".join(device for device in ("auto", *available) if device != "cpu:0")
    message = f"`training.device` is {name!r}, which is not there; available: {listed}."
    return ConfigError(message, option="training.device")


def move_to_device(value: Any, device: torch.device) -> Any:
    """Return `value` with every tensor in it on `device`; what holds no tensors stays as it is.

    Tensors, mappings, lists, tuples, named tuples, dataclasses and objects with a method
    `to(device)` are followed to any depth. Copies from pinned memory do not wait for the device.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if callable(getattr(value, "to", None)):
        return value.to(device)
    if isinstance(value, Mapping):
        moved = {key: move_to_device(item, device) for key, item in value.items()}
        return moved if type(value) is dict else type(value)(moved)  # type: ignore[call-arg]  # as mappings are built
    if isinstance(value, list | tuple):
        items = [move_to_device(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: move_to_device(getattr(value, f.name), device) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
