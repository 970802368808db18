"""Damages checkpoints at random and counts what a resume makes of them: never a wrong value.

A run folder holds two checkpoints of a real training. Again and again the newest (one time in eight both) is cut off,
has bits flipped, blocks zeroed, swapped or repeated, or bytes appended, and `find_checkpoint` is asked:

    harmless     the newest is used: the damage changed nothing, or no byte that is read
    fell back    the one before is used, and the newest is set aside
    refused      both are damaged, and an error says how to start afresh

Beside it, what `torch.load` makes of the same file: how often it returns wrong values without an error.

    python benchmarks/damaged_checkpoints.py [--number 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import torch

from bz import CheckpointError
from bz.testing import tiny_spec, train
from bz.training.checkpoint import find_checkpoint

BLOCK: Final = 512
PAGE: Final = 4096
BOTH_DAMAGED_EVERY: Final = 8
KINDS: Final = (
    "truncated",
    "bit flipped",
    "bits flipped",
    "page zeroed",
    "blocks swapped",
    "block repeated",
    "appended",
)


def damage(content: bytes, kind: str, numbers: random.Random) -> bytes:
    """Return the content after one accident; now and then it is still the same, as when zeros are zeroed."""
    damaged, place = bytearray(content), numbers.randrange(len(content))
    if kind == "truncated":
        del damaged[place:]
    elif kind == "bit flipped":
        damaged[place] ^= 1 << numbers.randrange(8)
    elif kind == "bits flipped":
        for _ in range(numbers.randrange(2, 20)):
            damaged[numbers.randrange(len(damaged))] ^= 1 << numbers.randrange(8)
    elif kind == "page zeroed":
        start = place // PAGE * PAGE
        damaged[start : start + PAGE] = bytes(len(damaged[start : start + PAGE]))
    elif kind == "blocks swapped":
        first, second = (numbers.randrange(len(damaged) // BLOCK) * BLOCK for _ in range(2))
        damaged[first : first + BLOCK] = content[second : second + BLOCK]
        damaged[second : second + BLOCK] = content[first : first + BLOCK]
    elif kind == "block repeated":
        start = place // BLOCK * BLOCK
        damaged[start:start] = damaged[start : start + BLOCK]
    else:
        damaged += numbers.randbytes(numbers.randrange(1, PAGE))
    return bytes(damaged)


def equal(one: Any, other: Any) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(equal(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            type(one) is type(other)
            and len(one) == len(other)
            and all(equal(*pair) for pair in zip(one, other, strict=True))
        )
    return type(one) is type(other) and repr(one) == repr(other)  # by text: NaN equals itself


class Shelf:
    """A run folder with two checkpoints, which can be damaged and repaired."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        train(tiny_spec(), epochs=2, run_dir=run_dir)
        self._paths = [run_dir / "state" / name for name in ("epoch_1_step_3.pth", "epoch_2_step_6.pth")]
        self._contents = [path.read_bytes() for path in self._paths]
        self._states = [torch.load(path, weights_only=True) for path in self._paths]

    def try_one(self, kind: str, numbers: random.Random) -> tuple[str, str]:
        """Damage, look, and return what `find_checkpoint` did and what `torch.load` would have done."""
        older, newest = self._contents
        newest = damage(newest, kind, numbers)
        if numbers.randrange(BOTH_DAMAGED_EVERY) == 0:
            older = damage(older, kind, numbers)
        for path in (self._run_dir / "state").iterdir():
            path.unlink()
        for path, content in zip(self._paths, (older, newest), strict=True):
            path.write_bytes(content)
        return self._outcome(), self._outcome_of_torch(newest)

    def _outcome(self) -> str:
        try:
            found = find_checkpoint(self._run_dir)
        except CheckpointError:
            return "refused"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be counted
            return f"raised {type(error).__name__}"
        index = self._paths.index(found.path)
        if not equal(found.state, self._states[index]):
            return "WRONG VALUES"
        return ("fell back", "harmless")[index]

    def _outcome_of_torch(self, content: bytes) -> str:
        path = self._run_dir / "alone.pth"
        path.write_bytes(content)
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises a good many classes
            return type(error).__name__
        return "right" if equal(state, self._states[1]) else "WRONG VALUES"


def count_outcomes(number: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Return how often each (kind, outcome) came, and each outcome of torch alone."""
    numbers, shelf = random.Random(seed), Shelf(folder)  # noqa: S311 - not for security
    outcomes: Counter[tuple[str, str]] = Counter()
    of_torch: Counter[str] = Counter()
    for _ in range(number):
        kind = numbers.choice(KINDS)
        outcome, torch_outcome = shelf.try_one(kind, numbers)
        outcomes[kind, outcome] += 1
        of_torch[torch_outcome] += 1
    return outcomes, of_torch


def main() -> None:
    """Damage, count and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each file that is set aside is named
    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, of_torch = count_outcomes(arguments.number, arguments.seed, Path(folder))
    totals: Counter[str] = Counter()
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:16}{outcome:16}{count:7}")
        totals[outcome] += count
    print(f"bz, all of {outcomes.total()}: {dict(totals.most_common())}; wrong values: {totals['WRONG VALUES']}")
    print(f"torch.load alone: {dict(of_torch.most_common())}")
    print(f"{time.perf_counter() - began:.0f} s, seed {arguments.seed}")
    sys.exit(any(outcome not in {"harmless", "fell back", "refused"} for outcome in totals))


if __name__ == "__main__":
    main()
