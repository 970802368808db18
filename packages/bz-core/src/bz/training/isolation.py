"""What a plugin must leave as it found it, so that weights are bit-equal with and without it.

Each class here is a `bz.plugins.guard.WatchedState`: its marks are looked at before and after hooks,
and where they moved it is written back. None of that waits for a device, unless a CUDA state is to
be written.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from bz.training.mersenne import NumpyRandomState, PythonRandomState, TorchRandomState

if TYPE_CHECKING:
    from bz.training.mersenne import Mark


def watched_states(model: torch.nn.Module, device: torch.device) -> list[Any]:
    """Return everything that bz keeps as it is across the hooks of a run."""
    states: list[Any] = [TorchRandomState(), PythonRandomState(), NumpyRandomState()]
    if device.type == "cuda":
        states.append(CudaRandomState(device))
    return [*states, ModuleModes(model), GradMode(), DefaultDtype(), WorkingDirectory()]


class CudaRandomState:
    """Seed and offset of the generator of one CUDA device; both are kept on the host."""

    name = "state of torch's random on the device"

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.cuda.default_generators[device.index or 0]
        self.marks: tuple[Mark, ...] = self._generator.initial_seed, self._generator.get_offset

    def read(self) -> tuple[int, int]:
        """Return seed and offset."""
        return self._generator.initial_seed(), self._generator.get_offset()

    def write(self, state: tuple[int, int]) -> None:
        """Put back what `read` returned."""
        seed, offset = state
        self._generator.manual_seed(seed)
        self._generator.set_offset(offset)


class ModuleModes:
    """Train or eval mode of the model and of every module in it."""

    name = "train/eval mode of the model"

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = tuple(model.modules())
        self.marks: tuple[Mark, ...] = (self.read,)

    def read(self) -> list[bool]:
        """Return the mode of each module."""
        return [module.training for module in self._modules]

    def write(self, state: list[bool]) -> None:
        """Put back what `read` returned."""
        for module, is_training in zip(self._modules, state, strict=True):
            module.training = is_training


class GradMode:
    """Whether autograd records operations."""

    name = "grad mode"
    marks: tuple[Mark, ...] = (torch.is_grad_enabled,)

    def read(self) -> bool:
        """Return whether gradients are on."""
        return torch.is_grad_enabled()

    def write(self, state: bool) -> None:  # noqa: FBT001 - the state is a boolean
        """Put back what `read` returned."""
        torch.set_grad_enabled(state)


class DefaultDtype:
    """The dtype of new floating point tensors."""

    name = "default dtype"
    marks: tuple[Mark, ...] = (torch.get_default_dtype,)

    def read(self) -> torch.dtype:
        """Return the default dtype."""
        return torch.get_default_dtype()

    def write(self, state: torch.dtype) -> None:
        """Put back what `read` returned."""
        torch.set_default_dtype(state)


class WorkingDirectory:
    """The directory that relative paths start from.

    The interpreter reports each `os.chdir` to an audit hook, which notes where the process was:
    asking the operating system before and after every hook would take longer than most hooks.
    """

    name = "working directory"

    def __init__(self) -> None:
        _listen()
        self.marks: tuple[Mark, ...] = (_former_directories.__len__,)

    def read(self) -> int:
        """Return how often the directory was changed in this process."""
        return len(_former_directories)

    def write(self, state: int) -> None:
        """Go back to where the process was before the changes since `read`."""
        os.chdir(_former_directories[state])


_former_directories: list[str] = []
"""Where the process was before each `os.chdir`, from the first session on."""


@functools.cache
def _listen() -> None:
    """Begin to listen, once in a process: an audit hook cannot be taken away."""
    sys.addaudithook(_note_chdir)


def _note_chdir(event: str, _arguments: tuple[object, ...]) -> None:
    if event == "os.chdir":
        try:
            _former_directories.append(os.getcwd())  # noqa: PTH109 - text, as os.chdir takes it
        except FileNotFoundError:  # it was deleted
            _former_directories.append(os.sep)
