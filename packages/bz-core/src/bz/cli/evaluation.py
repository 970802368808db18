"""What `bz validate`, `bz predict` and `bz export` work on: the checkpoint of a run.

Nothing is written into the folder of the run, and it is not locked: a run that goes on may be looked at.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bz.cli.collector import rare_collections
from bz.cli.finding import NEWEST, as_written, find_run, run_of
from bz.cli.resuming import record_of
from bz.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from bz.training.checkpoint import FoundCheckpoint
    from bz.training.reading import PluginWeights

logger = logging.getLogger(__name__)

TRAINED: Final = "trained"
EVALUATION: Final = "evaluation"

RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="Name of a run, run folder or checkpoint; by default the newest run with a checkpoint."
    ),
]
ScriptOption = Annotated[
    Path | None, typer.Option("--script", metavar="FILE", help="Script in place of the one that the run was made with.")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="Short for --set training.device=DEVICE.")
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="KIND",
        help="`trained`, or `evaluation` for those that a plugin such as averaging keeps; by default these if any.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit-batches", metavar="N", help="Use no more than N batches of the loader.")
]
JsonResultOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and all other text on stderr.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What the command line asks for; the fields are those of the options."""

    run: str | None
    script: Path | None = None
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    device: str | None = None
    weights: str | None = None
    limit_batches: int | None = None
    runs_dir: Path = Path("runs")

    def check(self) -> None:
        """Refuse what no run could change.

        Raises:
            ConfigError: An option has a value that is not accepted.
        """
        if self.weights not in {None, TRAINED, EVALUATION}:
            raise ConfigError(
                f"`--weights` must be {EVALUATION} or {TRAINED}, got {self.weights!r}.", option="--weights"
            )
        if self.limit_batches is not None and self.limit_batches < 1:
            message = f"`--limit-batches` must be at least 1, got {self.limit_batches}."
            raise ConfigError(message, option="--limit-batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """A checkpoint, and what its run was made with.

    Attributes:
        run: Name of the run; None for a checkpoint that is in none.
        record: The run's `run.json`; of a checkpoint without one as much as the checkpoint knows.
        found: The checkpoint.
        weights: The weights that are used in place of those trained, or None.
    """

    run: str | None
    record: Mapping[str, Any]
    found: "FoundCheckpoint"
    weights: "PluginWeights | None"

    @property
    def about(self) -> dict[str, Any]:
        """Where the results come from."""
        return {
            "run": self.run,
            "checkpoint": str(self.found.path),
            "epoch": self.found.state["epoch"],
            "global_step": self.found.state["bz"]["global_step"],
            "weights": EVALUATION if self.weights else TRAINED,
        }

    def sentence(self) -> str:
        """Return the same for people."""
        about = self.about
        name = f"Run {self.run}: " if self.run else ""
        kind = f"evaluation weights of plugin {self.weights.plugin}" if self.weights else "trained weights"
        return f"{name}{about['checkpoint']}, epoch {about['epoch']}, step {about['global_step']}, {kind}."


@rare_collections()
def open_run(request: EvaluationRequest) -> OpenedRun:
    """Return the checkpoint that is meant.

    Raises:
        ConfigError: There is no such run, or it has no checkpoint, or not the weights that are asked for.
        CheckpointError: None of its checkpoints is whole.
    """
    from bz.records import read_record
    from bz.training.checkpoint import FoundCheckpoint, read_checkpoint
    from bz.training.reading import newest_checkpoint

    request.check()
    path = _find(request)
    folder = run_of(path) if path.is_file() else path
    found = FoundCheckpoint(path, read_checkpoint(path), ()) if path.is_file() else newest_checkpoint(path)
    for error in found.skipped:
        logger.warning("%s Going back to the one before.", error)
    if "bz" not in found.state:
        raise CheckpointError(f"The checkpoint {found.path} was not written by a run of bz.", path=found.path)
    record = read_record(folder) if folder is not None else {}
    return OpenedRun(
        run=folder.absolute().name if folder is not None else None,
        record=record or record_of(found),
        found=found._replace(path=as_written(found.path)),
        weights=_choose_weights(found, request.weights),
    )


def _find(request: EvaluationRequest) -> Path:
    from bz.records import list_runs
    from bz.training.reading import has_checkpoint

    if request.run is not None and request.run != NEWEST:
        path = find_run(request.run, request.runs_dir, asked_by="")
        if path.is_dir() and not has_checkpoint(path):
            raise ConfigError(
                f"Run {path.name} has no checkpoint of its own, as when `training.checkpoint_interval` is 0; "
                "name a checkpoint file, if there is one.",
                path=path,
            )
        return path
    for run in reversed(list_runs(request.runs_dir)):
        if has_checkpoint(run.path):
            return run.path
    raise ConfigError(f"There is no run with a checkpoint in {request.runs_dir}. Make one with: bz train")


def _choose_weights(found: "FoundCheckpoint", wanted: str | None) -> "PluginWeights | None":
    from bz.training.reading import plugin_weights

    weights = None if wanted == TRAINED else plugin_weights(found.state)
    if wanted == EVALUATION and weights is None:
        raise ConfigError(
            f"`--weights {EVALUATION}`: no plugin keeps weights for evaluation in {found.path}; leave the option out.",
            option="--weights",
        )
    return weights


def check_output(path: Path, *, is_forced: bool) -> None:
    """Refuse a file that cannot be written, or that would be lost.

    Raises:
        ConfigError: It exists and may not be replaced, or its folder is not there.
    """
    if path.is_dir():
        raise ConfigError(f"`--output`: {path} is a folder; name a file.", path=path, option="--output")
    if path.exists() and not is_forced:
        raise ConfigError(
            f"`--output`: {path} exists already; take another name, or replace it with `--force`.",
            path=path,
            option="--output",
        )
    if not path.parent.is_dir():
        message = f"`--output`: there is no folder {path.parent}; make it first."
        raise ConfigError(message, path=path, option="--output")
