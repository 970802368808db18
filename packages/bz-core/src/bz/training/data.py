"""The batches of an epoch, from its beginning or from a saved position, in the order that they would have had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from bz.training.seeding import random_state, restore_random_state
from bz.training.workers import PersistentWorkers, has_persistent_workers


class EpochData:
    """One loader, walked once an epoch.

    A loader with `state_dict` is asked for its position. Any other is replayed from the random
    state of the epoch's beginning, and then given the random state of the position: how lazily a
    loader draws its order makes no difference that way.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader: Any = loader
        self._generators = list(_generators(loader))
        self._workers = PersistentWorkers(self._loader) if has_persistent_workers(loader) else None
        self._start: dict[str, Any] = {}

    def begin(self, epoch: int, limit: int | None = None) -> Iterator[Any]:
        """Return the batches of a new epoch, no more than `limit`."""
        self._start = {
            "random": random_state(),
            "generators": self._generator_states(),
            "base_seed": self._base_seed(),
        }
        return islice(self._batches(epoch), limit)

    def go_on(self, state: Mapping[str, Any], epoch: int, batches_done: int, limit: int | None = None) -> Iterator[Any]:
        """Return the batches that are left after a saved position, of an epoch of no more than `limit`."""
        position = random_state()
        self._start = dict(state["start"])
        if state["loader"] is not None:
            self._loader.load_state_dict(state["loader"])
            batches = self._batches(epoch)
        else:
            batches = self._replay(epoch, batches_done)
        restore_random_state(position)
        return islice(batches, None if limit is None else max(0, limit - batches_done))

    def _replay(self, epoch: int, batches_done: int) -> Iterator[Any]:
        """Walk the epoch from its beginning up to the position."""
        self._restore_workers(self._start["base_seed"])
        self._restore_generators(self._start["generators"])
        restore_random_state(self._start["random"])
        batches = self._batches(epoch)
        for _ in range(batches_done):
            next(batches)
        return batches

    def _batches(self, epoch: int) -> Iterator[Any]:
        batches: Iterator[Any] = self._workers.batches(epoch) if self._workers is not None else iter(self._loader)
        return batches

    def state_dict(self, *, is_inside_epoch: bool) -> dict[str, Any]:
        """Return what `load_state_dict` and `go_on` need."""
        return {
            "start": self._start if is_inside_epoch else {},
            "loader": self._loader.state_dict() if is_inside_epoch and has_own_state(self._loader) else None,
            "generators": self._generator_states(),
            "base_seed": self._base_seed(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what the loader itself keeps; may draw from the random states, which are to be restored next."""
        self._restore_workers(state["base_seed"])
        self._restore_generators(state["generators"])

    def seed_generators(self, seed: int) -> None:
        """Seed the generators that the loader and its samplers have of their own."""
        for generator in self._generators:
            generator.manual_seed(seed)

    def close(self) -> None:
        """End the workers that live through all epochs."""
        if self._workers is not None:
            self._workers.close()

    def _base_seed(self) -> int | None:
        return self._workers.base_seed if self._workers is not None else None

    def _restore_workers(self, base_seed: int | None) -> None:
        if self._workers is not None:
            self._workers.restore(base_seed)

    def _generator_states(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in self._generators]

    def _restore_generators(self, states: Iterable[torch.Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=False):
            generator.set_state(state)


def has_own_state(loader: object) -> bool:
    """Return whether a loader saves its position itself, as torchdata's StatefulDataLoader does."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def doubt_about(loader: object) -> str:
    """Return why a run that is stopped inside an epoch may not go on exactly, or nothing if there is no doubt."""
    name = type(loader).__name__
    if has_own_state(loader):
        if getattr(loader, "num_workers", 0):
            return f"{name} does not save the random states of its workers; it goes on exactly if they draw none"
        return ""
    if isinstance(loader, DataLoader | Sequence):
        return ""
    return f"{name} cannot save its position; it goes on exactly if it gives the same batches when walked anew"


def _generators(loader: object) -> Iterator[torch.Generator]:
    """Yield the generators of a loader and of its samplers, each once."""
    sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    owners = (loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(generator): generator for owner in owners if (generator := getattr(owner, "generator", None))}
    yield from (generator for generator in found.values() if isinstance(generator, torch.Generator))
