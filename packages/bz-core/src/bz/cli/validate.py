"""`bz validate`: the numbers of a checkpoint on the validation data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.cli import output, wording
from bz.cli.config import ConfigOption, SetOption
from bz.cli.evaluation import (
    DeviceOption,
    EvaluationRequest,
    JsonResultOption,
    LimitOption,
    OpenedRun,
    RunArgument,
    ScriptOption,
    WeightsOption,
    open_run,
)
from bz.cli.runs import RunsDirOption

if TYPE_CHECKING:
    from bz.training.evaluation import Measured

EXAMPLES: Final = """Example: bz validate

Example: bz validate runs/first-try/checkpoints/best.pth --device cpu --json"""


def validate(  # noqa: PLR0913 - each is an option of the command
    run: RunArgument = None,
    *,
    script: ScriptOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    device: DeviceOption = None,
    weights: WeightsOption = None,
    limit_batches: LimitOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    json_: JsonResultOption = False,
) -> None:
    """Measure a checkpoint on the validation loader.

    Script and settings are those that the run was made with, as far as none are given now, and the numbers are those
    of the run. No hook of a plugin fires, and nothing is written.
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
    with output.reserved_stdout(is_json=json_):
        opened = open_run(request)
        output.say(opened.sentence())
        measured = _measure(request, opened)
    if json_:
        output.print_json(opened.about | _record(measured))
    else:
        _print(measured)


def _measure(request: EvaluationRequest, opened: OpenedRun) -> "Measured":
    from bz.cli.project import blaming, build_project
    from bz.errors import ConfigError
    from bz.training.evaluation import Evaluation, as_validated

    project = build_project(request, opened)
    training = as_validated(project.settings.training, request.limit_batches)
    with blaming(project.script, "The validation"):
        evaluation = Evaluation(project.loaded.spec, training, project.plugins, project.settings.record())
        if evaluation.spec.validation_loader is None:
            message = f"{project.script.name} has no validation_loader, so there is nothing to validate on."
            raise ConfigError(message, path=project.script)
        with evaluation.using(opened.found, opened.weights and opened.weights.tensors):
            return evaluation.validate()


def _record(measured: "Measured") -> dict[str, Any]:
    return {
        "batches": measured.batches,
        "validation_loss": measured.loss,
        "metrics": measured.metrics,
        "seconds": measured.seconds,
    }


def _print(measured: "Measured") -> None:
    rows = [("validation loss", wording.number(measured.loss))]
    rows += [(name, wording.number(value)) for name, value in measured.metrics.items()]
    output.print_table(("measured", "value"), rows)
    batches = f"{measured.batches} batch{'' if measured.batches == 1 else 'es'}"
    output.say(f"{batches} in {wording.duration(measured.seconds)}.")
