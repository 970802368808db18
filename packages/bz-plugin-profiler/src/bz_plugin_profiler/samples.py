"""The file of samples, `devices.csv`: whole rows, appended, and cut back when a run is resumed."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bz_plugin_profiler.readings import Reading

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS: Final = ("elapsed_seconds", "device", *Reading._fields)
HEADER: Final = (",".join(COLUMNS) + "\n").encode()
DECIMALS: Final = 2


class SampleFile:
    """A file of rows.

    Args:
        path: Where it is; its folder is there.
        size_bytes: How much of it stays, down to a whole row; 0 to begin anew.

    Attributes:
        size_bytes: How long it is.

    Raises:
        OSError: If it cannot be written.
    """

    def __init__(self, path: Path, size_bytes: int = 0) -> None:
        kept = _whole_rows(path, size_bytes)
        self._file = path.open("r+b" if kept else "wb", buffering=0)
        self.size_bytes = kept
        try:
            self._file.truncate(kept)
            self._file.seek(kept)
            if not kept:
                self._append(HEADER)
        except OSError:
            self._file.close()
            raise

    def add(self, elapsed_seconds: float, readings: Iterable[tuple[str, Reading]]) -> None:
        """Append a row for each device.

        Raises:
            OSError: If the disk refuses; the file then ends with its last whole row.
        """
        rows = [[_cell(elapsed_seconds), key, *map(_cell, reading)] for key, reading in readings]
        self._append("".join(",".join(row) + "\n" for row in rows).encode())

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.size_bytes)
                self._file.seek(self.size_bytes)
            raise
        self.size_bytes += written

    def close(self) -> None:
        """Have the rows on disk and close the file."""
        with self._file:
            os.fsync(self._file.fileno())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.{DECIMALS}f}"


def _whole_rows(path: Path, size_bytes: int) -> int:
    """Return how many bytes of the file are whole rows under this header, up to a size."""
    if not size_bytes or not path.is_file():
        return 0
    with path.open("rb") as file:
        content = file.read(size_bytes)
    return content.rfind(b"\n") + 1 if content.startswith(HEADER) else 0


def summarize(path: Path) -> dict[str, dict[str, Any]]:
    """Return the least, the mean and the greatest of each value of each device."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for column in Reading._fields:
                if row[column]:
                    values[row["device"]][column].append(float(row[column]))
    return {
        device: {column: _range_of(numbers) for column, numbers in columns.items()}
        for device, columns in values.items()
    }


def _range_of(numbers: list[float]) -> dict[str, float]:
    mean = sum(numbers) / len(numbers)
    return {"min": min(numbers), "mean": round(mean, DECIMALS), "max": max(numbers)}
