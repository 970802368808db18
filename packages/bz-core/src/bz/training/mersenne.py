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
_GAUSSIAN_BYTES: Final = 16
_PROBE: Final = -0.123456789012345


class _Memory:
    """Some bytes where they lie."""

    def __init__(self, address: int, size_bytes: int) -> None:
        self._array = (ctypes.c_char * size_bytes).from_address(address)

    def read(self) -> bytes:
        """Return a copy."""
        return self._array.raw

    def write(self, content: bytes) -> None:
        """Overwrite them."""
        self._array.raw = content


class PythonRandomState:
    """State of Python's `random` module."""

    name = "state of Python's random"

    def __init__(self) -> None:
        self._generator: Any = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the module
        memory = _Memory(id(self._generator) + object.__basicsize__, _STATE_BYTES)
        self._memory = memory if _holds_python_state(memory) else None

    def read(self) -> object:
        """Return all of the state, comparable."""
        if self._memory is None:
            return random.getstate()
        return self._memory.read(), self._generator.gauss_next

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if self._memory is None:
            random.setstate(state)
            return
        words, self._generator.gauss_next = state
        self._memory.write(words)


def _holds_python_state(memory: _Memory) -> bool:
    """Return whether index and words stand there, as in CPython's `RandomObject`."""
    if sys.implementation.name != "cpython":
        return False
    *words, index = random.getstate()[1]
    return memory.read() == struct.pack(f"=i{_WORDS}I", index, *words)


class NumpyRandomState:
    """State of NumPy's global generator, `numpy.random.seed` and the like; None until NumPy is imported."""

    name = "state of NumPy's random"

    def __init__(self) -> None:
        self._public: Any = None
        self._pieces: list[_Memory] = []

    def read(self) -> object:
        """Return all of the state, comparable."""
        if self._public is None and not self._find():
            return None
        if not self._pieces:
            return pickle.dumps(self._public.get_state(legacy=False))
        return [piece.read() for piece in self._pieces]

    def _find(self) -> bool:
        if "numpy" not in sys.modules:
            return False
        self._public = sys.modules["numpy"].random
        self._pieces = _numpy_pieces(self._public)
        return True

    def write(self, state: Any) -> None:
        """Put back what `read` returned; nothing if NumPy was imported since."""
        if state is None:
            return
        if not self._pieces:
            self._public.set_state(pickle.loads(state))  # noqa: S301 - our own bytes, from a moment ago
            return
        for piece, content in zip(self._pieces, state, strict=True):
            piece.write(content)


def _numpy_pieces(public: Any) -> list[_Memory]:
    """Return where the words and the kept gaussian lie, or nothing if they were not found."""
    generator = public.get_state.__self__  # the global RandomState
    state = generator.get_state(legacy=False)
    offset = _gaussian_offset(public.RandomState)
    if state["bit_generator"] != "MT19937" or offset is None:
        return []
    words = _Memory(generator._bit_generator.ctypes.state_address, _STATE_BYTES)  # noqa: SLF001 - has no public name
    if words.read() != state["state"]["key"].tobytes() + struct.pack("=i", state["state"]["pos"]):
        return []
    return [words, _Memory(id(generator) + offset, _GAUSSIAN_BYTES)]


def _gaussian_offset(kind: Callable[[int], Any]) -> int | None:
    """Return where a RandomState keeps `int has_gauss; double gauss`, found by planting a known value."""
    probe = kind(0)
    name, key, position, _, _ = probe.get_state()
    probe.set_state((name, key, position, 1, _PROBE))
    memory = _Memory(id(probe), type(probe).__basicsize__).read()
    planted = struct.pack("=d", _PROBE)
    place = memory.find(planted)
    is_unique = place >= 0 and memory.count(planted) == 1
    is_preceded_by_flag = is_unique and memory[place - 8 : place - 4] == struct.pack("=i", 1)
    return place - 8 if is_preceded_by_flag else None
