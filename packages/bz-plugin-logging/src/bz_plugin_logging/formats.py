"""How events look in a file, and how they are read back."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Event = dict[str, Any]


class LogFormat(Protocol):
    """One form of the log; made for one file.

    Attributes:
        suffix: Ending of the file.
        tail: What stands behind the last event.
    """

    suffix: ClassVar[str]
    tail: ClassVar[bytes]

    def accepts(self, event: Event) -> bool:
        """Return whether this form has a place for the event."""

    def body(self, events: Sequence[Event]) -> bytes:
        """Return all that stands before the tail, for all events of the file."""

    def addition(self, events: Sequence[Event]) -> bytes | None:
        """Return what further events add to a body of at least one; None if the body must change."""

    def read(self, content: bytes) -> list[Event]:
        """Return the events of a file, as `body` takes them.

        Raises:
            ValueError: If it is not of this form.
        """


class JsonList:
    """A JSON list, laid out as `json.dump(events, file, indent=2)` does."""

    suffix: ClassVar[str] = ".json"
    tail: ClassVar[bytes] = b"\n]"

    def accepts(self, event: Event) -> bool:  # noqa: ARG002, D102 - as in the protocol
        return True

    def body(self, events: Sequence[Event]) -> bytes:  # noqa: D102
        return b"[\n" + b",\n".join(map(self._item, events))

    def addition(self, events: Sequence[Event]) -> bytes:  # noqa: D102
        return b"".join(b",\n" + self._item(event) for event in events)

    def read(self, content: bytes) -> list[Event]:  # noqa: D102
        return _as_events(json.loads(content))

    @staticmethod
    def _item(event: Event) -> bytes:
        return textwrap.indent(json.dumps(event, indent=2, allow_nan=False), "  ").encode()


class JsonLines:
    """One JSON object a line; `pandas.read_json(path, lines=True)` reads it."""

    suffix: ClassVar[str] = ".jsonl"
    tail: ClassVar[bytes] = b""

    def accepts(self, event: Event) -> bool:  # noqa: ARG002, D102
        return True

    def body(self, events: Sequence[Event]) -> bytes:  # noqa: D102
        return b"".join(json.dumps(event, allow_nan=False).encode() + b"\n" for event in events)

    def addition(self, events: Sequence[Event]) -> bytes:  # noqa: D102
        return self.body(events)

    def read(self, content: bytes) -> list[Event]:  # noqa: D102
        return _as_events([json.loads(line) for line in content.splitlines()])


class CsvTable:
    """One row for each epoch, and for each validation inside one; `pandas.read_csv(path)` reads it.

    Columns are named as by `pandas.json_normalize`: `training_metrics.accuracy`. What is not known,
    and what is no finite number, is empty, which pandas reads as NaN.
    """

    suffix: ClassVar[str] = ".csv"
    tail: ClassVar[bytes] = b""
    _FIRST_COLUMNS: Final = ("timestamp", "epoch", "training_loss")

    def __init__(self) -> None:
        self._columns: tuple[str, ...] = ()

    def accepts(self, event: Event) -> bool:  # noqa: D102
        return event["event"] in {"epoch_complete", "validation_complete"}

    def body(self, events: Sequence[Event]) -> bytes:  # noqa: D102
        rows = [_flatten(event) for event in events]
        named = (name for row in rows for name in row)
        columns = dict.fromkeys((*self._FIRST_COLUMNS, *named))
        self._columns = tuple(sorted(columns, key=_column_place))
        return self._lines(rows, has_header=True)

    def addition(self, events: Sequence[Event]) -> bytes | None:  # noqa: D102
        rows = [_flatten(event) for event in events]
        has_place = all(name in self._columns for row in rows for name in row)
        return self._lines(rows) if has_place else None

    def read(self, content: bytes) -> list[Event]:  # noqa: D102
        try:
            rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
        except csv.Error as error:
            raise ValueError(str(error)) from error
        return _as_events([{name: text for name, text in row.items() if name and text} for row in rows])

    def _lines(self, rows: Iterable[Mapping[str, Any]], *, has_header: bool = False) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if has_header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()


_COLUMNS: Final = (
    "timestamp", "epoch", "training_loss", "training_metrics", "validation_loss", "validation_metrics",
    "learning_rate", "learning_rates", "global_step", "duration_seconds",
)  # fmt: skip


def _column_place(name: str) -> int:
    """Return where a column belongs, whatever the first rows have in them; those of somebody else at the end."""
    group = name.partition(".")[0]
    return _COLUMNS.index(group) if group in _COLUMNS else len(_COLUMNS)


FORMATS: Final[Mapping[str, type[LogFormat]]] = {"json": JsonList, "jsonl": JsonLines, "csv": CsvTable}


def _flatten(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an event: `{"a": {"b": 1}}` becomes `{"a.b": 1}`; the kind of event is not said."""
    row: dict[str, Any] = {}
    for name, value in event.items():
        if isinstance(value, dict):
            row |= {f"{name}.{key}": item for key, item in value.items()}
        elif name != "event":
            row[name] = value
    return row


def _as_events(content: Any) -> list[Event]:
    if not isinstance(content, list) or not all(isinstance(event, dict) and "timestamp" in event for event in content):
        raise ValueError("it holds something else")
    return content
