"""Trains a tiny model, in the way that the first argument names; tests run it in a process of its own."""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bz import Trainer
from bz.plugins import Plugin, hookimpl
from bz.spec import StepResult
from bz.testing import DeviceReads
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_console.timing import Pace

BATCHES, BATCH_SIZE = 8, 4


class Accuracy:
    """Right answers over all answers."""

    def __init__(self) -> None:
        self.reset()

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.right += int((preds.argmax(1) == target).sum())
        self.total += len(target)

    def compute(self) -> float:
        return self.right / self.total

    def reset(self) -> None:
        self.right = self.total = 0


class Talkative(Dataset[Any]):
    """Prints in the process that reads it."""

    def __len__(self) -> int:
        return BATCHES * BATCH_SIZE

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index % 8 == 0:
            print("worker reads", index)
        return torch.full((6,), float(index)), index % 2


class WithoutLength:
    """Walks a loader and does not say how long it is."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class Breaker(Plugin):
    """Calls a function in the second epoch, after each batch."""

    def __init__(self, action: Any) -> None:
        self.action = action

    @hookimpl(tryfirst=True)
    def end_training_batch(self, context: Any) -> None:
        if context.epoch == 2 and context.batch_index == 3:
            self.action(context)


class Stopper(Plugin):
    def end_epoch(self, context: Any) -> None:
        if context.epoch == 2:
            context.request_stop("no improvement for 1 epoch")


class Raising(Plugin):
    def end_epoch(self, context: Any) -> None:
        raise ValueError("this plugin is broken")


def print_in_many_ways(context: Any) -> None:
    print("printed with \x1b[31mcolour\x1b[0m, [brackets] and :smile:")
    print("half a line, ", end="", flush=True)
    print("the other half")
    print("a long line " + "x" * 120)
    print("to stderr", file=sys.stderr)
    HANDLER.handle(logging.LogRecord("user", logging.WARNING, "", 1, "logged by an old handler", None, None))
    print(sys.stdout.encoding.lower(), "is the encoding")


def fail(context: Any) -> None:
    raise KeyboardInterrupt


def fail_step(context: Any, batch: Any) -> torch.Tensor:
    if context.epoch == 2:
        raise RuntimeError("size mismatch:\n  got \x1b[31m3, wanted 4")
    return torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])


def nan_step(context: Any, batch: Any) -> torch.Tensor:
    loss = torch.nn.functional.cross_entropy(context.model(batch[0]), batch[1])
    return loss * float("nan")


def slow_step(context: Any, batch: Any) -> StepResult:
    time.sleep(0.05)
    outputs = context.model(batch[0])
    return StepResult(torch.nn.functional.cross_entropy(outputs, batch[1]), outputs, batch[1])


def loader(batches: int = BATCHES) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(batches * BATCH_SIZE, 6, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=BATCH_SIZE)


HANDLER = logging.StreamHandler(sys.stderr)
logging.getLogger("user").addHandler(HANDLER)
SCENARIOS: dict[str, tuple[dict[str, Any], list[Plugin]]] = {
    "completed": ({}, []),
    "slow": ({"training_step": slow_step, "validation_step": slow_step, "validation_loader": loader(4)}, []),
    "inner": ({"training_step": slow_step, "validation_step": slow_step, "validation_interval": "3 steps"}, []),
    "inner_slow_validation": (
        {
            "epochs": 1,
            "training_step": slow_step,
            "validation_step": slow_step,
            "validation_loader": loader(8),
            "validation_interval": "3 steps",
        },
        [],
    ),
    "steps": (
        {"training_step": slow_step, "validation_step": slow_step, "epochs": None, "max_steps": 20},
        [],
    ),
    "steps_of_unknown_length": (
        {"training_loader": WithoutLength(loader()), "training_step": slow_step, "epochs": None, "max_steps": 20},
        [],
    ),
    "time": ({"training_step": slow_step, "epochs": None, "max_time": "2 s"}, []),
    "epochs_before_steps": ({"training_step": slow_step, "validation_step": slow_step, "max_steps": 1000}, []),
    "validate_first": ({"validate_first": True}, []),
    "sparse": ({"validation_interval": "2 epochs", "epochs": 5}, []),
    "windows": ({"accumulate_batches": 3, "max_steps": 5, "epochs": None}, []),
    "no_validation": ({"validation_loader": None}, []),
    "unknown_length": (
        {"training_loader": WithoutLength(loader(40)), "training_step": slow_step, "epochs": 2},
        [],
    ),
    "empty_validation": ({"validation_loader": WithoutLength(loader(0))}, []),
    "talkative_workers": (
        {
            "training_loader": DataLoader(Talkative(), batch_size=BATCH_SIZE, num_workers=1),
            "validation_loader": None,
            "training_step": slow_step,
            "epochs": 2,
        },
        [],
    ),
    "failed": ({"training_step": fail_step, "metrics": None}, []),
    "nan": ({"validation_step": nan_step, "metrics": None}, []),
    "interrupted": ({}, [Breaker(lambda context: os.kill(os.getpid(), signal.SIGINT))]),
    "interrupted_in_a_hook": ({}, [Breaker(fail)]),
    "killed": ({}, [Breaker(lambda context: os.kill(os.getpid(), signal.SIGKILL))]),
    "stopped": ({}, [Stopper()]),
    "broken_plugin": ({"epochs": 4}, [Raising()]),
    "prints": ({}, [Breaker(print_in_many_ways)]),
    "long_names": (
        {
            "metrics": {f"μ{'a_very_long_metric_name' * 3}_{index}": Accuracy() for index in range(4)},
            "training_step": slow_step,
        },
        [],
    ),
    "long_run": ({"epochs": 300, "training_step": slow_step}, []),
    "many_batches": (
        {"training_loader": list(loader(500)), "validation_loader": list(loader(2)), "epochs": 2, "metrics": None},
        [],
    ),
    "no_epochs": ({"epochs": 0}, []),
}


def main() -> None:
    changes, plugins = SCENARIOS[sys.argv[1]]
    settings = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 2))
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss_fn": torch.nn.CrossEntropyLoss(),
        "training_loader": loader(),
        "validation_loader": loader(2),
        "epochs": 3,
        "metrics": {"accuracy": Accuracy()},
        **changes,
    }
    trainer = Trainer()
    for plugin in plugins:
        trainer.add_plugin(plugin)
    if "--every-batch" in sys.argv:
        Pace.spend = lambda *_: None  # type: ignore[method-assign]
    if "--bare" not in sys.argv:
        trainer.add_plugin(ConsoleOutPlugin(**settings))
    streams = sys.stdout, sys.stderr, HANDLER.stream
    reads = DeviceReads()
    try:
        with reads if sys.argv[1] == "many_batches" else nullcontext():
            trainer.train(**arguments)
    finally:
        print("device reads:", reads.total, file=sys.stderr)
        print("streams as before:", (sys.stdout, sys.stderr, HANDLER.stream) == streams, file=sys.stderr)


if __name__ == "__main__":
    main()
