"""What is looked at before a plugin is let in: the mistakes that would otherwise pass in silence."""

from __future__ import annotations

import difflib
import inspect
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from bz.errors import PluginError
from bz.hookspecs import LIFECYCLE_HOOKS, PROJECT, STEP_HOOKS, WEIGHT_HOOKS
from bz.plugins.base import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

HOOK_NAMES: Final = (*LIFECYCLE_HOOKS, *STEP_HOOKS, *WEIGHT_HOOKS)
HOOK_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(LIFECYCLE_HOOKS, ("context",)),
    **dict.fromkeys(STEP_HOOKS, ("context", "batch")),
    **dict.fromkeys(WEIGHT_HOOKS, ("context",)),
}
_MARKER: Final = f"{PROJECT}_impl"
_SYNONYMS: Final = {
    "train": "training", "fit": "training", "val": "validation", "valid": "validation", "test": "validation",
    "begin": "start", "began": "start", "started": "start", "before": "start",
    "finish": "end", "finished": "end", "ended": "end", "after": "end", "step": "batch",
}  # fmt: skip
_CLOSE: Final = 0.85


def hook_methods(plugin: object) -> dict[str, Any]:
    """Return hook name to function, for every hook that the plugin implements.

    Methods of a `Plugin` and functions of a module count by their name; on any other object only
    those marked with `hookimpl` do.
    """
    by_name = isinstance(plugin, Plugin | ModuleType)
    members = {name: getattr(plugin, name, None) for name in HOOK_NAMES}
    return {
        name: member
        for name, member in members.items()
        if inspect.isroutine(member) and (by_name or hasattr(member, _MARKER))
    }


def check_plugin(plugin: object, name: str) -> None:
    """Refuse a plugin that would not do what its author expects.

    Raises:
        PluginError: For a class in place of an instance, an object without a hook, a wrapper, a
            coroutine or generator, a parameter that bz does not pass, a parameter with a default,
            or a marked function that is no hook.
    """
    if isinstance(plugin, type):
        message = f"Plugin {name!r} is the class {plugin.__name__}; register an instance: {plugin.__name__}()."
        raise PluginError(message, plugin=name)
    methods = hook_methods(plugin)
    if not methods and not isinstance(plugin, Plugin | ModuleType) and not _marked_members(plugin):
        what = f"is a {type(plugin).__name__} and implements no hook"
        raise PluginError(f"Plugin {name!r} {what}; register an instance of a bz.plugins.Plugin.", plugin=name)
    for hook, function in methods.items():
        _check_function(name, hook, function)
    for member_name in _marked_members(plugin):
        if member_name not in HOOK_NAMES:
            message = f"Plugin {name!r} marks {member_name!r} as a hook, which bz does not have.{_hint(member_name)}"
            raise PluginError(message, plugin=name)


def _check_function(plugin: str, hook: str, function: Any) -> None:
    for problem in _problems(hook, function):
        raise PluginError(f"Plugin {plugin!r}: {hook} {problem}", plugin=plugin)


def _problems(hook: str, function: Any) -> Iterator[str]:
    options = getattr(function, _MARKER, {})
    accepted = HOOK_PARAMETERS[hook]
    if options.get("wrapper") or options.get("hookwrapper"):
        yield "is a hook wrapper; bz calls each plugin by itself, write a plain function."
    elif inspect.isgeneratorfunction(function):
        yield "contains 'yield', so calling it would do nothing; write a plain function."
    elif inspect.iscoroutinefunction(function):
        yield "is 'async', so calling it would do nothing; write a plain function."
    for parameter in inspect.signature(function).parameters.values():
        yield from _parameter_problems(hook, parameter, accepted)


def _parameter_problems(hook: str, parameter: inspect.Parameter, accepted: tuple[str, ...]) -> Iterator[str]:
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        yield f"takes {parameter}, which bz never fills; write: def {hook}(self, {', '.join(accepted)})."
    elif parameter.name not in accepted:
        yield f"has a parameter {parameter.name!r}; accepted: {', '.join(accepted)}."
    elif parameter.default is not parameter.empty:
        yield f"gives {parameter.name!r} a default, and would be called without it; write it without the default."


def _marked_members(plugin: object) -> list[str]:
    names = vars(plugin) if isinstance(plugin, ModuleType) else dir(type(plugin))
    return [name for name in names if hasattr(getattr(plugin, name, None), _MARKER)]


def misspelt_hooks(plugin: object) -> dict[str, str]:
    """Return method name to hook name, for methods that look like a hook and are none.

    A misspelling (`end_epochs`) and another framework's name (`on_epoch_end`) both count.
    """
    if not isinstance(plugin, Plugin | ModuleType):
        return {}
    namespace = plugin if isinstance(plugin, ModuleType) else type(plugin)
    candidates = [name for name, member in vars_of(namespace).items() if inspect.isfunction(member)]
    close = {name: _closest_hook(name) for name in candidates if name not in HOOK_NAMES}
    return {name: hook for name, hook in close.items() if hook}


def vars_of(namespace: type | ModuleType) -> dict[str, Any]:
    """Return the public members that the plugin's author wrote: no imported ones, none of `Plugin`."""
    if isinstance(namespace, ModuleType):
        members = {k: v for k, v in vars(namespace).items() if getattr(v, "__module__", None) == namespace.__name__}
    else:
        members = {k: v for base in namespace.__mro__ if base not in {Plugin, object} for k, v in vars(base).items()}
    return {name: member for name, member in members.items() if not name.startswith("_") and not hasattr(Plugin, name)}


def _closest_hook(name: str) -> str | None:
    words = _words(name)
    same_words = [hook for hook in HOOK_NAMES if _words(hook) == words]
    close = difflib.get_close_matches(name, HOOK_NAMES, n=1, cutoff=_CLOSE)
    return next(iter(same_words or close), None)


def _words(name: str) -> frozenset[str]:
    words = (word.removesuffix("s") for word in re.split(r"_+", name.lower()))
    return frozenset(_SYNONYMS.get(word, word) for word in words if word not in {"on", "the", ""})


def _hint(name: str) -> str:
    hook = _closest_hook(name)
    return f" Did you mean {hook!r}?" if hook else ""
