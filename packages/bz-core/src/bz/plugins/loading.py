"""From choices to instances: imports and builds the plugins that are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bz.errors import ConfigError, PluginError
from bz.plugins.guard import isolated
from bz.plugins.registration import check_plugin
from bz.plugins.settings import MissingSettingsError, build_plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bz.plugins.selection import PluginChoice


@dataclass(frozen=True, slots=True)
class LoadedPlugins:
    """The plugins of a run.

    Attributes:
        plugins: Name and instance, in calling order.
        notices: One sentence for each plugin that was left out though it is installed.
    """

    plugins: tuple[tuple[str, object], ...]
    notices: tuple[str, ...]


def load_plugins(choices: Sequence[PluginChoice]) -> LoadedPlugins:
    """Import and build what is on.

    A plugin that nobody named and that cannot run is left out with a notice.

    Raises:
        ConfigError: With the faults of all plugins that the user named, and of all collisions.
    """
    plugins: list[tuple[str, object]] = []
    notices: list[str] = []
    errors: list[ConfigError] = []
    for choice in choices:
        try:
            plugin = _load(choice)
        except (ConfigError, PluginError) as error:
            if choice.is_named or choice.state == "collision":
                errors.append(error if isinstance(error, ConfigError) else ConfigError(str(error)))
            else:
                notices.append(_notice(choice, error))
            continue
        if plugin is not None:
            plugins.append((choice.name, plugin))
    if errors:
        raise ConfigError.join(errors)
    return LoadedPlugins(tuple(plugins), tuple(notices))


def _load(choice: PluginChoice) -> object | None:
    """Return the instance, or None for a plugin that is off."""
    if choice.state == "off":
        return None
    if choice.state == "missing":
        raise ConfigError(choice.reason, option=f"plugins.{choice.name}")
    if choice.state != "on" or choice.plugin is None:
        raise ConfigError(f"Plugin {choice.name!r} of {choice.package} cannot run: {choice.reason}.")
    with isolated(choice.name, f"of {choice.package} cannot be imported"):
        target = choice.plugin.load()
    plugin = build_plugin(choice.name, target, choice.settings)
    check_plugin(plugin, choice.name)
    return plugin


def _notice(choice: PluginChoice, error: ConfigError | PluginError) -> str:
    if isinstance(error, MissingSettingsError):
        return f"Plugin {choice.name!r} is off: it needs the settings {', '.join(error.missing)}."
    return f"{' '.join(str(error).split()).rstrip('.')}. It was left out."
