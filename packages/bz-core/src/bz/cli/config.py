"""`bz config`: what the settings are, whether they are right, and what they may be."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bz.cli import output
from bz.cli.faults import WRONG_USE
from bz.cli.group import Command
from bz.errors import ConfigError

if TYPE_CHECKING:
    from bz.plugins.selection import PluginChoice

app = typer.Typer(help="Show, check and describe the settings.", rich_markup_mode="rich")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file, in place of $BZ_CONFIG, bz.json, bz.toml or pyproject.toml."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting, such as training.epochs=3; may be repeated."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def find_settings(config: Path | None) -> Path | None:
    """Return the settings file that counts in the working directory, or None if there is none."""
    from bz.config import find_settings_file

    return find_settings_file(config, Path(), os.environ)


@app.command(cls=Command)
def show(*, config: ConfigOption = None, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Show the settings, with defaults and without secrets."""
    from bz.config import load_config

    path = find_settings(config)
    record = load_config(path, set_ or []).record()
    if json_:
        output.print_json(record)
        return
    output.say(f"Settings from {path}:" if path else "No settings file; these are the defaults:")
    output.print_table(("setting", "value"), output.flatten(record))


@app.command(cls=Command)
def check(*, config: ConfigOption = None, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Check the settings and report all that is wrong.

    Each plugin that they name is imported in a process of its own. The exit code is 2 if something is wrong.
    """
    path = find_settings(config)
    faults = list(faults_of(path, set_ or []))
    if json_:
        output.print_json({"file": str(path) if path else None, "faults": faults})
    elif not faults:
        output.say(f"{path} is fine." if path else "There is no settings file; the defaults are fine.")
    else:
        for fault in faults:
            output.warn(fault)
    if faults:
        raise typer.Exit(WRONG_USE)


def faults_of(path: Path | None, overrides: list[str]) -> Iterator[str]:
    """Yield what is wrong in the settings, one sentence each."""
    from bz.config import load_config

    try:
        settings = load_config(path, overrides)
    except ConfigError as error:
        yield from error.faults
        yield from faults_of_names(path)
        return
    try:
        for choice in _named_plugins(settings.model_dump()["plugins"]):
            for fault in _faults_of_plugin(choice):
                yield name_source(fault, path)
    except ConfigError as error:
        yield from error.faults


def faults_of_names(path: Path | None) -> Iterator[str]:
    """Yield what is wrong about the plugins that a file names, where other faults keep it from being used."""
    from bz.config import read_settings_file

    try:
        written = read_settings_file(path).get("plugins") if path else None
    except ConfigError:  # reported already
        return
    named = written.items() if isinstance(written, dict) else ()
    try:
        for choice in _named_plugins({name: section for name, section in named if isinstance(section, dict)}):
            yield from _fault_of_choice(choice)
    except ConfigError as error:
        yield from error.faults


def _named_plugins(sections: dict[str, dict[str, Any]]) -> "Iterator[PluginChoice]":
    from bz.plugins.discovery import discover_plugins
    from bz.plugins.selection import PluginRequest, choose_plugins

    request = PluginRequest().or_environment(os.environ)
    for choice in choose_plugins(discover_plugins(), sections, request):
        if choice.is_named or choice.state == "collision":
            yield choice


def _fault_of_choice(choice: "PluginChoice") -> Iterator[str]:
    """Yield why the metadata alone says that a plugin cannot run."""
    if choice.state in {"collision", "incompatible"}:
        yield f"Plugin {choice.name!r} of {choice.package} cannot run: {choice.reason}."
    elif choice.state == "missing":
        yield choice.reason


def _faults_of_plugin(choice: "PluginChoice") -> Iterator[str]:
    """Yield what is wrong about a plugin, its settings included, without importing it here."""
    from bz.cli.inspection import inspect_plugin

    if choice.state == "on" and choice.plugin is not None:
        found = inspect_plugin(choice.plugin, choice.settings)
        yield from [found.error] if found.error else found.faults
    else:
        yield from _fault_of_choice(choice)


def name_source(fault: str, path: Path | None) -> str:
    """Return a sentence about a plugin's settings with the file that they are in."""
    is_about_settings = fault.startswith(("`plugins.", "unknown key `plugins."))
    return f"{path}: {fault}" if path and is_about_settings else fault


@app.command(cls=Command)
def schema(
    *,
    file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write it to this file, in place of stdout.")
    ] = None,
) -> None:
    """Print the JSON schema of the settings file.

    It covers the settings of all installed plugins. Editors use it to complete and check bz.json, which names it
    under "$schema".
    """
    from bz.cli.inspection import installed_schema

    composed = installed_schema()
    if file is None:
        output.print_json(composed)
        return
    from bz.config.writing import write_atomically

    try:
        write_atomically(file, json.dumps(composed, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}.", path=file, option="--output") from error
    output.say(f"Wrote {file}.")
