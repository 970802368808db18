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
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise BzError(f"{path} cannot be written: {cause.strerror or cause}.") from cause
