"""One process at a time works in a run folder; `run.lock` in it says which.

The lock is a POSIX record lock (`fcntl.lockf`). The system drops it with the process, however that ends, so a dead
owner is no obstacle; and forked loader workers do not inherit it, so a worker that survives its trainer holds nothing.
The price: it is gone as soon as the owning process closes any descriptor of the file, so the file is opened once, here,
and nothing else in the process may open it.

Where there is no fcntl (Windows), or on a disk without locks, two threads of one process are still kept apart; two
processes are not.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from bz.config.wording import display_path
from bz.durable import make_folder
from bz.errors import ConfigError

HAS_LOCKS: bool
"""Whether this system tells a living owner from a dead one."""

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

logger = logging.getLogger(__name__)

LOCK_NAME: Final = "run.lock"
NOTED_EVERY_SECONDS: Final = 0.5

_RECORD_SIZE: Final = 512
_TRIES: Final = 5
_WAIT_SECONDS: Final = 0.05
_BUSY: Final = (BlockingIOError, PermissionError)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who works in a run folder, or did when it died.

    Attributes:
        pid: Its process.
        host: Its machine.
        since: When it began, in ISO form with the time zone.
        seconds: How long it had worked at its last sign of life.
        epoch: The epoch it was in by then; 0 before the first.
        global_step: The optimizer steps it had done by then.
    """

    pid: int
    host: str
    since: str
    seconds: float = 0.0
    epoch: int = 0
    global_step: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since.replace('T', ' ')}"


class FolderLock:
    """A run folder that this thread works in; made by `hold`.

    Attributes:
        former: The owner before, if it died without giving the folder back; else None.
    """

    def __init__(self, path: Path, descriptor: int | None, former: Owner | None) -> None:
        self._path = path
        self.former = former
        self.process = os.getpid()
        self.thread = threading.get_ident()
        self.depth = 1
        self._descriptor = descriptor
        self._started = time.monotonic()
        self._next_note = 0.0
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._owner = Owner(self.process, socket.gethostname(), now)
        self.note(0, 0)

    @property
    def is_own(self) -> bool:
        """Whether it was taken by this very thread."""
        return self.process == os.getpid() and self.thread == threading.get_ident()

    def note(self, epoch: int, global_step: int) -> None:
        """Leave a sign of life that survives a kill, not more than every half second."""
        now = time.monotonic()
        if self._descriptor is None or now < self._next_note:
            return
        self._next_note = now + NOTED_EVERY_SECONDS
        seconds = round(now - self._started, 3)
        owner = replace(self._owner, seconds=seconds, epoch=epoch, global_step=global_step)
        try:
            _write(self._descriptor, owner)
        except OSError:  # a full disk: the folder stays locked, only who has it is not told
            self._next_note = float("inf")

    def give_back(self) -> None:
        """Drop the lock and remove its file: one that is left behind speaks of a death."""
        if self._descriptor is None or self.process != os.getpid():
            return
        if not HAS_LOCKS:  # Windows removes no file that is open
            os.close(self._descriptor)
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", display_path(self._path), error.strerror)
        if HAS_LOCKS:
            os.close(self._descriptor)


_held: Final[dict[Path, FolderLock]] = {}
_guard: Final = threading.Lock()


@contextmanager
def hold(folder: Path) -> Iterator[FolderLock]:
    """Keep everybody else out of a run folder, which is made if it is not there.

    A thread may take what it has already; the lock is dropped with the outermost block. On a disk that cannot be
    written or has no locks, a warning is logged and nothing is locked.

    Raises:
        ConfigError: Another process, or another thread of this one, works in the folder.
    """
    key = folder.resolve()
    lock = _take(key, folder)
    try:
        yield lock
    finally:
        _drop(key, lock)


def find_owner(folder: Path) -> Owner | None:
    """Return who works in a run folder at this moment, or None if nobody does or that cannot be told."""
    with _guard:
        lock = _held.get(folder.resolve())
        if lock is not None and lock.process == os.getpid():
            # Not to be opened: closing it again would drop the lock.
            return lock._owner  # noqa: SLF001 - the lock of this module
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if not HAS_LOCKS or _is_free(descriptor) else _read(descriptor) or _UNKNOWN
    finally:
        os.close(descriptor)


_UNKNOWN: Final = Owner(0, "an unknown machine", "an unknown time")


def _take(key: Path, folder: Path) -> FolderLock:
    with _guard:
        lock = _held.get(key)
        if lock is not None and lock.process == os.getpid():
            if not lock.is_own:
                raise _in_use(folder, "another thread of this process")
            lock.depth += 1
            return lock
        _held[key] = lock = _lock_file(folder)
        return lock


def _drop(key: Path, lock: FolderLock) -> None:
    with _guard:
        lock.depth -= 1
        if lock.depth == 0:
            del _held[key]
            lock.give_back()


def _lock_file(folder: Path) -> FolderLock:
    path = folder.absolute() / LOCK_NAME
    try:
        make_folder(folder)
        descriptor = _open_locked(path, folder)
    except OSError as error:
        logger.warning("%s cannot be locked: %s", display_path(folder), error.strerror)
        return FolderLock(path, None, None)
    return FolderLock(path, descriptor, _read(descriptor))


def _open_locked(path: Path, folder: Path) -> int:
    """Return a descriptor of the locked file, which an owner before may have removed in between."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock_descriptor(descriptor, folder)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock_descriptor(descriptor: int, folder: Path) -> None:
    """Lock the file; somebody who only looks has it for a moment, so one refusal is none."""
    if not HAS_LOCKS:
        return
    for attempt in range(1, _TRIES + 1):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except _BUSY:
            if attempt == _TRIES:
                raise _in_use(folder, str(_read(descriptor) or "another process")) from None
            time.sleep(_WAIT_SECONDS)
        except OSError as error:
            logger.warning("%s cannot be locked: %s", display_path(folder), error.strerror)
            return
        else:
            return


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _BUSY:
        return False
    except OSError:  # no locks on this disk
        return True
    return True


def _write(descriptor: int, owner: Owner) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)  # not os.pwrite, which Windows lacks
    os.write(descriptor, json.dumps(asdict(owner)).encode().ljust(_RECORD_SIZE))


def _read(descriptor: int) -> Owner | None:
    """Return what the file says, or None if it is empty or damaged."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Owner(**json.loads(os.read(descriptor, _RECORD_SIZE)))
    except (OSError, ValueError, TypeError):
        return None


def _in_use(folder: Path, who: str) -> ConfigError:
    fault = f"The run folder {display_path(folder)} is in use by {who}; wait until that has ended, or take another."
    return ConfigError(fault, path=folder)
