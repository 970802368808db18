"""Snapshot of a CUDA device's memory: what is allocated, by which line, and the allocations that led there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from bz.durable import make_folder, replacing

if TYPE_CHECKING:
    from pathlib import Path

Occasion = Literal["out_of_memory", "end"]

ENTRIES_KEPT: Final = 100_000
"""Allocations and frees that are remembered, the newest; each takes up to some KB of the host's memory."""


class MemoryHistory:
    """Records the allocations of a session, from its making on.

    Args:
        occasion: When a snapshot is written: at the end, or only when the memory did not suffice.
    """

    def __init__(self, occasion: Occasion) -> None:
        import torch

        self._occasion = occasion
        torch.cuda.memory._record_memory_history(max_entries=ENTRIES_KEPT)  # noqa: SLF001 - as torch documents it

    def close(self, path: Path, error: BaseException | None) -> bool:
        """Stop recording; write a snapshot if this is the occasion, and return whether it was.

        Args:
            path: The file, which https://pytorch.org/memory_viz shows.
            error: What ended the run, if it failed.

        Raises:
            OSError: If it cannot be written.
        """
        import torch

        try:
            is_occasion = self._occasion == "end" or isinstance(error, torch.OutOfMemoryError)
            if is_occasion:
                make_folder(path.parent)
                with replacing(path) as file:
                    torch.cuda.memory._dump_snapshot(file.name)  # type: ignore[no-untyped-call]  # noqa: SLF001
            return is_occasion
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001 - as torch documents it
