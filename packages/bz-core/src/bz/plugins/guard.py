"""Runs what plugins wrote so that it cannot harm the run: isolation, time accounting, quarantine."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from bz.errors import BzError, PluginError, describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bz.context import TrainingContext

logger = logging.getLogger(__name__)

FAILURES_UNTIL_QUARANTINE: Final = 3

Look = tuple[list[object], list[Any]]
"""The marks of the watched states at one time, and the states that belong to them."""


class WatchedState(Protocol):
    """One thing a plugin must leave as it found it, such as a random state or the train mode."""

    name: str

    @property
    def marks(self) -> Sequence[Callable[[], object]]:
        """Calls whose results change whenever the state does; made around every hook, so each is cheap."""

    def read(self) -> Any:
        """Return all of the state in a form that `==` compares; called when marks have changed."""

    def write(self, state: Any) -> None:
        """Put back what `read` returned."""


class Implementation:
    """One plugin's function for one hook, with what it cost so far.

    Attributes:
        plugin: Name of the plugin.
        function: Called with the context.
        calls: Calls made.
        nanoseconds: Time spent in them.
        failures: Calls that raised.
        failures_in_a_row: Those since the last call that did not.
    """

    __slots__ = ("calls", "failures", "failures_in_a_row", "function", "nanoseconds", "plugin")

    def __init__(self, plugin: str, function: Callable[[TrainingContext], object]) -> None:
        self.plugin = plugin
        self.function = function
        self.calls = 0
        self.nanoseconds = 0
        self.failures = 0
        self.failures_in_a_row = 0


class GuardedHook:
    """One lifecycle hook, bound to the functions that implement it; false when there are none.

    The marks of the watched states are compared once around each group of implementations. Hooks that fire
    once an epoch have a group for each plugin; batch hooks have one for all, which is split as
    soon as something moved, so that the next time the plugin can be named.
    """

    def __init__(
        self, name: str, implementations: Sequence[Implementation], guard: Guard, *, is_batch_hook: bool = False
    ) -> None:
        self.name = name
        self.implementations = tuple(implementations)
        self._guard = guard
        self._groups = (self.implementations,) if is_batch_hook and implementations else _singles(implementations)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __call__(self, context: TrainingContext) -> None:
        """Call every implementation; only KeyboardInterrupt and, in strict mode, PluginError come out."""
        guard = self._guard
        for group in self._groups:
            before = guard.look()
            for implementation in group:
                started = perf_counter_ns()
                try:
                    implementation.function(context)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001 - a plugin never harms a run
                    guard.report_failure(self.name, implementation, error, context)
                else:
                    implementation.failures_in_a_row = 0
                implementation.nanoseconds += perf_counter_ns() - started
                implementation.calls += 1
            if guard.has_moved(before) and (moved := guard.put_back(before)):
                self._blame(group, moved)

    def _blame(self, group: tuple[Implementation, ...], moved: list[str]) -> None:
        if len(group) == 1:
            self._guard.report_trace(self.name, group[0].plugin, moved)
        else:
            self._groups = _singles(self.implementations)

    def drop(self, plugin: str) -> None:
        """Stop calling this plugin."""
        groups = (tuple(one for one in group if one.plugin != plugin) for group in self._groups)
        self._groups = tuple(group for group in groups if group)


def _singles(implementations: Sequence[Implementation]) -> tuple[tuple[Implementation, ...], ...]:
    return tuple((implementation,) for implementation in implementations)


class Guard:
    """What the hooks of a run have in common: watched states, reports, quarantine.

    Args:
        strict: Whether the first failure of a plugin ends the run.
        quarantine: Called with a plugin's name when it failed too often in a row.
    """

    def __init__(self, *, strict: bool, quarantine: Callable[[str], None]) -> None:
        self.strict = strict
        self._quarantine = quarantine
        self._watched: tuple[WatchedState, ...] = ()
        self._marks: tuple[Callable[[], object], ...] = ()
        self._last_look: Look = [], []
        self._reported: set[tuple[object, ...]] = set()

    def begin(self, states: Sequence[WatchedState]) -> None:
        """Begin a session: forget what was reported, and keep these states as they are across every hook."""
        self._watched = tuple(states)
        self._marks = tuple(mark for state in states for mark in state.marks)
        self._last_look = [], []
        self._reported.clear()

    def look(self) -> Look:
        """Return the watched states as they are now; those of the last look if nothing has moved since."""
        marks = [mark() for mark in self._marks]
        if marks != self._last_look[0]:
            self._last_look = marks, [state.read() for state in self._watched]
        return self._last_look

    def has_moved(self, before: Look) -> bool:
        """Whether any of the watched states may be another one since that look."""
        return [mark() for mark in self._marks] != before[0]

    def put_back(self, before: Look) -> list[str]:
        """Put back the watched states that differ from those of that look; return their names."""
        moved = []
        for state, was in zip(self._watched, before[1], strict=True):
            if state.read() != was:
                state.write(was)
                moved.append(state.name)
        return moved

    def report_failure(
        self, hook: str, implementation: Implementation, error: BaseException, context: TrainingContext
    ) -> None:
        """Count a failure, log it once, and quarantine the plugin or, in strict mode, end the run."""
        plugin = implementation.plugin
        implementation.failures += 1
        implementation.failures_in_a_row += 1
        where = f"plugin {plugin!r} failed in {hook} (epoch {context.epoch}, step {context.global_step})"
        if self._is_new("failure", plugin, hook, type(error)):
            logger.error("%s: %s", where, describe_error(error), exc_info=error)
        if self.strict:
            raise PluginError(f"Stopped because {where}: {describe_error(error)}", plugin=plugin) from error
        if implementation.failures_in_a_row >= FAILURES_UNTIL_QUARANTINE:
            logger.error(
                "plugin %r failed %d times in a row in %s and is no longer called",
                plugin,
                FAILURES_UNTIL_QUARANTINE,
                hook,
            )
            self._quarantine(plugin)

    def report_trace(self, hook: str, plugin: str, moved: list[str]) -> None:
        """Say, once for each hook, what a plugin changed and bz put back."""
        if self._is_new("trace", plugin, hook, *moved):
            logger.warning("plugin %r changed the %s in %s; bz put it back", plugin, ", ".join(moved), hook)

    def _is_new(self, *key: object) -> bool:
        is_new = key not in self._reported
        self._reported.add(key)
        return is_new


@contextmanager
def isolated(plugin: str, action: str) -> Iterator[None]:
    """Turn whatever a plugin raises, outside the hooks, into a `PluginError` that names it.

    Args:
        plugin: Name of the plugin.
        action: What failed, to follow the name: `cannot be imported`.
    """
    try:
        yield
    except (KeyboardInterrupt, BzError):
        raise
    except BaseException as error:
        raise PluginError(f"Plugin {plugin!r} {action}: {describe_error(error)}", plugin=plugin) from error
