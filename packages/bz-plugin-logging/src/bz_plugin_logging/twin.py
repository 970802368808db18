r"""A file that grows by appending, and of which every reader sees a whole version at every moment.

A JSON list ends with a bracket that has to move with every addition. Overwriting it in place is not
safe, not even with a single `pwrite`: Linux copies page by page and looks for a fatal signal before
each, so that SIGKILL cuts a write that crosses a page, now and then even one of two pages; a full
disk cuts it too. Writing the whole list beside the file and renaming it is safe, and makes n epochs
cost n² bytes.

So there are two files of the same content, the visible one and its hidden twin, one addition behind:

1. The twin gets what it lacks and the new addition, and is forced to the disk (at most once a second).
2. A second name is given to the visible file, so that the next step does not delete it.
3. The twin is renamed over the visible file, which is atomic. The former visible file is the twin now.

A kill at any instruction leaves the old version or the new one, and at most two hidden files, which
the next run that writes the same file removes. An addition costs the same however long the file is.
Where a file cannot have two names (FAT, some network drives) the twin is copied each time: as safe,
but slower the longer the file is.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from bz.durable import replacing

if TYPE_CHECKING:
    from pathlib import Path

SYNC_SECONDS: Final = 1.0
"""Least time between two waits for the disk, which protect against a loss of power, not against a kill."""


class TwinFile:
    """One growing file.

    Args:
        path: The visible file; a link stays a link. Missing folders are made when it is first written.
        tail: What stands behind the body, however much is appended to that.
    """

    def __init__(self, path: Path, tail: bytes = b"") -> None:
        self.path = path.resolve()
        self._tail = tail
        self._body_size = 0
        self._twin = self.path.with_name(f".{self.path.name}.twin")
        self._spare = self.path.with_name(f".{self.path.name}.spare")
        self._synced_at = -SYNC_SECONDS
        self._is_synced = True
        self._lacks: bytes | None = None
        """What the twin lacks of the visible body; None while there is no twin."""

    def replace(self, body: bytes) -> None:
        """Write the file anew, whatever it held.

        Raises:
            OSError: It was not written; what was there is untouched and nothing is left behind.
        """
        self._check_kind()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_twin()  # first of all the twin of a killed run, which may be the visible file under another name
        with replacing(self.path) as file:
            file.write(body + self._tail)
        self._is_synced = True
        self._body_size = len(body)

    def append(self, addition: bytes) -> None:
        """Add to the body.

        Raises:
            OSError: Nothing was added; the visible file is untouched and nothing is left behind.
        """
        try:
            if self._lacks is None:
                self._copy()
            lacking = self._lacks or b""
            self._check_size(self._twin, self._body_size - len(lacking))
            self._write_twin(self._body_size - len(lacking), lacking + addition + self._tail)
            is_kept = self._publish()
        except BaseException:
            self._drop_twin()
            raise
        self._body_size += len(addition)
        self._lacks = addition if is_kept else None

    def close(self) -> None:
        """Force the file to the disk, and leave nothing else there.

        Raises:
            OSError: It cannot be known whether the file would survive a loss of power.
        """
        self._drop_twin()
        if not self._is_synced:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self._is_synced = True

    def _drop_twin(self) -> None:
        """Remove the twin; the next addition makes a new one."""
        self._lacks = None
        for hidden in (self._twin, self._spare):
            with suppress(OSError):  # a folder that is not writable any more keeps it
                hidden.unlink()

    def _check_kind(self) -> None:
        """Refuse to put a file in the place of a folder or of a device such as /dev/null."""
        if self.path.exists() and not self.path.is_file():
            raise OSError(errno.EINVAL, "Not a regular file", str(self.path))

    def _copy(self) -> None:
        """Make the twin from the visible file."""
        self._check_size(self.path, self._body_size)
        shutil.copy(self.path, self._twin)
        self._lacks = b""

    def _check_size(self, path: Path, body_size: int) -> None:
        if path.stat().st_size != body_size + len(self._tail):
            raise OSError(errno.EBUSY, "Something else writes to the log of this run", str(self.path))

    def _write_twin(self, position: int, content: bytes) -> None:
        """Write to the file that nobody sees yet."""
        with self._twin.open("r+b") as file:
            file.seek(position)
            file.write(content)
            file.flush()
            self._is_synced = monotonic() - self._synced_at >= SYNC_SECONDS
            if self._is_synced:
                os.fsync(file.fileno())
                self._synced_at = monotonic()

    def _publish(self) -> bool:
        """Exchange twin and visible file; return whether the latter was kept as the new twin."""
        is_kept = _link(self.path, self._spare)
        self._twin.replace(self.path)
        self._twin, self._spare = self._spare, self._twin
        return is_kept


def _link(path: Path, name: Path) -> bool:
    """Give a file a second name; return False where that cannot be had."""
    try:
        os.link(path, name)
    except OSError:
        return False
    return True
