"""What a training step costs with bz and with other tools, over a loop written by hand.

Every tool that is installed trains the same model on the same batches, in one process, round after round in an order
that rotates. The time of a step is that from asking for the first batch to asking for the last one, over the steps in
between; what comes before and after has columns of its own. The ratio is that to the bare hand-written loop of the same
round. The final weights are compared with those of that loop.

    python benchmarks/step_cost.py [--model tiny mlp cnn transformer] [--tools hand bz ignite ...]
        [--levels bare metrics everything] [--rounds 7] [--batches N] [--data list|loader] [--terminal pty|null]
        [--clock wall|cpu] [--markdown]

Ends with code 1 if bz's weights are not those of the loop.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

import torch

from harness.report import equality, microseconds, print_machine, print_table, spread
from harness.rounds import measure
from harness.workloads import CLOCKS, WORKLOADS, TaskMaker
from tools import LEVELS, TOOLS, ToolMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.rounds import Times
    from harness.workloads import Task
    from tools import Level, Ways

    Row = tuple[str, Level]

HEADS: Final[dict[Level, str]] = {
    "bare": "bare",
    "metrics": "loss and accuracy every step",
    "everything": "progress bar, TensorBoard, checkpoint",
}


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", nargs="+", choices=WORKLOADS, default=["tiny"])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, help="of one run; else as many as the model says")
    parser.add_argument("--data", choices=["list", "loader"], default="list")
    parser.add_argument("--terminal", choices=["pty", "null"], default="pty" if sys.platform != "win32" else "null")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


def load(names: Iterable[str]) -> Ways:
    """Return the rows of the tools that are here, the hand-written loop first; say which these are, and which not."""
    ways: dict[str, Mapping[Level, Callable[[Task], object]]] = {}
    measured, missing = [], []
    for name in dict.fromkeys(["hand", *names]):
        try:
            ways |= TOOLS[name].ways()
        except ToolMissingError as error:
            missing.append(str(error))
        else:
            measured.append(TOOLS[name].title)
    print(f"measured: {', '.join(measured)}")
    if missing:
        print(f"left out: {', '.join(missing)}")
    return ways


def contenders(ways: Ways, levels: Iterable[Level]) -> dict[Row, Callable[[Task], object]]:
    """Return what trains a task, by row and level; the bare hand-written loop comes first."""
    wanted: list[Row] = [(row, level) for level in levels for row, of_it in ways.items() if level in of_it]
    return {(row, level): ways[row][level] for row, level in dict.fromkeys([(next(iter(ways)), "bare"), *wanted])}


def print_rows(times: Mapping[Row, Times], *, markdown: bool) -> None:
    """Print each row and level with its times."""
    rows = [
        [
            f"{row}, {HEADS[level]}",
            microseconds(of_it.step),
            spread([1e6 * value for value in of_it.step_seconds], ".1f"),
            f"{of_it.ratio:.3f}",
            spread(of_it.ratios, ".3f"),
            equality(of_it.difference),
            f"{of_it.start * 1e3:.1f}",
            f"{of_it.end * 1e3:.1f}",
        ]
        for (row, level), of_it in times.items()
    ]
    head = ["", "us a step", "range", "ratio", "range of ratios", "weights", "ms before", "ms after"]
    print_table(head, rows, markdown=markdown)


def print_ratios(times: Mapping[Row, Times], rows: Iterable[str], *, markdown: bool) -> None:
    """Print one line a tool: the ratio at each level, and the largest difference of the weights at any."""
    levels = [level for level in LEVELS if any(at == level for _, at in times)]
    lines = []
    for row in rows:
        of_it = {level: times[row, level] for level in levels if (row, level) in times}
        ratios = [f"{of_it[level].ratio:.2f}" if level in of_it else "" for level in levels]
        if of_it:
            lines.append([row, *ratios, equality(max(one.difference for one in of_it.values()))])
    print_table(["ratio to the bare loop", *(HEADS[level] for level in levels), "weights"], lines, markdown=markdown)


def main() -> int:
    """Measure and print."""
    arguments = parse()
    torch.set_num_threads(1)
    print_machine()
    ways = load(arguments.tools)
    entries = contenders(ways, arguments.levels)
    is_bz_equal = True
    for name in arguments.model:
        workload = WORKLOADS[name]
        maker = TaskMaker(
            workload, arguments.batches or workload.num_batches, data=arguments.data, now=CLOCKS[arguments.clock]
        )
        times = measure(entries, maker, rounds=arguments.rounds, terminal=arguments.terminal)
        size = f"{maker.num_batches} batches a run from a {maker.data}"
        print(f"\n{name}: {workload.about}; {size}, {arguments.rounds} rounds, {arguments.clock} time")
        print_ratios(times, ways, markdown=arguments.markdown)
        print_rows(times, markdown=arguments.markdown)
        is_bz_equal &= all(of_it.difference == 0.0 for (row, _), of_it in times.items() if row.startswith("bz"))
    return 0 if is_bz_equal else 1


if __name__ == "__main__":
    sys.exit(main())
