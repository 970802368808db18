"""Kills trainings at random moments, goes on with each, and compares it with one that nobody killed.

Shuffling, dropout, augmentation by Python's, NumPy's and torch's random numbers, a scheduler, metrics, validation,
checkpoints inside epochs, 0 and 2 loader workers, and the plugins for console, log, checkpoints, TensorBoard, plots and
mail (to a server on the loopback device). Half of the runs also accumulate gradients over
windows that no epoch is a multiple of, in fp16 or bf16, with clipping, a scheduler that is stepped at each step,
validations inside epochs, an exponential average of the weights, and early stopping that restores the best ones.

Compared are the weights and momenta bit for bit, the history, the events of the log, its table, the points of every
curve, the checkpoints, the plots, and the mails.

    python benchmarks/kill_and_resume.py [--kills 100] [--kills-per-run 10] [--seed 0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.figure  # noqa: F401 - imported here once, for all processes that are forked
import numpy as np
import torch
from aiosmtpd.smtp import SMTP, Envelope, Session
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bz import LRSchedule, Trainer
from bz.runs import set_aside
from bz.testing import tiny_spec, train
from bz_plugin_averaging import AveragingPlugin
from bz_plugin_checkpoint import SmartCheckpointPlugin
from bz_plugin_console import ConsoleOutPlugin
from bz_plugin_early_stopping import EarlyStoppingPlugin
from bz_plugin_email import EmailNotificationPlugin
from bz_plugin_logging import LoggingPlugin
from bz_plugin_tensorboard import TensorBoardPlugin
from bz_plugin_visualization import VisualizationPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS = 6
BATCHES = 12
BATCH_SIZE = 8
STEP_SECONDS = 0.01
CHANGING_KEYS = {"timestamp", "duration_seconds", "seconds"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to train.

    Attributes:
        num_workers: Of the training loader.
        precision: None for a plain loop; else everything that makes a step less plain is on, in this precision.
    """

    num_workers: int
    precision: str | None = None

    def __str__(self) -> str:
        """Return what tells it from the others."""
        return f"{self.num_workers} workers, {self.precision or 'plain'}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the training."""
        if self.precision is None:
            return {"checkpoint_interval": "5 steps"}
        return {
            "precision": self.precision,
            "accumulate_batches": 5,
            "clip_grad_norm": 1.0,
            "validation_interval": "4 steps",
            "checkpoint_interval": "1 step",
        }

    def scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the learning rate scheduler."""
        if self.precision is None:
            return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=100)
        return LRSchedule(one_cycle, every="1 step")

    def plugins(self) -> list[object]:
        """Return the plugins besides those that are always on."""
        if self.precision is None:
            return []
        return [AveragingPlugin("ema", 0.8), EarlyStoppingPlugin(patience=3, restore_best_weights=True)]


SCENARIOS = (Scenario(0), Scenario(2, "bf16"), Scenario(2), Scenario(0, "fp16"))


class Augmented(Dataset[Any]):
    """Samples that are different each time they are looked at."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return BATCHES * BATCH_SIZE

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features `(16,)`, float32, disturbed by all three kinds of random numbers, and a class of 4."""
        time.sleep(STEP_SECONDS / BATCH_SIZE)  # so that there is time to be killed in
        noise = [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand()]  # noqa: S311, NPY002 - as users do
        sample = torch.randn(16)
        sample[: len(noise)] += torch.tensor(noise) + index % 4
        return sample, torch.tensor(index % 4)


class Accuracy:
    """Right answers over all answers."""

    joins_batches = True

    def __init__(self) -> None:
        self.right = self.total = 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Count a batch."""
        self.right += int((preds.argmax(1) == target).sum())
        self.total += len(target)

    def compute(self) -> float:
        """Return the share of right answers."""
        return self.right / self.total

    def reset(self) -> None:
        """Begin anew."""
        self.right = self.total = 0


def run_session(run_dir: Path, scenario: Scenario, smtp_port: int) -> None:
    """Train to the end, from the newest checkpoint if there is one; write what came of it to `outcome.json`."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the generator that everybody shares
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(Augmented(), BATCH_SIZE, shuffle=True, num_workers=scenario.num_workers)
    fixed = torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
    validation = DataLoader(TensorDataset(fixed, torch.arange(16) % 4), 8)
    is_resumed = any((run_dir / "state").glob("*.pth"))
    if is_resumed:
        torch.manual_seed(99)  # what a resumed process happens to draw must not matter
    elif run_dir.exists():
        set_aside(run_dir)  # as `--fresh` does: killed before its first checkpoint
    trainer = Trainer()
    for plugin in (*make_plugins(smtp_port), *scenario.plugins()):
        trainer.add_plugin(plugin)
    result = trainer.train(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        loader,
        validation,
        epochs=EPOCHS,
        device="cpu",
        metrics={"accuracy": Accuracy()},
        hyperparameters={"lr": 0.01, "model_name": run_dir.name},
        lr_scheduler=scenario.scheduler(optimizer),
        run_dir=run_dir,
        resume=run_dir if is_resumed else None,
        **scenario.settings,
    )
    failures = [usage.name for usage in result.plugin_usage if usage.failures]
    outcome = {
        "weights": digest(model.state_dict()),
        "optimizer": digest(optimizer.state_dict()),
        "averaged": averaged(run_dir / "averaged.pth"),
        "random": [random.random(), float(np.random.rand()), float(torch.rand(()))],  # noqa: S311, NPY002 - as above
        "history": result.history,
        "status": result.status,
        "missing": result.missing_files,
        "failures": failures,
    }
    (run_dir / "outcome.json").write_text(json.dumps(outcome))


def averaged(path: Path) -> str | None:
    """Return a digest of the averaged weights, if there are any."""
    return digest(torch.load(path, weights_only=True)) if path.exists() else None


def make_plugins(smtp_port: int) -> list[object]:
    """Return every plugin, busier than by default."""
    mail = {
        "smtp_server": "127.0.0.1", "smtp_port": smtp_port, "security": "none", "from_email": "bz@example.com",
        "to_email": "you@example.com", "every_epochs": 2, "loss_curve": False,
    }  # fmt: skip
    return [
        ConsoleOutPlugin(),
        LoggingPlugin(format=["json", "csv"]),
        SmartCheckpointPlugin(max_checkpoints=2, save_best_only=False, every="7 steps"),
        TensorBoardPlugin(log_every=3),
        VisualizationPlugin(update_interval=3, dpi=40),
        EmailNotificationPlugin(mail),
    ]


def digest(value: Any) -> str:
    """Return a SHA-256 of tensors and plain values, in their order."""
    found = hashlib.sha256()
    for leaf in leaves(value):
        found.update(leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode())
    return found.hexdigest()


def leaves(value: Any) -> Iterator[Any]:
    """Yield what is in nested dicts and lists, with the keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def describe(run_dir: Path, mails: Path) -> dict[str, Any]:
    """Return everything that a kill must not change about a finished run."""
    events = json.loads((run_dir / "training_log.json").read_text().replace(run_dir.name, "RUN"))
    with (run_dir / "training_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    accumulator = EventAccumulator(str(run_dir), size_guidance=dict.fromkeys(("scalars", "tensors"), 0))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {
        "outcome": json.loads((run_dir / "outcome.json").read_text()),
        "log": [without_times(event) for event in events],
        "table": [without_times(row) for row in rows],
        "curves": {tag: [(point.step, point.value) for point in accumulator.Scalars(tag)] for tag in tags},
        "files": sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if is_stable(path)),
        "mails": mails_of(run_dir.name, mails),
        "leftovers": sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*.tmp")),
    }


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record without what the clock decides."""
    return {
        key: value for key, value in record.items() if key not in CHANGING_KEYS and not str(key).endswith("_seconds")
    }


def is_stable(path: Path) -> bool:
    """Whether a file is there in every run under the same name: neither named by the clock nor temporary."""
    return path.is_file() and "tfevents" not in path.name and path.suffix != ".tmp"


def mails_of(name: str, mails: Path) -> dict[str, list[str]]:
    """Return the Message-IDs that arrived under each subject of a run."""
    found: dict[str, list[str]] = {}
    for line in mails.read_text().splitlines():
        mail = json.loads(line)
        if name in mail["subject"].split():
            found.setdefault(mail["subject"].replace(name, "RUN"), []).append(mail["id"])
    return found


class Inbox:
    """Writes down what arrives, before the server says that it did."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 - aiosmtpd's
        """Take a mail."""
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content)
        line = {"subject": " ".join(str(mail["Subject"]).split()), "id": mail["Message-ID"]}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return "250 OK"


def serve_mail(listener: socket.socket, path: Path) -> None:
    """Take mails for ever."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Inbox(path)), sock=listener)
        await server.serve_forever()

    asyncio.run(serve())


def fork(action: Callable[[], object], output: Path) -> int:
    """Do it in a process, and a group, of its own, whose output goes to a file; return its number."""
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            action()
        except BaseException:  # noqa: BLE001 - the child must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


@dataclass
class Counts:
    """What the kills came to."""

    kills: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    by_scenario: Counter[str] = field(default_factory=Counter)
    leftovers: list[str] = field(default_factory=list)
    mails_missing: int = 0
    mails_doubled: int = 0
    mails_repeated: int = 0


def kill_through(action: Callable[[], object], output: Path, max_kills: int, seconds: float) -> int:
    """Start it again and again, killed at random, until it comes to its end; return the number of kills."""
    kills = 0
    while True:
        process = fork(action, output)
        if kills < max_kills:
            time.sleep(random.uniform(0.02, seconds))  # noqa: S311 - not for security
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(ProcessLookupError):  # workers, which notice after seconds, or never if just started
            os.killpg(process, signal.SIGKILL)
        if code != -signal.SIGKILL:
            if code != 0:
                raise RuntimeError(f"a session failed, see {output}")
            return kills
        kills += 1


def compare(found: dict[str, Any], expected: dict[str, Any], name: str, counts: Counts) -> None:
    """Add what is different to the counts; of mails, what is missing and what came twice is counted apart."""
    for key in ("outcome", "log", "table", "curves", "files"):
        if found[key] != expected[key]:
            counts.differences.append(f"{name}: {key}, {first_difference(found[key], expected[key])}")
    counts.leftovers += [f"{name}/{file}" for file in found["leftovers"]]
    for subject in found["mails"] | expected["mails"]:
        arrived, wanted = found["mails"].get(subject, []), len(expected["mails"].get(subject, []))
        counts.mails_repeated += len(arrived) - len(set(arrived))
        counts.mails_doubled += max(len(set(arrived)) - wanted, 0)
        counts.mails_missing += max(wanted - len(set(arrived)), 0)


def first_difference(found: Any, expected: Any, where: str = "") -> str:
    """Return the first place where two nested values differ, with both values."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        pairs = [(key, found[key], expected[key]) for key in found]
    elif isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        pairs = [(index, one, other) for index, (one, other) in enumerate(zip(found, expected, strict=True))]
    else:
        return f"{where}: {str(found)[:500]} and not {str(expected)[:500]}"
    return next(first_difference(one, other, f"{where}/{key}") for key, one, other in pairs if one != other)


def measure(folder: Path, arguments: argparse.Namespace, smtp_port: int, mails: Path) -> Counts:
    """Train undisturbed once in each scenario, then kill."""
    counts, expected, seconds = Counts(), {}, {}
    for number, scenario in enumerate(SCENARIOS):
        run_dir = folder / f"whole{number}"
        began = time.perf_counter()
        kill_through(lambda: run_session(run_dir, scenario, smtp_port), folder / "output.txt", 0, 0)  # noqa: B023 - done at once
        seconds[scenario] = time.perf_counter() - began
        expected[scenario] = describe(run_dir, mails)
        print(f"undisturbed, {scenario}: {seconds[scenario]:.1f} s, mails {expected[scenario]['mails']}", flush=True)
    deadline = time.perf_counter() + arguments.max_seconds
    while counts.kills < arguments.kills and time.perf_counter() < deadline:
        scenario, name = SCENARIOS[counts.runs % len(SCENARIOS)], f"killed{counts.runs}"
        run_dir = folder / name
        wanted = min(arguments.kills_per_run, arguments.kills - counts.kills)
        kills = kill_through(
            lambda: run_session(run_dir, scenario, smtp_port),  # noqa: B023 - done at once
            folder / f"{name}.txt",
            wanted,
            0.4 * seconds[scenario],
        )
        counts.runs += 1
        counts.kills += kills
        counts.by_scenario[str(scenario)] += kills
        compare(describe(run_dir, mails), expected[scenario], name, counts)
        print(f"{name}: {scenario}, {kills} kills; {len(counts.differences)} differences so far", flush=True)
    return counts


def main() -> None:
    """Kill, compare and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=10)
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mails = folder / "mails.jsonl"
        mails.touch()
        server = fork(lambda: serve_mail(listener, mails), folder / "server.txt")
        try:
            train(tiny_spec(), epochs=1)  # what torch imports when it is first used, for all processes at once
            random.seed(arguments.seed)
            counts = measure(folder, arguments, listener.getsockname()[1], mails)
        finally:
            os.kill(server, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(server, 0)
    print(f"kills: {counts.kills} in {counts.runs} runs; by scenario: {dict(counts.by_scenario)}")
    print(f"differences in weights, history, log, table, curves, files: {len(counts.differences)} {counts.differences}")
    print(f"temporary files that plugins left: {len(counts.leftovers)} {counts.leftovers}")
    print(f"mails doubled: {counts.mails_doubled}, missing: {counts.mails_missing}, ", end="")
    print(f"taken twice by the server under one Message-ID: {counts.mails_repeated}")
    sys.exit(bool(counts.differences) or counts.mails_doubled > 0)


if __name__ == "__main__":
    main()
