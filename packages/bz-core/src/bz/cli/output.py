"""Everything a command prints goes through here.

On a terminal tables are drawn by rich. In a pipe, with `NO_COLOR` or on a dumb terminal they are plain text: aligned
columns, no box, no colour, nothing cut. JSON is the same everywhere. rich is imported only to draw: it takes longer to
import than most commands take to run.

Printing never raises. A reader that has gone away (`bz runs list | head -1`) is no fault and ends nothing, least of all
a training; any other failure to write is kept for `write_failure` and reported when the command is done.
"""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any, ClassVar, Final, TextIO

from bz.cli.redactor import Redactor

_UNPRINTABLE: Final = {
    code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}


class _State:
    """What lives as long as the process: the secrets to hide and the first write that failed."""

    secrets: ClassVar[frozenset[str]] = frozenset()
    redactor: ClassVar[Redactor] = Redactor()
    write_failure: ClassVar[OSError | None] = None


def hide(secrets: Iterable[str]) -> None:
    """Keep these secrets, too, out of everything printed from now on."""
    _State.secrets |= frozenset(secrets)
    _State.redactor = Redactor(_State.secrets)


def forget_secrets() -> None:
    """Hide nothing any more."""
    _State.secrets = frozenset()
    _State.redactor = Redactor()


def redacted(text: str) -> str:
    """Return the text without the secrets that are hidden at the moment."""
    return _State.redactor(text)


def write_failure() -> OSError | None:
    """Return why something could not be printed (a full disk behind `>`), or None; asking clears it."""
    failure, _State.write_failure = _State.write_failure, None
    return failure


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether colours and boxes may be printed (to stdout unless another stream is given)."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def reserved_stdout(*, is_json: bool) -> AbstractContextManager[object]:
    """Keep stdout for the JSON that follows the block: what bz, plugins and the script print inside goes to stderr."""
    return redirect_stdout(sys.stderr) if is_json else nullcontext()


def say(text: str = "") -> None:
    """Print human text to stdout."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Print human text to stderr."""
    _write(sys.stderr, text)


def print_json(value: Any) -> None:
    """Print one JSON document to stdout; numbers JSON has no word for (NaN, infinities) become null."""
    _write(sys.stdout, json.dumps(_finite(value), indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under column names."""
    rows = [[_printable(_State.redactor(cell)) for cell in row] for row in rows]
    if is_terminal():
        _draw_table(columns, rows)
    else:
        _write(sys.stdout, align([[name.upper() for name in columns], *rows]))


def flatten(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield `("training.epochs", "3")` and so on, for a table of nested values."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as lines with columns two spaces apart."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _draw_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=sys.stdout)
    with console.capture() as drawn:
        console.print(table)
    _write_raw(sys.stdout, drawn.get())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _printable(text: str) -> str:
    """Return the text with control characters spelled out, so that no name or message can drive the terminal."""
    return text.translate(_UNPRINTABLE)


def _write(stream: TextIO, text: str) -> None:
    _write_raw(stream, _printable(_State.redactor(text)) + "\n")


def _write_raw(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        _give_up(stream, error)


def _give_up(stream: TextIO, error: OSError) -> None:
    """Send the rest to nowhere: Python would fail once more on what is left in the buffer when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if not isinstance(error, BrokenPipeError) and _State.write_failure is None:
        _State.write_failure = error
