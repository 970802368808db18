"""The commands that installed packages bring, from the entry-point group `bz.commands`.

    [project.entry-points."bz.commands"]
    email = "bz_plugin_email.cli:app"        # a typer app

They are listed from metadata; only the one that is called gets imported.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bz.errors import PluginError

ENTRY_POINT_GROUP: Final = "bz.commands"


@dataclass(frozen=True, slots=True)
class PluginCommand:
    """A command as the metadata of an installed package names it."""

    name: str
    package: str
    version: str
    target: str

    @property
    def origin(self) -> str:
        """The package and its version, as a user would type them for pip."""
        return f"{self.package} {self.version}"

    def load(self) -> Any:
        """Import the command.

        Raises:
            PluginError: It cannot be imported, or is no typer app.
        """
        from importlib.metadata import EntryPoint

        import typer

        from bz.errors import describe_error
        from bz.plugins.guard import isolated

        try:
            with isolated(self.name, "cannot be loaded"):
                app = EntryPoint(self.name, self.target, ENTRY_POINT_GROUP).load()
                command = typer.main.get_command(app) if isinstance(app, typer.Typer) else None
        except PluginError as error:
            raise self._fault(f"cannot be loaded: {describe_error(error.__cause__ or error)}") from error.__cause__
        if command is None:
            raise self._fault(f"is not a typer app: {self.target} is {app!r}")
        command.name = self.name
        return command

    def _fault(self, what: str) -> PluginError:
        return PluginError(f"The command {self.name!r} of {self.origin} {what}.", plugin=self.name)


def discover_commands() -> Mapping[str, Sequence[PluginCommand]]:
    """Return the commands of installed packages by name; two under one name are in conflict, and neither can run."""
    from importlib.metadata import entry_points

    found: defaultdict[str, list[PluginCommand]] = defaultdict(list)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        dist = entry_point.dist
        package, version = (dist.name, dist.version) if dist else ("an unknown package", "")
        found[entry_point.name].append(PluginCommand(entry_point.name, package, version, entry_point.value))
    return {name: sorted(found[name], key=lambda command: command.package) for name in sorted(found)}
