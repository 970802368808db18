"""Where the picture goes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from bz.errors import ConfigError

FILE_NAME: Final = "lr_find.png"
FORMATS: Final = (".png", ".svg")


def picture_path(path: Path) -> Path:
    """Return the file that is meant: `path`, or `lr_find.png` in it if it is a folder or has no suffix.

    Raises:
        ConfigError: If the suffix is that of another kind of file.
    """
    if path.is_dir() or not path.suffix:
        return path / FILE_NAME
    if path.suffix.lower() not in FORMATS:
        message = f"`--output` must be a .png or .svg file or a folder, got {str(path)!r}."
        raise ConfigError(message, path=path, option="--output")
    return path


def check_writable(path: Path) -> None:
    """Find out now, and not after the test, whether a file can be written; nothing is left behind.

    Raises:
        ConfigError: If it cannot.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise ConfigError(message, path=path, option="--output") from error
    if path.is_dir():
        raise ConfigError(f"{path} cannot be written: it is a folder.", path=path, option="--output")
