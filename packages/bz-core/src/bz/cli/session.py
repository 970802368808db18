"""One training, from the request to the finished run folder.

Nothing is written before the settings, the plugins and the script were found to be right.
"""

import logging
import time
from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.cli import output
from bz.cli.closing import Outcome, close, close_failed, finish, report_script
from bz.cli.collector import rare_collections
from bz.cli.differences import differences
from bz.cli.finding import resume_command
from bz.cli.inheritance import options_of
from bz.cli.logs import RunLog
from bz.cli.preparation import (
    Parts,
    TrainRequest,
    build_parts,
    load_script,
    load_settings,
    plugin_sentences,
    register_plugins,
)
from bz.cli.redactor import redact_texts
from bz.cli.resuming import Resumed, clear_way, new_name, notes_on_seed, take_up
from bz.errors import ConfigError, ScriptError

if TYPE_CHECKING:
    from bz.config import Config
    from bz.plugins.manager import PluginManager
    from bz.runs import RunFolder
    from bz.spec import TrainingSpec

logger = logging.getLogger(__name__)

_REPORTING_PLUGIN: Final = "console_out"
"""The plugin that shows the results itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training that was found to be right.

    Attributes:
        settings: The settings.
        record: The settings without secrets, as plugins and files get them.
        seed: The seed, also where the settings have none.
        spec: The live objects.
        manager: The plugins.
        left_out: Plugins that were built and are not called.
        versions: Version of each installed plugin that runs.
        about_plugins: Which plugins run, and which do not and why.
        notices: What has no effect, one sentence each.
    """

    settings: "Config"
    record: Mapping[str, Any]
    seed: int
    spec: "TrainingSpec"
    manager: "PluginManager"
    left_out: tuple[str, ...]
    versions: Mapping[str, str]
    about_plugins: str
    notices: tuple[str, ...]


def train(request: TrainRequest) -> Outcome:
    """Train as asked; text goes to stdout and stderr.

    Raises:
        BzError: Something was found to be wrong, before anything was written.
    """
    log, began = RunLog(), time.perf_counter()
    with log.recording(), ExitStack() as held:
        resumed = take_up(request) if request.resume is not None else None
        if resumed is None:
            return _train(request, None, log, held, began)
        held.enter_context(resumed.held)
        return _train(resumed.request, resumed, log, held, began)


def _train(request: TrainRequest, resumed: Resumed | None, log: RunLog, held: ExitStack, began: float) -> Outcome:
    """Train with what is held until the run is over."""
    path, settings = load_settings(request)
    done = resumed.what_is_done(settings.training) if resumed is not None else None
    if resumed is not None and done is not None:
        return _say_nothing_is_left(resumed, done)
    try:
        plan = prepare(request, path, settings, resumed)
    except ScriptError as error:
        return report_script(error, request.script_path)
    folder, about_run = _open_folder(request, plan, resumed, held)
    log.write_to(folder.log_path)
    for sentence in (plan.about_plugins, *about_run):
        output.say(sentence)
        logger.info("%s", sentence)
    logger.info("training %s with seed %d", request.script_path, plan.seed)
    for notice in plan.notices:
        logger.warning("%s", notice)
    return _run(plan, folder, request.script_path, resumed, began)


def _say_nothing_is_left(resumed: Resumed, done: str) -> Outcome:
    assert resumed.folder is not None
    output.say(f"Run {resumed.folder.name} {done}.")
    return Outcome(exit_code=0, record={**resumed.record, "run_dir": str(resumed.folder.path)})


@rare_collections()
def prepare(
    request: TrainRequest,
    path: Path | None,
    settings: "Config",
    resumed: Resumed | None = None,
    *,
    is_offline: bool = False,
) -> Plan:
    """Build everything that is needed; nothing is written.

    Args:
        request: What is asked for.
        path: The settings file, or None.
        settings: The settings.
        resumed: The run that is taken up, or None.
        is_offline: Whether plugins that talk to a network are built and then left out.

    Raises:
        BzError: Something was found to be wrong.
    """
    from bz.training.seeding import draw_seed, seed_everything

    parts = build_parts(request, settings, path)
    left_out = _talking_to_a_network(parts) if is_offline else ()
    parts = _without(parts, left_out)
    wanted, kept = settings.training.seed, resumed.seed if resumed is not None else None
    seed = kept if kept is not None else draw_seed() if wanted is None else wanted
    # After the plugins were built: random numbers that one of them draws must not change the model.
    seed_everything(seed)
    script = load_script(request, settings, parts)
    manager = register_plugins(request, parts, script, strict=settings.strict_plugins)
    return Plan(
        settings=settings,
        # `record` hides by the names of keys; what a plugin declares a secret may have any name.
        record=redact_texts(settings.record(), output.redacted),
        seed=seed,
        spec=script.spec,
        manager=manager,
        left_out=left_out,
        versions={choice.name: choice.version for choice in parts.choices if choice.name in manager.names},
        about_plugins=" ".join(plugin_sentences(parts, manager.names)),
        notices=(*script.notices, *(notes_on_seed(resumed, wanted) if resumed is not None else ())),
    )


def _talking_to_a_network(parts: Parts) -> tuple[str, ...]:
    networked = {choice.name for choice in parts.choices if choice.plugin is not None and choice.plugin.is_networked}
    return tuple(name for name, _ in parts.plugins.plugins if name in networked)


def _without(parts: Parts, names: Container[str]) -> Parts:
    plugins = tuple((name, plugin) for name, plugin in parts.plugins.plugins if name not in names)
    return replace(parts, plugins=replace(parts.plugins, plugins=plugins))


def _open_folder(
    request: TrainRequest, plan: Plan, resumed: Resumed | None, held: ExitStack
) -> tuple["RunFolder", list[str]]:
    """Return the folder of the run, locked and with its record, and what is to be said about it."""
    from bz.runs import describe_run

    facts = describe_run(
        script=request.script_path,
        settings=plan.record,
        seed=plan.seed,
        plugins=plan.versions,
        options=options_of(request),
    )
    sentences = list(clear_way(request, resumed))
    if resumed is not None and resumed.found is not None:
        sentences.append(resumed.sentence())
    if resumed is not None:
        sentences += (f"Differs from before: {one}." for one in differences(resumed.record, facts))
    try:
        return _folder_with(facts, request, resumed, held), sentences
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}.") from error


def _folder_with(
    facts: Mapping[str, Any], request: TrainRequest, resumed: Resumed | None, held: ExitStack
) -> "RunFolder":
    from bz.lock import hold
    from bz.runs import RunFolder

    found = resumed.found if resumed is not None else None
    if resumed is not None and resumed.folder is not None and found is not None:
        lost = resumed.owner.seconds if resumed.owner is not None else None
        resumed.folder.go_on(facts, resumed_from=found.path, lost_seconds=lost)
        return resumed.folder
    folder = RunFolder.create(request.runs_dir, new_name(request, resumed))
    held.enter_context(hold(folder.path))
    folder.start(facts, resumed_from=found.path if found is not None else None)
    return folder


def _run(plan: Plan, folder: "RunFolder", script: Path, resumed: Resumed | None, began: float) -> Outcome:
    from bz.training.trainer import Trainer

    trainer = Trainer(plan.manager)
    # With the seed that was drawn, so that a checkpoint alone knows how the script was built.
    record = {**plan.record, "training": {**plan.record["training"], "seed": plan.seed}}
    found = resumed.found if resumed is not None else None
    try:
        result = trainer.run(
            plan.spec,
            plan.settings.training,
            run_dir=folder.path,
            record=record,
            redact=output.redacted,
            provenance=_provenance(folder),
            startup_seconds=time.perf_counter() - began,
            resume=found,
        )
    except KeyboardInterrupt:
        finish(folder, "interrupted", trainer.result)
        output.say(f"Resume with: {resume_command(folder.path)}")
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raised
        return close_failed(error, trainer.result, folder, script)
    return close(result, folder, is_reported=_REPORTING_PLUGIN in plan.manager.names)


def _provenance(folder: "RunFolder") -> dict[str, Any]:
    """Return what the record of the run says it is made with, so that a checkpoint alone knows it."""
    from bz.records import read_record

    record = read_record(folder.path)
    return {key: record[key] for key in ("versions", "git", "script_sha256") if key in record}
