"""The root of the command line: finds the command that was called, runs it, and says what went wrong."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import typer

from bz.cli import output
from bz.cli.extensions import PluginCommand, discover_commands
from bz.cli.group import Command, Group, use_plain_help
from bz.errors import ConfigError, suggestion

INTERRUPTED: Final = 128 + 2
"""Exit code after Ctrl-C, as shells count: 128 and the number of the signal."""


class RootGroup(Group):
    """bz's own commands and, after them, those of installed packages.

    Metadata is read only when a command is called that is not bz's own, or when all are listed.
    """

    running = "bz"
    """Whose code runs: bz, or the package whose command was called."""

    @cached_property
    def extensions(self) -> Mapping[str, Sequence[PluginCommand]]:
        """What installed packages bring, also what cannot be offered because its name is taken."""
        return discover_commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return bz's own commands, then the others by name."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in self.extensions if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; for one of a package only what help shows about it, without importing it."""
        own = super().get_command(ctx, cmd_name)
        if own or cmd_name not in self.extensions:
            return own
        origins = " and ".join(command.origin for command in self.extensions[cmd_name])
        text = f"from {origins}" if len(self.extensions[cmd_name]) == 1 else f"in conflict: from {origins}"
        return Command(cmd_name, help=text, short_help=text)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that was called, imported if it is one of a package.

        Raises:
            PluginError: It cannot be imported.
            ConfigError: Two packages bring it.
        """
        name, *rest = args
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if ctx.resilient_parsing:  # the shell asks what could follow: nothing is imported for that
            return None, None, rest
        if name not in self.extensions:
            ctx.fail(f"There is no command {name!r}.{suggestion(name, self.list_commands(ctx))}")
        command = self._load(name)
        if not output.is_terminal():
            use_plain_help(command)
        return name, command, rest

    def _load(self, name: str) -> Any:
        candidates = self.extensions[name]
        if len(candidates) > 1:
            origins = " and ".join(command.origin for command in candidates)
            raise ConfigError(f"The command {name!r} is in {origins}; uninstall the one you do not want.")
        self.running = candidates[0].origin
        return candidates[0].load()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, with the commands that are not offered because bz has one of the same name."""
        clashes = [command for name in self.extensions if name in self.commands for command in self.extensions[name]]
        self.epilog = "\n\n".join(
            f"The command {clash.name!r} of {clash.origin} is not offered: bz has its own." for clash in clashes
        )
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> None:
        """Run the command with warnings on stderr, one line each; Ctrl-C ends it without a traceback.

        What the command returns is dropped, so that `main` gets an exit code or nothing.
        """
        from bz.cli.logs import log_to_terminal

        with log_to_terminal():
            try:
                super().invoke(ctx)
            except KeyboardInterrupt:
                output.warn("Interrupted.")
                raise typer.Exit(INTERRUPTED) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and leave the process with its exit code."""
        self.running = "bz"
        if not output.is_terminal():
            use_plain_help(self)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except Exception as error:  # noqa: BLE001 - the last line: whatever it is, the user gets a sentence
            from bz.cli.faults import report

            code = report(error, self.running)
        sys.exit(_close(code or 0))


def _close(code: int) -> int:
    """Say what could not be printed, and return the exit code with that counted in."""
    output.forget_secrets()
    failure = output.write_failure()
    if failure is None:
        return code
    output.warn(f"The output could not be written: {failure.strerror}.")
    return code or 1
