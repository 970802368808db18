"""What a run was made with, built again to be used: script, settings, and the plugins that make a step."""

import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from bz.cli import output
from bz.cli.closing import SIGNALLED, report_script
from bz.cli.collector import rare_collections
from bz.cli.evaluation import EvaluationRequest, OpenedRun
from bz.cli.faults import FAILED
from bz.cli.inheritance import inherit
from bz.cli.preparation import Parts, TrainRequest, choose, load, load_script, load_settings, read_settings
from bz.errors import BzError, ConfigError, ScriptError, suggestion

if TYPE_CHECKING:
    from bz.config import Config
    from bz.plugins.manager import PluginManager
    from bz.plugins.selection import PluginChoice
    from bz.script import LoadedScript

logger = logging.getLogger(__name__)

STEP: Final = "validation_step"
PREDICTION_LOADER: Final = "prediction_loader"
"""What a script may define for `bz predict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a run was made with, built again.

    Attributes:
        script: The script.
        loaded: What it defines, with the metrics of the settings added to its own.
        settings: The settings.
        plugins: Those that make a validation step, and no others.
    """

    script: Path
    loaded: "LoadedScript"
    settings: "Config"
    plugins: "PluginManager"


@rare_collections()
def build_project(request: EvaluationRequest, opened: OpenedRun) -> Project:
    """Run the script with the settings of the run.

    Raises:
        ConfigError: The settings are not accepted.
        PluginError: A plugin cannot be used.
        typer.Exit: The script cannot be used; why was said.
    """
    from bz.training.seeding import seed_everything

    train_request, path, settings = _settings(request, opened)
    parts = _build_parts(train_request, settings, path)
    seed = opened.record.get("seed")
    # After the plugins were built, as before a training.
    seed_everything(seed if isinstance(seed, int) else settings.training.seed or 0)
    script = train_request.script_path
    _note_changed_script(opened, script)
    try:
        loaded = load_script(train_request, settings, parts)
    except ScriptError as error:
        raise typer.Exit(report_script(error, script).exit_code) from error
    return Project(script=script, loaded=loaded, settings=settings, plugins=_register(parts, loaded))


def _settings(request: EvaluationRequest, opened: OpenedRun) -> tuple[TrainRequest, Path | None, "Config"]:
    """Return the request as for a training, the settings file if one was read, and the settings.

    They come from the checkpoint; with `--config`, or if it knows none, from the file, with the options of the run.
    """
    from bz.plugins.selection import PluginRequest

    device = (("--device", "training.device", request.device),) if request.device is not None else ()
    wanted = TrainRequest(
        script=request.script,
        config=request.config,
        overrides=request.overrides,
        short_options=device,
        name=None,
        runs_dir=request.runs_dir,
        plugins=PluginRequest(),
    )
    inherited = inherit(wanted, opened.record)
    recorded = _recorded_settings(opened)
    if request.config is None and recorded:
        inherited = replace(inherited, inherited=tuple(recorded))
        return inherited, None, read_settings(None, inherited)
    return inherited, *load_settings(inherited)


def _recorded_settings(opened: OpenedRun) -> list[str]:
    """Return the settings of the checkpoint as overrides; a secret, which is not kept, is not among them."""
    recorded: Mapping[str, Any] = opened.found.state["bz"].get("settings") or {}
    sections = {
        name: recorded[name] for name in ("training", "hyperparameters", "metrics", "plugins") if name in recorded
    }
    written = opened.record.get("settings")
    if sections and isinstance(written, Mapping) and isinstance(written.get("training"), Mapping):
        # A checkpoint has the seed also where it was drawn; `overfit_batches` goes by that of the settings alone.
        sections["training"] = {**sections["training"], "seed": written["training"].get("seed")}
    return [f"{name}={json.dumps(_without_secrets(section, name))}" for name, section in sections.items()]


_LOST: Final = object()


def _without_secrets(value: Any, path: str) -> Any:
    """Return the value without keys whose text is a secret, or reads a variable that is not set and no step needs."""
    from bz.config.redaction import STARS

    if isinstance(value, Mapping):
        items = {key: _without_secrets(item, f"{path}.{key}") for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not _LOST}
    if not isinstance(value, str):
        return value
    is_of_plugin = path.startswith("plugins.")
    if STARS in value and not is_of_plugin:
        logger.warning("`%s` of the run is a secret, which is not kept; give it with --set if it is needed", path)
    return _LOST if STARS in value or (is_of_plugin and _reads_unset_variable(value)) else value


def _reads_unset_variable(text: str) -> bool:
    from bz.config.references import expand

    faults: list[Any] = []
    expand(text, os.environ, faults)
    return bool(faults)


def _build_parts(request: TrainRequest, settings: "Config", path: Path | None) -> Parts:
    """Build what the settings name; of the plugins only those that may make a validation step.

    Raises:
        ConfigError: Something is not accepted.
    """
    from bz.training.device import resolve_device
    from bz.training.metrics import build_metrics

    choices = [choice for choice in choose(settings, request) if _may_make_steps(choice)]
    return Parts(
        device=resolve_device(settings.training.device),
        metrics=build_metrics(settings.metrics),
        choices=choices,
        plugins=load(choices, path),
    )


def _may_make_steps(choice: "PluginChoice") -> bool:
    """Whether a plugin has to be built: one that only watches a training may write files as soon as it is."""
    from bz.plugins.guard import isolated

    if choice.state == "missing":
        logger.warning("plugin %r is not installed; if it makes validation steps, results differ", choice.name)
    if choice.state in {"missing", "off"}:
        return False
    if choice.state != "on" or choice.plugin is None:
        return True  # is reported where plugins are loaded
    try:
        with isolated(choice.name, "cannot be imported"):
            target = choice.plugin.load()
    except BzError:
        return True  # the same
    return not isinstance(target, type) or callable(getattr(target, STEP, None))


def _register(parts: Parts, loaded: "LoadedScript") -> "PluginManager":
    """Return the manager with the plugins and the script, as far as they make a validation step."""
    from bz.plugins.manager import PluginManager
    from bz.plugins.registration import hook_methods

    manager = PluginManager()
    for name, plugin in (*parts.plugins.plugins, *((None, one) for one in loaded.spec.plugins)):
        if STEP in hook_methods(plugin):
            manager.add(plugin, name)
    loaded.spec.plugins = ()
    if STEP in hook_methods(loaded.module):
        manager.add(loaded.module)
    return manager


def _note_changed_script(opened: OpenedRun, script: Path) -> None:
    from bz.provenance import file_digest

    before = opened.found.state["bz"].get("provenance", {}).get("script_sha256")
    now = file_digest(script)
    if before and now and before != now:
        logger.warning("%s was changed since the checkpoint was written; results may differ", script.name)


def find_loader(project: Project, wanted: str | None) -> tuple[str, Iterable[Any]]:
    """Return the name and the loader that is meant: `validation`, `training`, or a name in the script.

    A function in the script is called, with the hyperparameters if it takes something.

    Raises:
        ConfigError: There is none of this name.
    """
    spec, names = project.loaded.spec, vars(project.loaded.module)
    own = {"validation": spec.validation_loader, "training": spec.training_loader}
    name = wanted or (PREDICTION_LOADER if PREDICTION_LOADER in names else "validation")
    loader = own[name] if name in own else names.get(name)
    if callable(loader) and not hasattr(loader, "__iter__"):
        loader = loader(dict(spec.hyperparameters)) if inspect.signature(loader).parameters else loader()
    if loader is None:
        known = [*(one for one, value in own.items() if value is not None), *_loaders(names)]
        raise ConfigError(
            f"`--loader`: {project.script.name} has no loader {name!r}; there are {', '.join(known)}."
            f"{suggestion(name, known)}",
            option="--loader",
        )
    if not hasattr(loader, "__iter__"):
        raise ConfigError(
            f"`--loader`: {name!r} in {project.script.name} is a {type(loader).__name__}; "
            "it must be iterable, as a DataLoader is, or a function that returns one.",
            option="--loader",
        )
    return name, loader


def _loaders(names: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names in a script that are loaders, or functions that are named like one."""
    from torch.utils.data import DataLoader

    for name, value in names.items():
        if isinstance(value, DataLoader) or (callable(value) and name.endswith("_loader")):
            yield name


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the process as an exception does, so that no half file is left behind."""

    def end(number: int, _: object) -> None:
        sys.exit(SIGNALLED + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def blaming(script: Path, what: str) -> Iterator[None]:
    """Report what the user's code raises: the traceback without bz, and one sentence.

    Args:
        script: The script.
        what: What failed: `The validation`.

    Raises:
        typer.Exit: With the exit code, after the report.
        BzError: As it was raised.
    """
    from bz.script import user_traceback

    try:
        yield
    except (BzError, typer.Exit):
        raise
    except Exception as error:
        output.warn(user_traceback(error, script).rstrip())
        output.warn(f"{what} failed: {type(error).__name__}: {error}")
        raise typer.Exit(FAILED) from error
