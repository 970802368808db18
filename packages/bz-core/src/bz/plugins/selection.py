"""Which of the installed plugins run, and why; decided from metadata and settings alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bz.errors import ConfigError, suggestion
from bz.plugins.discovery import (
    KNOWN_PLUGINS,
    DiscoveredPlugin,
    canonical_name,
    core_version,
    is_same_package,
    is_same_plugin,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PluginState = Literal["on", "off", "missing", "collision", "incompatible"]


class PluginRequest(NamedTuple):
    """What the command line, or else the environment, says about plugins.

    Attributes:
        only: Run these and no others; empty for no such wish.
        without: Do not run these.
        none: Run no plugins at all.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    none: bool = False

    def or_environment(self, environ: Mapping[str, str]) -> PluginRequest:
        """Return this request, filled from `BZ_PLUGINS` and `BZ_DISABLE_PLUGINS` where it says nothing."""
        if self.none:
            return self
        return PluginRequest(
            only=self.only or _names(environ.get("BZ_PLUGINS", "")),
            without=self.without or _names(environ.get("BZ_DISABLE_PLUGINS", "")),
        )


def _names(comma_list: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in comma_list.split(",") if name.strip())


@dataclass(frozen=True, slots=True)
class PluginChoice:
    """What was decided about one plugin.

    Attributes:
        name: Name of the entry point, or as the user wrote it when nothing of that name is installed.
        package: Distribution that provides it; empty when missing.
        version: Version of the distribution; empty when missing.
        state: `on`, `off`, or why it cannot run.
        reason: The same in words.
        is_named: Whether the user named it, in the settings or on the command line, so that it must work.
        settings: Its own settings, as written under `config`.
        plugin: What was discovered; None when missing.
    """

    name: str
    package: str
    version: str
    state: PluginState
    reason: str
    is_named: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    plugin: DiscoveredPlugin | None = None


def choose_plugins(
    discovered: Sequence[DiscoveredPlugin],
    settings: Mapping[str, Mapping[str, Any]],
    request: PluginRequest,
) -> tuple[PluginChoice, ...]:
    """Decide about every installed plugin and every one that the settings name.

    Args:
        discovered: The installed plugins.
        settings: The section `plugins`, as written: name to `{"enabled": ..., "config": {...}}`.
        request: What the command line and the environment say; it wins over the settings.

    Returns:
        The choices in the order in which plugins run: as in the settings, then by name.

    Raises:
        ConfigError: If the request names an unknown plugin, or two keys of the settings name one.
    """
    _refuse_unknown(request, discovered)
    keys = _keys_by_plugin(discovered, settings)
    missing = [
        _missing(written, section, discovered) for written, section in settings.items() if written not in keys.values()
    ]
    order = {key: position for position, key in enumerate(settings)}
    ordered = sorted(discovered, key=lambda plugin: (order.get(keys.get(plugin, ""), len(order)), plugin.name))
    wishes = _Wishes.of(request, discovered)
    chosen = [_choose(plugin, keys.get(plugin), settings, wishes) for plugin in ordered]
    return (*_settle_collisions(chosen, settings), *missing)


def find_plugin(written: str, discovered: Iterable[DiscoveredPlugin]) -> list[DiscoveredPlugin]:
    """Return what `written` names: the plugins of that package, else those of that name."""
    discovered = list(discovered)
    by_package = [plugin for plugin in discovered if is_same_package(written, plugin)]
    return by_package or [plugin for plugin in discovered if is_same_plugin(written, plugin)]


def unknown_plugin(written: str, discovered: Iterable[DiscoveredPlugin]) -> str:
    """Return the sentence about a plugin that is not installed, with what to do."""
    installed = sorted({plugin.name for plugin in discovered})
    package = next((known.package for known in KNOWN_PLUGINS if canonical_name(written) in _known_names(known)), None)
    if package:
        return f"Plugin {written!r} is not installed; install it with: pip install {package}"
    listed = ", ".join(installed) or "none"
    return f"Unknown plugin {written!r}; installed: {listed}.{suggestion(written, installed)}"


def _known_names(known: tuple[str, str, str]) -> set[str]:
    return {canonical_name(known[0]), canonical_name(known[2])}


def _refuse_unknown(request: PluginRequest, discovered: Sequence[DiscoveredPlugin]) -> None:
    unknown = [name for name in (*request.only, *request.without) if not find_plugin(name, discovered)]
    if unknown:
        raise ConfigError.join(ConfigError(unknown_plugin(name, discovered), option="--plugin") for name in unknown)


def _keys_by_plugin(
    discovered: Sequence[DiscoveredPlugin], settings: Mapping[str, Mapping[str, Any]]
) -> dict[DiscoveredPlugin, str]:
    """Return the key of the settings that names each plugin, for those that are named."""
    keys: dict[DiscoveredPlugin, str] = {}
    for written in settings:
        for plugin in find_plugin(written, discovered):
            if plugin in keys:
                message = f"`plugins.{keys[plugin]}` and `plugins.{written}` name the same plugin; keep one of them."
                raise ConfigError(message, option=f"plugins.{written}")
            keys[plugin] = written
    return keys


def _missing(written: str, section: Mapping[str, Any], discovered: Sequence[DiscoveredPlugin]) -> PluginChoice:
    if section.get("enabled", True) is False:
        return PluginChoice(written, "", "", "off", "disabled in the settings, and not installed", is_named=True)
    return PluginChoice(written, "", "", "missing", unknown_plugin(written, discovered), is_named=True)


class _Wishes(NamedTuple):
    """A request, with names turned into the plugins that they name."""

    only: frozenset[DiscoveredPlugin]
    without: frozenset[DiscoveredPlugin]
    none: bool
    only_names: str

    @classmethod
    def of(cls, request: PluginRequest, discovered: Sequence[DiscoveredPlugin]) -> _Wishes:
        def named(names: tuple[str, ...]) -> frozenset[DiscoveredPlugin]:
            return frozenset(plugin for name in names for plugin in find_plugin(name, discovered))

        return cls(named(request.only), named(request.without), request.none, ", ".join(request.only))


def _choose(
    plugin: DiscoveredPlugin, key: str | None, settings: Mapping[str, Mapping[str, Any]], wishes: _Wishes
) -> PluginChoice:
    section = settings[key] if key is not None else None
    state, reason = _decide(plugin, section, wishes)
    return PluginChoice(
        name=plugin.name,
        package=plugin.package,
        version=plugin.version,
        state=state,
        reason=reason,
        is_named=section is not None or plugin in wishes.only,
        settings=(section or {}).get("config") or {},
        plugin=plugin,
    )


def _decide(plugin: DiscoveredPlugin, section: Mapping[str, Any] | None, wishes: _Wishes) -> tuple[PluginState, str]:
    asked_for = plugin in wishes.only
    reason = _reason_to_leave_out(plugin, section, wishes)
    if reason:
        return "off", reason
    if not _is_compatible(plugin):
        return "incompatible", f"needs bz-core {plugin.requires_core}, this is {core_version()}"
    if plugin.opt_in and not asked_for and section is None:
        return "off", "runs only when the settings name it"
    return "on", "asked for" if asked_for else "installed" if section is None else "named in the settings"


def _reason_to_leave_out(plugin: DiscoveredPlugin, section: Mapping[str, Any] | None, wishes: _Wishes) -> str:
    if wishes.none:
        return "no plugins were asked for"
    if plugin in wishes.without:
        return "left out as asked"
    if wishes.only and plugin not in wishes.only:
        return f"only {wishes.only_names} asked for"
    if section is not None and section.get("enabled") is False and plugin not in wishes.only:
        return "disabled in the settings"
    return ""


def _is_compatible(plugin: DiscoveredPlugin) -> bool:
    """Return whether this bz-core is one that the plugin's package asks for; what cannot be read asks for nothing."""
    if not plugin.requires_core:
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(plugin.requires_core).contains(core_version(), prereleases=True)
    except InvalidSpecifier:
        return True


def _settle_collisions(
    choices: Sequence[PluginChoice], settings: Mapping[str, Mapping[str, Any]]
) -> list[PluginChoice]:
    """Mark plugins of one name that would all run, unless the settings choose one by its package."""
    count = Counter(choice.name for choice in choices if choice.state == "on")
    return [
        _settle(choice, [other for other in choices if other.name == choice.name and other.state == "on"], settings)
        if choice.state == "on" and count[choice.name] > 1
        else choice
        for choice in choices
    ]


def _settle(
    choice: PluginChoice, rivals: Sequence[PluginChoice], settings: Mapping[str, Mapping[str, Any]]
) -> PluginChoice:
    chosen = [rival for rival in rivals if rival.plugin and any(is_same_package(key, rival.plugin) for key in settings)]
    if len(chosen) == 1:
        return choice if choice in chosen else replace(choice, state="off", reason=f"{chosen[0].package} was chosen")
    packages = ", ".join(rival.package for rival in rivals)
    what_to_do = "name one by its package in the settings, or leave one out with --no-plugin"
    reason = f"several packages provide a plugin {choice.name!r}: {packages}; {what_to_do}"
    return replace(choice, state="collision", reason=reason)
