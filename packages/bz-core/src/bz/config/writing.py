"""Writing a text file durably."""

from __future__ import annotations

from pathlib import Path

from bz.durable import replacing


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of `path`, durably; a link stays a link, and the permissions stay.

    Raises:
        OSError: The file was not written; its old content is untouched and nothing is left behind.
    """
    with replacing(path.resolve()) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
