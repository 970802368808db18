"""`--resume` and `--fresh`: which run is meant, from where it goes on, and with what.

A run is held by its lock from the moment that it was found, so that nobody else goes on with it at the same time.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bz.cli.collector import rare_collections
from bz.cli.finding import UNFINISHED, as_written, find_run, fresh_command, run_of
from bz.cli.inheritance import inherit
from bz.cli.preparation import TrainRequest
from bz.cli.wording import counted
from bz.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings
    from bz.lock import Owner
    from bz.runs import RunFolder
    from bz.training.checkpoint import FoundCheckpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A run that is taken up again.

    Attributes:
        request: What the command line asks for, with what it asked for when the run began.
        folder: Folder of the run; None for a checkpoint that is in none, or that begins a run of its own.
        record: The run's `run.json`; of a checkpoint without one as much as the checkpoint knows.
        owner: The process that died at it, or None.
        found: The checkpoint; None if the run died before it had written one.
        held: Holds the lock.
    """

    request: TrainRequest
    folder: "RunFolder | None"
    record: Mapping[str, Any]
    owner: "Owner | None" = None
    found: "FoundCheckpoint | None" = None
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def seed(self) -> int | None:
        """The seed of the run: the script must build the same again, whatever the settings say now."""
        seed = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def begins_again(self) -> bool:
        """Whether there is nothing to go on from, so that it begins with the first epoch."""
        return self.found is None

    @property
    def epochs_done(self) -> int:
        """Whole epochs that are done at the checkpoint."""
        if self.found is None:
            return 0
        epoch: int = self.found.state["epoch"]
        return epoch if self.found.state["bz"]["batches_done"] is None else epoch - 1

    def what_is_done(self, training: "TrainingSettings") -> str | None:
        """Return which limit of the settings a completed run has reached already, and what to do; None if none."""
        if self.found is None or self.record.get("status") != "completed":
            return None
        steps, seconds = self.found.state["bz"]["global_step"], self.found.state["bz"]["seconds"]
        if training.epoch_limit is not None and self.epochs_done >= training.epoch_limit:
            return f"has done all {counted(self.epochs_done, 'epoch')}; give --epochs a larger number to go on"
        if training.max_steps is not None and steps >= training.max_steps:
            return f"has done all {counted(steps, 'step')}; give --max-steps a larger number to go on"
        if training.max_time is not None and seconds >= (training.max_time.seconds or 0):
            return f"has trained for {training.max_time}; give --max-time a longer time to go on"
        return None

    def sentence(self) -> str:
        """Return from where the run goes on, and what is repeated as far as that is known."""
        assert self.found is not None
        name = f"run {self.folder.name}" if self.folder else f"from {self.found.path},"
        return f"Resuming {name} {_position(self.found.state)}{self._repeated()}."

    def _repeated(self) -> str:
        assert self.found is not None
        done = self.owner.global_step if self.owner else self.record.get("global_step")
        again = done - self.found.state["bz"]["global_step"] if isinstance(done, int) and self.folder else 0
        if again <= 0:
            return ""
        # A process that was killed has left its last sign of life up to half a second before.
        number = f"at least {counted(again, 'step')}" if self.owner else counted(again, "step")
        return f"; {number} done after that {'is' if again == 1 else 'are'} repeated"


def _position(state: Mapping[str, Any]) -> str:
    epoch, step, batches = state["epoch"], state["bz"]["global_step"], state["bz"]["batches_done"]
    if batches is None:
        return f"after epoch {epoch} (step {step})"
    if state["bz"]["next_part"] == "closing_validation":
        return f"from the validation of epoch {epoch} (step {step})"
    return f"from epoch {epoch}, batch {batches + 1} (step {step})"


@rare_collections()
def take_up(request: TrainRequest) -> Resumed:
    """Return the run that `--resume` means, locked.

    Raises:
        ConfigError: There is no such run, or somebody works on it.
        CheckpointError: It has checkpoints, and none is whole.
    """
    assert request.resume is not None
    path = find_run(request.resume, request.runs_dir)
    if path.is_file():
        return _take_up_checkpoint(request, path)
    if request.name is not None:
        raise ConfigError("`--name` is for new runs; a resumed run keeps its name.", option="--name")
    return _take_up_run(request, path)


def _take_up_run(request: TrainRequest, path: Path) -> Resumed:
    from bz.lock import hold
    from bz.records import RECORD_NAME, read_record
    from bz.runs import RunFolder

    with ExitStack() as stack:
        former = stack.enter_context(hold(path)).former
        found = _newest_checkpoint(path)
        record: Mapping[str, Any] = read_record(path)
        if not record:
            logger.warning(
                "%s cannot be read; what the run was made with is taken from its checkpoint", path / RECORD_NAME
            )
            record = record_of(found) if found is not None else {}
        if found is None and record.get("status") not in {"running", *UNFINISHED}:
            raise _nothing_to_go_on_from(path)
        owner = former if record.get("status") == "running" else None
        return Resumed(
            request=inherit(request, record),
            folder=RunFolder(path),
            record=record,
            owner=owner,
            found=found,
            held=stack.pop_all(),
        )


def _nothing_to_go_on_from(folder: Path) -> ConfigError:
    return ConfigError(
        f"`--resume`: {folder} has no checkpoint to go on from, as when `training.checkpoint_interval` is 0. "
        f"To begin anew: {fresh_command(folder)}",
        path=folder,
        option="--resume",
    )


def _newest_checkpoint(folder: Path) -> "FoundCheckpoint | None":
    """Return the newest checkpoint of a run, or None if it never wrote one."""
    from bz.training.checkpoint import STATE_FOLDER, find_checkpoint

    state_dir = folder / STATE_FOLDER
    if not state_dir.is_dir() or not any(state_dir.iterdir()):
        return None
    try:
        return find_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error} On the command line: {fresh_command(folder)}", path=error.path) from error


def _take_up_checkpoint(request: TrainRequest, path: Path) -> Resumed:
    """Go on from one file: in the run that it lies in, or in a new one if it lies in none or `--name` asks for it."""
    from bz.lock import hold
    from bz.records import read_record
    from bz.runs import RunFolder
    from bz.training.checkpoint import find_checkpoint

    origin = run_of(path)
    with ExitStack() as stack:
        goes_on = origin is not None and request.name is None
        owner = stack.enter_context(hold(origin)).former if goes_on and origin else None
        found = find_checkpoint(path)
        record = read_record(origin) if origin else record_of(found)
        return Resumed(
            request=inherit(request, record),
            folder=RunFolder(as_written(origin)) if goes_on and origin else None,
            record=record,
            owner=owner if record.get("status") == "running" else None,
            found=found,
            held=stack.pop_all(),
        )


def record_of(found: "FoundCheckpoint") -> dict[str, Any]:
    """Return as much of the record of a run as its checkpoint knows."""
    own = found.state.get("bz", {})
    settings = own.get("settings", {})
    return {
        "settings": settings,
        "seed": settings.get("training", {}).get("seed"),
        **own.get("provenance", {}),
    }


def clear_way(request: TrainRequest, resumed: Resumed | None) -> Iterator[str]:
    """Set aside the folder that a run is about to begin in again, and yield what was done."""
    from bz.runs import set_aside

    if resumed is not None and resumed.folder is not None and resumed.begins_again:
        aside = set_aside(resumed.folder.path)
        resumed.held.close()
        yield (
            f"Run {resumed.folder.name} has no checkpoint yet: it begins again with the first epoch. "
            f"What it had written is in {aside}."
        )
    elif request.fresh and request.name is not None and (request.runs_dir / request.name).exists():
        aside = set_aside(request.runs_dir / request.name)
        yield f"The run that was in {request.runs_dir / request.name} is in {aside}."


def new_name(request: TrainRequest, resumed: Resumed | None) -> str | None:
    """Return the name of a run that begins now, or None for date and time."""
    return resumed.folder.name if resumed is not None and resumed.folder is not None else request.name


def notes_on_seed(resumed: Resumed, wanted: int | None) -> Iterator[str]:
    """Yield that a seed in the settings has no effect on a resumed run."""
    if wanted is not None and resumed.seed is not None and wanted != resumed.seed:
        yield f"`training.seed` {wanted} has no effect: a resumed run keeps its seed, {resumed.seed}."
