"""`bz train`: what it can be asked for."""

from pathlib import Path
from typing import Annotated, Final

import typer

from bz.cli import output
from bz.cli.config import ConfigOption, SetOption
from bz.cli.group import Command
from bz.cli.runs import RunsDirOption
from bz.errors import ConfigError

EXAMPLES: Final = """Example: bz train

Example: bz train experiment.py --epochs 3 --set hyperparameters.lr=0.01 --name first-try

Example: bz train --resume first-try --epochs 5"""


class TrainCommand(Command):
    """The command, whose `--resume` may stand without a run."""

    optional_values = frozenset({"--resume"})


def train(  # noqa: PLR0913 - each is an option of the command
    script: Annotated[
        Path | None, typer.Argument(metavar="SCRIPT", help="Script that defines what is trained; by default train.py.")
    ] = None,
    *,
    config: ConfigOption = None,
    set_: SetOption = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Short for --set training.epochs=N.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", metavar="N", help="Short for --set training.max_steps=N.")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", metavar="TIME", help='Short for --set training.max_time=TIME, such as "8 h".'),
    ] = None,
    limit_batches: Annotated[
        int | None,
        typer.Option(
            "--limit-batches", metavar="N", help="Use no more than N batches per training and validation loop."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="Short for --set training.device=DEVICE.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Short for --set training.seed=N.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the run and its folder, in place of date and time."),
    ] = None,
    runs_dir: RunsDirOption = Path("runs"),
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="[RUN]",
            help="Go on with a run, by name, folder or checkpoint; without RUN, with the newest unfinished one.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew where there is a run of this --name; its folder is renamed.")
    ] = False,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", metavar="NAME", help="Run only this plugin; may be repeated.")
    ] = None,
    no_plugin: Annotated[
        list[str] | None, typer.Option("--no-plugin", metavar="NAME", help="Leave this plugin out; may be repeated.")
    ] = None,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Run no plugin.")] = False,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="End the run when a plugin fails for the first time.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build all, run two batches, a validation and a checkpoint, and keep nothing."),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and all other text on stderr.")
    ] = False,
) -> None:
    """Train the model that a script defines.

    Each run gets a folder of its own, with its settings, its log and everything the plugins write. A resumed run goes
    on in its folder, with the script and the options that it began with, as far as none are given now.

    Exit codes: 0 done, 1 failed, 2 wrong settings, 3 incomplete, 130 or 143 interrupted.
    """
    from bz.cli import session
    from bz.cli.dry_run import rehearse
    from bz.cli.preparation import TrainRequest
    from bz.plugins.selection import PluginRequest

    if plugin and no_plugins:
        raise ConfigError("`--plugin` and `--no-plugins` contradict each other; give one of them.", option="--plugin")
    if fresh and resume is not None:
        raise ConfigError("`--fresh` and `--resume` contradict each other; give one of them.", option="--fresh")
    if fresh and name is None:
        raise ConfigError("`--fresh` needs `--name`: a run without a name is always a new one.", option="--fresh")
    if dry_run and (fresh or resume is not None):
        option = "--fresh" if fresh else "--resume"
        raise ConfigError(f"`--dry-run` keeps nothing, so `{option}` has no effect; leave it out.", option=option)
    short = (
        ("--epochs", "training.epochs", epochs),
        ("--max-steps", "training.max_steps", max_steps),
        ("--max-time", "training.max_time", max_time),
        ("--limit-batches", "training.limit_train_batches", limit_batches),
        ("--limit-batches", "training.limit_validation_batches", limit_batches),
        ("--device", "training.device", device),
        ("--seed", "training.seed", seed),
        ("--strict-plugins", "strict_plugins", strict_plugins or None),
    )
    request = TrainRequest(
        script=script,
        config=config,
        overrides=tuple(set_ or ()),
        short_options=tuple(option for option in short if option[2] is not None),
        name=name,
        runs_dir=runs_dir,
        plugins=PluginRequest(only=tuple(plugin or ()), without=tuple(no_plugin or ()), none=no_plugins),
        resume=resume,
        fresh=fresh,
    )
    with output.reserved_stdout(is_json=json_):
        outcome = rehearse(request) if dry_run else session.train(request)
    if json_:
        output.print_json(outcome.record)
    raise typer.Exit(outcome.exit_code)
