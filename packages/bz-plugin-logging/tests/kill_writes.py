"""Append pieces so large that a kill hits the writing of one nearly every time, and look at what is left.

Usage: kill_writes.py ROUNDS. Prints a JSON object: `broken`, the number of files that are not whole, and `lengths`,
the number of different lengths that were seen.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from bz_plugin_logging.twin import TwinFile

PIECE = b",1" * 4_000_000


def append_for_ever(path: Path, started: int) -> None:
    file = TwinFile(path, b"]")
    file.replace(b"[1")
    os.write(started, b"x")
    while True:
        file.append(PIECE)


def kill_one(path: Path) -> int:
    """Return the size of what is left of the file.

    Raises:
        ValueError: If it is not whole.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        append_for_ever(path, write_end)
    os.read(read_end, 1)
    time.sleep(random.random() / 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read_end)
    os.close(write_end)
    content = path.read_bytes()
    if content != b"[1" + PIECE * ((len(content) - 3) // len(PIECE)) + b"]":
        raise ValueError
    return len(content)


def main(rounds: int) -> None:
    broken, lengths = 0, set()
    for _ in range(rounds):
        try:
            lengths.add(kill_one(Path("list.json")))
        except ValueError:
            broken += 1
    sys.stdout.write(json.dumps({"broken": broken, "lengths": len(lengths)}))


main(int(sys.argv[1]))
