"""Loader workers that live through all epochs, made repeatable.

With `persistent_workers=True` torch seeds the workers once, and their random states then depend on
everything they did since: nothing that could be saved. Here the workers are seeded anew at the
beginning of every epoch but the first, from the seed that torch gave them and the number of the
epoch, so that a resumed run starts new ones and goes on with the same numbers.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, get_worker_info

_STRIDE: Final = 0x9E3779B97F4A7C15
"""Distance of the seeds of two epochs: odd, and larger than any number of workers."""


def has_persistent_workers(loader: object) -> bool:
    """Return whether the workers of a loader outlive an epoch."""
    return isinstance(loader, DataLoader) and loader.persistent_workers and loader.num_workers > 0


class PersistentWorkers:
    """The workers of one loader.

    Attributes:
        base_seed: The seed that torch drew when the workers of this run were started first; None before.
    """

    def __init__(self, loader: Any) -> None:
        self.base_seed: int | None = None
        self._loader = loader
        self._epoch_seed = torch.zeros((), dtype=torch.int64)
        self._epoch_seed.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def batches(self, epoch: int) -> Iterator[Any]:
        """Return the batches of an epoch; the first call of a run starts the workers."""
        batches: Iterator[Any]
        if self.base_seed is None:
            batches = self._start()
            self.base_seed = self._loader._iterator._base_seed  # noqa: SLF001 - torch gives it no public name
            return batches
        self._drain()
        self._epoch_seed.fill_((self.base_seed + epoch * _STRIDE) % 2**62 + 1)
        batches = iter(self._loader)
        return batches

    def _drain(self) -> None:
        """Wait for what the workers still fetch of an epoch that was left early: it is not of the next one."""
        iterator = self._loader._iterator  # noqa: SLF001 - torch gives them no public names
        if iterator is not None:
            iterator._sampler_iter = iter(())  # noqa: SLF001 - see above
            for _ in iterator:
                pass

    def restore(self, base_seed: int | None) -> None:
        """Start new workers in place of those of the run that is resumed; draws a random number."""
        if base_seed is not None:
            self._start_idle()
        self.base_seed = base_seed

    def close(self) -> None:
        """End the workers: left to the garbage collector, they may keep it waiting for seconds each.

        It closes the queues of an iterator in a cycle before the iterator can tell its workers to end.
        """
        iterator, self._loader._iterator = self._loader._iterator, None  # noqa: SLF001 - torch gives it no public name
        if iterator is not None:
            iterator._shutdown_workers()  # noqa: SLF001 - see above

    def _start(self) -> Iterator[Any]:
        """Start workers that live in the wrapped data set; the loader keeps its own."""
        loader = self._loader
        loader._iterator = None  # noqa: SLF001 - workers from before this run are of no use
        with _replaced(loader, "dataset", _wrap(loader.dataset, self._epoch_seed)):
            batches: Iterator[Any] = iter(loader)
        return batches

    def _start_idle(self) -> None:
        """Start workers without giving them anything to fetch: what they fetched would belong to no epoch."""
        loader = self._loader
        order = "batch_sampler" if loader.batch_sampler is not None else "sampler"
        with _replaced(loader, order, ()):
            self._start()
        loader._iterator._index_sampler = loader._index_sampler  # noqa: SLF001 - has no public name


@contextmanager
def _replaced(loader: Any, attribute: str, value: Any) -> Iterator[None]:
    """Give the loader another part for a moment, past its refusal to change it."""
    former = getattr(loader, attribute)
    vars(loader)[attribute] = value
    try:
        yield
    finally:
        vars(loader)[attribute] = former


class _Reseeded:
    """A data set that seeds the worker it lives in when an epoch begins."""

    def __init__(self, dataset: Any, epoch_seed: torch.Tensor) -> None:
        self._dataset = dataset
        self._epoch_seed = epoch_seed
        self._applied = 0

    def _reseed(self) -> None:
        seed = int(self._epoch_seed)
        info = get_worker_info()
        if seed == self._applied or info is None:
            return
        self._applied = seed
        _seed_worker(seed + info.id)

    def __getitem__(self, index: Any) -> Any:
        self._reseed()
        return self._dataset[index]

    def __iter__(self) -> Iterator[Any]:
        self._reseed()
        return iter(self._dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_dataset" not in vars(self):
            raise AttributeError(name)
        return getattr(self._dataset, name)


class _ReseededInBatches(_Reseeded):
    """The same for a data set that gives whole batches."""

    def __getitems__(self, indices: list[Any]) -> Any:
        self._reseed()
        return self._dataset.__getitems__(indices)


def _wrap(dataset: Any, epoch_seed: torch.Tensor) -> _Reseeded:
    kind = _ReseededInBatches if hasattr(dataset, "__getitems__") else _Reseeded
    return kind(dataset, epoch_seed)


def _seed_worker(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
