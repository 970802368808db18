"""Where log records go while a command runs: warnings to stderr, everything to the log file of a run.

Nothing stays behind: the handlers are gone when the command is done.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bz.cli import output

_FILE_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Print warnings and errors on stderr, one line each, without tracebacks."""
    with _handler_on_root(_TerminalHandler(logging.WARNING)):
        yield


class RunLog(logging.Handler):
    """The log file of a run; what is logged before there is a run folder waits in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[logging.LogRecord] = []
        self._file: _LogFile | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or keep it until there is a file."""
        if self._file is None:
            self._waiting.append(record)
        else:
            self._file.handle(record)

    def write_to(self, path: Path) -> None:
        """Write what waits, and everything from now on, to the file."""
        self._file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(_RedactingFormatter(_FILE_FORMAT))
        for record in self._waiting:
            self._file.handle(record)
        self._waiting.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Take records of level INFO and above, and Python's warnings, until the block is left."""
        with _handler_on_root(self), _root_level(logging.INFO), _captured_warnings():
            try:
                yield
            finally:
                self.close()


class _LogFile(logging.FileHandler):
    """Says once that it can no longer be written; a full disk is no reason to end a run."""

    has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's name and arguments
        if not self.has_failed:
            self.has_failed = True
            output.warn(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}")

    def close(self) -> None:
        """Close the file; what could not be written has been reported."""
        with suppress(OSError):
            super().close()


class _TerminalHandler(logging.Handler):
    """Looks for stderr at every record: a progress display may have put another stream in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            output.warn(_one_line(record))
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be formatted ends nothing
            self.handleError(record)


def _one_line(record: logging.LogRecord) -> str:
    lines = record.getMessage().strip().splitlines() or [""]
    # Python's own warnings come with the line of code that caused them.
    return lines[0] if record.name == "py.warnings" else " ".join(line.strip() for line in lines)


class _RedactingFormatter(logging.Formatter):
    """Hides secrets in the whole text of a record, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return output.redacted(super().format(record))


@contextmanager
def _handler_on_root(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextmanager
def _root_level(level: int) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    try:
        yield
    finally:
        root.setLevel(before)


@contextmanager
def _captured_warnings() -> Iterator[None]:
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
