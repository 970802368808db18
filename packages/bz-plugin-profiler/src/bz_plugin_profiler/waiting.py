"""How long the training waited for its data: the time between the batches."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

logger = logging.getLogger(__name__)

DOMINATING_SHARE: Final = 0.5
NOTEWORTHY_SECONDS: Final = 1.0


@dataclass(slots=True)
class WaitTotals:
    """Sums over the training batches of a run.

    Attributes:
        batches: Batches that were waited for.
        wait_seconds: From the end of a batch, or the beginning of a loop, to the next batch on the device.
        step_seconds: From there to the end of the batch.
        first_batches_seconds: Those of `wait_seconds` that were spent before the first batch of a loop.
        longest_seconds: Longest wait.
        longest_before_step: Step that it came before; 0 without a batch.
    """

    batches: int = 0
    wait_seconds: float = 0.0
    step_seconds: float = 0.0
    first_batches_seconds: float = 0.0
    longest_seconds: float = 0.0
    longest_before_step: int = 0

    @property
    def share(self) -> float:
        """The waiting as a part of the training loops, from 0 to 1; 0 before the first batch."""
        total = self.wait_seconds + self.step_seconds
        return self.wait_seconds / total if total else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> WaitTotals:
        """Return the sums of a state; one that it lacks begins at 0."""
        return cls(**{field.name: state[field.name] for field in fields(cls) if field.name in state})


class WaitClock:
    """Adds up waits and steps from the moments at which batches begin and end.

    Args:
        totals: What is added to.
    """

    __slots__ = ("_is_first", "_since", "totals")

    def __init__(self, totals: WaitTotals) -> None:
        self.totals = totals
        self._since: float | None = None
        self._is_first = False

    def begin_loop(self, now: float) -> None:
        """Begin to wait for the first batch."""
        self._since, self._is_first = now, True

    def begin_batch(self, now: float, step: int) -> None:
        """End a wait, for a batch of this step."""
        if self._since is not None:
            self._add_wait(now - self._since, step)
            self._since, self._is_first = now, False

    def _add_wait(self, seconds: float, step: int) -> None:
        totals = self.totals
        totals.batches += 1
        totals.wait_seconds += seconds
        if self._is_first:
            totals.first_batches_seconds += seconds
        if seconds > totals.longest_seconds:
            totals.longest_seconds, totals.longest_before_step = seconds, step

    def end_batch(self, now: float) -> None:
        """Begin to wait for the next batch."""
        if self._since is not None:
            self.totals.step_seconds += now - self._since
            self._since = now

    def leave_out(self, now: float) -> None:
        """Begin the wait or the step that is under way anew: until now, the time went to something else."""
        if self._since is not None:
            self._since = now

    def end_loop(self) -> None:
        """Wait for nothing more."""
        self._since = None


def log_wait(totals: WaitTotals, *, is_copied: bool) -> None:
    """Say how long data was waited for, and what to try when that was most of the time.

    Args:
        totals: Of the run.
        is_copied: Whether the batches go to another device than the CPU.
    """
    if not totals.batches:
        return
    total = totals.wait_seconds + totals.step_seconds
    logger.info(
        "waiting for data took %.0f %% of the training loops (%.2f of %.2f s)",
        100 * totals.share,
        totals.wait_seconds,
        total,
    )
    if totals.share > DOMINATING_SHARE and totals.wait_seconds >= NOTEWORTHY_SECONDS:
        logger.warning(
            "the training waits for data for %.0f %% of its loops; %s", 100 * totals.share, _advice(totals, is_copied)
        )


def _advice(totals: WaitTotals, is_copied: bool) -> str:  # noqa: FBT001 - a part of the function above
    if totals.first_batches_seconds > totals.wait_seconds / 2:
        return (
            "most of it is before the first batch of an epoch: DataLoader(persistent_workers=True) "
            "keeps the workers from being started for each epoch"
        )
    advice = "try DataLoader(num_workers=...) with more workers, and persistent_workers=True"
    return f"{advice}, and pin_memory=True for the copy to the device" if is_copied else advice
