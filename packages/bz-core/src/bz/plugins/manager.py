"""The plugins of one run: their order, their hooks, what they cost and the state they keep."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from bz.errors import PluginError
from bz.hookspecs import BATCH_HOOKS, LIFECYCLE_HOOKS, PROJECT, LifecycleHooks, StepHooks, WeightHooks
from bz.plugins.guard import Guard, GuardedHook, Implementation, WatchedState, isolated
from bz.plugins.registration import HOOK_PARAMETERS, check_plugin, hook_methods, misspelt_hooks
from bz.progress import PluginUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bz.context import TrainingContext

logger = logging.getLogger(__name__)

LAST_HOOK = LIFECYCLE_HOOKS[-1]
EVALUATION_WEIGHTS = WeightHooks.evaluation_weights.__name__

Weights = Mapping[str, Any]


class _HookRegistry(pluggy.PluginManager):
    """Pluggy's manager, which also takes hooks by their name from a `Plugin` or a module."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        function = hook_methods(plugin).get(name)
        if function is None:
            return None
        marked: pluggy.HookimplOpts | None = getattr(function, f"{PROJECT}_impl", None)
        return marked or {
            "wrapper": False, "hookwrapper": False, "optionalhook": False,
            "tryfirst": False, "trylast": False, "specname": None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Entry:
    """One registered plugin."""

    name: str
    plugin: object

    @property
    def is_required(self) -> bool:
        return bool(getattr(self.plugin, "required", False))


class PluginManager:
    """Holds the plugins of one run in the order in which they are called.

    Args:
        strict: Whether the first failure of a plugin ends the run.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._registry = _HookRegistry(PROJECT)
        self._registry.add_hookspecs(LifecycleHooks)
        self._registry.add_hookspecs(StepHooks)
        self._registry.add_hookspecs(WeightHooks)
        self._entries: dict[str, _Entry] = {}
        self._quarantined: set[str] = set()
        self._guard = Guard(strict=strict, quarantine=self._quarantine)
        self._hooks: dict[str, GuardedHook] = {}
        self._weights: Weights | None = None
        self._carried_states: dict[str, Any] = {}
        self._without_state: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the plugins, in the order in which they are called."""
        return tuple(self._entries)

    def add(self, plugin: object, name: str | None = None) -> str:
        """Register a plugin behind those already there.

        Args:
            plugin: A `Plugin`, a module, or any object with functions marked `hookimpl`.
            name: Its name; else the one it gives itself, else one made from its class.

        Returns:
            The name under which it was registered; a second plugin of the same name gets a number.

        Raises:
            PluginError: If it is already registered, or would not do what its author expects.
        """
        wanted = name or plugin_name(plugin)
        with isolated(wanted, "cannot be registered"):
            check_plugin(plugin, wanted)
            registered = self._free_name(wanted)
            if any(entry.plugin is plugin for entry in self._entries.values()):
                raise PluginError(f"Plugin {wanted!r} was added twice; add it once.", plugin=wanted)
            self._registry.register(plugin, registered)
        self._entries[registered] = _Entry(registered, plugin)
        for written, hook in misspelt_hooks(plugin).items():
            logger.warning("plugin %r has a method %r, which is no hook; did you mean %r?", registered, written, hook)
        return registered

    def _free_name(self, wanted: str) -> str:
        numbered = (f"{wanted}_{number}" for number in range(2, len(self._entries) + 3))
        return next(name for name in (wanted, *numbered) if name not in self._entries)

    def bind(
        self, states: Sequence[WatchedState] = (), *, check_weights: Callable[[Weights], None] | None = None
    ) -> Mapping[str, GuardedHook]:
        """Return every lifecycle hook, ready to be called, in firing order.

        Args:
            states: What every hook must leave as it was.
            check_weights: Raises if the weights that a plugin answers with are not the model's.
        """
        self._quarantined.clear()
        self._guard.begin(states)
        self._hooks = {
            name: GuardedHook(name, self._implementations(name), self._guard, is_batch_hook=name in BATCH_HOOKS)
            for name in LIFECYCLE_HOOKS
        }
        self._hooks[EVALUATION_WEIGHTS] = GuardedHook(
            EVALUATION_WEIGHTS,
            [
                Implementation(impl.plugin_name, self._answering(_adapt(impl, EVALUATION_WEIGHTS), check_weights))
                for impl in self._ordered(EVALUATION_WEIGHTS)
            ],
            self._guard,
        )
        return self._hooks

    def _answering(
        self, function: Callable[[Any], Weights | None], check: Callable[[Weights], None] | None
    ) -> Callable[[Any], None]:
        """Return a function that keeps what `function` returns, unless an answer is there already."""

        def ask(context: TrainingContext) -> None:
            if self._weights is None:
                weights = function(context)
                if weights is not None and check is not None:
                    check(weights)
                self._weights = weights

        return ask

    def evaluation_weights(self, context: TrainingContext) -> Weights | None:
        """Return the weights that a plugin wants the model to be validated with, None for those it has."""
        self._hooks[EVALUATION_WEIGHTS](context)
        weights, self._weights = self._weights, None
        return weights

    def _implementations(self, hook: str) -> list[Implementation]:
        return [Implementation(impl.plugin_name, _adapt(impl, hook)) for impl in self._ordered(hook)]

    def _ordered(self, hook: str) -> list[pluggy.HookImpl]:
        """Return a hook's implementations in calling order: tryfirst, the others, trylast; each as registered."""
        position = {name: index for index, name in enumerate(self._entries)}
        impls: list[pluggy.HookImpl] = getattr(self._registry.hook, hook).get_hookimpls()
        return sorted(impls, key=lambda impl: (not impl.tryfirst, impl.trylast, position[impl.plugin_name]))

    def step_functions(self, hook: str) -> list[Callable[[Any, Any], Any]]:
        """Return the implementations of `training_step` or `validation_step`, as `function(context, batch)`."""
        return [_adapt(impl, hook) for impl in self._ordered(hook)]

    def _quarantine(self, plugin: str) -> None:
        self._quarantined.add(plugin)
        for name, hook in self._hooks.items():
            if name != LAST_HOOK:
                hook.drop(plugin)

    def usage(self, session_seconds: float) -> tuple[PluginUsage, ...]:
        """Return what each plugin cost, as a share of the session."""
        return tuple(self._usage_of(name, session_seconds) for name in self._entries)

    def _usage_of(self, name: str, session_seconds: float) -> PluginUsage:
        own = [one for hook in self._hooks.values() for one in hook.implementations if one.plugin == name]
        seconds = sum(one.nanoseconds for one in own) / 1e9
        return PluginUsage(
            name=name,
            calls=sum(one.calls for one in own),
            seconds=seconds,
            share=seconds / session_seconds if session_seconds > 0 else 0.0,
            failures=sum(one.failures for one in own),
            is_quarantined=name in self._quarantined,
        )

    def seconds(self, *hooks: str) -> float:
        """Return the time spent in these hooks, or in all of them."""
        counted = [self._hooks[name] for name in hooks] if hooks else self._hooks.values()
        return sum(one.nanoseconds for hook in counted for one in hook.implementations) / 1e9

    def costliest_hook(self, plugin: str) -> str:
        """Return the hook in which a plugin, which has at least one, spent the most time."""
        spent = {
            name: sum(one.nanoseconds for one in hook.implementations if one.plugin == plugin)
            for name, hook in self._hooks.items()
        }
        return max(spent, key=spent.__getitem__)

    def failed_required(self) -> tuple[str, ...]:
        """Return the names of required plugins that failed at least once."""
        failed = {one.plugin for hook in self._hooks.values() for one in hook.implementations if one.failures}
        return tuple(name for name, entry in self._entries.items() if entry.is_required and name in failed)

    def state_dict(self) -> dict[str, Any]:
        """Return name to state; a state that cannot be had is left out, with one warning.

        States of plugins that were in a loaded checkpoint and are not here are carried on.
        """
        states = dict(self._carried_states)
        for entry in self._stateful():
            try:
                with isolated(entry.name, "cannot give its state"):
                    states[entry.name] = entry.plugin.state_dict()  # type: ignore[attr-defined]  # _stateful looked
            except PluginError as error:
                self._warn_once(entry.name, error)
        return states

    def _warn_once(self, plugin: str, error: PluginError) -> None:
        if plugin not in self._without_state:
            self._without_state.add(plugin)
            logger.warning("%s; checkpoints are written without it", error, exc_info=error)

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Give each plugin its state; one that cannot take it starts afresh, with a warning."""
        self._carried_states = {name: state for name, state in states.items() if name not in self._entries}
        for entry in self._stateful():
            if entry.name not in states:
                continue
            try:
                with isolated(entry.name, "cannot go on from its saved state"):
                    entry.plugin.load_state_dict(states[entry.name])  # type: ignore[attr-defined]  # _stateful looked
            except PluginError as error:
                logger.warning("%s; it starts afresh", error, exc_info=error)

    def _stateful(self) -> Iterator[_Entry]:
        for entry in self._entries.values():
            has_state = hasattr(entry.plugin, "state_dict") and hasattr(entry.plugin, "load_state_dict")
            if has_state and not isinstance(entry.plugin, ModuleType):
                yield entry


def _adapt(impl: pluggy.HookImpl, hook: str) -> Callable[..., Any]:
    """Return a function of all the hook's parameters, for an implementation that may take fewer."""
    function: Callable[..., Any] = impl.function
    if tuple(impl.argnames) == HOOK_PARAMETERS[hook]:
        return function
    positions = [HOOK_PARAMETERS[hook].index(name) for name in impl.argnames]
    return lambda *values: function(*(values[position] for position in positions))


def plugin_name(plugin: object) -> str:
    """Return the name that a plugin gives itself, else one made from its module or class.

    `EmailNotificationPlugin` becomes `email_notification`.
    """
    if isinstance(plugin, ModuleType):
        return plugin.__name__.rpartition(".")[2]
    kind = plugin if isinstance(plugin, type) else type(plugin)
    own = getattr(kind, "name", "")
    if isinstance(own, str) and own:
        return own
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
    return words.removesuffix("_plugin") or words
