"""What the disk says when a file cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bz.errors import BzError


@contextmanager
def reported_disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence with the path.

    Raises:
        BzError: With the OSError as its cause, also where torch has hidden that behind an error of its own.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = disk_error(error)
        if cause is None:
            raise
        raise BzError(f"{path} cannot be written: {cause.strerror or cause}.") from cause


def disk_error(error: BaseException) -> OSError | None:
    """Return the disk's own error, if that is what happened: torch raises a RuntimeError while it handles one."""
    while not isinstance(error, OSError):
        if error.__context__ is None:
            return None
        error = error.__context__
    return error
