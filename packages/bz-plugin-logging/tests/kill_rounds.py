"""Train in child processes, kill each at a random moment, and look at what it left.

Usage: kill_rounds.py ROUNDS. Prints a JSON object: `killed`, `broken` (what is wrong with a file), and `lengths`,
the number of different lengths of the log that were seen.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from bz import Trainer
from bz_plugin_logging import LoggingPlugin


def train(folder: Path, epochs: int = 10**9) -> None:
    """Train as good as for ever; epochs are so short that most of the time goes into the log."""
    os.chdir(folder)
    model = torch.nn.Linear(1, 1)
    trainer = Trainer()
    trainer.add_plugin(LoggingPlugin(format=["json", "jsonl", "csv"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hyperparameters = {"text": "x" * random.randrange(8000)}  # moves the events over the borders of pages
    batches = [(torch.ones(1, 1), torch.ones(1, 1))]
    trainer.train(
        model, optimizer, torch.nn.MSELoss(), batches, epochs=epochs, device="cpu", hyperparameters=hyperparameters
    )


def kill_one(folder: Path) -> None:
    """Start a training and kill it up to a fifth of a second after its log is there."""
    child = os.fork()
    if child == 0:
        train(folder)
        os._exit(0)
    while not (folder / "training_log.csv").exists():
        time.sleep(0.001)
    time.sleep(random.random() / 5)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def check(folder: Path) -> int:
    """Return the number of epochs in the log.

    Raises:
        ValueError: If a file is not whole.
    """
    text = (folder / "training_log.json").read_text(encoding="utf-8")
    events = json.loads(text)
    if text != json.dumps(events, indent=2):
        raise ValueError("another layout")
    if [event.get("epoch") for event in events] != [None, *range(1, len(events))]:
        raise ValueError("epochs are missing or doubled")
    lines = (folder / "training_log.jsonl").read_text(encoding="utf-8")
    last = [json.loads(line) for line in lines.splitlines()][-1]
    with (folder / "training_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not lines.endswith("\n") or any(None in row.values() for row in rows):
        raise ValueError("a line is not whole")
    # The three are written one after another.
    if not (len(events) - 1) - 1 <= last.get("epoch", 0) <= len(events) - 1 or len(events) - 1 - len(rows) > 1:
        raise ValueError("a file is behind the others")
    return len(events)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    train(Path(), epochs=1)  # what torch imports late is there before the first fork
    broken, lengths = [], set()
    for number in range(rounds):
        folder = Path(f"round_{number}")
        folder.mkdir()
        kill_one(folder)
        try:
            lengths.add(check(folder))
        except ValueError as error:
            broken.append(f"{folder}: {error}")
    sys.stdout.write(json.dumps({"killed": rounds, "broken": broken, "lengths": len(lengths)}))


main(int(sys.argv[1]))
