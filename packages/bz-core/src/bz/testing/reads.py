"""Counting what a training reads from its device, where that takes no time: on the CPU."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bz.training.device import stands_for_accelerator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

_METHODS: Final = {"__array__", "__repr__", "cpu", "numpy", "tolist"}
"""Methods of tensors that copy all of a tensor to the host; on the CPU they reach no operator."""

_FROM_NUMBERS: Final = {torch.tensor, torch.as_tensor}
"""Functions that read one by one the tensors in a list."""

_OPERATORS: Final = {
    torch.ops.aten._local_scalar_dense,  # noqa: SLF001 - what `item`, `float`, `bool`, `if` and formatting call
    torch.ops.aten._unique2,  # noqa: SLF001 - its name
    torch.ops.aten.allclose,
    torch.ops.aten.bincount,
    torch.ops.aten.equal,
    torch.ops.aten.masked_select,
    torch.ops.aten.nonzero,
    torch.ops.aten.repeat_interleave,
    torch.ops.aten.unique_consecutive,
    torch.ops.aten.unique_dim,
}
"""Operators whose result, or its shape, the host has to know."""

_TORCH: Final = str(Path(torch.__file__).parent)


class DeviceReads:
    """Counts, as a context manager, how often this thread would wait for a device if the tensors were on one.

    All tensors count as tensors of a device; those that are on the host in any case, such as the
    step number of Adam, have to be left out of what is measured. Threads of their own are not seen.
    A training that begins meanwhile reads as on an accelerator: on the CPU, where that costs
    nothing, it reads the loss of each batch.

    Attributes:
        places: How often each place in the code read, as `file.py:12 function`.
    """

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self._modes = ExitStack()
        self._is_counting = True

    @property
    def total(self) -> int:
        """Number of reads."""
        return self.places.total()

    def __enter__(self) -> Self:
        """Begin to count."""
        token = stands_for_accelerator.set(True)
        self._modes.callback(stands_for_accelerator.reset, token)
        self._modes.enter_context(_FunctionWatch(self))
        self._modes.enter_context(_OperatorWatch(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count no longer."""
        self._modes.close()

    def during(self, call: Callable[[], Any], *, is_read: bool) -> Any:
        """Return what `call` returns; a read counts once, whatever it is made of."""
        if not is_read or not self._is_counting:
            return call()
        self.places[_place()] += 1
        self._is_counting = False
        try:
            return call()
        finally:
            self._is_counting = True


class _FunctionWatch(TorchFunctionMode):
    """Sees the methods of tensors."""

    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        is_method = getattr(func, "__name__", "") in _METHODS
        is_read = is_method or _is_copy_to_host(func, args, kwargs or {}) or _reads_list(func, args)
        return self._reads.during(lambda: func(*args, **kwargs or {}), is_read=is_read)


class _OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it without types
    """Sees the operators of torch, whoever called them."""

    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        is_read = func.overloadpacket in _OPERATORS or _has_mask(func, args)
        return self._reads.during(lambda: func(*args, **kwargs or {}), is_read=is_read)


def _is_copy_to_host(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the host is named as the target: an object may well be the device of the training."""
    targets = *args[1:2], kwargs.get("device")
    return func is torch.Tensor.to and any(isinstance(target, str) and target == "cpu" for target in targets)


def _reads_list(func: Any, args: Sequence[Any]) -> bool:
    if func not in _FROM_NUMBERS or not isinstance(args[0], list | tuple):
        return False
    return any(isinstance(item, torch.Tensor) for item in args[0])


def _has_mask(func: Any, args: Sequence[Any]) -> bool:
    """Whether a tensor is indexed with a mask: how many elements that gives, the host has to know."""
    if func.overloadpacket is not torch.ops.aten.index:
        return False
    return any(index is not None and index.dtype in {torch.bool, torch.uint8} for index in args[1])


def _place() -> str:
    """Return the innermost place outside torch and this module."""
    frame = sys._getframe(1)  # noqa: SLF001 - the call stack
    while frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(_TORCH):
        assert frame.f_back is not None
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
