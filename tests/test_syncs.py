"""How often the loop and each plugin wait for the device: never for a batch, unless that was asked for.

On the CPU a read takes no time and there is nothing to wait for, so the reads are counted. Each
training is run with three lengths, which tell apart what is read for every hundred batches, for
every epoch, and once in a run.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from bz import Trainer, TrainingContext
from bz.errors import PluginError
from bz.plugins import Plugin, hookimpl
from bz.plugins.discovery import discover_plugins
from bz.plugins.loading import load_plugins
from bz.plugins.selection import PluginRequest, choose_plugins
from bz.testing import DeviceReads
from bz_plugin_console import ConsoleOutPlugin

if TYPE_CHECKING:
    from bz.training.result import TrainingResult
    from bz_plugin_console.display import Frame

MAIL: Final = {
    "smtp_server": "127.0.0.1",
    "smtp_port": 9,  # nobody listens, so the mail waits in the run folder
    "security": "none",
    "from_email": "bz@example.com",
    "to_email": "you@example.com",
}
NAMED: Final = {"averaging": {}, "early_stopping": {}, "email": {"config": MAIL}, "profiler": {}}
"""What the settings have to name, beside the plugins that are on by themselves."""

PLUGINS: Final = sorted({plugin.name for plugin in discover_plugins()})
NUM_VALIDATION_BATCHES: Final = 7


class Reads(NamedTuple):
    """How often a training reads the device: for 100 batches, and for an epoch apart from these."""

    per_100_batches: float
    per_epoch: float

    def __add__(self, other: tuple[float, ...]) -> Reads:  # type: ignore[override]  # adds numbers, appends none
        """Return the reads of both."""
        return Reads(self.per_100_batches + other[0], self.per_epoch + other[1])


LOOP: Final = Reads(per_100_batches=1, per_epoch=1)
"""The look for a loss that is not finite, every 100 batches, with which the losses are read; those of validation."""

ALLOWED: Final = {
    "bare": LOOP,
    "without validation": Reads(1, 0),
    "on_nonfinite ignore": Reads(0, 2),  # the losses of both loops, in the row of the history
    "on_nonfinite skip": Reads(100, 2),
    "accumulation": LOOP,
    "clipping": LOOP,
    "clipping of values": LOOP,
    "checkpoints": LOOP,
    "validation every 50 steps": Reads(4, 0),  # the losses of both loops, each time
    "metric that does not read": LOOP + Reads(0, 2),  # `compute` in both loops
    "torchmetrics, micro": LOOP + Reads(0, 2),
    "torchmetrics, macro": LOOP + Reads(6, 4),  # its `update`, for 16 batches at once, calls `torch.bincount`
    "torchmetrics, mean": LOOP + Reads(200, 2 + 2 * NUM_VALIDATION_BATCHES),  # its `update` looks for NaN
}
"""What each way to train may read."""

ALLOWED_TO_PLUGINS: Final = {name: Reads(0, 0) for name in PLUGINS} | {"tensorboard": Reads(2, 0)}
"""What each plugin may read on its defaults beside the loop: TensorBoard writes the losses of 50 steps at once."""


class Accuracy:
    """Share of the samples whose largest output is that of their class."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.num_right: Any = 0
        self.num_seen = 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.num_right = self.num_right + (preds.argmax(1) == target).sum()
        self.num_seen += len(target)

    def compute(self) -> float:
        return float(self.num_right) / self.num_seen


class MeanOutput:
    """The mean of the outputs, as torchmetrics takes it."""

    def __init__(self) -> None:
        self.mean = MeanMetric()

    def reset(self) -> None:
        self.mean.reset()

    def update(self, preds: torch.Tensor, _target: torch.Tensor) -> None:
        self.mean.update(preds.mean())

    def compute(self) -> torch.Tensor:
        return self.mean.compute()


class LossReader(Plugin):
    """Reads the loss of every batch, as one does who knows no better."""

    name: ClassVar[str] = "loss_reader"

    def end_training_batch(self, context: TrainingContext) -> None:
        assert context.loss is not None
        context.extra["loss"] = float(context.loss)


OPTIONS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "bare": dict,
    "without validation": lambda: {"limit_validation_batches": 0},
    "on_nonfinite ignore": lambda: {"on_nonfinite": "ignore"},
    "on_nonfinite skip": lambda: {"on_nonfinite": "skip"},
    "accumulation": lambda: {"accumulate_batches": 4},
    "clipping": lambda: {"clip_grad_norm": 1.0},
    "clipping of values": lambda: {"clip_grad_value": 1.0},
    "checkpoints": lambda: {"run_dir": "run", "checkpoint_interval": 1},
    "validation every 50 steps": lambda: {"validation_interval": "50 steps"},
    "metric that does not read": lambda: {"metrics": {"accuracy": Accuracy()}},
    "torchmetrics, micro": lambda: {"metrics": {"accuracy": MulticlassAccuracy(3, average="micro")}},
    "torchmetrics, macro": lambda: {"metrics": {"accuracy": MulticlassAccuracy(3)}},
    "torchmetrics, mean": lambda: {"metrics": {"mean": MeanOutput()}},
}


def train(
    plugins: Sequence[object], *, epochs: int = 1, batches: int = 200, device: str = "cpu", **options: Any
) -> TrainingResult:
    """Train a tiny model."""
    torch.manual_seed(0)
    data = [(torch.randn(2, 4), torch.randint(3, (2,))) for _ in range(batches)]
    model = nn.Linear(4, 3).to(device)
    trainer = Trainer(strict_plugins=True)
    for plugin in plugins:
        trainer.add_plugin(plugin)
    return trainer.train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.01),
        nn.CrossEntropyLoss(),
        data,
        data[:NUM_VALIDATION_BATCHES],
        epochs=epochs,
        device=device,
        **options,
    )


def count(make_plugins: Callable[[], Sequence[object]] = list, **options: Any) -> int:
    """Return how often a training reads."""
    with DeviceReads() as reads:
        train(make_plugins(), **options)
    return reads.total


def measure(train_and_count: Callable[..., int]) -> Reads:
    """Return how often a training reads, from three that differ in length."""
    lengths = (1, 200), (1, 400), (3, 200)
    once, longer, thrice = (train_and_count(epochs=epochs, batches=batches) for epochs, batches in lengths)
    per_100_batches = (longer - once) / 2
    return Reads(per_100_batches, (thrice - once) / 2 - 2 * per_100_batches)


def build(*names: str) -> list[object]:
    """Return the plugins of these names on their defaults."""
    choices = choose_plugins(discover_plugins(), NAMED, PluginRequest(only=names))
    return [plugin for _, plugin in load_plugins(choices).plugins]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("way", ALLOWED)
def test_loop_reads_no_more_than_it_says(way: str) -> None:
    assert measure(lambda **length: count(**OPTIONS[way](), **length)) == ALLOWED[way]


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_reads_no_more_than_it_says(name: str) -> None:
    assert measure(lambda **length: count(lambda: build(name), **length)) == LOOP + ALLOWED_TO_PLUGINS[name]


def test_plugins_together_read_what_the_loop_has_read_already() -> None:
    read = measure(lambda **length: count(lambda: build(*PLUGINS), run_dir=f"run{length}", **length))
    assert read == LOOP + ALLOWED_TO_PLUGINS["tensorboard"]


def test_plugin_that_reads_the_loss_of_every_batch_is_seen() -> None:
    assert measure(lambda **length: count(lambda: [LossReader()], **length)) == LOOP + Reads(100, 0)


class TerminalStream(io.StringIO):
    """Takes what is printed, as a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_bar_reads_no_more_often_than_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Frame] = []
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", TerminalStream())
    monkeypatch.setattr("bz_plugin_console.terminal.Terminal.draw", lambda _, frame: drawn.append(frame))
    milliseconds = itertools.count()  # a look at the clock takes one, so that nothing depends on the machine
    monkeypatch.setattr("bz_plugin_console.plugin.perf_counter", lambda: next(milliseconds) / 1000)
    with DeviceReads() as reads:
        train([ConsoleOutPlugin(refresh_seconds=0.1)], batches=1000)
    with_values = [frame for frame in drawn if frame.done]
    assert 0 < reads.total - count(batches=1000) <= len(with_values) <= next(milliseconds) / 100 + 2


READS: Final[dict[str, Callable[[torch.Tensor], object]]] = {
    "item": lambda tensor: tensor[0].item(),
    "float": lambda tensor: float(tensor[0]),
    "int": lambda tensor: int(tensor[0]),
    "if": lambda tensor: 1 if tensor[0] else 0,
    "comparison": lambda tensor: tensor[0] > 1 or 0,
    "format": lambda tensor: f"{tensor[0]:.3f}",
    "print": repr,
    "tolist": lambda tensor: tensor.tolist(),
    "tolist of one": lambda tensor: tensor[0].tolist(),
    "cpu": lambda tensor: tensor.cpu(),
    "to": lambda tensor: tensor.to("cpu"),
    "numpy": lambda tensor: tensor.numpy(),
    "equal": lambda tensor: torch.equal(tensor, tensor),
    "allclose": lambda tensor: torch.allclose(tensor, tensor),
    "mask": lambda tensor: tensor[tensor > 0],
    "nonzero": lambda tensor: tensor.nonzero(),
    "where": lambda tensor: torch.where(tensor > 0),
    "unique": torch.unique,
    "list of tensors": lambda tensor: torch.tensor([tensor[0], tensor[1]]),
    "bincount": lambda tensor: torch.bincount(tensor.long()),
}


@pytest.mark.parametrize("way", READS)
def test_read_is_counted_once(way: str) -> None:
    tensor = torch.ones(3)
    with DeviceReads() as reads:
        READS[way](tensor)
    assert reads.total == 1
    assert [place.partition(" ")[0].partition(":")[0] for place in reads.places] == ["tests/test_syncs.py"]


def test_work_on_the_device_is_not_counted() -> None:
    model, inputs = nn.Linear(3, 2), torch.ones(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with DeviceReads() as reads:
        loss = model(inputs).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch.stack([loss.detach(), loss.detach().clone()]).to(inputs.device).to(torch.float64)
        inputs[0], inputs[torch.tensor([0, 1])], inputs.argmax(1)
    assert not reads.places


class SyncAlarm(Plugin):
    """Has torch raise when anything waits for the device, in the training loops from the second epoch on."""

    name: ClassVar[str] = "sync_alarm"

    @hookimpl(trylast=True)
    def start_training_loop(self, context: TrainingContext) -> None:
        if context.epoch > 1:
            torch.cuda.set_sync_debug_mode("error")

    @hookimpl(tryfirst=True)
    def end_training_loop(self, context: TrainingContext) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def _no_alarm_left() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("_no_alarm_left")
@pytest.mark.parametrize("names", [(), *((name,) for name in PLUGINS), tuple(PLUGINS)], ids=" ".join)
def test_nothing_waits_for_a_gpu_between_two_looks(names: tuple[str, ...]) -> None:
    plugins = [*(build(*names) if names else []), SyncAlarm()]
    result = train(plugins, epochs=3, batches=16, device="cuda", run_dir="run", clip_grad_norm=1.0)
    assert result.status == "completed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("_no_alarm_left")
def test_plugin_that_waits_for_a_gpu_is_seen() -> None:
    with pytest.raises(PluginError, match="synchronizing CUDA operation"):
        train([LossReader(), SyncAlarm()], epochs=2, batches=16, device="cuda")
