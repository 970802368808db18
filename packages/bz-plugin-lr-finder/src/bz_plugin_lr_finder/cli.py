"""`bz lr-find`: a learning rate range test of a script."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bz.cli import output
from bz.cli.closing import INCOMPLETE, report_script
from bz.cli.config import ConfigOption, SetOption
from bz.cli.faults import FAILED
from bz.cli.group import Command
from bz.cli.preparation import TrainRequest, build_parts, load_script, load_settings, register_plugins
from bz.errors import BzError, ConfigError, ScriptError
from bz_plugin_lr_finder.target import FILE_NAME, check_writable, picture_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bz.config import Config
    from bz.script import LoadedScript
    from bz.spec import StepFunction
    from bz_plugin_lr_finder.config import RangeTestConfig
    from bz_plugin_lr_finder.curve import LRCurve

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

EXAMPLES: Final = """Example: bz lr-find

Example: bz lr-find experiment.py --min-lr 1e-5 --max-lr 1 --steps 200 --output plots/lr.svg"""

_MEANINGS: Final = {
    "steepest": "where the smoothed loss falls fastest",
    "minimum / 10": "a tenth of where it is lowest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """A test that was found to be right.

    Attributes:
        script: What it trains, with the steps of its plugins.
        base: The learning rate that its optimizer was built with.
        settings: The settings.
        seed: The seed, also where the settings have none.
        config: The test.
    """

    script: "LoadedScript"
    base: float
    settings: "Config"
    seed: int
    config: "RangeTestConfig"


@app.command("lr-find", cls=Command, epilog=EXAMPLES)
def lr_find(  # noqa: PLR0913 - each is an option of the command
    script: Annotated[
        Path | None, typer.Argument(metavar="SCRIPT", help="Script that defines what is trained; by default train.py.")
    ] = None,
    *,
    config: ConfigOption = None,
    set_: SetOption = None,
    min_lr: Annotated[float, typer.Option("--min-lr", metavar="RATE", help="Learning rate of the first step.")] = 1e-7,
    max_lr: Annotated[float, typer.Option("--max-lr", metavar="RATE", help="Learning rate of the last step.")] = 10.0,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Optimizer steps, each with a learning rate of its own.")
    ] = 100,
    mode: Annotated[
        str,
        typer.Option("--mode", metavar="MODE", help="How the learning rate grows: exponential or linear."),
    ] = "exponential",
    smoothing: Annotated[
        float,
        typer.Option(
            "--smoothing", metavar="WEIGHT", help="Weight of the earlier losses in the running mean, from 0 to below 1."
        ),
    ] = 0.8,
    stop_factor: Annotated[
        float,
        typer.Option(
            "--stop-factor", metavar="FACTOR", help="End when the smoothed loss is so many times its lowest value."
        ),
    ] = 4.0,
    file: Annotated[
        Path, typer.Option("--output", metavar="PATH", help="Picture, .png or .svg, or a folder for it.")
    ] = Path(FILE_NAME),
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print suggestion and curve as JSON on stdout, and all other text on stderr."),
    ] = False,
) -> None:
    """Suggest a learning rate, by a short training in which it grows from step to step.

    It trains what the script defines, with the settings of bz train (device, precision, accumulation, clipping), and
    throws the model away. Plugins, schedulers, metrics and validation take no part, and there is no run folder.

    The exit code is 1 if the losses suggest nothing.
    """
    checked = _check(min_lr=min_lr, max_lr=max_lr, steps=steps, mode=mode, smoothing=smoothing, stop_factor=stop_factor)
    picture = picture_path(file)
    check_writable(picture)
    request = _request(script, config, set_ or [])
    with output.reserved_stdout(is_json=json_):
        test = _prepare(request, checked)
        curve = _run(test, request.script_path)
        saved = _save(curve, picture, request.script_path)
    how = _usage(test, curve, _arguments(script, config, set_ or []), request.script_path)
    if json_:
        record = {"picture": str(saved) if saved else None, "usage": how or None, "seed": test.seed}
        output.print_json(curve.as_record() | record)
    else:
        _show(curve, saved, how)
    is_incomplete = saved is None and bool(curve.losses)
    raise typer.Exit(INCOMPLETE if is_incomplete else FAILED if curve.suggestion is None else 0)


def _check(**values: Any) -> "RangeTestConfig":
    """Return the test that the options ask for.

    Raises:
        ConfigError: With a sentence for each option that is not accepted.
    """
    from bz.config import check_arguments
    from bz_plugin_lr_finder.config import RangeTestConfig

    try:
        return check_arguments(RangeTestConfig, "lr-find", **values)
    except ConfigError as error:
        faults = list(error.faults)
        for name in values:
            faults = [fault.replace(f"`{name}`", f"`--{name.replace('_', '-')}`") for fault in faults]
        raise ConfigError.join(map(ConfigError, faults)) from error


def _request(script: Path | None, config: Path | None, overrides: "Sequence[str]") -> TrainRequest:
    from bz.plugins.selection import PluginRequest

    return TrainRequest(
        script=script,
        config=config,
        overrides=tuple(overrides),
        short_options=(),
        name=None,
        runs_dir=Path("runs"),
        plugins=PluginRequest(none=True),
    )


def _arguments(script: Path | None, config: Path | None, overrides: "Sequence[str]") -> list[str]:
    """Return what a training with the same script and settings is called with."""
    given = [str(script)] if script is not None else []
    given += ["--config", str(config)] if config is not None else []
    return given + [argument for override in overrides for argument in ("--set", override)]


def _prepare(request: TrainRequest, config: "RangeTestConfig") -> _Test:
    """Load settings and script as `bz train` does.

    Raises:
        BzError: Something is wrong with one of them.
        typer.Exit: The script fails, which was said.
    """
    from bz.training.seeding import draw_seed, seed_everything
    from bz_plugin_lr_finder.finder import check_optimizer

    path, settings = load_settings(request)
    parts = build_parts(request, settings, path)
    seed = settings.training.seed if settings.training.seed is not None else draw_seed()
    seed_everything(seed)
    try:
        script = load_script(request, settings, parts)
        base = check_optimizer(script.spec)
    except ScriptError as error:
        raise typer.Exit(report_script(error, request.script_path).exit_code) from None
    for notice in script.notices:
        output.warn(notice)
    # Of the script's own plugins only the steps count: they are part of how its model is trained.
    manager = register_plugins(request, parts, script, strict=True)
    own = [script.spec.training_step] if script.spec.training_step is not None else []
    spec = replace(script.spec, training_step=_first_of([*own, *manager.step_functions("training_step")]))
    return _Test(script=replace(script, spec=spec), base=base, settings=settings, seed=seed, config=config)


def _first_of(steps: "Sequence[Callable[[Any, Any], Any]]") -> "StepFunction | None":
    """Return a step that gives the first result of these, or None if none of them gives one."""
    if not steps:
        return None

    def step(context: Any, batch: Any) -> Any:
        results = (one(context, batch) for one in steps)
        return next((result for result in results if result is not None), None)

    return step


def _run(test: _Test, script: Path) -> "LRCurve":
    """Run the test.

    Raises:
        BzError: It cannot be run.
        typer.Exit: The user's code raised something, which was said.
    """
    from bz.script import user_traceback
    from bz_plugin_lr_finder.finder import run_range_test

    config = test.config
    output.say(f"Trying {config.steps} learning rates from {config.min_lr:g} to {config.max_lr:g} with {script}.")
    try:
        return run_range_test(test.script.spec, test.settings.training, config)
    except BzError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's code raised
        output.warn(user_traceback(error, script).rstrip())
        output.warn(f"The test failed: {type(error).__name__}: {error}")
        raise typer.Exit(FAILED) from None


def _save(curve: "LRCurve", picture: Path, script: Path) -> Path | None:
    """Write the picture and return it; None if there is nothing to draw, or it cannot be written, which is said."""
    if not curve.losses:
        return None
    try:
        return curve.save(picture, f"Learning rate range test of {script}")
    except OSError as error:
        output.warn(f"{picture} cannot be written: {error.strerror}.")
        return None


def _usage(test: _Test, curve: "LRCurve", arguments: "Sequence[str]", script: Path) -> str:
    from bz_plugin_lr_finder.usage import usage

    if curve.suggestion is None:
        return ""
    return usage(test.script, test.base, curve.suggestion, arguments, script)


def _show(curve: "LRCurve", picture: Path | None, how: str) -> None:
    output.say(_ending(curve))
    if curve.suggestions:
        rows = [(name, f"{rate:.3g}", _MEANINGS[name]) for name, rate in curve.suggestions.items()]
        output.print_table(("suggestion", "learning rate", "found"), rows)
    if curve.remark:
        output.say(curve.remark)
    if picture is not None:
        output.say(f"Picture: {picture}")
    if how:
        output.say(how)


def _ending(curve: "LRCurve") -> str:
    from bz.cli.wording import counted

    done = counted(len(curve.losses), "step")
    if curve.ending == "steps":
        return f"Made {done}."
    what = "became NaN or infinite" if curve.ending == "nonfinite" else "diverged"
    return f"Made {done}; the loss {what} at {curve.last_rate:.3g}."
