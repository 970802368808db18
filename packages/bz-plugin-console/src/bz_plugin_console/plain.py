"""A session as lines of text: no control codes, nothing redrawn, nothing cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from bz_plugin_console.columns import GAP, columns_that_fit, join_row
from bz_plugin_console.summary import USAGE_TITLES, usage_columns, usage_rows
from bz_plugin_console.wording import encodable

if TYPE_CHECKING:
    from bz.progress import PluginUsage
    from bz_plugin_console.display import Frame
    from bz_plugin_console.summary import EpochSummary


class PlainLines:
    """Writes whole lines to a stream that may be a file, a pipe or a terminal without cursor movement."""

    has_bars = False

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def open(self) -> None:
        """Do nothing: a line needs no preparation."""

    def close(self) -> None:
        """Do nothing: nothing was changed."""

    def draw(self, frame: Frame) -> None:
        """Do nothing: a line cannot be redrawn."""

    def show_line(self, text: str, *, lead: str = "", style: str = "") -> None:  # noqa: ARG002 - lines have no style
        """Write one line; silent once nobody reads them any more (`bz train | head`)."""
        if self._stream is None:
            return
        try:
            print(encodable(lead + text, self._stream.encoding), file=self._stream, flush=True)
        except BrokenPipeError:
            self._stream = None

    def show_epoch(self, summary: EpochSummary, *, is_best: bool) -> None:  # noqa: ARG002 - no colour to mark it with
        """Write all values of an epoch or validation, each after its name."""
        self.show_line(GAP.join(f"{column.title} {text}" for column, text in summary.cells() if text))

    def show_usage(self, usage: Sequence[PluginUsage]) -> None:
        """Write the report as columns of text."""
        rows = usage_rows(usage)
        columns = usage_columns(rows)
        for cells in (USAGE_TITLES, *rows):
            self.show_line(join_row(columns, cells, columns_that_fit(columns, None)))
