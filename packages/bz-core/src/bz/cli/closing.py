"""How a training ended: what the user reads, what the record of the run says, and the exit code."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.cli import output, wording
from bz.cli.faults import FAILED, report_known
from bz.cli.finding import resume_command
from bz.errors import BzError, ScriptError

if TYPE_CHECKING:
    from bz.runs import RunFolder
    from bz.training.result import TrainingResult

logger = logging.getLogger(__name__)

INCOMPLETE: Final = 3
"""Exit code of a run that is done while something asked for is not on disk."""

SIGNALLED: Final = 128
"""Shells count so: 128 and the number of the signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a training ended.

    Attributes:
        exit_code: Exit code of the process.
        record: The result as plain values.
    """

    exit_code: int
    record: dict[str, Any]


def report_script(error: ScriptError, script: Path) -> Outcome:
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


def close_failed(error: BaseException, result: "TrainingResult | None", folder: "RunFolder", script: Path) -> Outcome:
    """Report what ended a training: the user's traceback, if it is not from bz, and one sentence."""
    from bz.script import user_traceback

    if isinstance(error, BzError):
        sentence = str(error)
    else:
        output.warn(user_traceback(error, script).rstrip())
        sentence = f"Training failed{_position(result)}: {type(error).__name__}: {error}"
    logger.error("%s", sentence, exc_info=error)
    finish(folder, "failed", result, reason=sentence)
    output.say(f"The run is in {folder.path}.")
    return Outcome(exit_code=FAILED, record=_as_record(result) | _failure(error) | {"run_dir": str(folder.path)})


def _position(result: "TrainingResult | None") -> str:
    return f" in epoch {result.epochs + 1}, after step {result.global_step}" if result else ""


def close(result: "TrainingResult", folder: "RunFolder", *, is_reported: bool) -> Outcome:
    """Say how a training ended that was not ended by an error.

    Args:
        result: What it came to.
        folder: Folder of the run.
        is_reported: Whether a plugin has shown the results already.
    """
    is_recorded = finish(folder, result.status, result, reason=result.stop_reason)
    place = f"The run is in {folder.path}."
    output.say(place if is_reported else f"{_closing_sentence(result)} {place}")
    if not is_reported:
        usage = result.time_usage
        output.say(f"Time: {wording.duration(usage.total)}, of it {usage.describe_shares()}.")
    for sentence in result.missing_files:
        logger.error("%s", sentence)
    code = 0 if is_recorded and not result.missing_files else INCOMPLETE
    if result.signal is not None:
        code = SIGNALLED + result.signal
        output.say(f"Resume with: {resume_command(folder.path)}")
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


def finish(folder: "RunFolder", status: str, result: "TrainingResult | None", reason: str | None = None) -> bool:
    """Write the end of the run to its record; return whether that could be done."""
    keys = (
        "seconds",
        "epochs",
        "global_step",
        "training_loss",
        "validation_loss",
        "training_metrics",
        "validation_metrics",
    )
    known = {key: getattr(result, key) for key in keys} if result else {}
    if result:
        known["time_usage"] = _rounded(result.time_usage._asdict())
        known["plugin_usage"] = {usage.name: _rounded(usage._asdict()) for usage in result.plugin_usage}
    try:
        folder.finish(status, **known, **({"reason": output.redacted(reason)} if reason else {}))
    except OSError as error:
        logger.error("%s cannot be written: %s", folder.record_path, error.strerror)  # noqa: TRY400 - says all
        return False
    return True


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without what is below a microsecond, nor the name that is their key already."""
    kept = {key: value for key, value in values.items() if key != "name"}
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in kept.items()}


def _as_record(result: "TrainingResult | None") -> dict[str, Any]:
    if result is None:
        return {}
    record = asdict(result) | {"run_dir": str(result.run_dir), "signal": result.signal and result.signal.name}
    record["plugin_usage"] = [usage._asdict() for usage in result.plugin_usage]
    record["time_usage"] = result.time_usage._asdict()
    return record
