"""The command line of bz: what commands there are.

The modules of the commands import what they need inside their functions: the time of `bz --help` is the time of its
imports, and no command may pay for torch, pydantic or a plugin that it does not use.
"""

from typing import Annotated

import typer

from bz.cli import config, doctor, export, init, output, plugins, predict, runs, train, validate
from bz.cli.group import Command, Group
from bz.cli.root import RootGroup

app = typer.Typer(cls=RootGroup, rich_markup_mode="rich")
app.command(cls=train.TrainCommand, epilog=train.EXAMPLES)(train.train)
app.command(cls=Command, epilog=validate.EXAMPLES)(validate.validate)
app.command(cls=Command, epilog=predict.EXAMPLES)(predict.predict)
app.command(cls=Command, epilog=export.EXAMPLES)(export.export)
app.command(cls=Command, epilog=init.EXAMPLES)(init.init)
app.command(cls=Command, epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(plugins.app, name="plugins", cls=Group)
app.add_typer(config.app, name="config", cls=Group)
app.add_typer(runs.app, name="runs", cls=Group)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's calling convention
    if wanted:
        from bz.plugins.discovery import core_version

        output.say(f"bz {core_version()}")
        raise typer.Exit


@app.callback()
def bz(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train PyTorch models; everything besides training is a plugin."""


def main() -> None:
    """Run the command that the arguments of the process name, and leave with its exit code."""
    # Not `app()`, which would put typer's own hook in place of `sys.excepthook`.
    typer.main.get_command(app).main(prog_name="bz")
