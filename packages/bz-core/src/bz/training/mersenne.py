"""Fast snapshots of the Mersenne Twisters of Python and NumPy.

Their public functions take 13 and 41 microseconds to copy 2.5 kB, too slow to stand around every
hook of every batch. Here the same bytes are copied from where they lie. Where they lie is checked
against the public functions first; where that check fails, the public functions are used.
"""

from __future__ import annotations

import ctypes
import pickle
import random
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS: Final = 624
_STATE_BYTES: Final = 4 * (_WORDS + 1)
_PROBE: Final = -0.123456789012345


class PythonRandomState:
    """State of Python's `random` module."""

    name = "state of Python's random"

    def __init__(self) -> None:
        self._generator: Any = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the module
        address = id(self._generator) + object.__basicsize__
        self._address = address if _holds_python_state(address) else None

    def read(self) -> object:
        """Return all of the state, comparable."""
        if self._address is None:
            return random.getstate()
        return ctypes.string_at(self._address, _STATE_BYTES), self._generator.gauss_next

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if self._address is None:
            random.setstate(state)
            return
        words, self._generator.gauss_next = state
        ctypes.memmove(self._address, words, _STATE_BYTES)


def _holds_python_state(address: int) -> bool:
    """Return whether index and words stand at `address`, as in CPython's `RandomObject`."""
    if sys.implementation.name != "cpython":
        return False
    *words, index = random.getstate()[1]
    return ctypes.string_at(address, _STATE_BYTES) == struct.pack(f"=i{_WORDS}I", index, *words)


class NumpyRandomState:
    """State of NumPy's global generator, `numpy.random.seed` and the like."""

    name = "state of NumPy's random"

    def __init__(self) -> None:
        import numpy as np

        self._public: Any = np.random
        self._generator: Any = np.random.get_state.__self__  # type: ignore[attr-defined]  # the global RandomState
        self._pieces = _numpy_pieces(self._generator, np.random.RandomState)

    def read(self) -> object:
        """Return all of the state, comparable."""
        if not self._pieces:
            return pickle.dumps(self._public.get_state(legacy=False))
        return [ctypes.string_at(address, size) for address, size in self._pieces]

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if not self._pieces:
            self._public.set_state(pickle.loads(state))  # noqa: S301 - our own bytes, from a moment ago
            return
        for (address, size), content in zip(self._pieces, state, strict=True):
            ctypes.memmove(address, content, size)


def _numpy_pieces(generator: Any, kind: Callable[[int], Any]) -> list[tuple[int, int]]:
    """Return address and size of the words and of the kept gaussian, or nothing if they were not found."""
    state = generator.get_state(legacy=False)
    offset = _gaussian_offset(kind)
    if state["bit_generator"] != "MT19937" or offset is None:
        return []
    words = generator._bit_generator.ctypes.state_address  # noqa: SLF001 - has no public name
    expected = state["state"]["key"].tobytes() + struct.pack("=i", state["state"]["pos"])
    if ctypes.string_at(words, _STATE_BYTES) != expected:
        return []
    return [(words, _STATE_BYTES), (id(generator) + offset, 16)]


def _gaussian_offset(kind: Callable[[int], Any]) -> int | None:
    """Return where a RandomState keeps `int has_gauss; double gauss`, found by planting a known value."""
    probe = kind(0)
    name, key, position, _, _ = probe.get_state()
    probe.set_state((name, key, position, 1, _PROBE))
    memory = ctypes.string_at(id(probe), type(probe).__basicsize__)
    planted = struct.pack("=d", _PROBE)
    place = memory.find(planted)
    is_unique = place >= 0 and memory.count(planted) == 1
    is_preceded_by_flag = is_unique and memory[place - 8 : place - 4] == struct.pack("=i", 1)
    return place - 8 if is_preceded_by_flag else None
