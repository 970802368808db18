"""Replacing a file so that a crash, a kill or a full disk leaves the old content or the new one, never a part."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_TEMPORARY: Final = re.compile(r"\..*\.[0-9a-f]{8}\.tmp", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """Give a file to write (and read) whose content takes the place of `path` when the block ends.

    Temporary file in the same folder, flush, fsync, rename, fsync of the folder. A file that is
    already there passes its permissions on. Leaving the block by an exception changes nothing.

    Raises:
        OSError: If the disk refuses; nothing is left behind and what was at `path` is still there.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there; they survive a power failure, too.

    Raises:
        OSError: If the disk refuses.
    """
    if folder.is_dir():
        return
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that `replacing` left in a folder because its process was killed.

    Nobody else may be writing to the folder. One that cannot be removed is a warning.
    """
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s was left by a killed process and cannot be removed: %s", path, error.strerror)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
