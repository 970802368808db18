"""typer's commands and groups, made light.

typer builds a pydantic adapter for every parameter, given or not, and importing pydantic takes longer than
`bz plugins list`. Text, paths and numbers need none of it.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose parameters are read without pydantic.

    Attributes:
        optional_values: Options that may stand without a value, which typer does not know; they get an empty text.
    """

    optional_values: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        _read_plainly(self.get_params(ctx))
        return super().parse_args(ctx, list(_with_values(args, self.optional_values)))


def _with_values(args: Sequence[str], optional: Container[str]) -> Iterator[str]:
    """Yield the arguments with `--option=` in place of an option before another one, a script or the end."""
    for arg, following in zip(args, [*args, "--"][1:], strict=True):
        is_alone = following.startswith("-") or following.endswith(".py")
        yield f"{arg}=" if arg in optional and is_alone else arg


class Group(TyperGroup):
    """Commands under one word; the word alone shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take no arguments for `--help`."""
        _read_plainly(self.get_params(ctx))
        return super().parse_args(ctx, args or ["--help"])


def use_plain_help(command: Any) -> None:
    """Make `--help` of a command and of those below it plain text, without colours and boxes."""
    command.rich_markup_mode = None
    for below in getattr(command, "commands", {}).values():
        use_plain_help(below)


class _PlainValue:
    """What typer asks to turn the text of one parameter into its value; in place of a pydantic adapter."""

    def __init__(self, convert: Callable[[str], Any], expected: str) -> None:
        self._convert = convert
        self._expected = expected

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of the parameter; None and an empty list stay what they are.

        Raises:
            typer.BadParameter: The text is not what the parameter takes.
        """
        if value is None:
            return [] if param.multiple else None
        try:
            return [self._convert(item) for item in value] if param.multiple else self._convert(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {self._expected}.", ctx=ctx, param=param) from None


_PLAIN_VALUES: Final[dict[Any, _PlainValue]] = {
    bool: _PlainValue(bool, "true or false"),
    str: _PlainValue(str, "text"),
    list[str]: _PlainValue(str, "text"),
    Path: _PlainValue(Path, "a path"),
    int: _PlainValue(int, "a whole number"),
    float: _PlainValue(float, "a number"),
}


def _read_plainly(params: Iterable[Any]) -> None:
    for param in params:
        value = _PLAIN_VALUES.get(param.type_descriptor.annotation)
        if value is not None:
            param.get_runtime_param = partial(_identity, value)


def _identity(value: _PlainValue) -> _PlainValue:
    return value
