"""Everything a training needs, found, built and checked; the last step before anything is written."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from bz.cli import output
from bz.cli.config import faults_of_names, find_settings, name_source
from bz.cli.redactor import find_secrets
from bz.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from bz.config import Config
    from bz.plugins.loading import LoadedPlugins
    from bz.plugins.manager import PluginManager
    from bz.plugins.selection import PluginChoice, PluginRequest
    from bz.script import LoadedScript
    from bz.spec import Metric

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What the command line asks for.

    Attributes:
        script: The script to train, or None for `train.py`; for a resumed run, the one that it began with.
        config: The settings file, or None to look for one.
        inherited: Settings that the command line named when the run began, for one that is resumed.
        overrides: Settings as in `training.epochs=3`.
        short_options: The options that are short for a setting: option, key of the setting, value.
        name: Name of the run, or None for date and time.
        runs_dir: Where the run gets its folder.
        plugins: Which plugins to run.
        resume: The run or checkpoint to go on from, empty for the newest unfinished run; None for a new run.
        fresh: Whether a run of that name is set aside.
        watchers: Plugins of the command's own, which nobody has installed.
    """

    script: Path | None
    config: Path | None
    inherited: tuple[str, ...] = ()
    overrides: tuple[str, ...]
    short_options: tuple[tuple[str, str, Any], ...]
    name: str | None
    runs_dir: Path
    plugins: "PluginRequest"
    resume: str | None = None
    fresh: bool = False
    watchers: tuple[object, ...] = ()

    @property
    def script_path(self) -> Path:
        """The script to train."""
        return self.script if self.script is not None else Path("train.py")

    @property
    def short_overrides(self) -> dict[str, str]:
        """The short options as overrides, each with what the user wrote."""
        return {f"{key}={json.dumps(value)}": f"{option} {value}" for option, key, value in self.short_options}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the settings say, built.

    Attributes:
        device: Where the model will be.
        metrics: Those of the settings.
        choices: What was decided about each plugin.
        plugins: The instances, and why others were left out.
    """

    device: "torch.device"
    metrics: "Mapping[str, Metric]"
    choices: "Sequence[PluginChoice]"
    plugins: "LoadedPlugins"


def load_settings(request: TrainRequest) -> tuple[Path | None, "Config"]:
    """Return the settings file that counts, if any, and the settings; their secrets are not printed from now on.

    Raises:
        ConfigError: With every fault.
    """
    path = find_settings(request.config)
    return path, read_settings(path, request)


def read_settings(path: Path | None, request: TrainRequest) -> "Config":
    """Return the settings of a file, or of none, with what the command line asks for; their secrets are not printed.

    Raises:
        ConfigError: With every fault.
    """
    from bz.config import load_config, redact

    short = request.short_overrides
    try:
        settings = load_config(path, [*request.inherited, *request.overrides, *short])
    except ConfigError as error:
        others = [ConfigError(fault, path=path) for fault in faults_of_names(path)]
        raise ConfigError.join([_in_words_of_the_user(error, short), *others]) from error
    values = settings.model_dump()
    output.hide(find_secrets(values, redact(values)))
    return settings


def _in_words_of_the_user(error: ConfigError, short: Mapping[str, str]) -> ConfigError:
    """Return the error with `--epochs 0` in place of `--set training.epochs=0`, which nobody wrote."""
    faults = list(error.faults)
    for override, option in short.items():
        faults = [fault.replace(f"`--set {override}`", f"`{option}`") for fault in faults]
    return ConfigError.join(ConfigError(fault, path=error.path, option=error.option) for fault in faults)


class _Attempts:
    """Calls what may find the settings wrong, so that all faults are reported together."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except ConfigError as error:
            self.errors.append(error)
            return None

    def close(self) -> None:
        if self.errors:
            raise ConfigError.join(self.errors)


def build_parts(request: TrainRequest, settings: "Config", path: Path | None) -> Parts:
    """Build what the settings name.

    Raises:
        ConfigError: With every fault.
    """
    from bz.naming import check_name
    from bz.training.device import resolve_device
    from bz.training.metrics import build_metrics

    attempts = _Attempts()
    if request.name is not None:
        attempts.call(check_name, request.name)
    device = attempts.call(resolve_device, settings.training.device)
    metrics = attempts.call(build_metrics, settings.metrics)
    choices = attempts.call(choose, settings, request)
    plugins = attempts.call(load, choices or (), path)
    attempts.close()
    assert device is not None
    assert metrics is not None
    assert choices is not None
    assert plugins is not None
    return Parts(device=device, metrics=metrics, choices=choices, plugins=plugins)


def choose(settings: "Config", request: TrainRequest) -> "Sequence[PluginChoice]":
    """Decide about every plugin.

    Raises:
        ConfigError: One is named that does not exist.
    """
    from bz.plugins.discovery import discover_plugins
    from bz.plugins.selection import choose_plugins

    sections = {name: section.model_dump() for name, section in settings.plugins.items()}
    return choose_plugins(discover_plugins(), sections, request.plugins.or_environment(os.environ))


def load(choices: "Sequence[PluginChoice]", path: Path | None) -> "LoadedPlugins":
    """Import and build the plugins that are on; their secrets are not printed from now on.

    Raises:
        ConfigError: With every fault of those that the settings name.
    """
    from bz.plugins.loading import load_plugins

    try:
        loaded = load_plugins(choices)
    except ConfigError as error:
        faults = [ConfigError(name_source(fault, path), path=path) for fault in error.faults]
        raise ConfigError.join(faults) from error
    built = {name for name, _ in loaded.plugins}
    output.hide(secret for choice in choices if choice.name in built for secret in _typed_secrets(choice))
    return loaded


def _typed_secrets(choice: "PluginChoice") -> Iterator[str]:
    """Yield the settings that are secrets by their type in the plugin, whatever they are called."""
    from bz.config import redact
    from bz.plugins.settings import check_settings

    if choice.state == "on" and choice.plugin is not None:
        values = check_settings(choice.name, choice.plugin.load(), choice.settings).model_dump()
        yield from find_secrets(values, redact(values))


def load_script(request: TrainRequest, settings: "Config", parts: Parts) -> "LoadedScript":
    """Run the script and return what it defines, with the metrics of the settings added to its own.

    Raises:
        ScriptError: It fails, or defines something that cannot be trained.
        ConfigError: One of its metrics is none.
    """
    from bz.script import load_script
    from bz.training.metrics import check_metrics
    from bz.training.preparation import gather_facts

    script = load_script(request.script_path, settings.hyperparameters)
    script.spec.metrics = {**parts.metrics, **(script.spec.metrics or {})}
    check_metrics(script.spec.metrics)
    gather_facts(script.spec, settings.training, parts.device)
    return script


def register_plugins(request: TrainRequest, parts: Parts, script: "LoadedScript", *, strict: bool) -> "PluginManager":
    """Return the manager with the installed plugins, those of the script, and the hooks in the script itself.

    The plugins of the script move from its spec to the manager.

    Raises:
        PluginError: One of them would not do what its author expects.
    """
    from bz.plugins.manager import PluginManager
    from bz.plugins.registration import hook_methods, misspelt_hooks

    manager = PluginManager(strict=strict)
    for name, plugin in parts.plugins.plugins:
        manager.add(plugin, name)
    for plugin in script.spec.plugins:
        manager.add(plugin)
    script.spec.plugins = ()
    if hook_methods(script.module) or misspelt_hooks(script.module):
        manager.add(script.module)
    for plugin in request.watchers:
        manager.add(plugin)
    return manager


def plugin_sentences(parts: Parts, names: Sequence[str]) -> Iterator[str]:
    """Yield which plugins run, and which were left out and why."""
    yield f"Plugins: {', '.join(names) or 'none'}."
    off: dict[str, list[str]] = {}
    for choice in parts.choices:
        if choice.state == "off":
            off.setdefault(choice.reason, []).append(choice.name)
    if off:
        groups = (f"{', '.join(group)} ({reason})" for reason, group in off.items())
        yield f"Off: {'; '.join(groups)}."
    yield from parts.plugins.notices
