"""Which run `--resume` means, and the commands that go on with a run or begin it anew."""

from pathlib import Path
from typing import Final

from bz.errors import ConfigError

NEWEST: Final = ""
"""What `--resume` without a run means: the newest one that is not finished."""

UNFINISHED: Final = ("crashed", "interrupted", "failed")
"""A run that was stopped came to the end that somebody asked for, such as early stopping; it is resumed by its name."""


def find_run(wanted: str, runs_dir: Path, asked_by: str = "`--resume`: ") -> Path:
    """Return the run folder or the checkpoint that is meant.

    Args:
        wanted: Name of a run, a run folder or a checkpoint; empty for the newest run that is not finished.
        runs_dir: Folder of the runs.
        asked_by: What a message begins with.

    Raises:
        ConfigError: There is none.
    """
    from bz.records import list_runs

    if wanted == NEWEST:
        return _newest_unfinished(runs_dir)
    named, path = runs_dir / wanted, Path(wanted)
    if named.parent == runs_dir and _is_run(named):
        return named
    if path.is_file() or _is_run(path):
        return path
    if path.parent != Path():
        raise ConfigError(f"{asked_by}{wanted!r} is no run folder and no checkpoint.", option="--resume")
    names = [run.name for run in list_runs(runs_dir)]
    raise _no_such_run(wanted, names, runs_dir, asked_by)


def _is_run(folder: Path) -> bool:
    from bz.records import RECORD_NAME
    from bz.training.checkpoint import STATE_FOLDER

    return (folder / RECORD_NAME).is_file() or (folder / STATE_FOLDER).is_dir()


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a file belongs to, or None if it is in none."""
    from bz.records import RECORD_NAME

    return next((folder for folder in checkpoint.absolute().parents if (folder / RECORD_NAME).is_file()), None)


def as_written(folder: Path) -> Path:
    """Return a path as short as a user would write it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _no_such_run(wanted: str, names: list[str], runs_dir: Path, asked_by: str) -> ConfigError:
    from bz.errors import suggestion

    known = f"the latest: {', '.join(names[-3:])}" if names else "there are none"
    fault = f"{asked_by}There is no run {wanted!r} in {runs_dir}; {known}.{suggestion(wanted, names)}"
    return ConfigError(fault, option="--resume")


def _newest_unfinished(runs_dir: Path) -> Path:
    from bz.lock import find_owner
    from bz.records import list_runs

    runs = list_runs(runs_dir)
    for run in reversed(runs):
        if run.status in UNFINISHED and find_owner(run.path) is None:
            return run.path
    newest = f"the newest, {runs[-1].name}, is {runs[-1].status}" if runs else "there is none at all"
    raise ConfigError(
        f"`--resume`: There is no unfinished run in {runs_dir}: {newest}. Go on with a certain one by its name, as in "
        "`--resume NAME`.",
        option="--resume",
    )


def fresh_command(folder: Path) -> str:
    """Return what to type to begin a run anew."""
    return f"bz train --fresh --name {folder.name}{_where(folder)}"


def resume_command(folder: Path) -> str:
    """Return what to type to go on with a run."""
    return f"bz train --resume {folder.name}{_where(folder)}"


def _where(folder: Path) -> str:
    import shlex

    return "" if folder.parent == Path("runs") else f" --runs-dir {shlex.quote(str(folder.parent))}"
