"""A session on a terminal: lines that stay, and bars below them that are redrawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bz_plugin_console.columns import GAP, Column, columns_that_fit, join_row
from bz_plugin_console.redirect import Redirection
from bz_plugin_console.summary import USAGE_TITLES, usage_columns, usage_rows
from bz_plugin_console.wording import encodable, number

if TYPE_CHECKING:
    from bz.progress import PluginUsage
    from bz_plugin_console.display import Frame
    from bz_plugin_console.summary import EpochSummary

LABEL_WIDTH = len("validation ")
SIDE_WIDTH = len("100 %  1,234,567 samples/s")
LONGEST_BAR = 48
SHORTEST_BAR = 10
PHASE_STYLES = {"training": "cyan", "validation": "magenta"}


class Terminal:
    """Draws with rich, on the thread that calls."""

    has_bars = True

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(
            file=stream, force_terminal=True, force_interactive=True, markup=False, highlight=False, emoji=False
        )
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._redirection = Redirection(self._show_foreign)
        self._heading: list[Column] = []
        self._count_width = 0

    def open(self) -> None:
        """Begin the bars, and let what others print appear above them."""
        self._live.start()
        self._console.show_cursor(True)  # a run that is killed must not leave a terminal without a cursor
        self._redirection.start()

    def close(self) -> None:
        """Take the bars away and give the streams back."""
        try:
            self._live.stop()
        finally:
            self._redirection.stop()

    def draw(self, frame: Frame) -> None:
        """Draw two bars, the run and the running loop, and a line with loss and metrics."""
        self._live.update(self._picture(frame), refresh=True)

    def show_line(self, text: str, *, lead: str = "", style: str = "") -> None:
        """Add a line; a long one is broken between words."""
        self._print(Text.assemble((lead, style), text))

    def show_epoch(self, summary: EpochSummary, *, is_best: bool) -> None:
        """Add a row with the values of an epoch or validation; the heading is repeated when the columns change."""
        columns, cells = zip(*summary.cells(), strict=True)
        chosen = columns_that_fit(columns, self._console.width)
        if self._heading != (heading := [columns[index] for index in chosen]):
            self._heading = heading
            self._print(Text("\n" + join_row(columns, [column.title for column in columns], chosen), style="dim"))
        row = Text(join_row(columns, cells, chosen))
        if is_best:
            row.stylize("green", *_span(columns, chosen, summary.best().name))
        self._print(row)

    def show_usage(self, usage: Sequence[PluginUsage]) -> None:
        """Add the report, with as many columns as there is room for."""
        rows = usage_rows(usage)
        columns = usage_columns(rows)
        chosen = columns_that_fit(columns, self._console.width)
        self._print(Text(join_row(columns, USAGE_TITLES, chosen), style="dim"))
        for cells, plugin in zip(rows, usage, strict=True):
            self._print(Text(join_row(columns, cells, chosen), style="yellow" if plugin.failures else ""))

    def _print(self, text: Text) -> None:
        text.plain = encodable(text.plain, self._console.encoding)
        self._console.print(text)

    def _show_foreign(self, lines: str) -> None:
        """Print what somebody else wrote, colours included, and leave the breaking of lines to the terminal."""
        self._console.print(Text("\n").join(map(Text.from_ansi, lines.split("\n"))), soft_wrap=True)

    def _picture(self, frame: Frame) -> Text:
        """Return a gap and three lines, each within the width of the terminal."""
        total = "?" if frame.total is None else str(frame.total)
        counts = (frame.position, f"{frame.done}/{total}")
        self._count_width = max(self._count_width, *map(len, counts))
        loop_fraction = frame.done / frame.total if frame.total else None
        picture = Text("\n", no_wrap=True, overflow="crop").join(
            [
                Text(),
                self._bar_line(frame.unit, counts[0], frame.run_fraction, frame.time_left, "green"),
                self._bar_line(frame.phase, counts[1], loop_fraction, frame.speed, PHASE_STYLES[frame.phase]),
                self._value_line(frame),
            ]
        )
        picture.plain = encodable(picture.plain, self._console.encoding)
        return picture

    def _bar_line(self, label: str, count: str, fraction: float | None, side: str, style: str) -> Text:
        percent = "" if fraction is None else f"{min(fraction, 1):.0%}".replace("%", " %")
        return Text.assemble(
            f"{label:<{LABEL_WIDTH}}{count:>{self._count_width}}{GAP}",
            *self._bar(fraction or 0, style),
            f"{GAP}{percent:>5}{GAP}",
            (side if self._has_side else "", "dim"),
        )

    @property
    def _bar_room(self) -> int:
        """Characters for a bar and what stands right of it."""
        return self._console.width - LABEL_WIDTH - self._count_width - 2 * len(GAP)

    @property
    def _has_side(self) -> bool:
        return self._bar_room - SIDE_WIDTH >= SHORTEST_BAR

    def _bar(self, fraction: float, style: str) -> Iterator[tuple[str, str]]:
        """Yield the part of the bar that is done and the part to come, which differ without colour too."""
        done, ahead = ("#", "-") if self._console.options.ascii_only else ("━", "─")
        room = self._bar_room - (SIDE_WIDTH if self._has_side else len("100 %"))
        width = max(0, min(room, LONGEST_BAR))
        filled = min(int(fraction * width), width)
        yield done * filled, style
        yield ahead * (width - filled), "dim"

    def _value_line(self, frame: Frame) -> Text:
        """Return as many values as fit, after the time left where the bars have no room for it."""
        pieces = [f"{name} {number(value)}" for name, value in frame.values.items()]
        if frame.place:
            pieces.insert(0, frame.place)
        if not self._has_side and frame.time_left:
            pieces.insert(0, frame.time_left)
        columns = [Column(piece, rank) for rank, piece in enumerate(pieces)]
        chosen = columns_that_fit(columns, self._console.width)
        # Never empty: rich drops an empty last line, and the height must stay the same, also for what a
        # worker process of a loader knows of it when it prints.
        return Text(join_row(columns, pieces, chosen) or " ")


def _span(columns: Sequence[Column], chosen: Sequence[int], title: str) -> tuple[int, int]:
    """Return where the column of that title begins and ends in a row; nowhere when it was left out."""
    start = 0
    for column in (columns[index] for index in chosen):
        if column.title == title:
            return start, start + column.room
        start += column.room + len(GAP)
    return 0, 0
