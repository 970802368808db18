"""Fast snapshots of the Mersenne Twisters of Python, NumPy and torch's CPU.

Their public functions take 13, 41 and 2 microseconds to copy 2.5 kB, too slow to stand around every
hook of every batch. Here the same bytes are looked at where they lie. Where they lie is checked
against the public functions first; where that check fails, the public functions are used.

The marks of a state are the few bytes that no draw leaves as they were: the index of the next word,
which every draw moves, and some of the words, which are all new after 624 of them.
"""

from __future__ import annotations

import ctypes
import pickle
import random
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch

Mark = Callable[[], object]
"""Returns something to compare; called around every hook, so it is one function of C."""

_WORDS: Final = 624
_WORDS_BYTES: Final = 4 * _WORDS
_TWISTER_BYTES: Final = _WORDS_BYTES + 4
"""The words with the index of the next one, before or behind them."""
_MARK_BYTES: Final = 16
"""The index and three of the words beside it."""
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

    def mark(self, part: slice = slice(None)) -> Mark:
        """Return what copies a part of them."""
        return memoryview(self._array)[part].tobytes


class PythonRandomState:
    """State of Python's `random` module."""

    name = "state of Python's random"

    def __init__(self) -> None:
        self._generator: Any = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the module
        self._twister = _python_twister(self._generator)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Calls that tell together whether anything was drawn or set."""
        if self._twister is None:
            return (random.getstate,)
        return self._twister.mark(slice(_MARK_BYTES)), partial(getattr, self._generator, "gauss_next")

    def read(self) -> object:
        """Return all of the state, comparable."""
        if self._twister is None:
            return random.getstate()
        return self._twister.read(), self._generator.gauss_next

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if self._twister is None:
            random.setstate(state)
            return
        words, self._generator.gauss_next = state
        self._twister.write(words)


def _python_twister(generator: Any) -> _Memory | None:
    """Return index and words where CPython's `RandomObject` has them, or None if they are not there."""
    if sys.implementation.name != "cpython":
        return None
    twister = _Memory(id(generator) + object.__basicsize__, _TWISTER_BYTES)
    *words, index = random.getstate()[1]
    return twister if twister.read() == struct.pack(f"=i{_WORDS}I", index, *words) else None


class NumpyRandomState:
    """State of NumPy's global generator, `numpy.random.seed` and the like; None where there is no NumPy.

    Torch imports NumPy where it is installed.
    """

    name = "state of NumPy's random"

    def __init__(self) -> None:
        self._public: Any = sys.modules["numpy"].random if "numpy" in sys.modules else None
        self._parts = None if self._public is None else _numpy_parts(self._public)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Calls that tell together whether anything was drawn or set."""
        if self._parts is None:
            return (self.read,)
        twister, gaussian = self._parts
        return twister.mark(slice(-_MARK_BYTES, None)), gaussian.mark()

    def read(self) -> object:
        """Return all of the state, comparable."""
        if self._parts is not None:
            twister, gaussian = self._parts
            return twister.read(), gaussian.read()
        return None if self._public is None else pickle.dumps(self._public.get_state(legacy=False))

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if self._parts is not None:
            for memory, content in zip(self._parts, state, strict=True):
                memory.write(content)
        elif self._public is not None:
            self._public.set_state(pickle.loads(state))  # noqa: S301 - our own bytes, from a moment ago


def _numpy_parts(public: Any) -> tuple[_Memory, _Memory] | None:
    """Return where words with index, and the kept gaussian lie, or None if they were not found."""
    generator = public.get_state.__self__  # the global RandomState
    state = generator.get_state(legacy=False)
    offset = _gaussian_offset(public.RandomState)
    if state["bit_generator"] != "MT19937" or offset is None:
        return None
    address = generator._bit_generator.ctypes.state_address  # noqa: SLF001 - has no public name
    twister = _Memory(address, _TWISTER_BYTES)
    if twister.read() != state["state"]["key"].tobytes() + struct.pack("=i", state["state"]["pos"]):
        return None
    return twister, _Memory(id(generator) + offset, _GAUSSIAN_BYTES)


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


class TorchRandomState:
    """State of torch's CPU generator."""

    name = "state of torch's random"

    def __init__(self) -> None:
        self._engine = _torch_engine(torch.default_generator)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Calls that tell together whether anything was drawn or set."""
        return (partial(_public_bytes, torch.default_generator),) if self._engine is None else self._engine.marks

    def read(self) -> object:
        """Return all of the state, comparable."""
        return _public_bytes(torch.default_generator) if self._engine is None else self._engine.read()

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        if self._engine is None:
            torch.default_generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
        else:
            self._engine.write(state)


class _TorchEngine:
    """What a `CPUGeneratorImpl` of torch holds, as one piece of memory.

    That is seed, numbers left, index, 624 words, and the normal numbers that are kept for the next
    draw, one of single and one of double precision. What lies between these, and in the place of a
    number that is not kept, is left over from other things and says nothing.
    """

    HEAD: Final = struct.Struct("=Qi?")
    TWISTER_OFFSET: Final = 16
    NORMALS_OFFSET: Final = TWISTER_OFFSET + _TWISTER_BYTES + 4
    NORMALS_BYTES: Final = 24

    def __init__(self, address: int) -> None:
        self._head = _Memory(address, self.HEAD.size)
        self._twister = _Memory(address + self.TWISTER_OFFSET, _TWISTER_BYTES)
        self._single = _Optional(address + self.NORMALS_OFFSET, ctypes.c_float)
        self._double = _Optional(address + self.NORMALS_OFFSET + 8, ctypes.c_double)
        beginning = _Memory(address, self.TWISTER_OFFSET + _MARK_BYTES)
        self.marks = beginning.mark(), _Memory(address + self.NORMALS_OFFSET, self.NORMALS_BYTES).mark()

    def read(self) -> object:
        """Return everything, comparable."""
        return self._head.read(), self._twister.read(), self._single.read(), self._double.read()

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""
        head, words, single, double = state
        self._head.write(head)
        self._twister.write(words)
        self._single.write(single)
        self._double.write(double)

    def holds(self, head: tuple[int, int, bool], words: bytes, index: int) -> bool:
        """Return whether these are the seed, the numbers left and whether it was seeded; the words and the index."""
        is_same_head = self.HEAD.unpack(self._head.read()) == head
        return is_same_head and self._twister.read() == struct.pack("=i", index) + words


class _Optional:
    """A C++ `optional` of a number where it lies: the number, then whether there is one."""

    def __init__(self, address: int, kind: type[ctypes.c_float | ctypes.c_double]) -> None:
        self._number = kind.from_address(address)
        self._is_there = ctypes.c_bool.from_address(address + ctypes.sizeof(kind))

    def read(self) -> float | None:
        """Return the number, or None."""
        return self._number.value if self._is_there.value else None

    def write(self, number: float | None) -> None:
        """Put back what `read` returned."""
        self._is_there.value = number is not None
        if number is not None:
            self._number.value = number


_LEGACY_HEAD: Final = struct.Struct("=QiiQ")
"""How `Generator.get_state` begins: seed, numbers left, whether it was seeded, index; then the words as 64 bits."""
_OFFSETS: Final = range(64, 160, 8)
"""Where the engine may begin in the object, behind what all generators of torch have."""


def _torch_engine(generator: torch.Generator) -> _TorchEngine | None:
    """Return where the state of a CPU generator lies, or None if it is not found or is not all of the state."""
    probe = torch.Generator()
    offset = next((offset for offset in _OFFSETS if _is_engine(probe, offset)), None)
    if offset is None or not _is_engine(generator, offset) or not _is_complete(probe, _engine(probe, offset)):
        return None
    return _engine(generator, offset)


def _public_bytes(generator: torch.Generator) -> bytes:
    state = generator.get_state()
    return ctypes.string_at(state.data_ptr(), state.numel())


def _engine(generator: torch.Generator, offset: int) -> _TorchEngine:
    return _TorchEngine(generator._cdata + offset)  # type: ignore[attr-defined]  # noqa: SLF001 - has no public name


def _is_engine(generator: torch.Generator, offset: int) -> bool:
    state = _public_bytes(generator)
    seed, left, is_seeded, index = _LEGACY_HEAD.unpack_from(state)
    words = struct.unpack_from(f"={_WORDS}Q", state, _LEGACY_HEAD.size)
    head = (seed, left, bool(is_seeded))
    return _engine(generator, offset).holds(head, struct.pack(f"={_WORDS}I", *words), index)


def _is_complete(probe: torch.Generator, engine: _TorchEngine) -> bool:
    """Return whether each kind of draw shows in what is read, and is undone when it is written back."""
    draws: list[Callable[[], object]] = [
        lambda: torch.rand(1, generator=probe),
        lambda: torch.rand(1000, generator=probe),
        lambda: torch.randn(1, generator=probe),
        lambda: torch.randn(1, generator=probe, dtype=torch.float64),
        lambda: probe.manual_seed(7),
    ]
    for draw in draws:
        public, before = probe.get_state(), engine.read()
        draw()
        if engine.read() == before:
            return False
        engine.write(before)
        if not torch.equal(probe.get_state(), public):
            return False
        draw()
    return True
