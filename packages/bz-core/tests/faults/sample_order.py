"""Records which samples a training is given, and kills it at random batches until it comes to its end.

    python -m faults.sample_order FOLDER NUM_WORKERS SEED

Prints a line of JSON: the number of `kills`, of batches that were `repeated`, and what was `different` from the batches
of a training that nobody killed.
"""

# ruff: noqa: T201 - a script prints

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bz.plugins import Plugin
from faults.runs import BATCHES, in_a_process, train_on

if TYPE_CHECKING:
    from bz import TrainingContext

EPOCHS = 3
MAX_KILLS = 12


class Scribe(Plugin):
    """Writes down each batch that is trained on, and kills the process after some of them."""

    def __init__(self, path: Path, batches_to_live: int | None) -> None:
        self._path = path
        self._left = batches_to_live

    def start_training_batch(self, context: TrainingContext) -> None:
        """Write down where the run is and every number of the batch."""
        line = {"at": [context.epoch, context.batch_index], "batch": context.batch[0].tolist()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def end_training_batch(self, context: TrainingContext) -> None:
        """Die, if this was the last batch to live for."""
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def train_killed(folder: Path, num_workers: int, *, is_killed: bool) -> tuple[list[dict[str, Any]], int]:
    """Train to the end; return the lines of all processes and the number of kills."""
    record, kills = folder / "batches.jsonl", 0
    while True:
        batches = random.randrange(1, 6) if is_killed and kills < MAX_KILLS else None
        scribe = Scribe(record, batches)
        options: dict[str, Any] = {"num_workers": num_workers, "epochs": EPOCHS, "checkpoint_interval": "2 steps"}
        code = in_a_process(lambda: train_on(folder / "run", scribe, **options))  # noqa: B023 - done at once
        if code == 0:
            return [json.loads(line) for line in record.read_text().splitlines()], kills
        assert code == -signal.SIGKILL, code
        kills += 1


def main() -> None:
    """Compare."""
    folder, num_workers = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    train_on(folder / "imports")  # what torch imports when it is first used, for all processes at once
    random.seed(sys.argv[3])
    numbers = random.getstate()
    (folder / "whole").mkdir()
    (folder / "killed").mkdir()
    whole, _ = train_killed(folder / "whole", num_workers, is_killed=False)
    random.setstate(numbers)
    killed, kills = train_killed(folder / "killed", num_workers, is_killed=True)
    expected = [line["at"] for line in whole]
    assert expected == [[epoch, index] for epoch in range(1, EPOCHS + 1) for index in range(BATCHES)]
    different = [line["at"] for line in killed if line not in whole]
    missing = [place for place in expected if place not in [line["at"] for line in killed]]
    repeated = len(killed) - len(whole)
    print(json.dumps({"kills": kills, "repeated": repeated, "different": different, "missing": missing}))


if __name__ == "__main__":
    main()
