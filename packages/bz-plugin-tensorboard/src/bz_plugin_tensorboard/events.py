"""Event files: written in whole records by the calling thread, and cut back when a run is resumed.

`SummaryWriter` hands every event to a thread of its own, which contends with the training for the
interpreter lock and reports a full disk from there. Here events are collected in memory and written
with one system call when somebody asks for it.

Which events a reader shows after a resume differs: TensorBoard's own loader drops what a
`SessionLog.START` with a lower step follows, its fast data server replaces points one tag at a
time. Both see the same curves here, because what lies behind the checkpoint is cut off the files,
and each session also begins with such a START for a server that has read it already.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bz_plugin_tensorboard.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PREFIX: Final = "events.out.tfevents."
SUFFIX: Final = ".bz"
FILE_VERSION: Final = "brain.Event:2"


class EventFile:
    """An event file of one session.

    Args:
        folder: Where it is made, created if need be; it is sorted behind the event files that are there.
        first_step: Step of the first events to come; a running server drops those it has from there on.
        add_beginning: Adds the events that stand first. It is called when others follow or the file is flushed, since
            TensorBoard is imported for the first event, and training has not to wait for that.

    Attributes:
        has_begun: Whether there are events in it.

    Raises:
        OSError: If it cannot be made.
    """

    def __init__(self, folder: Path, first_step: int, add_beginning: Callable[[EventFile], None] | None = None) -> None:
        self._first_step = first_step
        self._add_beginning = add_beginning
        self.has_begun = False
        self._event: Any = None
        self._summary: Any = None
        self._points: dict[str, Any] = {}
        self._unwritten = bytearray()
        self._size = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / _next_name(folder)
        self._file = self.path.open("xb", buffering=0)

    def _begin(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        self.has_begun = True
        self.add(0, file_version=FILE_VERSION)
        self.add(self._first_step, session_log=SessionLog(status=SessionLog.START))
        if self._add_beginning is not None:
            self._add_beginning(self)

    def add(self, step: int, wall_time: float | None = None, **content: Any) -> None:
        """Keep an event for the next `flush`; `content` is its one other field, such as `summary`."""
        if not self.has_begun:
            self._begin()
        event = self._event(step=step, wall_time=time.time() if wall_time is None else wall_time, **content)
        self._unwritten += record(event.SerializeToString())

    def add_point(self, tag: str, step: int, value: float, wall_time: float | None = None) -> None:
        """Keep a point of a curve for the next `flush`; one event for each curve is filled anew each time."""
        event = self._points.get(tag)
        if event is None:
            if not self.has_begun:
                self._begin()
            summary = self._summary(value=[self._summary.Value(tag=tag)])
            event = self._points[tag] = self._event(summary=summary)
        event.step = step
        event.wall_time = time.time() if wall_time is None else wall_time
        event.summary.value[0].simple_value = value
        self._unwritten += record(event.SerializeToString())

    def flush(self) -> None:
        """Write the events so far; what cannot be written is tried again next time.

        Raises:
            OSError: If the disk refuses; the file then ends with its last whole record.
        """
        if not self.has_begun:
            self._begin()
        data, written = bytes(self._unwritten), 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
                self._file.seek(self._size)
            raise
        self._size += written
        self._unwritten.clear()

    def sync(self) -> None:
        """Have the events survive a power cut, too."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left and close the file, also when the disk refuses.

        Raises:
            OSError: If the disk refuses.
        """
        try:
            self.flush()
        finally:
            self._file.close()


def _next_name(folder: Path) -> str:
    """Return a name behind those of all event files in the folder, since readers sort by name.

    The clock alone would not do: two sessions may begin in one second, or on machines whose clocks differ.
    """
    names = (path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*"))
    seconds = [int(first) for name in names if (first := name.partition(".")[0]).isdigit()]
    return f"{PREFIX}{max([int(time.time()), *(last + 1 for last in seconds)]):010d}.{socket.gethostname()}{SUFFIX}"


def own_sizes(folder: Path) -> dict[str, int]:
    """Return name to size in bytes of the event files in the folder that this plugin wrote."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))}


def cut_back(folder: Path, sizes: Mapping[str, int]) -> None:
    """Take the folder's event files back to the sizes that they had when a checkpoint was written.

    Files that came later are removed: the resumed run writes their events again. Nothing is touched
    in a folder that knows none of the names: the checkpoint was made elsewhere.
    """
    present = own_sizes(folder)
    if not present.keys() & sizes.keys():
        return
    for name, size in present.items():
        if name not in sizes:
            (folder / name).unlink()
        elif size > sizes[name]:
            os.truncate(folder / name, sizes[name])
