"""Whatever happened to the bytes of a checkpoint, a resume never goes on with wrong values."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bz import CheckpointError
from bz.training.checkpoint import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[4] / "benchmarks" / "damaged_checkpoints.py"
STATE: dict[str, Any] = {"weights": torch.arange(3000, dtype=torch.float32), "bz": {"global_step": 3}}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_random_damage_is_seen_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    outcomes, of_torch = load_script().count_outcomes(300, 1, tmp_path)
    assert {outcome for _, outcome in outcomes} - {"harmless"} == {"fell back", "refused"}
    assert outcomes.total() == 300
    assert of_torch["WRONG VALUES"] > 20  # what would have been loaded without the digest


edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 20_000), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.integers(0, 20_000), st.integers(0, 20_000)),
        st.tuples(st.just("zero"), st.integers(0, 20_000), st.integers(1, 5000)),
        st.tuples(st.just("copy"), st.integers(0, 20_000), st.integers(0, 20_000)),
        st.tuples(st.just("add"), st.integers(0, 20_000), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=4,
)


def apply(content: bytes, edit: tuple[str, int, int]) -> bytes:
    """Return the content after one edit; the numbers are places and lengths, taken modulo the length."""
    kind, place, number = edit
    place %= max(len(content), 1)
    head, tail = content[:place], content[place:]
    match kind:
        case "flip" if tail:
            return head + bytes([tail[0] ^ 1 << number]) + tail[1:]
        case "cut":
            return head + tail[number:]
        case "zero":
            return head + bytes(len(tail[:number])) + tail[number:]
        case "copy":
            block = content[number % max(len(content), 1) :][:512]
            return head + block + tail[len(block) :]
        case "add":
            return head + bytes([number]) + tail
    return content


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("damage") / "x.pth"
    write_checkpoint(STATE, path)
    return path, path.read_bytes()


@settings(max_examples=200)
@given(edits=edits)
def test_any_edit_is_refused_or_changes_nothing(edits: list[tuple[str, int, int]], written: tuple[Path, bytes]) -> None:
    path, whole = written
    content = whole
    for edit in edits:
        content = apply(content, edit)
    path.write_bytes(content)
    if content == whole:
        assert torch.equal(read_checkpoint(path)["weights"], STATE["weights"])
    else:
        with pytest.raises(CheckpointError, match="is damaged, or was not written by bz"):
            read_checkpoint(path)
