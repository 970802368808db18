"""Every state in which a power failure could leave a folder, built from the operations that were performed.

The model is what POSIX promises and no more. The content of a file is safe up to its last fsync; what was written
after it may be there in full, in part, as zeros, or not at all. A name is safe when its folder was synced after the
change; of the changes since, any may have happened and any not, each as a whole, whatever their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from faults.disk import Operation


class File:
    """A file, or with `is_folder` a folder, whose content is its names."""

    def __init__(self, *, is_folder: bool = False) -> None:
        self.is_folder = is_folder
        self.content = bytearray()
        self.synced: bytes | None = None

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite or append, in memory."""
        self.content[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Make the content safe."""
        self.synced = bytes(self.content)

    def possible(self) -> list[bytes | None]:
        """Return the contents that may be found after a power failure; None for a folder."""
        if self.is_folder:
            return [None]
        whole = bytes(self.content)
        if self.synced == whole:
            return [whole]
        before = [] if self.synced is None else [self.synced]
        return [*before, b"", whole[: len(whole) // 2], bytes(len(whole)), whole]


class Change(NamedTuple):
    """A change of names that is not safe yet: what each stands for from then on, None for nothing."""

    names: Mapping[Path, File | None]

    @property
    def folders(self) -> set[Path]:
        """The folders that have to be synced for it."""
        return {path.parent for path in self.names}


class Disk:
    """What is below `root`, which is there from the beginning."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._now: dict[Path, File] = {}
        self._safe: dict[Path, File | None] = {}
        self._pending: list[Change] = []

    def apply(self, operation: Operation) -> None:
        """Take in what was performed."""
        path = operation.path
        match operation.name:
            case "open" | "mkdir":
                self._now[path] = File(is_folder=operation.name == "mkdir")
                self._pending.append(Change({path: self._now[path]}))
            case "write":
                self._now[path].write(operation.offset, operation.data)
            case "fsync":
                self._now[path].sync()
            case "replace":
                assert operation.target is not None
                self._now[operation.target] = self._now.pop(path)
                self._pending.append(Change({path: None, operation.target: self._now[operation.target]}))
            case "unlink":
                self._now.pop(path, None)
                self._pending.append(Change({path: None}))
            case "fsync_folder":
                self._sync_folder(path)

    def _sync_folder(self, folder: Path) -> None:
        for change in self._pending:
            if folder in change.folders:
                self._safe |= change.names
        self._pending = [change for change in self._pending if folder not in change.folders]

    def states(self) -> Iterator[dict[Path, bytes | None]]:
        """Yield path to content, None for a folder, of everything that may be found after a power failure now."""
        for number in range(len(self._pending) + 1):
            for happened in itertools.combinations(self._pending, number):
                names = dict(self._safe)
                for change in happened:
                    names |= change.names
                yield from self._contents({path: file for path, file in names.items() if file is not None})

    def _contents(self, names: Mapping[Path, File]) -> Iterator[dict[Path, bytes | None]]:
        reached = {path: file for path, file in names.items() if self._is_reached(path, names)}
        for contents in itertools.product(*(file.possible() for file in reached.values())):
            yield dict(zip(reached, contents, strict=True))

    def _is_reached(self, path: Path, names: Mapping[Path, File]) -> bool:
        """Whether all folders above are there; what is in a folder that is gone is gone with it."""
        return path.parent == self._root or (path.parent in names and self._is_reached(path.parent, names))


def build(state: Mapping[Path, bytes | None], root: Path, target: Path) -> None:
    """Make the state for real, with `target` in place of `root`."""
    for path in sorted(state):
        content, place = state[path], target / path.relative_to(root)
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
