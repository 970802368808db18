"""One log on disk: events go in, and stay until they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz_plugin_logging.twin import TwinFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bz_plugin_logging.formats import Event, LogFormat


class LogFile:
    """One file of one run.

    Args:
        path: Where it is.
        format: Its form; not shared with another file.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, format: LogFormat) -> None:  # noqa: A002 - what it is
        self.path = path
        self._format = format
        self._file = TwinFile(path, format.tail)
        self._is_begun = False
        self._earlier: list[Event] = []
        """What the file holds already when it is begun anew by this object."""
        self._num_written = 0
        self._last_timestamp: str | None = None
        self._pending: list[Event] = []

    def add(self, event: Event) -> None:
        """Take in an event, to be written by `write`."""
        if self._format.accepts(event):
            self._pending.append(event)

    def write(self) -> None:
        """Write what was added; the first time in place of whatever the file held.

        Raises:
            OSError: The file is as it was; the events are kept for the next try.
        """
        if not self._is_begun:
            self._rewrite(self._earlier)
        elif self._pending:
            self._append()
        self._is_begun = True
        self._earlier = []
        if self._pending:
            self._num_written += len(self._pending)
            self._last_timestamp = self._pending[-1]["timestamp"]
            self._pending = []

    def _append(self) -> None:
        addition = self._format.addition(self._pending) if self._num_written else None
        if addition is not None:
            self._file.append(addition)
        else:
            self._rewrite(self._read(self._num_written) if self._num_written else [])

    def _rewrite(self, earlier: list[Event]) -> None:
        self._file.replace(self._format.body([*earlier, *self._pending]))

    def _read(self, count: int) -> list[Event]:
        """Return the first events of the file."""
        return self._format.read(self._file.path.read_bytes())[:count]

    def close(self) -> None:
        """Leave nothing but the file itself on disk."""
        self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what `go_on` needs; it does not grow with the file."""
        return {"count": self._num_written, "last": self._last_timestamp, "pending": list(self._pending)}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Have the next `write` cut the file back to the events that were there when `state` was taken.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not the file that `state` is about.
        """
        events = self._read(state["count"]) if state["count"] else []
        if len(events) < state["count"]:
            raise ValueError("events of the run are missing in it")
        if events and events[-1]["timestamp"] != state["last"]:
            raise ValueError("it is of another run")
        self._earlier, self._pending = events, list(state["pending"])
        self._num_written, self._last_timestamp = state["count"], state["last"]
