"""`bz plugins`: which are installed, which run and why, what they take, whether they work."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bz.cli import output
from bz.cli.config import ConfigOption, JsonOption, find_settings
from bz.cli.group import Command
from bz.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from bz.cli.inspection import Inspection
    from bz.plugins.discovery import DiscoveredPlugin
    from bz.plugins.selection import PluginChoice

app = typer.Typer(help="List, inspect, check and switch plugins.", rich_markup_mode="rich")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin or of its package.")]

_NO_PLUGINS: Final = "No plugins are installed. Install one, for example: pip install bz-plugin-console"


@app.command("list", cls=Command)
def list_plugins(*, config: ConfigOption = None, json_: JsonOption = False) -> None:
    """List the installed plugins, whether they run, and why.

    Nothing is imported: this is what the metadata of the packages and the settings say.
    """
    choices = choose(config)
    if json_:
        output.print_json([_as_row(choice) for choice in choices])
    elif choices:
        output.print_table(
            ("name", "package", "version", "state", "why"), [list(_as_row(one).values()) for one in choices]
        )
    else:
        output.say(_NO_PLUGINS)


def choose(config: Path | None) -> "Sequence[PluginChoice]":
    """Return what the metadata and the settings say about each plugin."""
    from bz.plugins.discovery import discover_plugins
    from bz.plugins.selection import PluginRequest, choose_plugins

    request = PluginRequest().or_environment(os.environ)
    return choose_plugins(discover_plugins(), _plugin_sections(config), request)


def _plugin_sections(config: Path | None) -> dict[str, dict[str, Any]]:
    """Return the section `plugins` as it is written, with only as much checked as is read here."""
    from bz.config import read_settings_file

    path = find_settings(config)
    sections = read_settings_file(path).get("plugins", {}) if path else {}
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise ConfigError(
            f'{path}: `plugins` must be like {{"console_out": {{"enabled": true}}}}; see: bz config check'
        )
    return sections


def _as_row(choice: "PluginChoice") -> dict[str, str]:
    return {
        "name": choice.name,
        "package": choice.package,
        "version": choice.version,
        "state": choice.state,
        "why": choice.reason,
    }


@app.command(cls=Command)
def show(name: NameArgument, *, json_: JsonOption = False) -> None:
    """Show what a plugin does, its hooks and its settings."""
    from bz.cli.inspection import inspect_plugin

    plugin = _find(name)
    found = inspect_plugin(plugin)
    if json_:
        output.print_json(_describe(plugin, found))
    elif found.error is None:
        _print_description(plugin, found)
    if found.error is not None:
        raise PluginError(found.error, plugin=plugin.name)


def _find(name: str) -> "DiscoveredPlugin":
    """Return the one plugin of that name.

    Raises:
        ConfigError: There is none, or several packages provide it.
    """
    from bz.plugins.discovery import discover_plugins
    from bz.plugins.selection import find_plugin, unknown_plugin

    discovered = discover_plugins()
    plugins = find_plugin(name, discovered)
    if not plugins:
        raise ConfigError(unknown_plugin(name, discovered))
    if len(plugins) > 1:
        packages = " and ".join(plugin.package for plugin in plugins)
        raise ConfigError(f"Plugin {name!r} is in the packages {packages}; name one of the packages.")
    return plugins[0]


def _describe(plugin: "DiscoveredPlugin", found: "Inspection") -> dict[str, Any]:
    about = {"name": plugin.name, "package": plugin.package, "version": plugin.version}
    return about | {key: value for key, value in asdict(found).items() if key != "faults"}


def _print_description(plugin: "DiscoveredPlugin", found: "Inspection") -> None:
    output.say(f"{plugin.name}, from {plugin.package} {plugin.version}")
    if found.description:
        output.say(found.description)
    output.say(f"Hooks: {', '.join(found.hooks) or 'none'}")
    if not found.settings:
        takes_any = found.schema is not None and found.schema.get("additionalProperties", True)
        output.say("It takes any settings." if takes_any else "It has no settings.")
        return
    output.say()
    rows = [(row["name"], row["type"], row["default"] or "required", row["description"]) for row in found.settings]
    output.print_table(("setting", "type", "default", "description"), rows)


@app.command(cls=Command)
def check(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Check only this plugin.")] = None,
    *,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long the import of one plugin may take.")
    ] = 60.0,
    json_: JsonOption = False,
) -> None:
    """Import each plugin and report what is wrong with it.

    Each is imported in a process of its own. The exit code is 1 if a plugin cannot be used.
    """
    from bz.cli.inspection import inspect_plugin
    from bz.plugins.discovery import discover_plugins

    if not 0 < timeout < math.inf:
        raise ConfigError(f"`--timeout` must be a number of seconds above 0, got {timeout:g}.", option="--timeout")
    plugins = [_find(name)] if name else list(discover_plugins())
    inspections = [inspect_plugin(plugin, timeout_seconds=timeout) for plugin in plugins]
    if json_:
        output.print_json([_describe(plugin, found) for plugin, found in zip(plugins, inspections, strict=True)])
    elif plugins:
        for plugin, found in zip(plugins, inspections, strict=True):
            _print_verdict(plugin, found)
    else:
        output.say(_NO_PLUGINS)
    if any(found.error for found in inspections):
        raise typer.Exit(1)


def _print_verdict(plugin: "DiscoveredPlugin", found: "Inspection") -> None:
    origin = f"{plugin.package} {plugin.version}"
    if found.error is not None:
        output.say(f"{origin}: {found.error}")
        return
    output.say(f"{origin}: Plugin {plugin.name!r} works. Its import took {found.import_seconds:.2f} s.")
    for problem in found.problems:
        output.say(f"{origin}: {problem}")


@app.command(cls=Command)
def enable(name: NameArgument, *, config: ConfigOption = None) -> None:
    """Switch a plugin on in the settings file.

    Without a settings file, bz.json is made.
    """
    _switch(name, config, enabled=True)


@app.command(cls=Command)
def disable(name: NameArgument, *, config: ConfigOption = None) -> None:
    """Switch a plugin off in the settings file.

    Without a settings file, bz.json is made.
    """
    _switch(name, config, enabled=False)


def _switch(name: str, config: Path | None, *, enabled: bool) -> None:
    from bz.config import set_plugin_enabled

    path = find_settings(config) or Path("bz.json")
    key = _settings_key(name, _plugin_sections(config))
    word = "on" if enabled else "off"
    is_new = not path.exists()
    set_plugin_enabled(path, key, enabled)
    output.say(f"Switched {key} {word} in {path}{', which is new' if is_new else ''}.")


def _settings_key(name: str, sections: Iterable[str]) -> str:
    """Return the key under which the settings name the plugin, or will.

    Raises:
        ConfigError: Neither the settings nor an installed package know it, or several packages do.
    """
    from bz.plugins.discovery import canonical_name, is_same_plugin

    written = [key for key in sections if canonical_name(key) == canonical_name(name)]
    if written:
        return written[0]
    plugin = _find(name)
    return next((key for key in sections if is_same_plugin(key, plugin)), plugin.name)
