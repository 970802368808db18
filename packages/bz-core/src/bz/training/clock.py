"""Where the time of a session goes, from counters that cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, Final, Literal, TypeVar, get_args

Part = Literal["transfer", "forward", "backward", "optimizer", "metrics"]
"""What a training batch is made of; timed at a sample of the batches."""
Block = Literal["data", "validation_data", "validation", "checkpoints", "loop"]
"""What is timed each time: waiting for batches, validations, checkpoints, and training loops as a whole."""
Function = TypeVar("Function", bound=Callable[..., Any])

TIMED_EVERY: Final = 13
"""One of so many batches is timed: a number that no usual number of loader workers divides."""


class PartClock:
    """Adds up the time of the parts of a session, as seen by the process: nothing waits for the device.

    On an accelerator, the time of a part is that of handing its work over; whoever reads from the
    device first waits for it.

    Attributes:
        nanoseconds: Time of each block.
        batches: Training batches begun.
    """

    def __init__(self) -> None:
        self.nanoseconds: dict[Block, int] = dict.fromkeys(get_args(Block), 0)
        self.batches = 0
        self._sampled: dict[Part, int] = dict.fromkeys(get_args(Part), 0)
        self._timed_batches = 0
        self._loops = 0

    @contextmanager
    def measuring(self, block: Block) -> Iterator[None]:
        """Add the time of a block."""
        started = perf_counter_ns()
        try:
            yield
        finally:
            self.nanoseconds[block] += perf_counter_ns() - started

    def sample(self) -> int:
        """Return the remainder of the indices that are timed in the loop that begins: another one in each loop."""
        self._loops += 1
        return (self._loops - 1) % TIMED_EVERY

    def timed(self, part: Part, function: Function) -> Function:
        """Return the function for the batches that are timed."""

        def call(*arguments: Any) -> Any:
            started = perf_counter_ns()
            result = function(*arguments)
            self._sampled[part] += perf_counter_ns() - started
            return result

        return call  # type: ignore[return-value]  # takes and returns the same

    def count(self, batches: int, timed: int) -> None:
        """Count the batches of a loop, and those of them that were timed."""
        self.batches += batches
        self._timed_batches += timed

    def seconds(self) -> dict[Block | Part, float]:
        """Return the time of everything; the parts of a batch as if all batches were like those that were timed.

        Parts are never more than what the loops took together.
        """
        blocks: dict[Block | Part, float] = {block: value / 1e9 for block, value in self.nanoseconds.items()}
        known = sum(self._sampled.values()) / 1e9
        scale = self.batches / self._timed_batches if self._timed_batches else 0.0
        if known:
            scale = min(scale, max(0.0, blocks["loop"] - blocks["data"]) / known)
        return {**blocks, **{part: value / 1e9 * scale for part, value in self._sampled.items()}}
