"""The account of a session's time, and the warnings that follow from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bz.hookspecs import LIFECYCLE_HOOKS, WEIGHT_HOOKS
from bz.progress import TimeUsage

if TYPE_CHECKING:
    from bz.plugins.manager import PluginManager
    from bz.progress import Progress
    from bz.training.clock import PartClock

logger = logging.getLogger(__name__)

LONG_RUN_SECONDS: Final = 60.0
"""Shorter runs are not worth a warning."""
LARGE_SHARE: Final = 0.1
"""Of one plugin."""
LARGE_WAIT: Final = 0.3
"""Of waiting for data."""

_VALIDATION_HOOKS: Final = (*(name for name in LIFECYCLE_HOOKS if "_validation_" in name), *WEIGHT_HOOKS)


@dataclass
class TimeAccount:
    """Puts together what the clock, the plugins and the session itself know of the time.

    Attributes:
        clock: Times the parts.
        progress: Knows when the session began.
        plugins: Know the time of their hooks, which is in no other part.
        seconds_before: How long the program ran before the session.
    """

    clock: PartClock
    progress: Progress
    plugins: PluginManager
    seconds_before: float
    _startup: float | None = field(default=None, init=False)

    def end_startup(self) -> None:
        """Say that the first training loop begins; later loops are none of the start-up."""
        if self._startup is None:
            self._startup = self._up_to_now()

    def _up_to_now(self) -> float:
        own = self.progress.seconds - self.plugins.seconds() - self._validation(self.clock.seconds()["validation"])
        return self.seconds_before + max(0.0, own)

    def _validation(self, measured: float) -> float:
        return max(0.0, measured - self.plugins.seconds(*_VALIDATION_HOOKS))

    def usage(self) -> TimeUsage:
        """Return where the time went so far."""
        seconds = self.clock.seconds()
        known = TimeUsage(
            startup=self._up_to_now() if self._startup is None else self._startup,
            data=seconds["data"],
            transfer=seconds["transfer"],
            forward=seconds["forward"],
            backward=seconds["backward"],
            optimizer=seconds["optimizer"],
            metrics=seconds["metrics"],
            validation=self._validation(seconds["validation"]),
            checkpoints=seconds["checkpoints"],
            plugins=self.plugins.seconds(),
        )
        return known._replace(framework=max(0.0, self.seconds_before + self.progress.seconds - known.total))

    def warn(self) -> None:
        """Name what took more of a long run than it should, and what to try."""
        total = self.usage().total
        if total < LONG_RUN_SECONDS:
            return
        seconds = self.clock.seconds()
        waited = seconds["data"] + seconds["validation_data"]
        if waited > LARGE_WAIT * total:
            logger.warning(
                "the training waited for data during %.0f %% of the run; try a larger num_workers of the DataLoader, "
                "persistent_workers=True, or pin_memory=True",
                100 * waited / total,
            )
        for usage in self.plugins.usage(self.progress.seconds):
            if usage.share > LARGE_SHARE:
                logger.warning(
                    "plugin %r took %.0f %% of the run, most of it in %s; try settings that let it do less, or less "
                    "often, or leave it out",
                    usage.name,
                    100 * usage.share,
                    self.plugins.costliest_hook(usage.name),
                )
