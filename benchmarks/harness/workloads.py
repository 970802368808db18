"""The models that are trained, and the batches they are trained on: the same for everybody, at every call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Batch = tuple[torch.Tensor, torch.Tensor]
Item = TypeVar("Item")
DataKind = Literal["list", "loader"]

NUM_CLASSES: Final = 10
LEARNING_RATE: Final = 0.01
MOMENTUM: Final = 0.9
CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
DISTINCT_BATCHES: Final = 256
"""Batches that differ; longer runs see them again and again."""


@dataclass(frozen=True)
class Workload:
    """A model and the shape of its data.

    Attributes:
        about: What it is, for people.
        make_model: Returns it with weights that the current seed decides.
        make_inputs: Draws inputs for that many samples.
        batch_size: Samples in a batch.
        num_batches: Batches of one run, when nobody says how many.
    """

    about: str
    make_model: Callable[[], nn.Module]
    make_inputs: Callable[[int, torch.Generator], torch.Tensor]
    batch_size: int
    num_batches: int


class Clock:
    """Remembers when the first batch of all and the last one were asked for.

    Nothing is noted at the end of a walk, since not every tool asks once more to see that there are no more batches.

    Args:
        now: Returns the time in seconds; of the wall, or of the processor.

    Attributes:
        first_batch: None before the first walk.
        last_batch: That of the newest walk.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.first_batch: float | None = None
        self.last_batch: float | None = None

    def watch(self, items: Iterable[Item], last: Item) -> Iterator[Item]:
        """Yield the items and then the last one."""
        if self.first_batch is None:
            self.first_batch = self._now()
        yield from items
        self.last_batch = self._now()
        yield last


class PreparedBatches:
    """Batches that lie in memory; no list, since some tools take a list for several loaders."""

    def __init__(self, batches: list[Batch], length: int, clock: Clock) -> None:
        self._batches = batches
        self._length = length
        self._clock = clock

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        before, last = self._length - 1, (self._length - 1) % len(self._batches)
        return self._clock.watch(islice(cycle(self._batches), before), self._batches[last])


class _NotedOrder(SequentialSampler):
    """The order of the samples; tools that build their own loader around the data keep it."""

    def __init__(self, num_samples: int, batch_size: int, clock: Clock) -> None:
        super().__init__(range(num_samples))
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._clock = clock

    def __iter__(self) -> Iterator[int]:
        last = self._num_samples - self._batch_size
        yield from self._clock.watch(range(last), last)
        yield from range(last + 1, self._num_samples)


Batches = PreparedBatches | DataLoader[Batch]


@dataclass(frozen=True)
class Task:
    """One training from its beginning, as a tool is given it.

    Attributes:
        model: On the CPU.
        optimizer: Over its parameters.
        loss_fn: Of outputs and targets.
        batches: Walked once an epoch.
        folder: Empty, for what is written.
        epochs: Walks over the batches.
        clock: What the batches tell when they are asked for.
        input_shape: That of one sample.
        input_dtype: `float32` or `int64`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: nn.Module
    batches: Batches
    folder: Path
    epochs: int
    clock: Clock
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype


@dataclass(frozen=True)
class TaskMaker:
    """Makes the same task again and again; its batches are drawn once.

    Attributes:
        workload: What is trained.
        num_batches: Batches of an epoch.
        epochs: Walks over them.
        data: `list` for batches in memory, `loader` for a `DataLoader` that puts them together.
        now: The clock.
    """

    workload: Workload
    num_batches: int
    epochs: int = 1
    data: DataKind = "list"
    now: Callable[[], float] = time.perf_counter
    _inputs: torch.Tensor = field(init=False)
    _targets: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        is_list = self.data == "list"
        number = self.workload.batch_size * min(self.num_batches, DISTINCT_BATCHES if is_list else self.num_batches)
        object.__setattr__(self, "_inputs", self.workload.make_inputs(number, generator))
        object.__setattr__(self, "_targets", torch.randint(0, NUM_CLASSES, (number,), generator=generator))

    def make(self, folder: Path) -> Task:
        """Return a task that nobody has worked on."""
        torch.manual_seed(0)
        model, clock = self.workload.make_model(), Clock(self.now)
        return Task(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM),
            loss_fn=nn.CrossEntropyLoss(),
            batches=self._prepared(clock) if self.data == "list" else self._loader(clock),
            folder=folder,
            epochs=self.epochs,
            clock=clock,
            input_shape=tuple(self._inputs.shape[1:]),
            input_dtype=self._inputs.dtype,
        )

    def _prepared(self, clock: Clock) -> PreparedBatches:
        size = self.workload.batch_size
        pairs = zip(torch.split(self._inputs, size), torch.split(self._targets, size), strict=True)
        return PreparedBatches(list(pairs), self.num_batches, clock)

    def _loader(self, clock: Clock) -> DataLoader[Batch]:
        dataset: Dataset[Batch] = TensorDataset(self._inputs, self._targets)  # type: ignore[assignment]  # torch types it as tuple[Tensor, ...]
        size = self.workload.batch_size
        return DataLoader(dataset, batch_size=size, sampler=_NotedOrder(len(self._targets), size, clock))


def _make_tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, NUM_CLASSES))


def _make_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, NUM_CLASSES)
    )


def _make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, kernel_size=3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, NUM_CLASSES),
    )


class _Transformer(nn.Module):
    """Encodes a sequence of tokens, and classifies the mean of what comes out."""

    VOCABULARY: Final = 256
    LENGTH: Final = 32

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.VOCABULARY, 64)
        layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(64, NUM_CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (sample, class) for tokens (sample, position)."""
        encoded: torch.Tensor = self.encoder(self.embedding(tokens))
        logits: torch.Tensor = self.head(encoded.mean(dim=1))
        return logits


def _tokens(number: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, _Transformer.VOCABULARY, (number, _Transformer.LENGTH), generator=generator)


WORKLOADS: Final = {
    "tiny": Workload(
        "MLP 64-64-10, batches of 32",
        _make_tiny,
        lambda number, generator: torch.randn(number, 64, generator=generator),
        batch_size=32,
        num_batches=2000,
    ),
    "mlp": Workload(
        "MLP 1024-1024-1024-10, batches of 32",
        _make_mlp,
        lambda number, generator: torch.randn(number, 1024, generator=generator),
        batch_size=32,
        num_batches=200,
    ),
    "cnn": Workload(
        "two convolutions with batch norm on 16 by 16 pixels, batches of 16",
        _make_cnn,
        lambda number, generator: torch.randn(number, 3, 16, 16, generator=generator),
        batch_size=16,
        num_batches=300,
    ),
    "transformer": Workload(
        "two encoder layers of width 64 on 32 tokens, batches of 16",
        _Transformer,
        _tokens,
        batch_size=16,
        num_batches=300,
    ),
}
