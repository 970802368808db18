"""A run that was stopped anywhere goes on to the weights of a run that was not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from bz import CheckpointError, TrainingContext, TrainingSpec
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS = 3

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 still calls it


class Augmented(Dataset[Any]):
    """Twelve samples, each disturbed by all three kinds of shared random numbers."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = [random.random(), random.gauss(0, 1), np.random.randn(), float(torch.rand(()))]
        return torch.tensor(noise) + index, torch.tensor(index % 3)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class Stream(IterableDataset[Any]):
    """The same samples, in an order that the stream itself decides."""

    def __iter__(self) -> Iterator[Any]:
        samples = Augmented()
        for index in torch.randperm(12).tolist():
            yield samples[index]

    def __len__(self) -> int:
        return 12


class EvensFirst(Sampler[int]):
    """A sampler of the user's own, which draws from Python's random numbers."""

    def __iter__(self) -> Iterator[int]:
        evens, odds = list(range(0, 12, 2)), list(range(1, 12, 2))
        random.shuffle(evens)
        random.shuffle(odds)
        return iter(evens + odds)

    def __len__(self) -> int:
        return 12


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: DataLoader(Augmented(), 4, shuffle=True),
    "in order": lambda: DataLoader(Augmented(), 4),
    "own generator": lambda: DataLoader(Augmented(), 4, shuffle=True, generator=torch.Generator().manual_seed(7)),
    "with replacement": lambda: DataLoader(
        Augmented(), 4, sampler=RandomSampler(Augmented(), replacement=True, num_samples=12)
    ),
    "weighted": lambda: DataLoader(
        Augmented(), 4, sampler=WeightedRandomSampler([1.0] * 6 + [3.0] * 6, 12, generator=torch.Generator())
    ),
    "own sampler": lambda: DataLoader(Augmented(), 4, sampler=EvensFirst()),
    "batch sampler": lambda: DataLoader(Augmented(), batch_sampler=BatchSampler(EvensFirst(), 4, drop_last=False)),
    "iterable": lambda: DataLoader(Stream(), 4),
    "two workers": lambda: DataLoader(Augmented(), 4, shuffle=True, num_workers=2),
    "persistent workers": lambda: DataLoader(Augmented(), 4, shuffle=True, num_workers=2, persistent_workers=True),
    "stateful": lambda: StatefulDataLoader(Augmented(), 4, shuffle=True),
    "stateful with workers": lambda: StatefulDataLoader(list(Augmented()), 4, shuffle=True, num_workers=2),
}


def make_spec(loader: str = "shuffled") -> TrainingSpec:
    """Seed everything and return a spec with dropout, momentum and a scheduler."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    spec = tiny_spec(seed=3, training_loader=LOADERS[loader]())
    spec.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(spec.optimizer, 0.9)
    return spec


def stop_at(event: str, count: int) -> RecordingPlugin:
    """Return a plugin that asks for a stop after the batch at the count-th such event."""
    seen = 0

    def on_event(hook: str, context: TrainingContext) -> None:
        nonlocal seen
        seen += hook == event
        if hook == event and seen == count:
            context.request_stop("for the test", when="batch")

    return RecordingPlugin(on_event)


def outcome(spec: TrainingSpec, history: list[dict[str, float]]) -> list[Any]:
    """Return everything that must be equal: weights, momentum, learning rate, losses, the next random numbers."""
    state = spec.optimizer.state_dict()
    momenta = [state["state"][index]["momentum_buffer"] for index in sorted(state["state"])]
    tensors = [*spec.model.state_dict().values(), *momenta]
    numbers = [random.random(), float(np.random.randn()), float(torch.rand(()))]
    return [[tensor.tolist() for tensor in tensors], state["param_groups"][0]["lr"], history, numbers]


def run_whole(loader: str) -> list[Any]:
    spec = make_spec(loader)
    return outcome(spec, train(spec, epochs=EPOCHS).history)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("event", "count"),
    [("end_training_batch", 1), ("end_training_batch", 5), ("end_training_batch", 6), ("end_validation_batch", 3)],
)
def test_run_stopped_inside_an_epoch_goes_on_bit_equal(loader: str, event: str, count: int, tmp_path: Path) -> None:
    train(make_spec(loader), stop_at(event, count), epochs=EPOCHS, run_dir=tmp_path)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    spec = make_spec(loader)
    torch.rand(5)
    result = train(spec, epochs=EPOCHS, run_dir=tmp_path, resume=tmp_path)
    assert outcome(spec, result.history) == run_whole(loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_run_stopped_between_epochs_goes_on_bit_equal(loader: str, tmp_path: Path) -> None:
    train(make_spec(loader), epochs=1, run_dir=tmp_path)
    spec = make_spec(loader)
    torch.rand(5)
    result = train(spec, epochs=EPOCHS, run_dir=tmp_path, resume=tmp_path)
    assert outcome(spec, result.history) == run_whole(loader)


def test_run_stopped_at_every_batch_goes_on_bit_equal(tmp_path: Path) -> None:
    resume: dict[str, Any] = {}
    for _ in range(3 * EPOCHS):
        spec = make_spec()
        result = train(spec, stop_at("end_training_batch", 1), epochs=EPOCHS, run_dir=tmp_path, **resume)
        resume = {"resume": tmp_path}
    spec = make_spec()
    result = train(spec, epochs=EPOCHS, run_dir=tmp_path, resume=tmp_path)
    assert outcome(spec, result.history) == run_whole("shuffled")


class Mean:
    """A metric of the user's own: the mean of the first output."""

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.count = 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.total += preds[:, 0].sum()
        self.count += len(target)

    def compute(self) -> torch.Tensor:
        return self.total / self.count

    def reset(self) -> None:
        self.total = torch.zeros(())
        self.count = 0


def test_metrics_go_on_inside_an_epoch(tmp_path: Path) -> None:
    def spec() -> TrainingSpec:
        return tiny_spec(metrics={"mean": Mean()})

    train(spec(), stop_at("end_training_batch", 2), epochs=1, run_dir=tmp_path)
    resumed = train(spec(), epochs=1, run_dir=tmp_path, resume=tmp_path)
    assert resumed.history == train(spec(), epochs=1).history
    assert resumed.training_metrics["mean"] == resumed.history[0]["training_mean"]


def test_checkpoint_has_the_keys_of_the_guide_and_loads_without_bz(tmp_path: Path) -> None:
    def save(hook: str, context: TrainingContext) -> None:
        if hook == "end_epoch":
            context.save_checkpoint("mine.pth", extra={"note": "hello"})

    spec = tiny_spec(metrics={"mean": Mean()})
    result = train(spec, RecordingPlugin(save), epochs=1, run_dir=tmp_path)
    state = torch.load(tmp_path / "mine.pth", weights_only=True)
    assert sorted(state) == [
        "bz",
        "epoch",
        "hyperparameters",
        "model_state_dict",
        "optimizer_state_dict",
        "training_metrics",
        "validation_loss",
        "validation_metrics",
    ]
    assert (state["epoch"], state["hyperparameters"]) == (1, {"lr": 0.1, "model_name": "tiny"})
    assert state["validation_loss"] == result.validation_loss
    assert state["training_metrics"] == result.training_metrics
    assert state["bz"]["extra"] == {"note": "hello"}


def test_requested_checkpoint_inside_an_epoch_is_taken_after_all_plugins_saw_the_batch(tmp_path: Path) -> None:
    def save(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch" and context.global_step == 2:
            context.save_checkpoint(tmp_path / "two.pth")

    last = RecordingPlugin()
    train(tiny_spec(), RecordingPlugin(save), last, epochs=1)
    saved = read_checkpoint(tmp_path / "two.pth")["bz"]["plugins"]
    assert saved["recording"]["events"] == saved["recording_2"]["events"]
    assert saved["recording"]["events"][-1] == "end_training_batch"
    assert last.events[last.events.index("save_checkpoint") - 1] == "end_training_batch"


def test_state_of_a_plugin_that_is_gone_is_carried_on(tmp_path: Path) -> None:
    train(tiny_spec(), RecordingPlugin(), epochs=1, run_dir=tmp_path)
    train(tiny_spec(), epochs=2, run_dir=tmp_path, resume=tmp_path)
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=3, run_dir=tmp_path, resume=tmp_path)
    # The session in the middle ran without the plugin; before it are the events of the first epoch.
    assert plugin.events[:2] == ["start_training_session", "start_epoch"]
    assert plugin.events.count("start_training_session") == 1
    assert plugin.events.count("end_epoch") == 2


def test_state_that_is_not_plain_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(RecordingPlugin):
        name = "odd"

        def state_dict(self) -> dict[str, Any]:
            return {"path": Path("x")}

    train(tiny_spec(), Odd(), epochs=1, run_dir=tmp_path)
    assert caplog.messages == [
        f"the state of plugin 'odd' holds a {type(Path()).__module__}.PosixPath; the checkpoint is written without it"
    ]
    assert read_checkpoint(tmp_path / "state" / "epoch_1_step_3.pth")["bz"]["plugins"] == {}


def test_hyperparameters_of_any_type_are_saved_as_text(tmp_path: Path) -> None:
    odd = {"path": Path("x"), "dtype": torch.float32, 3: {"a"}, "lr": np.float64(0.5)}
    train(tiny_spec(hyperparameters=odd), epochs=1, run_dir=tmp_path)
    saved = read_checkpoint(tmp_path / "state" / "epoch_1_step_3.pth")["hyperparameters"]
    assert saved == {"path": "x", "dtype": "torch.float32", 3: ["a"], "lr": 0.5}


def test_checkpoint_of_another_model_is_refused_with_the_differences(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    other = tiny_spec(model=torch.nn.Sequential(torch.nn.Linear(4, 5)))
    message = (
        r"is of another model: 0.bias is \(8,\) there and \(5,\) here; 0.weight is \(8, 4\) there and \(5, 4\) here; "
        r"the model has no 3.bias; the model has no 3.weight."
    )
    with pytest.raises(CheckpointError, match=message):
        train(other, epochs=2, run_dir=tmp_path, resume=tmp_path)


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        train(tiny_spec(), run_dir=tmp_path, resume=tmp_path)


class Odd:
    """An iterable that says nothing about itself."""

    def __iter__(self) -> Iterator[Any]:
        yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    ("loader", "doubt"),
    [
        (Odd, "Odd cannot save its position; it goes on exactly if it gives the same batches when walked anew"),
        (
            LOADERS["stateful with workers"],
            "StatefulDataLoader does not save the random states of its workers; it goes on exactly if they draw none",
        ),
    ],
)
def test_loader_that_may_not_go_on_exactly_is_named_once(
    loader: Callable[[], Any], doubt: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny_spec(training_loader=loader()), epochs=2, run_dir=tmp_path)
    assert caplog.messages == [f"if the run is stopped inside an epoch: the training_loader of type {doubt}"]


def test_loader_that_goes_on_exactly_is_not_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    assert caplog.messages == []
