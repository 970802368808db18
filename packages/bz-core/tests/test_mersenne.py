"""Random states looked at where they lie, and through the public functions where that is not possible."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bz.training.mersenne import NumpyRandomState, PythonRandomState, TorchRandomState

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON: dict[str, Callable[[], Any]] = {
    "random": random.random,
    "gauss": lambda: random.gauss(0, 1),
    "bytes": lambda: random.randbytes(5000),
    "seed": lambda: random.seed(7),
}
NUMPY: dict[str, Callable[[], Any]] = {
    "rand": np.random.rand,
    "randn": np.random.randn,
    "many": lambda: np.random.rand(2000),
    "seed": lambda: np.random.seed(7),
}
TORCH: dict[str, Callable[[], Any]] = {
    "rand": lambda: torch.rand(1),
    "randn": lambda: torch.randn(1),
    "randn of double precision": lambda: torch.randn(1, dtype=torch.float64),
    "many": lambda: torch.rand(2000),
    "seed": lambda: torch.manual_seed(7),
}


def python_fallback() -> PythonRandomState:
    state = PythonRandomState()
    state._twister = None
    return state


def numpy_fallback() -> NumpyRandomState:
    state = NumpyRandomState()
    state._parts = None
    return state


def torch_fallback() -> TorchRandomState:
    state = TorchRandomState()
    state._engine = None
    return state


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Callable[[], Any]], Callable[[], bytes]]] = {
    "python": (PythonRandomState, PYTHON, lambda: repr(random.getstate()).encode()),
    "python, public": (python_fallback, PYTHON, lambda: repr(random.getstate()).encode()),
    "numpy": (NumpyRandomState, NUMPY, lambda: repr(np.random.get_state(legacy=False)).encode()),
    "numpy, public": (numpy_fallback, NUMPY, lambda: repr(np.random.get_state(legacy=False)).encode()),
    "torch": (TorchRandomState, TORCH, lambda: bytes(torch.get_rng_state().tolist())),
    "torch, public": (torch_fallback, TORCH, lambda: bytes(torch.get_rng_state().tolist())),
}


@pytest.mark.skipif(sys.implementation.name != "cpython" or sys.platform != "linux", reason="only checked there")
def test_states_are_found_in_memory() -> None:
    found = PythonRandomState()._twister, NumpyRandomState()._parts, TorchRandomState()._engine
    assert None not in found


@pytest.mark.parametrize("kind", KINDS)
@given(draws=st.lists(st.sampled_from(range(4)), max_size=6), last=st.sampled_from(range(4)))
@settings(max_examples=40)
def test_each_draw_shows_and_is_undone_whatever_was_drawn_before(kind: str, draws: list[int], last: int) -> None:
    make, functions, public = KINDS[kind]
    state, draw = make(), list(functions.values())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for index in draws:
        draw[index]()
    before, expected, marks = state.read(), public(), [mark() for mark in state.marks]
    draw[last]()
    after = state.read()
    assert (after == before) == (public() == expected)
    assert after == before or [mark() for mark in state.marks] != marks
    state.write(before)
    assert public() == expected
    assert state.read() == before


@pytest.mark.parametrize("before", TORCH)
@pytest.mark.parametrize("drawn", TORCH)
def test_state_that_was_put_back_with_torchs_own_functions_is_the_same(before: str, drawn: str) -> None:
    torch.manual_seed(3)
    TORCH[before]()
    state = TorchRandomState()
    seen = state.read()
    with torch.random.fork_rng():
        TORCH[drawn]()
    assert state.read() == seen


def test_numbers_of_all_kinds_are_the_same_again_after_a_state_was_put_back() -> None:
    state, draws = TorchRandomState(), list(TORCH.values())[:4]
    before = state.read()
    first = [draw() for draw in draws]
    state.write(before)
    for one, draw in zip(first, draws, strict=True):
        assert torch.equal(one, draw())
