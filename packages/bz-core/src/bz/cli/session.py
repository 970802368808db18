"""One training, from the request to the finished run folder.

Nothing is written before the settings, the plugins and the script were found to be right.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.cli import output, wording
from bz.cli.faults import FAILED, report_known
from bz.cli.logs import RunLog
from bz.cli.preparation import (
    TrainRequest,
    build_parts,
    load_script,
    load_settings,
    plugin_sentences,
    register_plugins,
)
from bz.cli.redactor import redact_texts
from bz.errors import BzError, ConfigError, ScriptError

if TYPE_CHECKING:
    from bz.config import Config
    from bz.plugins.manager import PluginManager
    from bz.runs import RunFolder
    from bz.spec import TrainingSpec
    from bz.training.result import TrainingResult
    from bz.training.trainer import Trainer

logger = logging.getLogger(__name__)

INCOMPLETE: Final = 3
"""Exit code of a run that is done while something asked for is not on disk."""

_SIGNALLED: Final = 128
"""Shells count so: 128 and the number of the signal."""

_REPORTING_PLUGIN: Final = "console_out"
"""The plugin that shows the results itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a training ended.

    Attributes:
        exit_code: Exit code of the process.
        record: The result as plain values.
    """

    exit_code: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A training that was found to be right.

    Attributes:
        settings: The settings.
        record: The settings without secrets, as plugins and files get them.
        seed: The seed, also where the settings have none.
        spec: The live objects.
        manager: The plugins.
        versions: Version of each installed plugin that runs.
        about_plugins: Which plugins run, and which do not and why.
        notices: What has no effect, one sentence each.
    """

    settings: "Config"
    record: Mapping[str, Any]
    seed: int
    spec: "TrainingSpec"
    manager: "PluginManager"
    versions: Mapping[str, str]
    about_plugins: str
    notices: tuple[str, ...]


def train(request: TrainRequest) -> Outcome:
    """Train as asked; text goes to stdout and stderr.

    Raises:
        BzError: Something was found to be wrong, before anything was written.
    """
    from bz.training.trainer import Trainer

    log = RunLog()
    with log.recording():
        try:
            plan = _prepare(request)
        except ScriptError as error:
            return _report_script(error, request.script)
        folder = _make_folder(request, plan)
        log.write_to(folder.log_path)
        output.say(plan.about_plugins)
        logger.info("training %s with seed %d; %s", request.script, plan.seed, plan.about_plugins)
        for notice in plan.notices:
            logger.warning("%s", notice)
        return _run(Trainer(plan.manager), plan, folder, request.script)


def _prepare(request: TrainRequest) -> _Plan:
    from bz.training.seeding import draw_seed, seed_everything

    path, settings = load_settings(request)
    parts = build_parts(request, settings, path)
    seed = draw_seed() if settings.training.seed is None else settings.training.seed
    # After the plugins were built: random numbers that one of them draws must not change the model.
    seed_everything(seed)
    script = load_script(request, settings, parts)
    manager = register_plugins(parts, script, strict=settings.strict_plugins)
    return _Plan(
        settings=settings,
        # `record` hides by the names of keys; what a plugin declares a secret may have any name.
        record=redact_texts(settings.record(), output.redacted),
        seed=seed,
        spec=script.spec,
        manager=manager,
        versions={choice.name: choice.version for choice in parts.choices if choice.name in manager.names},
        about_plugins=" ".join(plugin_sentences(parts, manager.names)),
        notices=script.notices,
    )


def _report_script(error: ScriptError, script: Path) -> Outcome:
    """Say what is wrong with the script, after the user's own traceback if it raised something."""
    from bz.script import user_traceback

    cause = error.__cause__
    if cause is not None and _has_frame_of_user(cause, script):
        output.warn(user_traceback(cause, script).rstrip())
    return Outcome(exit_code=report_known(error), record=_failure(error))


def _has_frame_of_user(error: BaseException, script: Path) -> bool:
    import traceback

    folder = script.resolve().parent
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, SyntaxError) or any(Path(frame.filename).is_relative_to(folder) for frame in frames)


def _failure(error: BaseException) -> dict[str, Any]:
    return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


def _make_folder(request: TrainRequest, plan: _Plan) -> "RunFolder":
    from bz.runs import RunFolder

    folder = RunFolder.create(request.runs_dir, request.name)
    try:
        folder.start(script=request.script, settings=plan.record, seed=plan.seed, plugins=plan.versions)
    except OSError as error:
        raise ConfigError(f"{folder.record_path} cannot be written: {error.strerror}.", path=folder.path) from error
    return folder


def _run(trainer: "Trainer", plan: _Plan, folder: "RunFolder", script: Path) -> Outcome:
    try:
        result = trainer.run(plan.spec, plan.settings.training, run_dir=folder.path, record=plan.record)
    except KeyboardInterrupt:
        _finish(folder, "interrupted", trainer.result)
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raised
        return _close_failed(error, trainer.result, folder, script)
    return _close(result, plan, folder)


def _close_failed(error: BaseException, result: "TrainingResult | None", folder: "RunFolder", script: Path) -> Outcome:
    """Report what ended a training: the user's traceback, if it is not from bz, and one sentence."""
    from bz.script import user_traceback

    if isinstance(error, BzError):
        sentence = str(error)
    else:
        output.warn(user_traceback(error, script).rstrip())
        sentence = f"Training failed{_position(result)}: {type(error).__name__}: {error}"
    logger.error("%s", sentence, exc_info=error)
    _finish(folder, "failed", result, reason=sentence)
    output.say(f"The run is in {folder.path}.")
    return Outcome(exit_code=FAILED, record=_as_record(result) | _failure(error) | {"run_dir": str(folder.path)})


def _position(result: "TrainingResult | None") -> str:
    return f" in epoch {result.epochs + 1}, after step {result.global_step}" if result else ""


def _close(result: "TrainingResult", plan: _Plan, folder: "RunFolder") -> Outcome:
    """Say how a training ended that was not ended by an error."""
    is_recorded = _finish(folder, result.status, result, reason=result.stop_reason)
    place = f"The run is in {folder.path}."
    has_report = _REPORTING_PLUGIN in plan.manager.names
    output.say(place if has_report else f"{_closing_sentence(result)} {place}")
    for sentence in result.missing_files:
        logger.error("%s", sentence)
    code = 0 if is_recorded and not result.missing_files else INCOMPLETE
    if result.signal is not None:
        code = _SIGNALLED + result.signal
    return Outcome(exit_code=code, record=_as_record(result))


def _closing_sentence(result: "TrainingResult") -> str:
    facts = [f"training loss {wording.number(result.training_loss)}"]
    if not math.isnan(result.validation_loss):
        facts.append(f"validation loss {wording.number(result.validation_loss)}")
    metrics = result.validation_metrics or result.training_metrics
    facts += [wording.named_numbers(metrics)] if metrics else []
    why = f" ({result.stop_reason})" if result.stop_reason else ""
    epochs = wording.counted(result.epochs, "epoch")
    return f"{result.status.capitalize()}{why}: {epochs} in {wording.duration(result.seconds)}, {', '.join(facts)}."


def _finish(folder: "RunFolder", status: str, result: "TrainingResult | None", reason: str | None = None) -> bool:
    """Write the end of the run to its record; return whether that could be done."""
    keys = ("seconds", "epochs", "training_loss", "validation_loss", "training_metrics", "validation_metrics")
    known = {key: getattr(result, key) for key in keys} if result else {}
    try:
        folder.finish(status, **known, **({"reason": output.redacted(reason)} if reason else {}))
    except OSError as error:
        logger.error("%s cannot be written: %s", folder.record_path, error.strerror)  # noqa: TRY400 - says all
        return False
    return True


def _as_record(result: "TrainingResult | None") -> dict[str, Any]:
    if result is None:
        return {}
    record = asdict(result) | {"run_dir": str(result.run_dir), "signal": result.signal and result.signal.name}
    record["plugin_usage"] = [usage._asdict() for usage in result.plugin_usage]
    return record
