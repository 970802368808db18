"""Keeps what others print, while bars are on the terminal, above the bars."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StreamAbove:
    """Stands in for a stream of the terminal: whole lines go to `show`, all else to the stream.

    rich has one of its own (`FileProxy`), which hides the encoding of the stream, breaks lines at
    the width of the terminal and breaks a line that is written piece by piece.
    """

    def __init__(self, stream: TextIO, show: Callable[[str], None]) -> None:
        self._stream = stream
        self._show = show
        self._unfinished = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Show the lines that are whole now, keep the rest; a carriage return starts a line anew."""
        *lines, rest = (self._unfinished + text).split("\n")
        self._unfinished = rest.rpartition("\r")[2]
        if lines:
            self._show("\n".join(self._as_written(line) for line in lines))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: lines are shown at once, and half a line would tear the bars."""

    def finish(self) -> None:
        """Hand half a line to the stream itself; for when the bars are gone."""
        if self._unfinished:
            self._stream.write(self._unfinished)
            self._stream.flush()
            self._unfinished = ""

    def _as_written(self, text: str) -> str:
        """Return the text as the stream would show it, or raise what it would raise."""
        encoding = self._stream.encoding
        return text.encode(encoding, self._stream.errors or "strict").decode(encoding, "replace")


class Redirection:
    """Puts a `StreamAbove` in the place of standard output and error where these are the terminal.

    Log handlers that were made earlier hold the streams themselves, so they are turned too.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._replaced: dict[str, tuple[TextIO, StreamAbove]] = {}

    def start(self) -> None:
        """Begin; a stream that goes elsewhere (`2> errors.txt`) is left alone."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self._replaced[name] = (stream, StreamAbove(stream, self._show))
        for name, (stream, above) in self._replaced.items():
            setattr(sys, name, above)
            _turn_handlers(stream, above)

    def stop(self) -> None:
        """Put the streams back, unless somebody else replaced them in the meantime."""
        while self._replaced:
            name, (stream, above) = self._replaced.popitem()
            if getattr(sys, name) is above:
                setattr(sys, name, stream)
            _turn_handlers(above, stream)
            above.finish()


def _turn_handlers(old: object, new: object) -> None:
    """Make every log handler that writes to `old` write to `new`."""
    for handler in _stream_handlers():
        if handler.stream is old:
            handler.setStream(new)


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = (logging.root, *logging.root.manager.loggerDict.values())
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler
