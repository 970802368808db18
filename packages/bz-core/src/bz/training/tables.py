"""Files of predictions, written while they are made: Parquet, and what `torch.load` reads."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from bz.durable import replacing
from bz.errors import ConfigError, TrainingError
from bz.training.disk import reported_disk_errors
from bz.training.predictions import INDEX

if TYPE_CHECKING:
    from io import BufferedRandom
    from pathlib import Path

    from bz.training.predictions import Column

SUFFIXES: Final = (".parquet", ".pt")
ROWS_PER_GROUP: Final = 8192
"""So many rows wait in memory before they are written."""


class TableWriter(Protocol):
    """Takes columns batch by batch.

    Attributes:
        num_rows: Rows so far.
        columns: What the columns hold, by name.
    """

    num_rows: int
    columns: dict[str, str]

    def add(self, columns: Mapping[str, Column]) -> None:
        """Take the rows of one batch."""

    def close(self) -> None:
        """Write what is left."""

    def abort(self) -> None:
        """Let go of the file, which is about to be closed; after `close` there is nothing left to do."""


@contextmanager
def writing(path: Path, about: Mapping[str, Any]) -> Iterator[TableWriter]:
    """Give a table to add rows to; the file is at `path` when the block ends without an error, else nothing is.

    Args:
        path: Its suffix says which format is written, one of `SUFFIXES`.
        about: Where the predictions come from; kept in the metadata of a Parquet file.

    Raises:
        BzError: If the disk refuses.
    """
    with ExitStack() as held:
        with reported_disk_errors(path):
            file = held.enter_context(replacing(path))
        table = _ParquetTable(file, about, path) if path.suffix == ".parquet" else _TensorTable(file)
        held.callback(table.abort)
        yield table
        with reported_disk_errors(path):
            table.close()
            held.close()


def check_format(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ConfigError: If the suffix is none that is known, or pyarrow is needed and not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"`--output`: {str(path)!r} must end in {' or '.join(SUFFIXES)}, which says what is written.",
            option="--output",
        )
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "`--output`: Parquet needs pyarrow; install it with: pip install 'bz-core[parquet]', or write a .pt file.",
            option="--output",
        )


class _TensorTable:
    """Name to tensor (or list), in memory until the end."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._parts: dict[str, list[Column]] = {}
        self.num_rows = 0
        self.columns: dict[str, str] = {}

    def add(self, columns: Mapping[str, Column]) -> None:
        self._parts = self._parts or {name: [] for name in columns}
        _check_names(columns, self._parts)
        for name, column in columns.items():
            self._parts[name].append(column)
        self.num_rows += _length(columns)

    def close(self) -> None:
        table = {name: _joined(name, parts) for name, parts in self._parts.items()}
        self.columns = {name: _describe(column) for name, column in table.items()}
        torch.save(table, self._file)

    def abort(self) -> None:
        self._parts = {}


def _joined(name: str, parts: list[Column]) -> Column:
    first = parts[0]
    if not isinstance(first, torch.Tensor):
        return [item for part in parts for item in part]
    for part in parts:
        if not isinstance(part, torch.Tensor) or part.shape[1:] != first.shape[1:]:
            shape = tuple(part.shape) if isinstance(part, torch.Tensor) else "a list"
            raise TrainingError(
                f"{name!r} is {shape} in one batch and {tuple(first.shape)} in the first; "
                "a .pt file needs the same shape for all samples, a .parquet file does not."
            )
    return torch.cat([part for part in parts if isinstance(part, torch.Tensor)])


def _describe(column: Column) -> str:
    if not isinstance(column, torch.Tensor):
        return "list"
    shape = f"[{', '.join(map(str, column.shape[1:]))}]" if column.dim() > 1 else ""
    return f"{str(column.dtype).removeprefix('torch.')}{shape}"


class _ParquetTable:
    """A column for each output, numbers as they are and rows of numbers as lists, in groups of rows."""

    def __init__(self, file: BufferedRandom, about: Mapping[str, Any], path: Path) -> None:
        self._file = file
        self._path = path
        self._metadata = {"bz": json.dumps(about)}
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._num_waiting = 0
        self.num_rows = 0
        self.columns: dict[str, str] = {}

    def add(self, columns: Mapping[str, Column]) -> None:
        import pyarrow as pa

        length = _length(columns)
        index = torch.arange(self.num_rows, self.num_rows + length)
        arrays = {name: _arrow_array(name, column) for name, column in {INDEX: index, **columns}.items()}
        table = pa.table(arrays, metadata=self._metadata)
        if self._writer is None:
            self._open(table.schema)
        _check_names(columns, [name for name in self.columns if name != INDEX])
        self._waiting.append(self._as_before(table))
        self.num_rows += length
        self._num_waiting += length
        if self._num_waiting >= ROWS_PER_GROUP:
            with reported_disk_errors(self._path):
                self._flush()

    def _open(self, schema: Any) -> None:
        from pyarrow.parquet import ParquetWriter

        self.columns = {field.name: str(field.type) for field in schema}
        self._schema = schema
        self._writer = ParquetWriter(self._file, schema)

    def _as_before(self, table: Any) -> Any:
        for field, before in zip(table.schema, self._schema, strict=True):
            if field.type != before.type:
                raise TrainingError(
                    f"{field.name!r} is {field.type} in one batch and {before.type} in the first; "
                    "a column needs the same type for all samples."
                )
        return table

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._num_waiting)
        self._waiting, self._num_waiting = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def abort(self) -> None:
        if self._writer is not None:
            with suppress(OSError):  # it writes the end of the file; why the file is given up was said
                self._writer.close()


def _check_names(columns: Mapping[str, Column], before: Any) -> None:
    if list(columns) != list(before):
        raise TrainingError(
            f"A batch gives {', '.join(columns)}, the first one gave {', '.join(before)}; "
            "each batch must have the same outputs."
        )


def _length(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values())))


def _arrow_array(name: str, column: Column) -> Any:
    import pyarrow as pa

    if not isinstance(column, torch.Tensor):
        return pa.array(column)
    values = _flat_array(name, column.contiguous())
    for depth in range(column.dim() - 1, 0, -1):
        size, num_lists = column.shape[depth], column.shape[:depth].numel()
        offsets = torch.arange(num_lists + 1, dtype=torch.int32) * size
        values = pa.ListArray.from_arrays(_from_memory(offsets, pa.int32()), values)
    return values


def _flat_array(name: str, tensor: torch.Tensor) -> Any:
    """Return all numbers of a contiguous tensor in a row; the small floating point types become float32."""
    import pyarrow as pa

    if tensor.dtype == torch.bool:
        return _from_memory(tensor.to(torch.uint8), pa.uint8()).cast(pa.bool_())
    if tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize:
        tensor = tensor.float()
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_complex() or not hasattr(pa, kind):
        raise TrainingError(f"{name!r} is {kind}, which Parquet cannot hold; write a .pt file.")
    return _from_memory(tensor, getattr(pa, kind)())


def _from_memory(tensor: torch.Tensor, kind: Any) -> Any:
    """Return an array that shares the memory of a tensor: NumPy, the usual way, may not be installed."""
    import pyarrow as pa

    buffer = pa.foreign_buffer(tensor.data_ptr(), tensor.numel() * tensor.element_size(), base=tensor)
    return pa.Array.from_buffers(kind, tensor.numel(), [None, buffer])
