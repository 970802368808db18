"""Files that are there whole or not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bz.durable import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KINDS: Final = ("loss", "metrics")
_PLOT_NAME: Final = re.compile(rf"({'|'.join(KINDS)})_plot_epoch_([1-9][0-9]*)\.png")


def plot_name(kind: str, epoch: int) -> str:
    """Return the name of a plot, `loss_plot_epoch_5.png`."""
    return f"{kind}_plot_epoch_{epoch}.png"


def delete_plots(folder: Path, epochs: Iterable[int]) -> None:
    """Delete the plots of these epochs, as far as they are there."""
    for epoch in epochs:
        for kind in KINDS:
            (folder / plot_name(kind, epoch)).unlink(missing_ok=True)


def delete_later_plots(folder: Path, epoch: int) -> None:
    """Delete the plots of all epochs after the given one."""
    if not folder.is_dir():
        return
    names = (_PLOT_NAME.fullmatch(path.name) for path in folder.iterdir())
    delete_plots(folder, {int(name[2]) for name in names if name and int(name[2]) > epoch})


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, durably, in place of what was there; make its folder first.

    Raises:
        OSError: It was not written; what was there is untouched and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
