"""`bz runs`: what was trained here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bz.cli import output, wording
from bz.cli.config import JsonOption
from bz.cli.group import Command
from bz.errors import ConfigError

if TYPE_CHECKING:
    from bz.records import RunRecord

app = typer.Typer(help="List and show the runs that were made here.", rich_markup_mode="rich")

LATEST: Final = "latest"

RunsDirOption = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Folder of the runs.")]


@app.command("list", cls=Command)
def list_runs(*, runs_dir: RunsDirOption = Path("runs"), json_: JsonOption = False) -> None:
    """List the runs, newest first."""
    from bz import records

    runs = list(reversed(records.list_runs(runs_dir)))
    if json_:
        output.print_json([_summary(run) for run in runs])
    elif runs:
        output.print_table(("name", "status", "epochs", "val. loss", "metrics", "time"), map(_row, runs))
    else:
        output.say(f"There are no runs in {runs_dir}. Make one with: bz train")


def _summary(run: "RunRecord") -> dict[str, Any]:
    losses = ("training_loss", "validation_loss", "training_metrics", "validation_metrics")
    keys = ("created_at", "epochs", *losses, "seconds")
    about = {"name": run.name, "path": str(run.path), "status": run.status}
    return about | {key: run.record.get(key) for key in keys}


def _row(run: "RunRecord") -> tuple[str, ...]:
    record = run.record
    epochs = record.get("epochs")
    return (
        run.name,
        run.status,
        str(epochs) if isinstance(epochs, int) else "-",
        wording.number(record.get("validation_loss")),
        wording.named_numbers(_metrics(record)),
        wording.duration(record.get("seconds")),
    )


def _metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that say most about the model: those on data it was not trained on."""
    metrics = record.get("validation_metrics") or record.get("training_metrics")
    return metrics if isinstance(metrics, dict) else {}


@app.command(cls=Command)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Name of a run, or: {LATEST}.")],
    *,
    runs_dir: RunsDirOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Show one run: settings, versions, results."""
    run = _find(runs_dir, name)
    if json_:
        output.print_json({"name": run.name, "path": str(run.path), "status": run.status} | dict(run.record))
        return
    output.say(f"Run {run.name} in {run.path}: {run.status}")
    if run.record:
        output.print_table(("field", "value"), output.flatten(run.record))


def _find(runs_dir: Path, name: str) -> "RunRecord":
    from bz import records

    if name != LATEST:
        return records.read_run(runs_dir, name)
    runs = records.list_runs(runs_dir)
    if not runs:
        raise ConfigError(f"There are no runs in {runs_dir}. Make one with: bz train")
    return runs[-1]
