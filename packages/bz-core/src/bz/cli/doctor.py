"""`bz doctor`: whether a training would work here, and whether one that is killed goes on exactly."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bz.cli import output
from bz.cli.config import ConfigOption, JsonOption, SetOption
from bz.cli.runs import RunsDirOption
from bz.errors import ConfigError

if TYPE_CHECKING:
    from bz.cli.proof import Verdict

EXAMPLES: Final = """Example: bz doctor

Example: bz doctor --resume experiment.py --kills 5"""

KILLS: Final = 3
MAX_STEPS: Final = 200
MAX_EPOCHS: Final = 2


def doctor(  # noqa: PLR0913 - each is an option of the command
    script: Annotated[
        Path | None,
        typer.Argument(metavar="SCRIPT", help="Script to look at; with --resume it is train.py by default."),
    ] = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Kill a run of the script at random steps, and compare bit for bit.")
    ] = False,
    kills: Annotated[
        int | None, typer.Option("--kills", metavar="N", help="With --resume: how often, 3 by default.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", help="With --resume: epochs of a run, by default 2 if there are more."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", metavar="N", help="With --resume: steps after which a run ends, 200 by default."),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", metavar="NAME", help="With --resume: run this plugin, too; may be repeated."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Check what a training needs, and how runs resume.

    It looks at the machine, torch, the disk, the plugins, the settings and the runs.

    With --resume, the script is trained three times in a temporary folder: twice undisturbed, once killed at random
    steps and resumed each time. Installed plugins are off unless they are named.

    The exit code is 1 if something fails or differs.
    """
    if not resume:
        _refuse_without_resume(kills=kills, epochs=epochs, max_steps=max_steps, plugin=plugin, set_=set_)
        _examine(config, script, runs_dir, is_json=json_)
        return
    numbers = {"--kills": kills, "--epochs": epochs, "--max-steps": max_steps}
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise ConfigError(f"`{option}` must be at least 1, got {number}.", option=option)
    from bz.cli.proof import ProofRequest, prove

    request = ProofRequest(
        script=script or Path("train.py"),
        config=config,
        overrides=tuple(_with_epochs(config, [*(set_ or ()), *([f"training.epochs={epochs}"] if epochs else ())])),
        plugins=tuple(plugin or ()),
        max_steps=max_steps or MAX_STEPS,
        kills=kills or KILLS,
    )
    verdict = prove(request, output.warn if json_ else output.say)
    if json_:
        output.print_json(verdict.as_record())
    else:
        _print_verdict(verdict)
    if not verdict.is_equal:
        raise typer.Exit(1)


def _refuse_without_resume(**values: object) -> None:
    for name, value in values.items():
        if value:
            option = f"--{name.strip('_').replace('_', '-')}"
            raise ConfigError(f"`{option}` has an effect only with `--resume`.", option=option)


def _examine(config: Path | None, script: Path | None, runs_dir: Path, *, is_json: bool) -> None:
    from bz.cli.health import examine

    with output.reserved_stdout(is_json=is_json):
        findings = list(examine(config, script, runs_dir))
    if is_json:
        output.print_json([finding._asdict() for finding in findings])
    else:
        output.print_table(("", "checked", "found"), [(one.state, one.subject, one.text) for one in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _with_epochs(config: Path | None, overrides: list[str]) -> list[str]:
    """Return the overrides with no more epochs than a rehearsal needs, unless they say how many."""
    from bz.cli.config import find_settings
    from bz.config import load_config

    settings = load_config(find_settings(config), overrides)
    if any(override.startswith("training.epochs=") for override in overrides):
        return overrides
    return [*overrides, f"training.epochs={min(settings.training.epoch_limit or MAX_EPOCHS, MAX_EPOCHS)}"]


def _print_verdict(verdict: "Verdict") -> None:
    if verdict.is_equal:
        output.say("Equal to the bit: weights, optimizer, scheduler, random states, each batch and each loss.")
    elif verdict.is_deterministic:
        output.say(f"A resumed run is not equal to one that was never killed. {verdict.difference}")
    else:
        output.say(f"The script is not deterministic, so no resume can be exact. {verdict.difference}")
    if verdict.meaning:
        output.say(verdict.meaning)
    if verdict.is_cut:
        output.say(f"The runs ended after step {verdict.steps} (--max-steps); what comes later was no part of it.")
