"""`bz train --dry-run`: everything that a training does, for two batches, in a folder that goes away again."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from bz.cli import output, wording
from bz.cli.closing import INCOMPLETE, SIGNALLED, Outcome, report_script
from bz.cli.logs import RunLog
from bz.cli.preparation import TrainRequest, load_settings
from bz.cli.project import blaming
from bz.cli.session import Plan, prepare
from bz.cli.trace import first_difference
from bz.errors import ScriptError, TrainingError
from bz.plugins.base import Plugin

if TYPE_CHECKING:
    from bz.config import Config
    from bz.context import TrainingContext
    from bz.training.checkpoint import FoundCheckpoint
    from bz.training.result import TrainingResult

BATCHES: Final = 2


def rehearse(request: TrainRequest) -> Outcome:
    """Build everything, train and validate on two batches, take a checkpoint through a resume; keep nothing.

    Raises:
        BzError: Something was found to be wrong.
    """
    with RunLog().recording():
        path, settings = load_settings(request)
        try:
            plan = prepare(request, path, _shortened(settings), is_offline=True)
        except ScriptError as error:
            return report_script(error, request.script_path)
        output.say(plan.about_plugins)
        if plan.left_out:
            output.say(f"Built and not called, because they talk to a network: {', '.join(plan.left_out)}.")
        for notice in plan.notices:
            output.warn(notice)
        with tempfile.TemporaryDirectory(prefix="bz-dry-run-", ignore_cleanup_errors=True) as folder:
            run_dir = Path(folder, request.name or "dry-run")
            with blaming(request.script_path, "The dry run"):
                return _run(plan, run_dir)


def _shortened(settings: "Config") -> "Config":
    """Return the settings for one epoch of two batches, with a checkpoint at its end."""
    from bz.intervals import Interval

    training = settings.training
    epoch = Interval.parse("1 epoch")
    validates = training.validation_interval != 0 and training.limit_validation_batches != 0
    changes = {
        "epochs": 1,
        "max_steps": None,
        "max_time": None,
        "limit_train_batches": min(BATCHES, training.limit_train_batches or BATCHES),
        "limit_validation_batches": min(BATCHES, training.limit_validation_batches or BATCHES) if validates else 0,
        "validation_interval": epoch if validates else 0,
        "checkpoint_interval": epoch,
        "async_checkpoint": False,
    }
    return settings.model_copy(update={"training": training.model_copy(update=changes)})


def _run(plan: Plan, run_dir: Path) -> Outcome:
    from bz.training.trainer import Trainer

    witness = _Witness()
    plan.manager.add(witness)
    trainer = Trainer(plan.manager)
    result = trainer.run(plan.spec, plan.settings.training, run_dir=run_dir, record=plan.record, redact=output.redacted)
    if result.signal is not None:
        return Outcome(exit_code=SIGNALLED + result.signal, record={"status": result.status})
    for sentence in _sentences(result, witness):
        output.say(sentence)
    size = None if result.missing_files else _check_checkpoint(plan, run_dir)
    failures = [*result.missing_files, *_failures(result)]
    for failure in failures:
        output.warn(failure)
    output.say("Nothing of it is left.")
    record = {
        "status": result.status,
        "training_batches": witness.training_batches,
        "training_loss": result.training_loss,
        "training_metrics": result.training_metrics,
        "validation_batches": witness.validation_batches,
        "validation_loss": result.validation_loss,
        "validation_metrics": result.validation_metrics,
        "checkpoint_bytes": size,
        "seconds": result.seconds,
        "plugins_left_out": plan.left_out,
        "failures": failures,
    }
    return Outcome(exit_code=INCOMPLETE if result.missing_files else 0, record=record)


class _Witness(Plugin):
    """Notes what the result of a run does not say."""

    name: ClassVar[str] = "dry_run"
    training_batches = 0
    validation_batches = 0
    device = ""

    def end_training_session(self, context: "TrainingContext") -> None:
        """Count the batches."""
        self.training_batches = context.training_batch_count
        self.validation_batches = context.validation_batch_count
        self.device = str(context.device)


def _sentences(result: "TrainingResult", witness: _Witness) -> Iterator[str]:
    """Yield what was done, and what came of it."""
    trained = _results(result.training_loss, result.training_metrics)
    yield f"Trained on {_batches(witness.training_batches)} on {witness.device}: {trained}."
    if witness.validation_batches:
        validated = _results(result.validation_loss, result.validation_metrics)
        yield f"Validated on {_batches(witness.validation_batches)}: {validated}."
    else:
        yield "There is no validation."
    if result.stop_reason:
        yield f"The run was stopped: {result.stop_reason}."


def _batches(count: int) -> str:
    return f"{count} batch" if count == 1 else f"{count} batches"


def _results(loss: float, metrics: Mapping[str, float]) -> str:
    return ", ".join([f"loss {wording.number(loss)}", *([wording.named_numbers(metrics)] if metrics else [])])


def _failures(result: "TrainingResult") -> Iterator[str]:
    for usage in result.plugin_usage:
        if usage.failures:
            yield f"Plugin {usage.name!r} failed in {wording.counted(usage.failures, 'call')}."


def _check_checkpoint(plan: Plan, run_dir: Path) -> int:
    """Read the checkpoint that was written, load it as a resume does, and compare; return its size.

    Raises:
        TrainingError: What was loaded is not what was written.
        CheckpointError: The file cannot be read back.
    """
    from bz.training.checkpoint import find_checkpoint
    from bz.training.trainer import Trainer

    written = find_checkpoint(run_dir)
    size = written.path.stat().st_size
    comparison = _Comparison(written)
    trainer = Trainer()
    trainer.add_plugin(comparison)
    _spoil(plan)
    # Nothing is trained: the steps of plugins, which are not there, are not missed.
    spec = replace(plan.spec, training_step=_no_step)
    trainer.run(spec, plan.settings.training, record=plan.record, redact=output.redacted, resume=written.path)
    if comparison.difference is not None:
        raise TrainingError(
            f"A checkpoint of {wording.size_of(size)} was written, and {comparison.difference} is not the same when it "
            "is loaded; a resumed run would not be exact."
        )
    output.say(f"Wrote a checkpoint of {wording.size_of(size)}, read it back and loaded it: equal to the bit.")
    return size


def _no_step(_context: "TrainingContext", _batch: Any) -> None:
    raise AssertionError("the run was to end before its first step")


class _Comparison(Plugin):
    """Compares what was loaded with what was written, and ends the run."""

    name: ClassVar[str] = "comparison"

    def __init__(self, written: "FoundCheckpoint") -> None:
        self._written = written
        self.difference: str | None = "everything"

    def load_checkpoint(self, context: "TrainingContext") -> None:
        """Compare; of a run that was stopped inside an epoch only what does not depend on the position in it."""
        loaded, written = context.state_dict(), self._written.state
        if written["bz"]["batches_done"] is not None:
            loaded, written = _weights_of(loaded), _weights_of(written)
        self.difference = first_difference(loaded, written)
        context.request_stop("compared", when="batch")


def _weights_of(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("model_state_dict", "optimizer_state_dict")} | {"bz": {}}


def _spoil(plan: Plan) -> None:
    """Take away what a checkpoint has to bring back, so that one that brings nothing back is seen."""
    import torch

    for value in plan.spec.model.state_dict().values():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value.fill_(torch.nan)
    for optimizer in plan.spec.optimizers:
        optimizer.state.clear()
