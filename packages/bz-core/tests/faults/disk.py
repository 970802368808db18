"""The system calls by which files are written, watched: to count them, to record them, to fail or to die at one.

What is replaced are functions of the operating system; the code that calls them is that of bz.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from unittest import mock

Moment = Literal["before", "halfway", "after"]


class Operation(NamedTuple):
    """One change that the operating system was asked for.

    Attributes:
        name: `open` (makes the file), `write`, `fsync`, `fsync_folder`, `replace`, `unlink`, `mkdir` or `chmod`.
        path: Of which file or folder.
        target: Where a `replace` leads.
        offset: Where in the file a `write` begins.
        data: What it writes.
    """

    name: str
    path: Path
    target: Path | None = None
    offset: int = 0
    data: bytes = b""


Visitor = Callable[[Operation, Moment], None]


class _WatchedFile(io.FileIO):
    """A file whose writes are reported before, half done and after."""

    def __init__(self, path: Path, visitor: Visitor) -> None:
        super().__init__(path, "x+")
        self.visitor = visitor

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        operation = Operation("write", Path(os.fsdecode(self.name)), offset=self.tell(), data=content)
        self.visitor(operation, "before")
        half = len(content) // 2
        self._write_all(content[:half])
        self.visitor(operation, "halfway")
        self._write_all(content[half:])
        self.visitor(operation, "after")
        return len(content)

    def _write_all(self, content: bytes) -> None:
        while content:
            content = content[super().write(content) :]


_REAL: Final = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "mkdir", "chmod")}
_REAL_OPEN: Final = io.open  # what `Path.open` calls


@contextmanager
def watched(root: Path, visitor: Visitor) -> Iterator[None]:
    """Report every change below `root` that this process asks for while the block runs."""
    calls = _Calls(root.resolve(), visitor)
    with ExitStack() as stack:
        for name in ("fsync", "replace", "unlink", "mkdir", "chmod"):
            stack.enter_context(mock.patch.object(os, name, getattr(calls, name)))
        stack.enter_context(mock.patch.object(io, "open", calls.open))
        stack.callback(calls.close_files)
        yield


class _Calls:
    """Stands in for functions of the operating system, and calls them."""

    def __init__(self, root: Path, visitor: Visitor) -> None:
        self._root = root
        self._visitor = visitor
        self._files: list[_WatchedFile] = []

    def close_files(self) -> None:
        """Do what the system does when a process has died."""
        for file in self._files:
            file.close()

    def open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        path = _locate(file)
        if mode != "x+b" or not path.is_relative_to(self._root):
            return _REAL_OPEN(file, mode, *arguments, **options)
        self._visit(Operation("open", path), lambda: self._files.append(_WatchedFile(path, self._visitor)))
        return io.BufferedRandom(self._files[-1])

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        name = "fsync_folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync"
        self._visit(Operation(name, path), lambda: _REAL["fsync"](descriptor))

    def replace(self, source: Any, target: Any) -> None:
        operation = Operation("replace", _locate(source), _locate(target))
        self._visit(operation, lambda: _REAL["replace"](source, target))

    def unlink(self, path: Any, **options: Any) -> None:
        self._visit(Operation("unlink", _locate(path)), lambda: _REAL["unlink"](path, **options))

    def mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        self._visit(Operation("mkdir", _locate(path)), lambda: _REAL["mkdir"](path, *arguments, **options))

    def chmod(self, path: Any, *arguments: Any, **options: Any) -> None:
        self._visit(Operation("chmod", _locate(path)), lambda: _REAL["chmod"](path, *arguments, **options))

    def _visit(self, operation: Operation, action: Callable[[], Any]) -> Any:
        if not operation.path.is_relative_to(self._root):
            return action()
        self._visitor(operation, "before")
        result = action()
        self._visitor(operation, "after")
        return result


def _locate(path: Any) -> Path:
    """Return where it is, or a path that is nowhere for a descriptor."""
    if not isinstance(path, str | os.PathLike):
        return Path()
    return Path(path).parent.resolve() / Path(path).name


class Recorder:
    """Keeps every operation that took effect, in order."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def __call__(self, operation: Operation, moment: Moment) -> None:
        if moment == "after":
            self.operations.append(operation)


class KillAt:
    """Ends this process by SIGKILL at the n-th point, counted from 1; says on a descriptor where that was."""

    def __init__(self, number: int, report: int) -> None:
        self._left = number
        self._report = report

    def __call__(self, operation: Operation, moment: Moment) -> None:
        self._left -= 1
        if self._left == 0:
            os.write(self._report, f"{operation.name} {moment}".encode())
            os.kill(os.getpid(), signal.SIGKILL)


class Crashed(BaseException):
    """The process is dead from here on: nothing that it still asks for takes effect."""


class CrashAt:
    """Plays a death at the n-th point inside a process that lives on: every later operation is refused, too."""

    def __init__(self, number: int) -> None:
        self._left = number

    @property
    def has_crashed(self) -> bool:
        """Whether the point was reached."""
        return self._left <= 0

    def __call__(self, operation: Operation, moment: Moment) -> None:
        self._left -= 1
        if self.has_crashed:
            raise Crashed


class FailAt:
    """Refuses the n-th operation, counted from 1, as a disk does.

    Attributes:
        failed: The operation that was refused; None before.
    """

    def __init__(self, number: int, error_number: int = errno.EIO) -> None:
        self.failed: Operation | None = None
        self._left = number
        self._error_number = error_number

    def __call__(self, operation: Operation, moment: Moment) -> None:
        if moment != "before":
            return
        self._left -= 1
        if self._left == 0:
            self.failed = operation
            raise OSError(self._error_number, os.strerror(self._error_number), str(operation.path))


class FailDeletes:
    """Refuses every deletion of a checkpoint, as a folder does whose permissions were lost."""

    SUFFIX: Final = ".pth"

    def __call__(self, operation: Operation, moment: Moment) -> None:
        if moment == "before" and operation.name == "unlink" and operation.path.suffix == self.SUFFIX:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(operation.path))
