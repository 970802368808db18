"""`bz export`: a checkpoint for other programs."""

from dataclasses import replace
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
    OpenedRun,
    RunArgument,
    ScriptOption,
    WeightsOption,
    check_output,
    open_run,
)
from bz.cli.runs import RunsDirOption
from bz.errors import ConfigError

EXAMPLES: Final = """Example: bz export --output model.safetensors

Example: bz export first-try --weights trained --output model.pt2"""


def export(  # noqa: PLR0913 - each is an option of the command
    run: RunArgument = None,
    *,
    file: Annotated[
        Path,
        typer.Option("--output", metavar="FILE", help="File to write: weights as .safetensors, a program as .pt2."),
    ],
    script: ScriptOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    force: ForceOption = False,
    runs_dir: RunsDirOption = Path("runs"),
    json_: JsonResultOption = False,
) -> None:
    """Export the model of a checkpoint.

    A .safetensors file holds the weights, and needs neither script nor data. A .pt2 file is a program of torch.export,
    made with the script of the run, on the CPU unless another device is asked for, and compared with the model.
    """
    request = EvaluationRequest(
        run=run,
        script=script,
        config=config,
        overrides=tuple(set_ or ()),
        device=device,
        weights=weights,
        runs_dir=runs_dir,
    )
    check_output(file, is_forced=force)
    with output.reserved_stdout(is_json=json_):
        opened = open_run(request)
        output.say(opened.sentence())
        record = _export(request, opened, file)
    if json_:
        output.print_json(opened.about | {"output": str(file)} | record)
    else:
        output.say(_sentence(file, record))


def _export(request: EvaluationRequest, opened: OpenedRun, file: Path) -> dict[str, Any]:
    from bz.plugins.discovery import core_version
    from bz.training.export import check_format

    check_format(file)
    about = {"bz_version": core_version(), **opened.about}
    write = _write_weights if file.suffix == ".safetensors" else _write_program
    return write(request, opened, file, about) | {"size_bytes": file.stat().st_size}


def _write_weights(request: EvaluationRequest, opened: OpenedRun, file: Path, about: dict[str, Any]) -> dict[str, Any]:
    from bz.training.export import model_weights, write_safetensors

    _refuse_without_effect(request)
    weights, left_out = model_weights(opened.found, opened.weights and opened.weights.tensors)
    if left_out:
        output.warn(f"Left out, because it is no tensor: {', '.join(left_out)}.")
    return {"tensors": write_safetensors(weights, file, about)}


def _refuse_without_effect(request: EvaluationRequest) -> None:
    options = {
        "--script": request.script,
        "--config": request.config,
        "--set": request.overrides,
        "--device": request.device,
    }
    for option, value in options.items():
        if value:
            raise ConfigError(
                f"`{option}` has no effect on .safetensors, which come from the checkpoint alone; leave it out.",
                option=option,
            )


def _write_program(request: EvaluationRequest, opened: OpenedRun, file: Path, about: dict[str, Any]) -> dict[str, Any]:
    from bz.cli.project import blaming, build_project
    from bz.training.evaluation import Evaluation, as_validated
    from bz.training.export import write_program

    project = build_project(replace(request, device=request.device or "cpu"), opened)
    training = as_validated(project.settings.training, None).model_copy(update={"compile": False})
    with blaming(project.script, "The export"):
        evaluation = Evaluation(project.loaded.spec, training, project.plugins, project.settings.record())
        with evaluation.using(opened.found, opened.weights and opened.weights.tensors):
            program = write_program(evaluation, file, about)
    return {
        "inputs": [list(shape) for shape in program.inputs],
        "is_dynamic": program.is_dynamic,
        "difference": program.difference,
    }


def _sentence(file: Path, record: dict[str, Any]) -> str:
    size = wording.size_of(record["size_bytes"])
    if "tensors" in record:
        return f"Wrote {wording.counted(record['tensors'], 'tensor')} to {file}, {size}."
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in record["inputs"])
    batches = "any batch size" if record["is_dynamic"] else "batches of this size only"
    return (
        f"Wrote a program to {file}, {size}, for inputs of {shapes} and {batches}. Loaded again, its outputs are those "
        f"of the model (largest difference {wording.number(record['difference'])})."
    )
