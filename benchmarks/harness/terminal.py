"""Where the terminal output of what is measured goes: to a terminal nobody looks at, or nowhere, the same for all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final, Literal

TerminalKind = Literal["pty", "null"]

ROWS: Final = 40
COLUMNS: Final = 120


@contextlib.contextmanager
def output_sent_to(kind: TerminalKind) -> Iterator[None]:
    """Send the standard output and the standard error of this process, below Python, to a pseudo terminal or nowhere.

    What is written to the terminal is read by a process of its own, so that it takes no time of this one.
    """
    with contextlib.ExitStack() as stack:
        target = _open_terminal(stack) if kind == "pty" else _open_nowhere(stack)
        for stream in (sys.stdout, sys.stderr):
            stack.enter_context(_replaced(stream.fileno(), target))
        yield
        sys.stdout.flush()
        sys.stderr.flush()


def _open_nowhere(stack: contextlib.ExitStack) -> int:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    stack.callback(os.close, descriptor)
    return descriptor


def _open_terminal(stack: contextlib.ExitStack) -> int:
    """Return the end of a new pseudo terminal that is written to."""
    import pty
    import termios

    reading, writing = pty.openpty()
    termios.tcsetwinsize(writing, (ROWS, COLUMNS))
    reader = subprocess.Popen(["cat"], stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S607
    os.close(reading)
    stack.callback(reader.wait)
    stack.callback(os.close, writing)
    return writing


@contextlib.contextmanager
def _replaced(descriptor: int, target: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
