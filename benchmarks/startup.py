"""How long commands take to begin, as ratios to `import torch`, and what is installed for them.

Each command is a process of its own, round after round in an order that rotates. `bz train` runs a script with a very
small model until it asks for its first batch; beside it runs the same script with a loop of its own, since making an
optimizer alone has torch import its compiler. Sizes are those of distributions that a tool needs and torch does not.

    python benchmarks/startup.py [--rounds 7] [--clock wall|cpu] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from harness.installed import closure, size_bytes
from harness.report import print_machine, print_table, spread
from harness.rounds import rotated
from tools import TOOLS
from tools.with_bz import MAIL

MEBIBYTE: Final = 2**20
TORCH: Final = "import torch"
SCRIPT: Final = "a script to its first batch"
IMPORTS: Final = {
    "ignite": "ignite.engine",
    "poutyne": "poutyne",
    "skorch": "skorch",
    "accelerate": "accelerate",
    "torchtnt": "torchtnt.framework",
    "lightning": "lightning.pytorch",
    "fastai": "fastai.basics",
    "keras": "keras",
    "torchmetrics": "torchmetrics",
}

TRAIN: Final = """
import os
import torch

model = torch.nn.Linear(4, 2)
loss_fn = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


class Loader:
    def __len__(self):
        return 1

    def __iter__(self):
        os._exit(0)


training_loader = Loader()
"""


def processor_seconds() -> float:
    """Return the time that the processor has spent on processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


CLOCKS: Final = {"wall": time.perf_counter, "cpu": processor_seconds}


def commands() -> dict[str, list[str]]:
    """Return what is timed, by name."""
    python = [sys.executable, "-c"]
    bz = [sys.executable, "-m", "bz"]
    here = {name: module for name, module in IMPORTS.items() if find_spec(module.partition(".")[0]) is not None}
    return {
        "python": [*python, "pass"],
        TORCH: [*python, TORCH],
        "bz --help": [*bz, "--help"],
        "bz plugins list": [*bz, "plugins", "list"],
        "bz config check": [*bz, "config", "check"],
        "bz runs list": [*bz, "runs", "list"],
        SCRIPT: [sys.executable, "script.py"],
        "bz train to the first batch, no plugins": [*bz, "train", "--no-plugins"],
        "bz train to the first batch, all plugins": [*bz, "train"],
        **{f"import {module}": [*python, f"import {module}"] for module in here.values()},
    }


def prepare(folder: Path) -> None:
    """Write the script, and settings that turn the one plugin on that has to be named."""
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "script.py").write_text(f"{TRAIN}\niter(training_loader)\n", encoding="utf-8")
    (folder / "bz.json").write_text(json.dumps({"plugins": {"email": {"config": MAIL}}}), encoding="utf-8")


def seconds(command: list[str], folder: Path, now: Callable[[], float]) -> float:
    """Return how long the command takes."""
    left_out = "BZ_", "PYTHONDONTWRITEBYTECODE"  # installed packages are compiled ahead, so these sources may be, too
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    environment |= {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "PYTHONWARNINGS": "ignore"}
    began = now()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    ended = now()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return ended - began


def measure(rounds: int, now: Callable[[], float]) -> dict[str, list[float]]:
    """Return the times of each command; the round ahead that fills the system's file cache is not counted."""
    times: dict[str, list[float]] = {name: [] for name in commands()}
    with tempfile.TemporaryDirectory(prefix="bz-benchmark-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        for number in range(rounds + 1):
            taken = {name: seconds(commands()[name], folder, now) for name in rotated(list(times), number)}
            for name, values in times.items():
                values.extend([taken[name]] * (number > 0))
    return times


def print_times(times: dict[str, list[float]], *, markdown: bool) -> None:
    """Print seconds and ratios."""
    rows = []
    for name, values in times.items():
        ratios = [value / torch for value, torch in zip(values, times[TORCH], strict=True)]
        rows.append([name, f"{statistics.median(values):.3f}", f"{statistics.median(ratios):.2f}", spread(ratios)])
    print_table(["", "seconds", "ratio to import torch", "range"], rows, markdown=markdown)
    print()
    for name in (name for name in times if name.startswith("bz train")):
        ratios = [value / script for value, script in zip(times[name], times[SCRIPT], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} of the script ({spread(ratios)})")


def print_sizes(*, markdown: bool) -> None:
    """Print how much each tool installs that torch does not."""
    of_torch = closure("torch")
    rows = []
    for name in (tool for tool in TOOLS if tool != "hand" and find_spec(TOOLS[tool].needs) is not None):
        own = closure(TOOLS[name].distribution) - of_torch
        size = sum(map(size_bytes, own))
        rows.append([TOOLS[name].distribution, f"{len(own)}", f"{size / MEBIBYTE:.1f}"])
    print_table(["installed beyond torch", "packages", "MiB"], rows, markdown=markdown)
    print(f"\nbz-core brings: {', '.join(sorted(closure('bz-core') - of_torch))}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    print_times(measure(arguments.rounds, CLOCKS[arguments.clock]), markdown=arguments.markdown)
    print_sizes(markdown=arguments.markdown)


if __name__ == "__main__":
    main()
