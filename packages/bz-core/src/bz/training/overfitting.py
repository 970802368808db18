"""A few batches to be learnt by heart, the quickest way to see whether a model can learn at all."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from bz.training.data import EpochData
from bz.training.seeding import random_state, restore_random_state, seed_everything

_SEED: Final = 0
"""The same whatever the seed of the run is: a checkpoint is to find the batches again, also without its run."""


def fixed_batches(loader: Iterable[Any], count: int) -> list[Any]:
    """Return the first batches of a loader, in memory; the same ones in each session.

    They are drawn with random numbers of their own; those of the run stay where they are.

    Args:
        loader: Walked once, up to the last of these batches.
        count: How many.
    """
    before = random_state()
    data = EpochData(loader)
    position = data.state_dict(is_inside_epoch=False)
    seed_everything(_SEED)
    try:
        data.seed_generators(_SEED)
        return list(islice(data.begin(1), count))
    finally:
        data.load_state_dict(position)
        restore_random_state(before)
