"""Rows under a common heading, in as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        rank: The higher, the sooner the column is left out where the room is short.
        width: Least width in characters; the heading always fits.
        left: Whether its cells are flush left.
    """

    title: str
    rank: int
    width: int = 0
    left: bool = False

    @property
    def room(self) -> int:
        """Characters that the column takes."""
        return max(self.width, len(self.title))

    def align(self, text: str) -> str:
        """Return the text padded to the room of the column."""
        return text.ljust(self.room) if self.left else text.rjust(self.room)


def columns_that_fit(columns: Sequence[Column], room: int | None) -> list[int]:
    """Return the indices of the columns to show, the most important ones that fit; all where room is None."""
    if room is None:
        return list(range(len(columns)))
    chosen: list[int] = []
    for index in sorted(range(len(columns)), key=lambda index: columns[index].rank):
        room -= columns[index].room + (len(GAP) if chosen else 0)
        if room < 0 and chosen:
            break
        chosen.append(index)
    return sorted(chosen)


def join_row(columns: Sequence[Column], cells: Sequence[str], chosen: Iterable[int]) -> str:
    """Return one row of the chosen columns, each cell in its place."""
    return GAP.join(columns[index].align(cells[index]) for index in chosen).rstrip()
