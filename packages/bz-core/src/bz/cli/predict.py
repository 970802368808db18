"""`bz predict`: what a checkpoint predicts for the batches of a loader, as a file."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bz.cli import output, wording
from bz.cli.config import ConfigOption, SetOption
from bz.cli.evaluation import (
    DeviceOption,
    EvaluationRequest,
    ForceOption,
    JsonResultOption,
    LimitOption,
    OpenedRun,
    RunArgument,
    ScriptOption,
    WeightsOption,
    check_output,
    open_run,
)
from bz.cli.runs import RunsDirOption

EXAMPLES: Final = """Example: bz predict --output predictions.parquet

Example: bz predict first-try --loader training --output predictions.pt"""


def predict(  # noqa: PLR0913 - each is an option of the command
    run: RunArgument = None,
    *,
    file: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="File to write; .parquet or .pt says which format.")
    ],
    loader: Annotated[
        str | None,
        typer.Option(
            "--loader",
            metavar="NAME",
            help="`validation`, `training`, or a name in the script; by default prediction_loader, else validation.",
        ),
    ] = None,
    script: ScriptOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    limit_batches: LimitOption = None,
    force: ForceOption = False,
    runs_dir: RunsDirOption = Path("runs"),
    json_: JsonResultOption = False,
) -> None:
    """Write the predictions of a checkpoint for a loader.

    A row for each sample, in the order of the loader. Script and settings are those that the run was made with, as
    far as none are given now.
    """
    request = EvaluationRequest(
        run=run,
        script=script,
        config=config,
        overrides=tuple(set_ or ()),
        device=device,
        weights=weights,
        limit_batches=limit_batches,
        runs_dir=runs_dir,
    )
    check_output(file, is_forced=force)
    with output.reserved_stdout(is_json=json_):
        opened = open_run(request)
        output.say(opened.sentence())
        record = _predict(request, opened, file, loader)
    if json_:
        output.print_json(record)
    else:
        columns = ", ".join(f"{name} ({kind})" for name, kind in record["columns"].items())
        time_taken = wording.duration(record["seconds"])
        output.say(f"Wrote {wording.counted(record['samples'], 'row')} to {file} in {time_taken}: {columns}.")


def _predict(request: EvaluationRequest, opened: OpenedRun, file: Path, wanted: str | None) -> dict[str, Any]:
    from bz.cli.project import blaming, build_project, ended_by_sigterm, find_loader
    from bz.training.evaluation import Evaluation, as_validated
    from bz.training.tables import check_format, writing

    check_format(file)
    project = build_project(request, opened)
    training = as_validated(project.settings.training, None)
    with blaming(project.script, "The prediction"), ended_by_sigterm():
        name, loader = find_loader(project, wanted)
        evaluation = Evaluation(project.loaded.spec, training, project.plugins, project.settings.record())
        about = opened.about | {"loader": name}
        weights = opened.weights and opened.weights.tensors
        with evaluation.using(opened.found, weights), writing(file, about) as table:
            started = time.perf_counter()
            for columns in evaluation.predict(loader, request.limit_batches):
                table.add(columns)
    results = {"samples": table.num_rows, "columns": table.columns, "seconds": time.perf_counter() - started}
    return about | {"output": str(file)} | results
