"""Everything that a test changes in a script, kept and put back."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch


@contextmanager
def kept_as_they_are(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any], device: torch.device
) -> Iterator[None]:
    """Put model, optimizer, random states and the generators of the loader back when the block ends, however it ends.

    Args:
        model: May be moved to another device inside the block.
        optimizer: Over the parameters of the model.
        loader: May be walked inside the block.
        device: Where random numbers may be drawn, too.
    """
    import torch

    from bz.training.data import EpochData
    from bz.training.seeding import random_state, restore_random_state

    if device.type != "cpu":
        torch.empty(0, device=device)  # an accelerator has no random state to keep before it was used
    tensors = _Tensors(model)
    modules, groups = _Modules(model), _OptimizerState(optimizer)
    random, order = random_state(), EpochData(loader).state_dict(is_inside_epoch=False)
    try:
        yield
    finally:
        tensors.restore()
        modules.restore()
        groups.restore()
        EpochData(loader).load_state_dict(order)
        restore_random_state(random)


class _Tensors:
    """The parameters and their gradients."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._kept = [
            (parameter, parameter.detach().clone(), None if parameter.grad is None else parameter.grad.clone())
            for parameter in model.parameters()
        ]

    def restore(self) -> None:
        for parameter, value, gradient in self._kept:
            if parameter.device == value.device:
                parameter.data.copy_(value)
            else:
                parameter.data = value
            parameter.grad = gradient


class _Modules:
    """Mode, buffers and extra state of every module."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._kept = [(module, module.training, _buffers(module), _extra_state(module)) for module in model.modules()]

    def restore(self) -> None:
        for module, is_training, buffers, extra in self._kept:
            module.training = is_training
            for name, (buffer, value) in buffers.items():
                # The very tensor, which moving the model to another device replaces.
                module._buffers[name] = None if buffer is None else buffer.copy_(value)  # noqa: SLF001 - see _buffers
            if extra is not None:
                module.set_extra_state(extra)


def _buffers(module: torch.nn.Module) -> dict[str, Any]:
    """Return each buffer of a module with a copy; those that no state_dict holds, too."""
    own = module._buffers.items()  # noqa: SLF001 - `named_buffers` leaves out None, and names it without the dict
    return {name: (buffer, None if buffer is None else buffer.detach().clone()) for name, buffer in own}


def _extra_state(module: torch.nn.Module) -> Any:
    import torch

    has_own = type(module).get_extra_state is not torch.nn.Module.get_extra_state
    return copy.deepcopy(module.get_extra_state()) if has_own else None


class _OptimizerState:
    """State and groups of an optimizer; not through its `load_state_dict`, which casts some of them."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._state = {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
        self._groups = [
            {key: (value, copy.deepcopy(value)) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]

    def restore(self) -> None:
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)
        for group, kept in zip(self._optimizer.param_groups, self._groups, strict=True):
            for key, (value, former) in kept.items():
                # A learning rate that is a tensor stays the same tensor: a scheduler may hold it.
                group[key] = value.copy_(former) if hasattr(value, "copy_") else former
