"""Tables, as text for a terminal or in Markdown for a document, and the line that says where they were measured."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

ROOT: Final = Path(__file__).parents[2]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """Print rows of cells; the first column is text, the others are numbers."""
    print()
    if markdown:
        print(f"| {' | '.join(head)} |")
        print(f"|---|{'---:|' * (len(head) - 1)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print(
            f"{row[0]:{widths[0]}}  "
            + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        )


def microseconds(seconds: float) -> str:
    """Return a time of a step."""
    return f"{seconds * 1e6:.1f}"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the least and the largest."""
    return f"{min(values):{form}} to {max(values):{form}}"


def equality(difference: float) -> str:
    """Say how far weights are from those that are expected."""
    if difference == 0.0:
        return "equal"
    return "another model" if math.isinf(difference) else f"differ by {difference:.1e}"


def print_machine() -> None:
    """Print what the figures depend on: commit, versions, cores, and how busy the machine is."""
    load = f", load {os.getloadavg()[0]:.1f} at the beginning" if hasattr(os, "getloadavg") else ""
    print(
        f"commit {commit()}; torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}; "
        f"{os.cpu_count()} cores{load}"
    )


def commit() -> str:
    """Return the commit of the sources, with a plus sign if something in them has changed since."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603 - fixed arguments
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S603 - see above
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changes.stdout else "")
