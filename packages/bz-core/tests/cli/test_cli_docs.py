"""The tables of docs/commands.md say what the code says."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from bz.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[4] / "docs" / "commands.md"


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of each command, without `bz`, and the command."""
    if not hasattr(command, "commands"):
        yield path.strip(), command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def table(header: str) -> list[list[str]]:
    """Return the rows of the table under this header."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = lines.index(header) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_command_table_is_equal_to_the_code() -> None:
    expected = []
    for path, command in commands(get_command(app)):
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        shown = [param.metavar if param.required else f"[{param.metavar}]" for param in arguments]
        first_sentence = " ".join(command.help.split("\n\n")[0].split())
        expected.append([f"`{' '.join(['bz', path, *shown])}`", first_sentence])
    assert table("| Command | What it does |") == expected


def test_option_table_is_equal_to_the_code() -> None:
    expected = defaultdict(list)
    for path, command in commands(get_command(app)):
        for param in command.params:
            if param.param_type_name == "option":
                name = f"{param.opts[0]} {param.metavar}" if param.metavar else param.opts[0]
                expected[f"`{name}`", param.help].append(f"`{path}`")
    rows = {(option, text): of.split(", ") for option, text, of in table("| Option | What it does | Commands |")}
    assert rows == dict(expected)
