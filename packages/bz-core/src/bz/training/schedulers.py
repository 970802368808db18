"""Learning rate schedulers: when each is stepped, and with what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from bz.errors import ConfigError
from bz.intervals import Interval, Schedule
from bz.spec import LRSchedule

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings
    from bz.intervals import Position
    from bz.spec import TrainingSpec


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """One scheduler.

    Attributes:
        scheduler: What is stepped.
        schedule: When.
        monitor: Name of the value that it is stepped with, None for a scheduler that takes none.
        needs_value: Whether a value that is not measured is an error.
    """

    scheduler: Any
    schedule: Schedule
    monitor: str | None
    needs_value: bool

    def step(self, row: Callable[[], Mapping[str, float]]) -> None:
        if self.monitor is None:
            self.scheduler.step()
            return
        values = row()
        if self.monitor in values:
            self.scheduler.step(values[self.monitor])
        elif self.needs_value and self._is_complete(values):
            measured = ", ".join(name for name in values if name not in {"epoch", "global_step"})
            message = f"The scheduler watches {self.monitor!r}, which is not measured; measured are {measured}."
            raise ConfigError(message, option="training.scheduler_monitor")

    def _is_complete(self, values: Mapping[str, float]) -> bool:
        """Whether the value would be there; an epoch without validation has none of its values."""
        assert self.monitor is not None
        return not self.monitor.startswith("validation_") or "validation_loss" in values


class Schedulers:
    """All learning rate schedulers of a run.

    Args:
        spec: Whose schedulers they are.
        settings: When they are stepped, where their `LRSchedule` does not say.
    """

    def __init__(self, spec: TrainingSpec, settings: TrainingSettings) -> None:
        self._all = [_scheduled(one, spec, settings) for one in _listed(spec.lr_scheduler)]
        self._per_step = [one for one in self._all if one.schedule.interval.is_inside_epoch]
        self._per_epoch = [one for one in self._all if not one.schedule.interval.is_inside_epoch]

    @property
    def watches_steps(self) -> bool:
        """Whether `after_step` has work to do."""
        return bool(self._per_step)

    def after_step(self, position: Position, row: Callable[[], Mapping[str, float]]) -> None:
        """Step those that are due after an optimizer step.

        Args:
            position: Where the run is.
            row: Returns the values measured so far in the epoch.
        """
        _step_due(self._per_step, position, row)

    def after_epoch(self, position: Position, row: Callable[[], Mapping[str, float]]) -> None:
        """Step those that are due after an epoch.

        Raises:
            ConfigError: If one watches a value that is not measured.
        """
        _step_due(self._per_epoch, position, row)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each, in their order."""
        return [{"scheduler": one.scheduler.state_dict(), "schedule": one.schedule.state_dict()} for one in self._all]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from there; schedulers that were added since begin afresh."""
        for one, state in zip(self._all, states, strict=False):
            one.scheduler.load_state_dict(state["scheduler"])
            one.schedule.load_state_dict(dict(state["schedule"]))


def _step_due(scheduled: Sequence[_Scheduled], position: Position, row: Callable[[], Mapping[str, float]]) -> None:
    for one in scheduled:
        if one.schedule.is_due(position):
            one.step(row)


def _listed(given: Any) -> Iterator[LRSchedule]:
    if given is None:
        return
    for one in given if isinstance(given, Sequence) else [given]:
        yield one if isinstance(one, LRSchedule) else LRSchedule(one)


def _scheduled(one: LRSchedule, spec: TrainingSpec, settings: TrainingSettings) -> _Scheduled:
    every = settings.scheduler_interval if one.every is None else one.every
    monitor = one.monitor or settings.scheduler_monitor
    default = "training_loss" if spec.validation_loader is None else "validation_loss"
    return _Scheduled(
        scheduler=one.scheduler,
        schedule=Schedule(Interval.parse(every)),
        monitor=(monitor or default) if isinstance(one.scheduler, ReduceLROnPlateau) else one.monitor,
        needs_value=monitor is not None,
    )
