"""A second name for a file, such as `best.pth`: a hard link, or a copy where there are no links.

Unlike a symbolic link, neither can dangle: when the first name is deleted, the second one still
has the whole file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bz.durable import replacing


def point(alias: Path, target: Path) -> None:
    """Make `alias` a name of `target`; at every moment it is a whole file, the old one or the new one.

    Raises:
        OSError: If neither a link nor a copy can be made; `alias` is then as it was.
    """
    if alias.exists() and alias.samefile(target):  # renaming one link over another of the same file does nothing
        return
    link = alias.with_name(f".{alias.name}.tmp")
    try:
        link.unlink(missing_ok=True)
        link.hardlink_to(target)
    except OSError:  # no links on this file system, or too many of this file; each says it in its own way
        _copy(target, alias)
        return
    try:
        link.replace(alias)
    finally:
        link.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, replacing(target) as copy:
        shutil.copyfileobj(original, copy)
