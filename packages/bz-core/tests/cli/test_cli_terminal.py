"""What a person sees on a real terminal."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect  # type: ignore[import-untyped] # its types are a package of their own
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(*arguments: str, columns: int = 120, variables: Mapping[str, str] | None = None) -> str:
    """Return what a command prints on a terminal of that width."""
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "bz", *arguments],
        env={**environ, "TERM": "xterm-256color", **(variables or {})},
        dimensions=(50, columns),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert isinstance(child.before, str)
    return child.before


def complete(words: str) -> str:
    """Return what bash is told could follow."""
    position = str(len(words.split()) - 1)
    text = on_terminal(variables={"_BZ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position})
    return text.replace("\r\n", "\n").strip()


def test_table_on_a_terminal_is_drawn_and_in_colour() -> None:
    text = on_terminal("plugins", "list")
    assert "\x1b[1m" in text
    assert "───" in text


def test_narrow_terminal_wraps_and_cuts_nothing() -> None:
    Path("bz.json").write_text('{"plugins": {"a_plugin_with_a_long_name_that_is_not_installed": {}}}')
    text = ESCAPE.sub("", on_terminal("plugins", "list", columns=60))
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 60


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
@pytest.mark.parametrize("arguments", [["plugins", "list"], ["--help"], ["config", "show"]], ids=" ".join)
def test_plain_text_where_it_is_wanted(arguments: list[str], variables: dict[str, str]) -> None:
    text = on_terminal(*arguments, variables=variables)
    assert "\x1b" not in text
    assert text.isascii()


def test_help_is_drawn_on_a_terminal_also_of_a_command_of_a_package(install: Callable[..., None]) -> None:
    module = """
        import typer
        app = typer.Typer(help="About mail.")

        @app.command()
        def send(): ...

        @app.command()
        def read(): ...
    """
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, module, group="bz.commands")
    assert "╭" in on_terminal("--help")
    assert "from bz-plugin-postbox 0.1.0" in ESCAPE.sub("", on_terminal("--help"))
    assert "╭" in on_terminal("postbox", "--help")


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("bz pl", "plugins"),
        ("bz plugins en", "enable"),
        ("bz po", "postbox"),
        ("bz train --no-p", "--no-plugin\n--no-plugins"),
    ],
)
def test_shell_completion_imports_nothing(install: Callable[..., None], words: str, completions: str) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, "raise Exception", group="bz.commands")
    assert complete(words) == completions


def test_shell_completion_of_a_broken_command_is_silent(install: Callable[..., None]) -> None:
    install("bz-plugin-postbox", {"postbox": "mail_commands:app"}, "raise Exception", group="bz.commands")
    assert complete("bz postbox se") == ""
